#!/bin/bash
# stores: dir s3d radosgw s3rver
# limit: 120
# quick
# ext4 on a loop device: files, sync, fsck, and fstrim gives the space back.
. "$(dirname "$0")/lib/common.sh"
. "$(dirname "$0")/lib/loopfs.sh"
need mkfs.ext4
need_fs ext4

start_volume
use_file_system "mkfs.ext4 -q" "e2fsck -fn"
