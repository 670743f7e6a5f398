#!/bin/bash
# stores: dir s3d radosgw
# limit: 150
# Promise 2: the daemon is killed in the middle of writes, again and again. What the bucket holds is the
# disk as of one instant, no older than the last flush that was acknowledged.
. "$(dirname "$0")/lib/common.sh"

new_volume
seed=0
for every in 1 50 50 777 3000; do
    seed=$((seed + 1))
    mount_volume --writeback-delay 200ms
    fallocate -z -l 32M "$IMAGE"
    sync "$IMAGE"
    ledger write "$IMAGE" 8192 1000000 $seed $every >"$T/acknowledged" &
    writer=$!
    # Some flushes, and some commits by themselves.
    wait_for 30 eval "[ \$(wc -l <'$T/acknowledged') -ge 2 ] && [ \$(s3vol status --json '$MNT' | jq .commits) -ge 4 ]"
    kill_daemon
    wait $writer || : # it got an error
    new_cache
    mount_volume
    n=$(ledger verify "$IMAGE" 8192 1000000 $seed)
    acknowledged=$(tail -n 1 "$T/acknowledged")
    echo "flush every $every: acknowledged $acknowledged, found $n"
    [ "$n" -ge "$acknowledged" ] || fail "operation $acknowledged was acknowledged; the bucket has $n"
    kill_daemon
    new_cache
done
