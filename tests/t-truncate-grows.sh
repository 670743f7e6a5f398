#!/bin/bash
# stores: dir s3d
# quick
# truncate grows the volume, for good; shrinking is refused; writing past the end does not grow it.
. "$(dirname "$0")/lib/common.sh"

start_volume
tool fill "$IMAGE" 1000M 24M 1
truncate -s 3G "$IMAGE"
same "$(stat -c %s "$IMAGE")" $((3 << 30)) size
cmp -n 1M -i 1G:0 "$IMAGE" /dev/zero
tool fill "$IMAGE" 2G 1M 2
if truncate -s 2G "$IMAGE" 2>"$T/said"; then fail "it shrank"; fi
same "$(stat -c %s "$IMAGE")" $((3 << 30)) "size after the refusal"
if dd if=/dev/zero of="$IMAGE" bs=4k seek=$(((3 << 30) / 4096)) count=1 conv=notrunc status=none 2>"$T/said"; then
    fail "a write past the end succeeded"
fi
if cat /dev/null >"$IMAGE" 2>"$T/said"; then fail "O_TRUNC emptied it"; fi
same "$(stat -c %s "$IMAGE")" $((3 << 30)) "size in the end"
same "$(status size_bytes)" $((3 << 30)) "size that status says"
umount_volume
new_cache
mount_volume
same "$(stat -c %s "$IMAGE")" $((3 << 30)) "size after a remount"
tool verify "$IMAGE" 1000M 24M 1
tool verify "$IMAGE" 2G 1M 2
umount_volume
