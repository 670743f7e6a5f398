# What is compared, sourced. A target is chosen with target_use and then shows a disk of $target_size as
# $file; loop_up makes a block device, $dev, of it. target_new begins with an empty one, target_cold
# forgets what is cached, target_warm keeps what is in its cache on the disk, and nothing in memory;
# target_flush returns when everything is where the target keeps it. The object server, if it needs one,
# runs already (server_up).
#   s3vol          --sync bucket          s3vol-cache     --sync cache
#   s3backer       blocks of 128 KiB      s3backer-4k     blocks of 4 KiB, its default
#   plain          a sparse file
#   barefuse       that through FUSE      barefuse-direct    and past the page cache
#   bare           no disk: the object server itself, by curl (bare.sh)
# shellcheck shell=bash disable=SC2154

declare -A daemons=() devs=() # of targets

target_use() { # target_use NAME
    target=$1 daemon=${daemons[$1]:-} dev=${devs[$1]:-}
    dir=$T/$target
    cache=$dir.cache backing=$dir.backing
    case $target in
    s3vol*) url=${store_url:-$T/bucket}/bench-$RUN/$target file=$dir/image ;;
    s3backer*) file=$dir/file ;;
    plain) file=$backing ;;
    barefuse*) file=$dir/image ;;
    esac
}

target_have() { # whether it can be had here
    case $target in
    s3backer*)
        command -v s3backer >/dev/null || { skipped "$target" "s3backer is missing: sudo contrib/setup bench"; return 1; }
        [ -n "${S3_SERVER:-}" ] || return 1
        ;;
    esac
}

target_new() {
    mkdir -p "$dir"
    case $target in
    s3vol*) s3vol create --size "$target_size" "$url" >/dev/null ;;
    s3backer*) generation=$((${generation:-0} + 1)) ;;
    *) rm -f "$backing" && truncate -s "$target_size" "$backing" ;;
    esac
    target_mount
}

target_mount() {
    local sync=bucket block=128k blocks=8192
    case $target in
    s3vol*)
        [ $target = s3vol ] || sync=cache
        s3vol mount --cache-dir "$cache" --cache-size "${cache_size:-4G}" --sync $sync \
            ${writeback_delay:+--writeback-delay "$writeback_delay"} "$url" "$dir"
        daemon=$(s3vol status --json "$dir" | jq .pid)
        ;;
    s3backer*)
        [ $target = s3backer ] || block=4k blocks=262144
        mkdir -p "$cache"
        s3backer -f --quiet --force --accessId="$AWS_ACCESS_KEY_ID" --accessKey="$AWS_SECRET_ACCESS_KEY" \
            --baseURL="${AWS_ENDPOINT_URL/127.0.0.1/localhost}/" --prefix="bench-$RUN/$target-$generation/" \
            --size="$target_size" --blockSize=$block --blockCacheSize=$blocks --blockCacheFile="$cache/blocks" \
            --md5CacheSize=100000 --blockCacheNoVerify ${s3backer_sync:+--blockCacheSync --blockCacheWriteDelay=0} "$S3_BUCKET" "$dir" >"$dir.log" 2>&1 </dev/null &
        daemon=$!
        ;;
    barefuse*)
        local past=
        [ $target = barefuse ] || past=-d
        barefuse $past "$backing" "$dir" >"$dir.log" 2>&1 </dev/null &
        daemon=$!
        ;;
    esac
    daemons[$target]=$daemon
    until [ -e "$file" ]; do
        kill -0 "$daemon" || { cat "$dir.log" >&2; return 1; }
        sleep 0.02
    done
}

# Ends with everything saved.
target_umount() {
    case $target in
    s3vol*) s3vol umount "$dir" ;;
    plain) sync "$file" ;;
    *) umount "$dir" && { wait "$daemon" || :; } ;;
    esac
    daemon='' daemons[$target]=''
}

# s3backer has no other way than to be unmounted: to its fsync it says yes.
target_flush() {
    case $target in
    s3backer*) target_umount ;;
    *) sync "${dev:-$file}" ;;
    esac
}

