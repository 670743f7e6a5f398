#!/bin/bash
# limit: 120
# Unmounting while the store is away: says what it waits for, on a terminal with progress, and ends when
# the store is back; or, interrupted, leaves everything as it was. umount --keep-local leaves at once; what
# was dirty is in the cache, and uploaded by the next mount.
. "$(dirname "$0")/lib/common.sh"
need script

STORE=s3d
new_volume
for sync in bucket cache; do
    mount_volume --sync $sync --writeback-delay 1h --no-compress
    tool fill "$IMAGE" 0 24M 1
    s3d_fault down=1
    : >"$T/said"
    s3vol umount "$MNT" 2>"$T/said" &
    waiting=$!
    wait_for 30 grep -q "$MNT: the store does not answer: waiting until 24.0 MiB are uploaded" "$T/said"
    tool verify "$IMAGE" 0 24M 1
    s3d_fault up=1
    wait $waiting || fail "umount failed: $(cat "$T/said")"
    same "$(wc -l <"$T/said")" 1 "lines that umount said"
    daemon_ends 0
    new_cache

    mount_volume --sync $sync --writeback-delay 1h --no-compress
    tool verify "$IMAGE" 0 24M 1
    tool fill "$IMAGE" 10M 24M 2
    s3d_fault down=1
    rm -f "$T/terminal" # of the first round
    script -qefc "exec s3vol umount '$MNT'" "$T/terminal" >/dev/null </dev/null &
    waiting=$!
    wait_for 30 grep -q "24.0 MiB left to upload" "$T/terminal"
    wait_for 30 grep -q "the store does not answer" "$T/terminal"
    pkill -TERM -P $waiting
    wait $waiting || :
    tool verify "$IMAGE" 10M 24M 2 # still mounted

    timeout $((10 * SLOW)) s3vol umount --keep-local "$MNT" || fail "--keep-local does not leave at once"
    daemon_ends 0
    s3d_fault up=1
    mount_volume --writeback-delay 200ms
    tool verify "$IMAGE" 10M 24M 2
    wait_for 30 status_is dirty_bytes 0
    kill_daemon
    new_cache
    mount_volume
    tool verify "$IMAGE" 0 10M 1
    tool verify "$IMAGE" 10M 24M 2
    umount_volume
    new_cache
done
