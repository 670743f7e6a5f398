#!/bin/bash
# stores: dir s3d radosgw
# quick
# A flush of one 4 KiB write is one PUT: as many as writes, give or take checkpoints.
. "$(dirname "$0")/lib/common.sh"

start_volume
dd if=/dev/urandom of="$IMAGE" bs=4k count=1 oflag=dsync conv=notrunc status=none
puts=$(status requests.put) gets=$(status requests.get)
dd if=/dev/urandom of="$IMAGE" bs=4k count=300 seek=1000 oflag=dsync conv=notrunc status=none
within $(($(status requests.put) - puts)) 300 310 "PUTs for 300 synchronous writes"
# A checkpoint, of a part and a root, asks first whether the volume is still there; else nobody asks.
wait_for 10 eval '[ $((2 * ($(status requests.get) - gets))) = $(($(status requests.put) - puts - 300)) ]'
same "$(status requests.failed)" 0 "failed requests"
# A flush with nothing to say says nothing.
puts=$(status requests.put)
for _ in 1 2 3 4 5; do sync "$IMAGE"; done
same "$(status requests.put)" "$puts" "PUTs after empty flushes"
umount_volume
