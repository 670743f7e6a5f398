#!/bin/bash
# limit: 180
# umount --keep-local that cannot keep what is dirty says so: on a full cache disk it stays mounted; of a volume that
# is fenced the exit code is 1, as of every umount. What it tried before is not believed after a kill.
. "$(dirname "$0")/lib/common.sh"

STORE=s3d
mkdir "$T/disk"
mount -t tmpfs -o size=96m none "$T/disk"
CACHE=$T/disk/cache
new_volume
for sync in bucket cache; do
    mount_volume --sync $sync --writeback-delay 1h --no-compress
    tool scatter "$IMAGE" 1G 3000 1
    s3d_fault down=1
    dd if=/dev/zero of="$T/disk/filler" bs=4k status=none 2>/dev/null || : # until it is full
    refused "$MNT: not everything is in this machine's cache: No space left" s3vol umount --keep-local "$MNT"
    mountpoint -q "$MNT" || fail "it was unmounted"
    tool verify-scatter "$IMAGE" 1G 3000 1
    rm "$T/disk/filler"
    waiting=() # for the store, as many as there is room for; they hold up nobody
    for i in 1 2 3 4 5 6 7 8; do
        s3vol umount "$MNT" 2>"$T/said.$i" &
        waiting+=($!)
    done
    for i in 1 2 3 4 5 6 7 8; do wait_for 30 grep -q "does not answer" "$T/said.$i"; done
    kill "${waiting[@]}"
    wait "${waiting[@]}" || :
    umount_volume --keep-local
    s3d_fault up=1
    mount_volume --writeback-delay 1h
    tool verify-scatter "$IMAGE" 1G 3000 1
    umount_volume
    new_cache
done

mount_volume --writeback-delay 1h
tool fill "$IMAGE" 0 2M 2
sync "$IMAGE"
tool fill "$IMAGE" 0 2M 3
exec 9<"$IMAGE"
refused 'in use' s3vol umount --keep-local "$MNT"
exec 9<&-
kill_daemon
mount_volume --writeback-delay 1h
tool verify "$IMAGE" 0 2M 2

tool fill "$IMAGE" 0 2M 4
first=$MNT first_daemon=$DAEMON
MNT=$T/mnt2 CACHE=$T/disk/cache2
mount_volume
tool fill "$IMAGE" 0 2M 5
sync "$IMAGE"
eio sync "$first/image"
refused "$first: unmounting, but .* bytes are not in the bucket" s3vol umount --keep-local "$first"
! mountpoint -q "$first" || fail "the fenced one is still mounted"
wait_for 60 eval "! kill -0 $first_daemon"
tool verify "$IMAGE" 0 2M 5
umount_volume
