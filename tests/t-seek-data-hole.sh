#!/bin/bash
# stores: dir s3d
# SEEK_DATA and SEEK_HOLE tell the truth, before and after a flush and without cache.
. "$(dirname "$0")/lib/common.sh"

check() {
    tool extents "$IMAGE" >"$T/extents"
    diff "$T/extents" - <<EOF
hole 0 1048576
data 1048576 2097152
hole 2097152 314572800
data 314572800 314580992
hole 314580992 1073737728
data 1073737728 1073741824
EOF
}

start_volume
tool fill "$IMAGE" 1M 1M 1
tool fill "$IMAGE" 300M 6000 2
tool fill "$IMAGE" $(((1 << 30) - 10)) 10 3
check
sync "$IMAGE"
check
tool fill "$IMAGE" 500M 1M 4
fallocate -p -o 500M -l 1M "$IMAGE"
check
umount_volume
new_cache
mount_volume
check
umount_volume
