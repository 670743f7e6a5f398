#!/bin/bash
# stores: dir s3d
# quick
# A cache with changes that never reached the bucket, of a volume that another machine has attached
# since: mounting refuses and says how much it is about; --discard-local takes the bucket's side.
. "$(dirname "$0")/lib/common.sh"

new_volume
mount_volume --sync cache --writeback-delay 1h
tool fill "$IMAGE" 0 2M 1
sync "$IMAGE"
kill_daemon

MNT=$T/mnt2 CACHE=$T/cache2
mount_volume
tool fill "$IMAGE" 1M 2M 2
umount_volume

MNT=$T/mnt CACHE=$T/cache
refused 'discard-local' s3vol mount --sync cache --cache-dir "$CACHE" "$URL" "$MNT"
grep -qE '2048 KiB|2(\.0)? ?M|2097152' "$REFUSED" || fail "it does not say how much"
refused 'discard-local' s3vol mount --cache-dir "$CACHE" "$URL" "$MNT"
mount_volume --discard-local
tool verify "$IMAGE" 1M 2M 2
cmp -n 1M "$IMAGE" /dev/zero
umount_volume
mount_volume
tool verify "$IMAGE" 1M 2M 2
umount_volume
