#!/bin/bash
# A clone that was flattened needs nothing of what it was made from, which can be deleted then; a clone of it goes on.
# Refused while a snapshot needs it. Killed at any time it goes on where it was, and is whole all the while.
# stores: dir s3d radosgw
# limit: 240
. "$(dirname "$0")/lib/common.sh"

use() { URL=$1 && shift && mount_volume "$@"; }
pins() { s3vol snapshot list "$1" | grep -c '^clone-' || :; }

start_volume
base=$URL
tool fill "$IMAGE" 0 48M 1
tool fill "$IMAGE" 512M 4M 2
umount_volume
s3vol clone "$base" "$base-a"
s3vol clone "$base-a" "$base-b"
s3vol flatten "$base" # depends on nothing
use "$base-a"
s3vol snapshot create "$MNT@first"
tool fill "$IMAGE" 1M 2M 3
sync "$IMAGE"
refused 'snapshots need' s3vol flatten "$MNT"
grep -q 'first; delete' "$DAEMON_LOG" || fail "the daemon does not name the snapshot"
refused "$URL: is mounted at $MNT; name $MNT instead" s3vol flatten --cache-dir "$T/other" "$base-a"
tool fill "$IMAGE" 4M 1M 1 # nobody took it away
sync "$IMAGE"
umount_volume
refused 'snapshots need.*: first; delete' s3vol flatten --cache-dir "$CACHE" "$base-a"
refused "$base-a" s3vol delete --force "$base"
use "$base-a@first" --read-only
refused 'mounted read-only' s3vol flatten "$MNT"
umount_volume
s3vol snapshot delete "$base-a@first"
new_cache

# killed while it is at it, again and again
use "$base-a"
for _ in 1 2 3; do
    s3vol flatten "$MNT" >"$T/flatten.out" 2>&1 &
    flatten=$!
    sleep 0.0"$((RANDOM % 10))"
    kill_daemon
    wait $flatten || :
    use "$base-a"
    tool verify "$IMAGE" 0 1M 1
    tool verify "$IMAGE" 1M 2M 3
done
tool fill "$IMAGE" 8M 2M 4 # unflushed: it is flushed first
s3vol flatten "$MNT"
tool fill "$IMAGE" 16M 1M 5
s3vol flatten "$MNT" # again is nothing
same "$(s3vol status --json "$base-a" | jq -r .clone_of)" null "what it is a clone of"
same "$(pins "$base")" 1 "pins in the base: of the clone's clone"
umount_volume
s3vol check "$base-a"

# the clone of the clone needs both still, and has the old bytes
refused "$base-b" s3vol delete --force "$base"
new_cache
use "$base-b"
tool verify "$IMAGE" 0 48M 1
umount_volume
s3vol check "$base-b"
s3vol clone "$base-a" "$base-c" # of one that was flattened: the base is none of its
same "$(pins "$base")" 1 "pins in the base"
if [ "$STORE" = s3d ]; then # stopped, it goes on as well
    s3d_fault 'latency=300'
    s3vol flatten --cache-dir "$CACHE" "$base-b" 2>"$T/said" &
    before=$(s3d_stats requests)
    wait_for 30 eval "[ \$(s3d_stats requests) -gt $((before + 8)) ]"
    kill -TERM $!
    rc=0
    wait $! || rc=$?
    s3d_clear
    same $rc 1 "exit code"
    grep -q 'flattened again' "$T/said" || fail "it said: $(cat "$T/said")"
fi
s3vol flatten --cache-dir "$CACHE" "$base-b"
same "$(pins "$base")" 0 "pins in the base"
same "$(pins "$base-a")" 1 "pins in the clone"
s3vol delete --force "$base"
new_cache
use "$base-b"
tool verify "$IMAGE" 0 48M 1
tool verify "$IMAGE" 512M 4M 2
umount_volume
for clone in a c; do
    use "$base-$clone"
    tool verify "$IMAGE" 0 1M 1
    tool verify "$IMAGE" 1M 2M 3
    tool verify "$IMAGE" 8M 2M 4
    tool verify "$IMAGE" 16M 1M 5
    tool verify "$IMAGE" 20M 28M 1
    tool verify "$IMAGE" 512M 4M 2
    umount_volume
    s3vol check "$base-$clone"
done
for clone in b c a; do s3vol delete --force "$base-$clone"; done
