# What is compared, sourced. A subject is chosen with subject_use and then shows a disk of $disk_size as
# $file; loop_up makes a block device, $dev, of it. subject_new begins with an empty one, subject_cold
# forgets what is cached, subject_warm keeps what is in its cache on the disk, and nothing in memory;
# subject_flush returns when everything is where the subject keeps it.
#   s3vol          --sync bucket          s3vol-cache     --sync cache
#   s3backer       blocks of 128 KiB      s3backer-4k     blocks of 4 KiB, its default
#   plain          a sparse file
#   barefuse       that through FUSE      barefuse-direct    and past the page cache
#   bare           no disk: the object server itself, by curl (bare.sh)
# shellcheck shell=bash disable=SC2154

declare -A daemons=() devs=() # of subjects
generation=0

subject_use() { # subject_use NAME
    subject=$1 daemon=${daemons[$1]:-} dev=${devs[$1]:-}
    dir=$T/$subject
    cache=${cache_top:-$T}/$subject.cache backing=$dir.backing
    case $subject in
    s3vol*) url=$store_url/bench-$RUN/$subject file=$dir/image ;;
    s3backer*) file=$dir/file ;;
    plain) file=$backing ;;
    barefuse*) file=$dir/image ;;
    esac
}

each_subject() { # each_subject FUNCTION SUBJECTS…: in turns
    local function=$1 name
    shift
    for name in $(rotated "$round" "$@"); do
        subject_use "$name"
        "$function" || { failures=$((failures + 1)) && complain "$group: $name: given up"; }
    done
}

subject_new() {
    mkdir -p "$dir"
    case $subject in
    s3vol*) limited 60 s3vol create --size "$disk_size" "$url" >/dev/null || return ;;
    s3backer*) generation=$((generation + 1)) ;;
    *) rm -f "$backing" && truncate -s "$disk_size" "$backing" ;;
    esac
    subject_mount
}

subject_mount() {
    daemon=''
    case $subject in
    s3vol*) mount_s3vol ;;
    s3backer*) mount_s3backer ;;
    barefuse-direct) barefuse -d "$backing" "$dir" >"$dir.log" 2>&1 </dev/null & ;;
    barefuse) barefuse "$backing" "$dir" >"$dir.log" 2>&1 </dev/null & ;;
    plain) return 0 ;;
    esac || return
    [ -n "$daemon" ] || { daemon=$! && disown "$daemon"; } # or bash tells when it is killed
    daemons[$subject]=$daemon
    await 30 subject_shown && [ -e "$file" ] || { tail -n 5 "$dir.log" >&2; return 1; }
}

subject_shown() {
    gone "$daemon" || [ -e "$file" ]
}

mount_s3vol() {
    local sync=bucket
    [ "$subject" = s3vol ] || sync=cache
    # shellcheck disable=SC2086
    limited 60 s3vol mount --cache-dir "$cache" --cache-size "${cache_size:-4G}" --sync $sync $mount_options "$url" "$dir" || return
    daemon=$(s3vol status --json "$dir" | jq .pid)
}

# To its fsync s3backer says yes at once, so what is to be flushed is not cached (s3backer_sync=yes), or unmounted.
mount_s3backer() {
    local block=128k blocks=8192
    [ "$subject" = s3backer ] || block=4k blocks=262144
    mkdir -p "$cache"
    s3backer -f --quiet --force --accessId="$AWS_ACCESS_KEY_ID" --accessKey="$AWS_SECRET_ACCESS_KEY" \
        --baseURL="${AWS_ENDPOINT_URL/127.0.0.1/localhost}/" --prefix="bench-$RUN/$subject-$generation/" \
        --size="$disk_size" --blockSize=$block --blockCacheSize=$blocks --blockCacheFile="$cache/blocks" \
        --md5CacheSize=100000 --blockCacheNoVerify ${s3backer_sync:+--blockCacheSync --blockCacheWriteDelay=0} \
        "$S3_BUCKET" "$dir" >"$dir.log" 2>&1 </dev/null &
}

