#!/bin/bash
# stores: dir radosgw
# limit: 180
# Sixteen times more data than cache: everything is right, what is cached stays within the size, and
# what that takes on its disk within 1.25 times the size and 8 MiB.
. "$(dirname "$0")/lib/common.sh"

cache_kib() { # what the cache takes on its disk
    du -sk "$CACHE" | awk '{ print $1 }'
}

limit=$((64 << 20))
new_volume --size 2G
mount_volume --cache-size 64M
for mib in 0 256 512 768; do
    tool fill "$IMAGE" ${mib}M 256M 1
    within "$(status cached_bytes)" 1 $limit "cached bytes"
    within "$(cache_kib)" 1 $((limit / 1024 * 5 / 4 + 8192)) "KiB of cache on disk"
done
tool scatter "$IMAGE" 1G 5000 1
sync "$IMAGE"
tool verify "$IMAGE" 0 1G 1
within "$(status cached_bytes)" 1 $limit "cached bytes"
within "$(cache_kib)" 1 $((limit / 1024 * 5 / 4 + 8192)) "KiB of cache on disk"
umount_volume
mount_volume --cache-size 64M
tool verify "$IMAGE" 300M 300M 1
umount_volume
