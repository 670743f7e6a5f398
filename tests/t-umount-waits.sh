#!/bin/bash
# umount returns when everything is in the bucket, however slow that is, and nobody has the mount any more.
. "$(dirname "$0")/lib/common.sh"

STORE=s3d
start_volume --no-compress --writeback-delay 1h
tool fill "$IMAGE" 0 24M 1
s3d_fault bandwidth=2M
start=$SECONDS
s3vol umount "$MNT" 2>&1 | tee "$T/said"
daemon_ends 0
[ $((SECONDS - start)) -ge 2 ] || fail "24 MiB at 2 MiB/s took only $((SECONDS - start)) s"
s3d_clear
new_cache
mount_volume
tool verify "$IMAGE" 0 24M 1
umount_volume

mount_volume
unshare -m --propagation private sleep 60 &
elsewhere=$!
wait_for 10 grep -qx sleep /proc/$elsewhere/comm
s3vol umount "$MNT" 2>"$T/said" &
umounting=$!
wait_for 30 grep -q "another mount namespace has the mount" "$T/said"
kill -0 "$DAEMON" || fail "the daemon ended"
kill $elsewhere
wait $umounting || fail "umount: exit code $?"
daemon_ends 0
