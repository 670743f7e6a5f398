#!/bin/bash
# stores: dir radosgw
# quick
# O_DIRECT and O_SYNC reads and writes, mixed with ordinary ones.
. "$(dirname "$0")/lib/common.sh"

start_volume
tool mirror "$IMAGE" "$T/ref" 16M 1000 1 direct
tool mirror "$IMAGE" "$T/ref" 16M 200 2 plain
tool mirror "$IMAGE" "$T/ref" 16M 200 3 sync
tool mirror "$IMAGE" "$T/ref" 16M 200 4 direct
remount_volume
cmp -n 16M "$IMAGE" "$T/ref"
umount_volume
