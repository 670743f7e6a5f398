#!/bin/bash
# limit: 240
# index.db, its -wal and its -shm cut, gone, or with flipped bits anywhere, and slots cut or gone: after a
# clean end, after kill -9 in both modes, and with data that only the cache has. Whatever happens is one
# of: the right bytes; EIO; a mount that refuses in one line, and does with --discard-local. Never wrong
# bytes, never a hang, and what was acknowledged in bucket mode is in the bucket afterwards.
# FLIPS=n: so many for each file and state; SEED=n: other places.
. "$(dirname "$0")/lib/common.sh"

seed=${SEED:-$RANDOM}
echo "SEED=$seed"
RANDOM=$seed
COUNT=600

# save_state NAME: bucket and cache as they are now.
save_state() {
    mkdir -p "$T/states/$1"
    cp -a --sparse=always "$T/bucket" "$CACHE" "$T/states/$1/"
}
load_state() {
    rm -rf "$T/bucket" "$CACHE"
    cp -a --sparse=always "$T/states/$1/bucket" "$T/states/$1/cache" "$T/"
}

# What fsync acknowledged: 600 blocks in the bucket; 4 MiB there, or in the cache.
fill_all() { # fill_all SEED
    local mib
    tool scatter "$IMAGE" 512M $COUNT 1
    s3vol flush "$MNT"
    for mib in 600 601 602 603; do
        tool fill "$IMAGE" ${mib}M 1M "$1"
        sync "$IMAGE"
    done
}

# Right or EIO. Sets ERRORS. The 4 MiB are of this seed, or not looked at.
inspect() { # inspect [SEED]
    tool inspect-scatter "$IMAGE" 512M $COUNT 1 >"$T/inspected" || return 1
    ERRORS=$(cat "$T/inspected")
    [ $# = 0 ] || { tool inspect "$IMAGE" 600M 4M "$1" >"$T/inspected" && ERRORS=$((ERRORS + $(cat "$T/inspected"))); }
}

mount_briefly() { # mount_briefly WHY SEED [OPTIONS of mount]
    s3vol mount --cache-dir "$CACHE" "${@:3}" "$URL" "$MNT"
    inspect $2 || fail "wrong bytes $1"
    same "$ERRORS" 0 "errors $1"
    s3vol umount "$MNT"
}

# damage STATE COMMAND…
damage() {
    local state=$1 rc=0 outcome
    shift
    load_state "$state"
    (cd "$T"/cache/* && eval "$*")
    timeout $((30 * SLOW)) s3vol mount --sync $MODE --cache-dir "$CACHE" "$URL" "$MNT" >"$T/said" 2>&1 || rc=$?
    if [ $rc = 0 ]; then
        inspect $SEED_NOW || fail "wrong bytes, state $state, after: $* ($(cat "$T/said"))"
        outcome="right, $ERRORS errors"
        timeout $((30 * SLOW)) s3vol umount "$MNT" >>"$T/said" 2>&1 || outcome="$outcome, umount fails"
        [ $ERRORS = 0 ] || [ $MODE = cache ] || mount_briefly "at the next mount, state $state, after: $*" "$SEED_NOW"
    else
        same $rc 1 "exit code of mount, after: $*"
        same "$(grep -vc '^s3vol: warning' "$T/said")" 1 "lines that mount said, after: $*"
        grep -q -- '--discard-local' "$T/said" || fail "state $state, after $*: $(cat "$T/said")"
        outcome=refused
        mount_briefly "with --discard-local, state $state, after: $*" 2 --discard-local
    fi
    echo "$state: $*: $outcome"
    [ $((RANDOM % 3)) = 0 ] || return 0
    new_cache
    mount_briefly "in the bucket, state $state, after: $*" ''
}

# flips STATE FILE
flips() {
    local size n
    size=$(stat -c %s "$T/states/$1"/cache/*/"$2")
    for n in $(seq "${FLIPS:-2}"); do
        damage "$1" tool flip "$2" $(((RANDOM * 32768 + RANDOM) % size))
    done
}

mkdir "$MNT"
new_volume
mount_volume
fill_all 2
umount_volume
save_state clean
mount_volume
fill_all 2
kill_daemon
save_state killed
mount_volume --sync cache --writeback-delay 1h
fill_all 3
kill_daemon
save_state dirty
mount_volume --sync cache --writeback-delay 1h
umount_volume --keep-local
save_state kept

for state in clean killed dirty kept; do
    case $state in clean | killed) MODE=bucket SEED_NOW=2 ;; *) MODE=cache SEED_NOW=3 ;; esac
    flips $state index.db
    damage $state 'truncate -s $(($(stat -c %s index.db) / 8192 * 4096)) index.db'
    damage $state ': >slots'
    damage $state 'head -c $((3 * 4096 + RANDOM)) /dev/urandom >sums'
    compgen -G "$T/states/$state/cache/*/index.db-wal" >/dev/null || continue
    damage $state 'rm index.db-wal'
    [ $state = killed ] || SEED_NOW='' # SQLite takes a damaged -wal for a torn one: cache/DESIGN.md
    flips $state index.db-wal
    damage $state 'truncate -s $(($(stat -c %s index.db-wal) / 2)) index.db-wal'
    damage $state 'head -c 32768 /dev/urandom >index.db-shm'
done
