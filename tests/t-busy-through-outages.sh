#!/bin/bash
# limit: 240
# ext4 on the volume is busy with fsync while the store is gone, hangs, crawls, comes and goes, throttles,
# cuts bodies, and takes our keys for expired until there are new ones in the credentials file. Cached
# reads go on; writes and flushes go on (--sync cache) or wait (bucket); the log says what is wrong, and
# that it is over; everything resumes by itself and is in the bucket in the end; memory stays bounded.
# LONG=1: each lasts more than a minute.
. "$(dirname "$0")/lib/common.sh"
. "$(dirname "$0")/lib/busy.sh"
need mkfs.ext4 sqlite3
need_fs ext4

# What fuse/DESIGN.md and cache/DESIGN.md allow: receiving 8, waiting writes 32, reads that miss 32,
# uploads 3 and one * 8.4, downloads 16 * 0.5, chunks 7, SQLite 8, a commit 1, code and libraries 16.
MEMORY_MAX_KIB=$((146 << 10))

# keys_are TOKEN: in the credentials file, at once.
keys_are() {
    printf '[default]\naws_access_key_id = test\naws_secret_access_key = testsecret\naws_session_token = %s\n' "$1" >"$T/keys.new"
    mv "$T/keys.new" "$T/keys"
}

# serve TOKEN: the server takes these keys only, and here they are.
serve() {
    [ -z "${S3D_PID:-}" ] || stop_s3d
    S3D_OPTIONS=(--data "$T/objects" --token "$1")
    resume_s3d
    unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY
    keys_are "$1"
}

# Writers are faster than the store: what they do while it is away ends at the dirty limit.
room() { wait_for 60 eval '[ $(status dirty_bytes) -le $((8 << 20)) ]'; }

# outage NAME PATTERN BEGIN END: PATTERN is what the log must say; "" where it has told of the like within
# the last minute.
outage() {
    local failed end
    room
    failed=$(status requests.failed)
    eval "$3"
    [ $sync = bucket ] || busy_goes_on 3
    wait_for 60 eval "[ \$(status requests.failed) -ge $((failed + 2)) ]"
    end=$((SECONDS + ${LONG:+70} + 0))
    while
        tool verify "$IMAGE" 600M 4M 1 # cached
        [ $SECONDS -lt $end ]
    do sleep 1; done
    eval "$4"
    busy_goes_on 3
    wait_for 60 status_is state ok
    [ -z "$2" ] || wait_for 30 eval "sed -n '/$2/,\$p' '$DAEMON_LOG' | grep -q 'the store answers again'"
    echo "$sync, $1: $(acknowledged diary) $(acknowledged sqlite), $(awk '/VmHWM/ { print $2, $3 }' /proc/$DAEMON/status), at $SECONDS s"
}

# Others write too, all at once, until the dirty limit holds them back.
flood() {
    local n failed
    for n in 0 1 2 3 4 5 6 7; do
        tool fill "$IMAGE" $((700 + 16 * n))M 16M 3 &
        FLOOD+=($!)
    done
    wait_for 30 eval "[ \$(status dirty_bytes) -ge $((15 << 20)) ]"
    failed=$(status requests.failed)
    wait_for 60 eval "[ \$(status requests.failed) -ge $((failed + 3)) ]"
    within "$(status dirty_bytes)" $((15 << 20)) $((17 << 20)) "dirty bytes"
}
flood_ends() {
    local pid
    for pid in "${FLOOD[@]}"; do wait "$pid"; done
    FLOOD=()
}

# The first of each kind is told of at once.
outages_bucket() {
    outage gone '127.0.0.1.*retrying' 's3d_fault down=1' 's3d_fault up=1'
    outage throttling 'SlowDown' 's3d_fault "code=SlowDown&p=0.6&seed=1"' 's3d_clear'
    outage flapping '' 'for n in 1 2 3 4 5; do s3d_fault down=1; sleep 0.1; s3d_fault up=1; done; room; s3d_fault down=1' 's3d_fault up=1'
    outage "keys expired" 'expired.*retrying' 's3d_fault "status=403&code=ExpiredToken"; wait_for 30 status_is state store-unreachable' 'serve second'
    outage "cut bodies" '' 's3d_fault "cut=100&method=PUT&p=0.6&seed=1"' 's3d_clear'
}
outages_cache() {
    outage hanging 'nothing was received or sent' 's3d_fault hang=1' 's3d_clear'
    outage gone '' 's3d_fault down=1' 'flood; s3d_fault up=1; flood_ends'
    outage throttling 'SlowDown' 's3d_fault "code=SlowDown&p=0.6&seed=1"' 's3d_clear'
    outage flapping '' 'for n in 1 2 3 4 5; do s3d_fault down=1; sleep 0.1; s3d_fault up=1; done; room; s3d_fault down=1' 's3d_fault up=1'
}

mkdir "$T/s3d"
export AWS_SHARED_CREDENTIALS_FILE=$T/keys AWS_CONFIG_FILE=$T/none
S3D_PORT=0 FLOOD=()
serve first
URL=s3://$S3_BUCKET/vm1
s3vol create --size 1G "$URL"
for sync in bucket cache; do
    # All of it fits into the cache, and is there: what is not waits for the store.
    : >"$T/daemon-mnt.log"
    mount_volume --sync $sync --stall-timeout 1s --cache-size 256M --dirty-limit 16M --writeback-delay 100ms
    if [ $sync = bucket ]; then new_busy 1 --sizelimit $((512 << 20)); else mount_busy --sizelimit $((512 << 20)); fi
    tool fill "$IMAGE" 600M 4M 1
    head -c 512M "$IMAGE" >/dev/null
    start_busy
    busy_goes_on 3
    outages_$sync
    s3d_fault 'latency=150&bandwidth=1M'
    busy_goes_on 3
    s3d_clear
    set_floor
    end_busy
    within "$(awk '/VmHWM/ { print $2 }' /proc/$DAEMON/status)" 1 $((MEMORY_MAX_KIB * SLOW)) "KiB of memory at most"
    umount_busy
    umount_volume
    new_cache
    mount_volume
    mount_busy --sizelimit $((512 << 20))
    verify_busy
    umount_busy
    tool verify "$IMAGE" 600M 4M 1
    [ $sync = bucket ] || tool verify "$IMAGE" 700M 128M 3
    umount_volume
    new_cache
done
