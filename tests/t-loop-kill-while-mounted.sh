#!/bin/bash
# limit: 120
# The daemon dies under a mounted ext4: I/O errors, no hang; everything can be taken down, and the
# volume mounts again.
. "$(dirname "$0")/lib/common.sh"
need mkfs.ext4
need_fs ext4

start_volume
attach_loop
mkfs.ext4 -q "$LOOP"
mkdir "$T/fs"
mount "$LOOP" "$T/fs"
dd if=/dev/urandom of="$T/fs/file" bs=1M count=500 oflag=direct status=none &
writer=$!
wait_for 30 eval "[ \$(status allocated_bytes) -gt 20000000 ]"
kill -KILL "$DAEMON"
wait $writer || : # it got an error
timeout 30 umount "$T/fs" || timeout 30 umount -l "$T/fs"
drop_loop
umount "$MNT"
mount_volume
umount_volume
