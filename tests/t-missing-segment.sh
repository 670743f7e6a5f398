#!/bin/bash
# A segment that a checkpoint speaks of is gone: EIO where its blocks are read, everything else is right,
# and check names it.
. "$(dirname "$0")/lib/common.sh"

start_volume --no-compress
tool fill "$IMAGE" 0 6M 1
sync "$IMAGE"
tool fill "$IMAGE" 6M 2M 1
# Enough commits that umount makes a checkpoint.
dd if=/dev/urandom of="$IMAGE" bs=4k count=100 seek=150000 oflag=dsync conv=notrunc status=none
umount_volume
[ -n "$(ls "$URL/map")" ] || fail "umount made no checkpoint"
segment=$(cd "$URL" && ls -S log | head -n 1) # the largest
rm "$URL/log/$segment"
check_finds "log/$segment"
new_cache
mount_volume
eio tool verify "$IMAGE" 1M 1M 1
tool verify "$IMAGE" 6M 2M 1
grep -q "$segment" "$DAEMON_LOG" || fail "the log does not name the object"
tool fill "$IMAGE" 0 6M 2
tool verify "$IMAGE" 0 6M 2
umount_volume

s3vol check "$URL" # nothing of it is needed any more
