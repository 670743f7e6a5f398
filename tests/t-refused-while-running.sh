#!/bin/bash
# limit: 90
# Access is denied in the middle, as when credentials have expired: flushes wait, status and log say why,
# and it goes on when access is granted again. So do uncached reads, with --timeout as long as that allows.
. "$(dirname "$0")/lib/common.sh"

STORE=s3d
start_volume
tool fill "$IMAGE" 0 1M 1
sync "$IMAGE"
s3d_fault 'code=AccessDenied'
tool fill "$IMAGE" 1M 1M 1
sync "$IMAGE" &
flush=$!
wait_for 30 eval "status last_error | grep -qi 'denied'"
grep -qi denied "$DAEMON_LOG" || fail "the log does not say so"
kill -0 $flush || fail "the flush did not wait"
s3d_clear
wait_for 60 eval "! kill -0 $flush"
wait $flush
umount_volume
new_cache
mount_volume --timeout 60s
s3d_fault 'code=AccessDenied'
tool verify "$IMAGE" 0 2M 1 &
reader=$!
wait_for 30 eval "status last_error | grep -qi 'denied'"
kill -0 $reader || fail "the read did not wait"
s3d_clear
wait_for 60 eval "! kill -0 $reader"
wait $reader
umount_volume
