#!/bin/bash
# stores: dir s3d radosgw s3rver
# limit: 90
# quick
# Reads, writes and zeroes of any size and alignment give what a plain file gives, from the cache
# and from the bucket.
. "$(dirname "$0")/lib/common.sh"

start_volume
tool mirror "$IMAGE" "$T/ref" 32M 2000 1 plain
cmp -n 32M "$IMAGE" "$T/ref"
umount_volume
new_cache
mount_volume
cmp -n 32M "$IMAGE" "$T/ref"
tool mirror "$IMAGE" "$T/ref" 32M 1000 2 plain
umount_volume
