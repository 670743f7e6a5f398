#!/bin/bash
# stores: dir radosgw
# quick
# --sync cache: what fsync returned for is in the local cache, and survives kill -9 although nothing
# of it was uploaded; then it goes to the bucket.
. "$(dirname "$0")/lib/common.sh"

new_volume
mount_volume --sync cache --writeback-delay 1h
same "$(status sync)" cache "status sync"
puts=$(status requests.put)
tool fill "$IMAGE" 777 5M 1
sync "$IMAGE"
tool fill "$IMAGE" 1M 1M 2
sync -d "$IMAGE"
same "$(status requests.put)" "$puts" "PUTs"
within "$(status dirty_bytes)" $((5 << 20)) $((6 << 20)) "dirty bytes"
kill_daemon

mount_volume --sync cache --writeback-delay 1h
tool verify "$IMAGE" 1M 1M 2
tool verify "$IMAGE" 777 $(((1 << 20) - 777)) 1
tool verify "$IMAGE" 2M 3M 1
within "$(status dirty_bytes)" $((5 << 20)) $((6 << 20)) "dirty bytes after the kill"
umount_volume

new_cache
mount_volume
tool verify "$IMAGE" 1M 1M 2
tool verify "$IMAGE" 2M 3M 1
umount_volume
