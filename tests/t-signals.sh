#!/bin/bash
# limit: 120
# SIGTERM, SIGINT and SIGHUP end a daemon cleanly: unmounted, everything in the bucket. While the store is
# away a second one ends it without saving, and what was not saved is still in the cache; one that comes
# while the volume is being opened ends it at once.
. "$(dirname "$0")/lib/common.sh"

STORE=s3d
new_volume
seed=0
for signal in TERM INT HUP; do
    seed=$((seed + 1))
    mount_volume --writeback-delay 1h
    tool fill "$IMAGE" ${seed}M 1M $seed
    kill -$signal $DAEMON
    daemon_ends 0
    new_cache
done
mount_volume
for seed in 1 2 3; do tool verify "$IMAGE" ${seed}M 1M $seed; done

# Somebody still has the image open: it goes out of sight, is saved, and then gives errors.
exec 9<"$IMAGE"
tool fill "$IMAGE" 4M 1M 4
kill -TERM $DAEMON
daemon_ends 0
if head -c 1 <&9 >/dev/null 2>&1; then fail "the image of a daemon that has ended can be read"; fi
exec 9<&-
new_cache
mount_volume --sync cache --writeback-delay 1h
tool verify "$IMAGE" 4M 1M 4

tool fill "$IMAGE" 5M 1M 5
sync "$IMAGE"
s3d_fault down=1
kill -TERM $DAEMON
wait_for 30 eval "! mountpoint -q '$MNT'"
wait_for 30 grep -q 'asked to end' "$DAEMON_LOG"
kill -0 $DAEMON || fail "it did not wait for the store"
kill -TERM $DAEMON
daemon_ends 1
grep -q "stays in this machine's cache" "$DAEMON_LOG" || fail "it does not say what became of the rest"

s3vol mount -f --cache-dir "$CACHE" "$URL" "$MNT" >"$T/said" 2>&1 &
DAEMON=$!
wait_for 30 test -s "$T/said" # it has met the silent store
kill -INT $DAEMON
daemon_ends 1
grep -q interrupted "$T/said" || fail "it does not say that it was interrupted: $(cat "$T/said")"

s3d_fault up=1
mount_volume --sync cache
tool verify "$IMAGE" 5M 1M 5
umount_volume
