#!/bin/bash
# stores: dir s3d radosgw s3rver
# quick
# A volume is the same with its cache, without it, and on another machine; with the cache it is warm.
. "$(dirname "$0")/lib/common.sh"

start_volume
tool fill "$IMAGE" 12345 20M 1
tool fill "$IMAGE" 900M 1M 2
umount_volume

mount_volume
gets=$(status requests.get)
tool verify "$IMAGE" 12345 20M 1
tool verify "$IMAGE" 900M 1M 2
same "$(status requests.get)" "$gets" "GETs of reads from the kept cache"
umount_volume

new_cache
mount_volume
tool verify "$IMAGE" 12345 20M 1
tool verify "$IMAGE" 900M 1M 2
[ "$(status requests.get)" -gt 1 ] || fail "nothing was read from the bucket"
tool fill "$IMAGE" 1M 1M 3
umount_volume

MNT=$T/mnt2 CACHE=$T/cache2
mount_volume
tool verify "$IMAGE" 1M 1M 3
tool verify "$IMAGE" 3M 10M 1
tool fill "$IMAGE" 5M 4096 4
umount_volume

# The first cache knows nothing of that yet, and must find out.
MNT=$T/mnt CACHE=$T/cache
mount_volume
tool verify "$IMAGE" 5M 4096 4
tool verify "$IMAGE" 1M 1M 3
tool verify "$IMAGE" 6M 10M 1
umount_volume