# Not by drop_caches, which takes everybody's on this machine, and waits for every file system that hangs.
forget() { # forget FILES…: what the kernel has of them in memory
    local f
    for f; do
        [ ! -f "$f" ] || dd if="$f" iflag=nocache count=0 status=none
    done
}

target_warm() {
    [ -z "$daemon" ] && [ $target != plain ] || target_umount
    forget "$backing" "$cache"/* "$cache"/*/*
    target_mount
}

target_cold() {
    [ -z "$daemon" ] && [ $target != plain ] || target_umount
    rm -rf "$cache"
    forget "$backing"
    target_mount
}

target_gone() {
    loop_down
    [ -z "$daemon" ] || target_umount
    case $target in s3vol*) s3vol delete --force "$url" >/dev/null ;; esac
    rm -rf "$cache" "$backing"
    rmdir "$dir"
}

loop_up() {
    dev=$(losetup -f --show --direct-io=on "$file")
    devs[$target]=$dev
}

loop_down() {
    [ -n "${dev:-}" ] || return 0
    losetup -d "$dev"
    until ! losetup -n "$dev" 2>/dev/null | grep -q .; do sleep 0.02; done
    dev='' devs[$target]=''
}

# server_up NAME: dir, s3d, s3d-far (20 ms before each answer, 100 MB/s a connection), radosgw, or url,
# which is $URL. Sets server, and S3_SERVER if it is one that others can use.
server_up() {
    server=$1 store_url='' S3_SERVER=
    case $1 in
    dir) mkdir -p "$T/bucket/bench-$RUN" && return ;;
    url) store_url=$URL && return ;;
    s3d) start_s3d ;;
    s3d-far) start_s3d --latency 20 --bandwidth 100000000 ;;
    radosgw) start_radosgw "$T/rgw" >"$T/radosgw.log" 2>&1 ;;
    esac || { skipped "$1" "$SERVER_WHY"; return 1; }
    S3_SERVER=yes store_url=s3://$S3_BUCKET
}

server_down() {
    stop_servers
    rm -rf "$T/bucket" "$T/rgw"
    S3_SERVER=''
}

# What it has asked of its store so far: requests, bytes up, bytes down; as the server has counted, if it
# does, or as the target says.
counters() {
    case $server:$target in
    s3d*) s3d_stats | awk '{ n[$1] = $2 } END { print n["requests"] + 0, n["bytes_in"] + 0, n["bytes_out"] + 0 }' ;;
    *:s3vol*)
        s3vol status --json "$dir" | jq -r '"\([.requests | .get, .put, .head, .list, .delete] | add) \(.bytes_up) \(.bytes_down)"'
        ;;
    *) echo 0 0 0 ;;
    esac
}

# measure GROUP WORKLOAD UNIT COMMAND…: which leaves its result in $result, and in $flush_us how long a flush
# took that it did; recorded with all that it cost.
measure() {
    local group=$1 workload=$2 unit=$3 before after cpu=null peak=null was=0
    shift 3
    say "$group, round $round: $workload, $target"
    case $target in s3vol*) s3vol status "$dir" >/dev/null ;; esac
    read -ra before < <(counters)
    [ -z "$daemon" ] || { was=$(cpu_ms "$daemon") && echo 5 >"/proc/$daemon/clear_refs"; }
    "$@" || { skipped "$group, $workload, $target" "failed: $*"; return 0; }
    # A daemon that had to be unmounted has taken its numbers along.
    [ -z "$daemon" ] || {
        cpu=$(($(cpu_ms "$daemon") - was))
        peak=$(awk '/VmHWM/ { print $2 * 1024 }' "/proc/$daemon/status")
    }
    read -ra after < <(counters)
    record "$group" "$workload" "$target" "$unit" "$result" "$(jq -cn --argjson round "$round" \
        --argjson requests $((after[0] - before[0])) --argjson up $((after[1] - before[1])) \
        --argjson down $((after[2] - before[2])) --argjson cpu "$cpu" --argjson peak "$peak" '
        {$round, $requests, bytes_up: $up, bytes_down: $down, cpu_s: (if $cpu then $cpu / 1000 else null end), peak_bytes: $peak}')"
}
