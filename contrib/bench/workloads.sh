# The suites but for nbd, sourced: what is done with the targets, and in which order.
# shellcheck shell=bash disable=SC2154

# ------------------------------------------------------------------------------------ pieces

# $cap, if set: no longer than that, whatever is left undone; for those who are a hundred times slower.
io() { # io UNIT FIO-OPTIONS…
    local unit=$1
    shift
    result=$(run_fio "$unit" --filename="${dev:-$file}" --direct=1 --ioengine=libaio \
        ${cap:+--runtime="$cap"} "$@")
}

# With the flush that makes it last.
io_flush() {
    local start
    io "$@" || return
    start=$(now_us)
    target_flush || return
    result=$(fio_rate "$1" $(($(now_us) - start)))
}

again() { # after a flush that unmounted it
    [ -n "$daemon" ] || [ "$target" = plain ] || target_mount
}

each_target() { # each_target FUNCTION TARGETS…: in turns
    local function=$1 name
    shift
    for name in $(rotated "$round" "$@"); do
        target_use "$name"
        if target_have; then "$function"; fi
    done
}

# ------------------------------------------------------------------------------------ store

# One target on one server. Cold is cold three times: daemon, its cache and the kernel's.
store_reads() {
    local d
    measure "$group" "sequential read, warm from memory" MB/s io MB/s --rw=read --bs=1M --iodepth=8 --size="$bytes"
    target_warm
    measure "$group" "sequential read, warm from disk" MB/s io MB/s --rw=read --bs=1M --iodepth=8 --size="$bytes"
    measure "$group" "random read 4 KiB, warm, depth 16" ops/s io ops/s --rw=randread --bs=4k --iodepth=16 --size="$bytes" --number_ios=5000
    target_cold
    measure "$group" "sequential read, cold" MB/s io MB/s --rw=read --bs=1M --iodepth=8 --size="$bytes"
    for d in 1 16 64; do
        target_cold
        measure "$group" "random read 4 KiB, cold, depth $d" ops/s io ops/s --rw=randread --bs=4k --iodepth=$d \
            --size="$bytes" --number_ios=$((reads * (d > 1 ? 4 : 1)))
    done
    target_cold
    measure "$group" "boot-like reads, cold" ops/s io ops/s --rw=randread:8 --bssplit=4k/60:16k/30:64k/10 --iodepth=4 \
        --size="$bytes" --number_ios=$((reads * 4))
    target_warm
    measure "$group" "boot-like reads, again" ops/s io ops/s --rw=randread:8 --bssplit=4k/60:16k/30:64k/10 --iodepth=4 \
        --size="$bytes" --number_ios=$((reads * 4))
}

store_writes() {
    local written="--size=$target_size --io_size=$scatter --refill_buffers" d
    # shellcheck disable=SC2086
    {
        measure "$group" "random write 4 KiB, buffered, flush" ops/s io_flush ops/s --rw=randwrite --bs=4k --direct=0 \
            --ioengine=psync $written
        for d in 1 16; do
            again
            measure "$group" "random write 4 KiB, direct, depth $d, flush" ops/s io_flush ops/s --rw=randwrite --bs=4k \
                --iodepth=$d $written
        done
    }
    again
}

store_fsyncs() {
    local jobs
    s3backer_sync=yes
    case $target in s3backer*) target_warm ;; esac
    for jobs in 1 8; do
        measure "$group" "4 KiB write + fsync, threads: $jobs" ops/s io ops/s --rw=randwrite --bs=4k --fsync=1 --direct=1 \
            --ioengine=psync --numjobs=$jobs --thread --size="$bytes" --time_based --runtime="$fsync_s"
    done
    s3backer_sync=''
}

store_target() {
    target_new
    if [ "$target" != s3vol-cache ]; then
        measure "$group" "sequential write, flush" MB/s io_flush MB/s --rw=write --bs=1M --iodepth=8 --size="$bytes" --refill_buffers
        again
        store_reads
        store_writes
    fi
    store_fsyncs
    target_gone
}

