#!/bin/bash
# stores: dir radosgw
# umount --keep-local uploads nothing and loses nothing; the next mount goes on from there.
. "$(dirname "$0")/lib/common.sh"

new_volume
mount_volume --sync cache --writeback-delay 1h
tool fill "$IMAGE" 0 3M 1
puts=$(status requests.put)
umount_volume --keep-local
mount_volume --writeback-delay 1h
within "$(status dirty_bytes)" 1 $((4 << 20)) "dirty bytes"
tool verify "$IMAGE" 0 3M 1
umount_volume
new_cache
mount_volume
tool verify "$IMAGE" 0 3M 1
umount_volume
echo "PUTs before: $puts"
