#!/bin/bash
# stores: dir radosgw
# quick
# 16 TiB: created, mounted, used at its ends and discarded as a whole in no time.
. "$(dirname "$0")/lib/common.sh"

new_volume --size 16T
mount_volume
same "$(stat -c %s "$IMAGE")" $((16 << 40)) size
tool fill "$IMAGE" 0 1M 1
tool fill "$IMAGE" $(((16 << 40) - 1234567)) 1234567 2
tool fill "$IMAGE" 7T 1M 3
tool verify "$IMAGE" $(((16 << 40) - 1234567)) 1234567 2
umount_volume
new_cache
mount_volume
tool verify "$IMAGE" $(((16 << 40) - 1234567)) 1234567 2
tool verify "$IMAGE" 7T 1M 3
before=$(requests) start=${EPOCHREALTIME/./}
fallocate -p -o 0 -l 16T "$IMAGE"
took=$(((${EPOCHREALTIME/./} - start) / 1000))
sync "$IMAGE"
within $took 0 $((500 * SLOW)) "milliseconds to discard 16 TiB"
echo "16 TiB discarded: $took ms, $(($(requests) - before)) requests"
within $(($(requests) - before)) 1 6 "requests for discarding 16 TiB"
cmp -n 1M -i $(((16 << 40) - (1 << 20))):0 "$IMAGE" /dev/zero
cmp -n 1M -i $((7 << 40)):0 "$IMAGE" /dev/zero
same "$(stat -c %b "$IMAGE")" 0 "allocated blocks"
# An idle daemon of such a volume is small.
if [ "$SLOW" = 1 ]; then
    within "$(awk '/VmRSS/ { print $2 }' /proc/$DAEMON/status)" 1 65536 "resident KiB"
fi
umount_volume
