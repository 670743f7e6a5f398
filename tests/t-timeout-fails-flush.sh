#!/bin/bash
# quick
# --timeout: with the store away a flush and an uncached read fail after that time; a flush that failed
# is not reported as done later, until its data is in the bucket.
. "$(dirname "$0")/lib/common.sh"

STORE=s3d
start_volume
tool fill "$IMAGE" 0 1M 1
umount_volume
new_cache
mount_volume --timeout 2s
s3d_fault down=1
tool fill "$IMAGE" 10M 1M 2
for _ in 1 2 3; do
    start=$SECONDS
    eio sync "$IMAGE"
    within $((SECONDS - start)) 1 $((10 * SLOW)) "seconds that the flush took"
done
eio tool verify "$IMAGE" 0 4096 1
tool verify "$IMAGE" 10M 1M 2
s3d_fault up=1
wait_for 30 sync "$IMAGE"
tool verify "$IMAGE" 0 1M 1
kill_daemon
new_cache
mount_volume
tool verify "$IMAGE" 10M 1M 2
umount_volume
