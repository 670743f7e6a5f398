#!/bin/bash
# stores: dir radosgw
# limit: 240
# ext4 on a loop device, busy with fsync: files that are made, replaced, appended to and overwritten
# (tests/diary.c), and SQLite. The daemon is killed at random moments, mounting included, in both modes,
# and its cache is kept or lost. Each time: what fsync had acknowledged is there (in cache mode: with its
# cache), what is there is of one instant, SQLite finds its database whole, and e2fsck nothing.
# KILLS=n: so many; SEED=n: other choices.
# shellcheck disable=SC2154
. "$(dirname "$0")/lib/common.sh"
. "$(dirname "$0")/lib/busy.sh"
need mkfs.ext4 sqlite3
need_fs ext4

seed=${SEED:-$RANDOM}
echo "SEED=$seed"
RANDOM=$seed
choose() { # choose VARIABLE WORD…: one of them
    local n=$((RANDOM % ($# - 1) + 2))
    printf -v "$1" %s "${!n}"
}

# mount_as MODE: sometimes only after one or two that were killed on the way.
mount_as() {
    local options=(--sync "$1" --writeback-delay 200ms --cache-dir "$CACHE")
    mkdir -p "$MNT"
    while [ $((RANDOM % 3)) = 0 ]; do
        s3vol mount -f "${options[@]}" "$URL" "$MNT" >>"$T/killed.log" 2>&1 &
        DAEMON=$!
        sleep "0.0$((RANDOM % 10))" # the moment is the point
        kill_daemon
    done
    mount_volume "${options[@]}"
}

declare -A in_bucket=([diary]=0 [sqlite]=0)
drain() {
    local d s
    d=$(acknowledged diary) s=$(acknowledged sqlite)
    s3vol flush "$MNT"
    in_bucket[diary]=$d in_bucket[sqlite]=$s
}

new_volume
mode=bucket cache=
mount_volume
new_busy "$seed"
for kill in $(seq "${KILLS:-6}"); do
    start_busy
    busy_goes_on 1
    [ $((RANDOM % 3)) -gt 0 ] || drain
    wait_for 60 eval "[ \$(acknowledged diary) -ge $(($(acknowledged diary) + RANDOM % 40)) ]"
    kill_daemon
    set_floor
    drop_busy
    choose cache kept kept lost
    echo "kill $kill: $mode, cache $cache, acknowledged ${FLOOR[diary]} ${FLOOR[sqlite]}"
    [ $mode = cache ] || in_bucket=([diary]=${FLOOR[diary]} [sqlite]=${FLOOR[sqlite]})
    if [ "$cache" = lost ]; then
        new_cache
        FLOOR=([diary]=${in_bucket[diary]} [sqlite]=${in_bucket[sqlite]})
    fi
    choose mode bucket cache
    mount_as "$mode"
    mount_busy
    verify_busy
    echo "found ${FLOOR[diary]} ${FLOOR[sqlite]}"
    umount_busy
    [ $((RANDOM % 2)) = 0 ] || { umount_volume && mount_as "$mode"; } # a clean end, to begin with what it left
    mount_busy
done
umount_busy
umount_volume
new_cache
mount_volume
mount_busy
verify_busy
umount_busy
umount_volume
s3vol check "$URL"
