#!/bin/bash
# stores: dir radosgw
# 64 MiB of random 4 KiB writes and one flush: under 72 MiB in under 20 PUTs.
. "$(dirname "$0")/lib/common.sh"

new_volume --size 10G
mount_volume --no-compress
puts=$(status requests.put) up=$(status bytes_up)
tool scatter "$IMAGE" 10G 16384 1
sync "$IMAGE"
puts=$(($(status requests.put) - puts)) up=$(($(status bytes_up) - up))
echo "$puts PUTs, $up bytes"
within $puts 1 19 PUTs
within $up $((60 << 20)) $(((72 << 20) - 1)) "bytes sent"
umount_volume
new_cache
mount_volume
tool verify-scatter "$IMAGE" 10G 3000 1
umount_volume