store_bare() {
    local d objects=$((${bytes%M} / 8))
    target=bare daemon=''
    measure "$group" "sequential write, flush" MB/s bare_put $((8 << 20)) $objects 8 MB/s
    measure "$group" "sequential read, cold" MB/s bare_get $((8 << 20)) $objects 8 MB/s
    for d in 1 16 64; do
        measure "$group" "random read 4 KiB, cold, depth $d" ops/s bare_ranges 4096 $((reads * (d > 1 ? 4 : 1))) $d $objects
    done
    measure "$group" "ranged GET of 64 KiB, depth 16" ops/s bare_ranges 65536 $((reads * 4)) 16 $objects
    measure "$group" "4 KiB write + fsync, threads: 1" ops/s bare_put 8192 $reads 1 ops/s
    measure "$group" "4 KiB write + fsync, threads: 8" ops/s bare_put 8192 $((reads * 4)) 8 ops/s
}

suite_store() {
    local server_name round group bytes=256M scatter=64M reads=200 fsync_s=5s n=3 cap=60s
    local servers=(s3d s3d-far radosgw) targets=(s3vol s3vol-cache s3backer s3backer-4k plain)
    [ -z "$quick" ] || { n=1 bytes=64M scatter=8M reads=50 fsync_s=1s cap=3s servers=(s3d-far) targets=(s3vol s3vol-cache s3backer plain); }
    [ -z "${URL:-}" ] || servers=(url)
    target_size=1G
    for server_name in "${servers[@]}"; do
        server_up "$server_name" || continue
        group="store, $server_name"
        for ((round = 1; round <= ${rounds:-$n}; round++)); do
            [ -z "$S3_SERVER" ] || store_bare
            each_target store_target "${targets[@]}"
        done
        server_down
    done
}

# ------------------------------------------------------------------------------------ path

# Everything cached: what the way through the kernel and the daemon costs, and nothing else.
path_once() {
    local o="--size=$bytes --time_based --runtime=${path_ms}ms --ramp_time=100ms"
    # shellcheck disable=SC2086
    {
        measure "$group" "sequential write 1 MiB, buffered" MB/s io MB/s --rw=write --bs=1M --direct=0 --ioengine=psync $o
        measure "$group" "sequential read 1 MiB" MB/s io MB/s --rw=read --bs=1M --iodepth=8 $o
        measure "$group" "random read 4 KiB, depth 1" ops/s io ops/s --rw=randread --bs=4k --iodepth=1 $o
        measure "$group" "random read 4 KiB, depth 16" ops/s io ops/s --rw=randread --bs=4k --iodepth=16 $o
        measure "$group" "random write 4 KiB, depth 1" ops/s io ops/s --rw=randwrite --bs=4k --iodepth=1 $o
        measure "$group" "random write 4 KiB, depth 16" ops/s io ops/s --rw=randwrite --bs=4k --iodepth=16 $o
    }
}

path_fill() {
    target_new
    dd if=/dev/urandom of="$file" bs=1M count="${bytes%M}" conv=notrunc,fsync status=none
}

suite_path() {
    local round group bytes=256M path_ms=1000 n=5 targets=(s3vol barefuse barefuse-direct plain)
    [ -z "$quick" ] || { bytes=64M path_ms=250 n=1; }
    target_size=1G writeback_delay=1h round=0
    server_up dir
    each_target path_fill "${targets[@]}"
    group="path, image"
    for ((round = 1; round <= ${rounds:-$n}; round++)); do each_target path_once "${targets[@]}"; done
    group="path, loop"
    each_target loop_up "${targets[@]}"
    for ((round = 1; round <= ${rounds:-$n}; round++)); do each_target path_once "${targets[@]}"; done
    each_target target_gone "${targets[@]}"
    server_down
    writeback_delay=''
}

