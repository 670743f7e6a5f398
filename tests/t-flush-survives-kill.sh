#!/bin/bash
# stores: dir s3d radosgw
# limit: 240
# 1 TiB, loop, ext4, thousands of real files, sync, kill -9 in the middle of more writes.
# With a new cache, e2fsck finds nothing but a journal to replay, and what was synced is identical.
. "$(dirname "$0")/lib/common.sh"
need mkfs.ext4
need_fs ext4

new_volume --size 1T
mount_volume
attach_loop
mkfs.ext4 -q "$LOOP"
mkdir "$T/fs"
mount "$LOOP" "$T/fs"
mkdir "$T/fs/synced" "$T/fs/more"
real_files | tar -x -C "$T/fs/synced"
sync -f "$T/fs/synced"
files_of "$T/fs/synced" >"$T/sums"
within "$(wc -l <"$T/sums")" 500 1000000 "number of files"

real_files | tar -x -C "$T/fs/more" 2>/dev/null &
writer=$!
before=$(status commits)
wait_for 60 eval "[ -n \"\$(ls '$T/fs/more')\" ]"
kill_daemon
wait $writer || : # it got an error
umount -l "$T/fs"
drop_loop
new_cache

mount_volume
attach_loop
wait_for 20 mount "$LOOP" "$T/fs" # replays, and counts what is free, which the journal does not have
umount "$T/fs"
e2fsck -fn "$LOOP"
mount "$LOOP" "$T/fs"
files_of "$T/fs/synced" | cmp - "$T/sums"
umount "$T/fs"
detach_loop
umount_volume
echo "commits before the kill: $before"
