#!/bin/bash
# quick
# The answer to every PUT is lost once: the retry finds its own object, and must not take it for another
# writer's.
. "$(dirname "$0")/lib/common.sh"

STORE=s3d
new_volume
s3d_fault 'lost=1&method=PUT&count=1' # of the claim
mount_volume
for n in 1 2 3 4 5 6; do
    s3d_fault 'lost=1&method=PUT&count=1'
    tool fill "$IMAGE" ${n}M 1M 1
    sync "$IMAGE"
done
same "$(status state)" ok state
same "$(s3d_stats faults)" 7 "answers lost"
s3d_fault 'lost=1&method=PUT&count=1'
tool fill "$IMAGE" 7M 1M 1
umount_volume
new_cache
mount_volume
tool verify "$IMAGE" 1M 7M 1
umount_volume
