#!/bin/bash
# limit: 120
# quick
# The store goes away: cached reads and writes go on, flushes and uncached reads wait, status says so;
# it comes back: everything resumes, and what was acknowledged then is in the bucket. (While a flush
# waits the kernel itself holds back writes to the same file.)
. "$(dirname "$0")/lib/common.sh"

STORE=s3d
start_volume
tool fill "$IMAGE" 0 8M 1
tool fill "$IMAGE" 100M 8M 2
umount_volume
new_cache
mount_volume
tool verify "$IMAGE" 0 8M 1 # now these are cached, the others not

s3d_fault down=1
tool verify "$IMAGE" 0 8M 1
tool fill "$IMAGE" 200M 8M 3
tool verify "$IMAGE" 100M 8M 2 &
reader=$!
wait_for 30 status_is state store-unreachable
tool fill "$IMAGE" 208M 2M 3
sync "$IMAGE" &
flush=$!
failed=$(status requests.failed)
wait_for 60 eval "[ \$(status requests.failed) -ge $((failed + 3)) ]"
kill -0 $flush || fail "the flush did not wait"
kill -0 $reader || fail "the uncached read did not wait"
tool verify "$IMAGE" 0 8M 1
tool verify "$IMAGE" 200M 10M 3
[ -n "$(status last_error)" ] || fail "status has no error"
grep -qi "$S3_BUCKET\|127.0.0.1" "$DAEMON_LOG" || fail "the log does not say what is unreachable"

s3d_fault up=1
wait_for 60 eval "! kill -0 $flush"
wait_for 60 eval "! kill -0 $reader"
wait $flush || fail "the flush failed"
wait $reader || fail "the uncached read failed"
wait_for 20 status_is state ok
kill_daemon
new_cache
mount_volume
tool verify "$IMAGE" 200M 10M 3
umount_volume
