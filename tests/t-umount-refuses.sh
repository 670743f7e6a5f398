#!/bin/bash
# quick
# umount of an image that is in use refuses, says by whom, and leaves everything as it was; of a mount
# whose daemon is dead it takes away what is left; status and flush say what is wrong with it.
. "$(dirname "$0")/lib/common.sh"

start_volume --writeback-delay 1h
tool fill "$IMAGE" 0 1M 1
exec 9<"$IMAGE"
refused "$MNT: .*in use" s3vol umount "$MNT"
exec 9<&-
tool verify "$IMAGE" 0 1M 1

attach_loop
refused "$MNT: .*in use by $LOOP" s3vol umount "$MNT"
refused "$MNT: .*in use by $LOOP" s3vol umount --keep-local "$MNT"
tool verify "$LOOP" 0 1M 1
detach_loop
mkdir "$T/mnt2"
refused "$MNT: .*mounted here already" s3vol mount --cache-dir "$CACHE" "$URL" "$MNT"
refused "$URL: is mounted at $MNT" s3vol delete --force "$URL"
umount_volume

mount_volume
kill -KILL $DAEMON
wait $DAEMON || :
refused "daemon.*dead" s3vol status "$MNT"
refused "daemon.*dead" s3vol flush "$MNT"
refused "daemon is dead; s3vol umount $MNT" s3vol mount --cache-dir "$CACHE" "$URL" "$MNT"
(cd "$T" && refused "$MNT: unmounted, but its daemon had died" s3vol umount mnt/)
! mountpoint -q "$MNT" || fail "still mounted"
refused "$MNT: is not a mounted volume" s3vol umount "$MNT"
mount_volume
tool verify "$IMAGE" 0 1M 1
umount_volume
