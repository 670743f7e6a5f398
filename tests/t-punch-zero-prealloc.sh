#!/bin/bash
# stores: dir s3d
# quick
# Punched and zeroed ranges read as zeros and occupy nothing, at any alignment, also after a remount
# without cache; preallocation reads as zeros and changes nothing else.
. "$(dirname "$0")/lib/common.sh"

allocated() { # bytes, as stat tells
    echo $(($(stat -c %b "$IMAGE") * $(stat -c %B "$IMAGE")))
}

start_volume
same "$(stat -c %s "$IMAGE")" $((1 << 30)) size
same "$(allocated)" 0 "allocated bytes of a new volume"
tool fill "$IMAGE" 0 16M 1
: >"$T/ref"
tool fill "$T/ref" 0 16M 1
within "$(allocated)" $((16 << 20)) $((16 << 20)) "allocated after 16 MiB"
for range in 0:4096 4096:1048576 3000000:1 3000001:8191 5000000:700000 16770000:7216; do
    fallocate -p -o ${range%:*} -l ${range#*:} "$IMAGE"
    fallocate -p -o ${range%:*} -l ${range#*:} "$T/ref"
done
for range in 8388608:262144 9000001:123456; do
    fallocate -z -n -o ${range%:*} -l ${range#*:} "$IMAGE"
    fallocate -p -o ${range%:*} -l ${range#*:} "$T/ref"
done
cmp -n 16M "$IMAGE" "$T/ref"
# 1 + 256 + 0 + 1 + 169 or 170 + 1 or 2 whole blocks, 64 and 29 or 30
within "$(allocated)" $(((16 << 20) - 530 * 4096)) $(((16 << 20) - 515 * 4096)) "allocated after punching"
before=$(allocated)
fallocate -o 100M -l 8M "$IMAGE"
cmp -n 8M -i 100M:0 "$IMAGE" /dev/zero
fallocate -o 1M -l 4M "$IMAGE"
cmp -n 16M "$IMAGE" "$T/ref"
same "$(stat -c %s "$IMAGE")" $((1 << 30)) "size after fallocate"
remount_volume
cmp -n 16M "$IMAGE" "$T/ref"
umount_volume
new_cache
mount_volume
cmp -n 16M "$IMAGE" "$T/ref"
within "$(allocated)" $(((16 << 20) - 530 * 4096)) $((before + (8 << 20))) "allocated after a remount"
same "$(status allocated_bytes)" "$(allocated)" "what status says"
fallocate -p -o 0 -l 1G "$IMAGE"
sync "$IMAGE"
same "$(allocated)" 0 "allocated after punching everything"
cmp -n 128M "$IMAGE" /dev/zero
umount_volume
