#!/bin/bash
# stores: dir radosgw
# limit: 120
# The same through losetup --direct-io=on, which must not have been refused.
. "$(dirname "$0")/lib/common.sh"
. "$(dirname "$0")/lib/loopfs.sh"
need mkfs.ext4
need_fs ext4

start_volume
attach_loop --direct-io=on
same "$(losetup -nO DIO "$LOOP" | xargs)" 1 "direct I/O of the loop device"
detach_loop
use_file_system "mkfs.ext4 -q" "e2fsck -fn" --direct-io=on