# Ends with everything saved. What the daemon has used in all is known when it has been waited for.
subject_umount() {
    local before
    case $subject in
    plain) limited $limit sync "$file" ;;
    s3vol*) limited $limit s3vol umount "$dir" ;;
    *)
        before=$(children_ms)
        limited 60 umount "$dir" && await $limit gone "$daemon" || return
        ended_ms=$(($(children_ms) - before))
        ;;
    esac || return
    daemon='' daemons[$subject]=''
}

children_ms() { # the processor time of children that have ended
    awk -v hz="$(getconf CLK_TCK)" '{ sub(/.*\) /, ""); printf "%d\n", ($14 + $15) * 1000 / hz }' "/proc/$$/stat"
}

subject_flush() {
    case $subject in
    s3backer*) subject_umount ;;
    *) limited $limit sync "${dev:-$file}" ;;
    esac
}

again() { # after a flush that unmounted it
    [ -n "$daemon" ] || subject_mount
}

# Not by drop_caches, which takes everybody's on this machine, and waits for every file system that hangs.
forget() { # forget FILES…: what the kernel has of them in memory
    local f
    for f; do
        [ ! -f "$f" ] || dd if="$f" iflag=nocache count=0 status=none
    done
}

subject_warm() {
    [ -z "$daemon" ] && [ "$subject" != plain ] || subject_umount || return
    forget "$backing" "$cache"/* "$cache"/*/*
    subject_mount
}

subject_cold() {
    [ -z "$daemon" ] && [ "$subject" != plain ] || subject_umount || return
    rm -rf "$cache"
    forget "$backing"
    subject_mount
}

# Nothing of it is needed any more, so nothing is saved.
subject_gone() {
    loop_down
    if [ -n "$daemon" ]; then
        kill -KILL "$daemon" 2>/dev/null
        await 10 gone "$daemon"
        umount -l "$dir" 2>/dev/null
    fi
    daemon='' daemons[$subject]=''
    case $subject in s3vol*) limited 60 s3vol delete --force "$url" >/dev/null ;; esac
    rm -rf "$cache" "$backing"
    rmdir "$dir"
}

loop_up() {
    dev=$(losetup -f --show --direct-io=on "$file") || return
    devs[$subject]=$dev
}

loop_down() {
    [ -n "$dev" ] || return 0
    losetup -d "$dev"
    await 10 loop_free
    dev='' devs[$subject]=''
}

loop_free() {
    ! losetup -n "$dev" 2>/dev/null | grep -q .
}

# ------------------------------------------------------------------------------------ servers

# server_up NAME: dir, s3d, s3d-far (20 ms before each answer, 100 MB/s a connection), radosgw.
server_up() {
    say "$1: starting"
    server=$1 store_url=$T/bucket
    case $1 in
    dir) mkdir -p "$T/bucket/bench-$RUN" && return ;;
    s3d) start_s3d ;;
    s3d-far) start_s3d --latency 20 --bandwidth 100000000 ;;
    radosgw) start_radosgw "$T/rgw" >"$T/radosgw.log" 2>&1 ;;
    esac || { failures=$((failures + 1)) && complain "$1: $SERVER_WHY"; return 1; }
    store_url=s3://$S3_BUCKET
}

server_down() {
    stop_servers
    rm -rf "$T/bucket" "$T/rgw"
}

# What has been asked of the store so far: requests, bytes up, bytes down; as the server has counted, if it
# does, or as the subject says.
counters() {
    case $server:$subject:$daemon in
    *:plain:* | *:barefuse*) ;;
    s3d*) s3d_stats | awk '{ n[$1] = $2 } END { print n["requests"] + 0, n["bytes_in"] + 0, n["bytes_out"] + 0 }' ;;
    *:s3vol:?* | *:s3vol-cache:?*)
        s3vol status --json "$dir" | jq -r '"\([.requests | .get, .put, .head, .list, .delete] | add) \(.bytes_up) \(.bytes_down)"'
        ;;
    esac
}
