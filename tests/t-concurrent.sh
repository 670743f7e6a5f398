#!/bin/bash
# stores: dir s3d radosgw
# limit: 300
# Many writers and readers at once, whose ranges share blocks, while others flush, and with a cache
# that is too small: everybody reads what he wrote.
. "$(dirname "$0")/lib/common.sh"

start_volume --cache-size 64M --writeback-delay 200ms
flusher() {
    while s3vol flush "$MNT" 2>/dev/null; do sleep 0.1; done
}
flusher &
flusher=$!
len=$(tool hammer "$IMAGE" 96M 12 2 1)
tool verify "$IMAGE" 0 "$len" 2
kill $flusher
wait $flusher || :
umount_volume
new_cache
mount_volume
tool verify "$IMAGE" 0 "$len" 2
umount_volume
