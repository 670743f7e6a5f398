#!/bin/bash
# limit: 120
# XFS on a loop device, with --direct-io=on.
. "$(dirname "$0")/lib/common.sh"
. "$(dirname "$0")/lib/loopfs.sh"
need mkfs.xfs xfs_repair
need_fs xfs

start_volume
use_file_system "mkfs.xfs -q -f" "xfs_repair -n" --direct-io=on