# ------------------------------------------------------------------------------------ fs

sqlite_transactions() { # sqlite_transactions N
    local i
    {
        echo "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE IF NOT EXISTS t (k INTEGER PRIMARY KEY, v TEXT);"
        for ((i = 0; i < $1; i++)); do echo "INSERT INTO t (v) VALUES (hex(randomblob(100)));"; done
    } | sqlite3 "$fs/db" >/dev/null
}

fs_untar() {
    tar -C "$fs" -xf "$T/tree.tar" && sync -f "$fs"
}

fs_status() {
    git -C "$fs/tree" -c safe.directory='*' status --porcelain >/dev/null
}

fs_compile() {
    make -C "$fs/tree" -j2 all >"$T/make.log" 2>&1 || { cat "$T/make.log" >&2; return 1; }
}

fs_target() {
    local fs=$T/fs
    mkdir -p "$fs"
    target_new
    loop_up
    measure "$group" mkfs s timed s 1 mkfs.ext4 -q "$dev"
    mount -o discard "$dev" "$fs"
    measure "$group" "untar and sync" s timed s 1 fs_untar
    umount "$fs" # forgets it
    mount -o discard "$dev" "$fs"
    measure "$group" "git status" s timed s 1 fs_status
    [ -n "$quick" ] || measure "$group" compile s timed s 1 fs_compile
    measure "$group" "SQLite, small transactions" ops/s timed ops/s "$transactions" sqlite_transactions "$transactions"
    umount "$fs"
    target_gone
}

suite_fs() {
    local round group server_name n=3 transactions=200 servers=(s3d s3d-far) targets=(s3vol s3vol-cache plain barefuse-direct)
    [ -z "$quick" ] || { n=1 transactions=50 servers=(s3d-far) targets=(s3vol s3vol-cache plain); }
    rm -rf "$T/tree"
    git clone -q --no-hardlinks "$top" "$T/tree" 2>/dev/null || { skipped fs "this is no git repository"; return; }
    tar -C "$T" -cf "$T/tree.tar" tree
    rm -rf "$T/tree"
    target_size=4G
    for server_name in "${servers[@]}"; do
        server_up "$server_name" || continue
        group="ext4 on loop, $server_name"
        for ((round = 1; round <= ${rounds:-$n}; round++)); do each_target fs_target "${targets[@]}"; done
        server_down
    done
}

# ------------------------------------------------------------------------------------ big

# A volume of many extents, and a cache of many chunks: each second block written, and one block of each chunk.
suite_big() {
    local round=1 n=3 group="big, s3d-far" extents=1000000 chunks=100000 before after
    [ -z "$quick" ] || { n=1 extents=50000 chunks=10000; }
    server_up s3d-far || return 0
    target_size=1T cache_size=20G
    target_use s3vol
    target_new
    io ops/s --rw=write:4k --bs=4k --iodepth=32 --number_ios=$extents --size=16G --buffer_pattern=0xbe >/dev/null
    for ((round = 1; round <= ${rounds:-$n}; round++)); do
        target_umount
        measure "$group" "mount, warm, $extents extents" s timed s 1 target_mount
        target_umount
        rm -rf "$cache"
        measure "$group" "mount, cold, $extents extents" s timed s 1 target_mount
    done
    round=1
    before=$(awk '/VmRSS/ { print $2 * 1024 }' "/proc/$daemon/status")
    result=$((before / 1048576))
    measure "$group" "resident, 1 TiB volume, nothing cached" MiB true
    io ops/s --rw=write:252k --bs=4k --iodepth=32 --number_ios=$chunks --offset=64G --size=64G --buffer_pattern=0xbe
    after=$(awk '/VmRSS/ { print $2 * 1024 }' "/proc/$daemon/status")
    result=$(((after - before) / chunks))
    measure "$group" "memory for each of $chunks chunks cached" bytes true
    target_gone
    cache_size=''
    server_down
}
