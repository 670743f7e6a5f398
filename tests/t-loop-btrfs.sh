#!/bin/bash
# limit: 120
# btrfs on a loop device; its own checksums are read back by a scrub.
. "$(dirname "$0")/lib/common.sh"
. "$(dirname "$0")/lib/loopfs.sh"
need mkfs.btrfs btrfs
need_fs btrfs

start_volume
attach_loop
wait_for 20 mkfs.btrfs -q -f "$LOOP"
mkdir "$T/fs"
mount "$LOOP" "$T/fs"
real_files | tar -x -C "$T/fs"
sync -f "$T/fs"
umount "$T/fs"
detach_loop
umount_volume
new_cache
mount_volume
attach_loop
mount "$LOOP" "$T/fs"
btrfs scrub start -B "$T/fs" | tee "$T/scrub"
grep -q 'no errors found' "$T/scrub" || fail "the scrub found errors"
umount "$T/fs"
detach_loop
use_file_system "mkfs.btrfs -q -f" "btrfs check"
