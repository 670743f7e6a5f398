# The suites path and store, sourced: what is done with the subjects, and in which order.
# shellcheck shell=bash disable=SC2154

fill() { # all of what will be used
    dd if=/dev/urandom of="$file" bs=1M count="${bytes%M}" conv=notrunc,fsync status=none
}

# ------------------------------------------------------------------------------------ path

# Everything cached: what the way through the kernel and the daemon costs, and nothing else.
path_once() {
    local o="--size=$bytes --time_based --runtime=${ms}ms --ramp_time=50ms"
    # shellcheck disable=SC2086
    {
        measure "sequential write 1 MiB, buffered" MB/s io --rw=write --bs=1M --direct=0 --ioengine=psync $o
        measure "sequential read 1 MiB" MB/s io --rw=read --bs=1M --iodepth=8 $o
        measure "random read 4 KiB, depth 1" ops/s io --rw=randread --bs=4k --iodepth=1 $o
        measure "random read 4 KiB, depth 16" ops/s io --rw=randread --bs=4k --iodepth=16 $o
        measure "random write 4 KiB, buffered" ops/s io --rw=randwrite --bs=4k --direct=0 --ioengine=psync $o
        measure "random write 4 KiB, depth 1" ops/s io --rw=randwrite --bs=4k --iodepth=1 $o
        measure "random write 4 KiB, depth 16" ops/s io --rw=randwrite --bs=4k --iodepth=16 $o
    }
}

path_new() {
    subject_new && fill
}

suite_path() {
    local round=0 bytes=256M ms=1000 n=5 group="path, image" subjects=(s3vol barefuse-direct barefuse plain)
    [ -z "$quick" ] || { bytes=64M ms=200 n=2 subjects=(s3vol barefuse-direct); }
    server_up dir || return
    disk_size=1G mount_options='--writeback-delay 1h'
    each_subject path_new "${subjects[@]}"
    for ((round = 1; round <= ${rounds:-$n}; round++)); do each_subject path_once "${subjects[@]}"; done
    group="path, loop"
    each_subject loop_up "${subjects[@]}"
    for ((round = 1; round <= ${rounds:-$n}; round++)); do each_subject path_once "${subjects[@]}"; done
    each_subject subject_gone "${subjects[@]}"
    server_down
}

# ------------------------------------------------------------------------------------ store

# Cold is cold three times: daemon, its cache and the kernel's.
store_reads() {
    local d
    measure "sequential read, warm from memory" MB/s io --rw=read --bs=1M --iodepth=8 --size="$bytes"
    subject_warm || return
    measure "sequential read, warm from disk" MB/s io --rw=read --bs=1M --iodepth=8 --size="$bytes"
    measure "random read 4 KiB, warm, depth 16" ops/s io --rw=randread --bs=4k --iodepth=16 --size="$bytes" --number_ios=5000
    subject_cold || return
    measure "sequential read, cold" MB/s io --rw=read --bs=1M --iodepth=8 --size="$bytes"
    for d in 1 16 64; do
        subject_cold || return
        measure "random read 4 KiB, cold, depth $d" ops/s io --rw=randread --bs=4k --iodepth=$d --size="$bytes" \
            --number_ios=$((reads * (d > 1 ? 4 : 1)))
    done
    subject_cold || return
    measure "boot-like reads, cold" ops/s boot
    measure "boot-like reads, again" ops/s boot
    subject_warm || return
    measure "boot-like reads, warm from disk" ops/s boot
}

# Many places, a few neighbours at each.
boot() {
    io --rw=randread:8 --bssplit=4k/60:16k/30:64k/10 --iodepth=4 --size="$bytes" --number_ios=$((reads * 4))
}

store_writes() {
    local written="--rw=randwrite --bs=4k --size=$disk_size --io_size=$scatter --refill_buffers" d
    # shellcheck disable=SC2086
    {
        measure "random write 4 KiB, buffered, flush" ops/s io_flush --direct=0 --ioengine=psync $written
        for d in 1 16; do
            again || return
            measure "random write 4 KiB, direct, depth $d, flush" ops/s io_flush --iodepth=$d $written
        done
    }
    again
}

store_fsyncs() {
    local jobs s3backer_sync=yes
    subject_warm && loop_up || return
    for jobs in 1 8; do
        measure "4 KiB write + fsync, threads: $jobs" ops/s io --rw=randwrite --bs=4k --fsync=1 --ioengine=psync \
            --numjobs=$jobs --thread --size="$bytes" --time_based --runtime="$fsync_s"
    done
    loop_down
}

store_workloads() {
    subject_new || return
    if [ "$subject" = s3vol-cache ]; then
        fill && subject_flush || return # as full as the others are by then
    else
        measure "sequential write, flush" MB/s io_flush --rw=write --bs=1M --iodepth=8 --size="$bytes" --refill_buffers
        again && store_reads && store_writes || return
    fi
    store_fsyncs
}

store_subject() {
    local rc=0
    store_workloads || rc=1
    subject_gone
    return $rc
}

# With as many connections as s3vol has by itself: 3 up, 16 down.
store_bare() {
    local d objects=$((${bytes%M} / 8))
    subject_use bare
    measure "sequential write, flush" MB/s bare_put $((8 << 20)) $objects 3
    measure "sequential read, cold" MB/s bare_get $((8 << 20)) $objects 16
    for d in 1 16 64; do
        measure "random read 4 KiB, cold, depth $d" ops/s bare_ranges 4096 $((reads * (d > 1 ? 4 : 1))) $d $objects
    done
    measure "4 KiB write + fsync, threads: 1" ops/s bare_put 8192 $reads 1
    measure "4 KiB write + fsync, threads: 8" ops/s bare_put 8192 $((reads * 4)) 8
}

# A server for each round: what was put there stays in its memory.
suite_store() {
    local name round group bytes=256M scatter=64M reads=500 fsync_s=5s n=3 cap=20s
    local servers=(s3d-far s3d radosgw) subjects=(s3vol s3vol-cache s3backer s3backer-4k plain)
    [ -z "$quick" ] || { n=1 reads=100 scatter=16M fsync_s=1s cap=4s servers=(s3d-far) subjects=(s3vol s3vol-cache s3backer plain); }
    disk_size=1G mount_options=''
    for name in "${servers[@]}"; do
        group="store, $name"
        for ((round = 1; round <= ${rounds:-$n}; round++)); do
            server_up "$name" || break
            store_bare
            each_subject store_subject "${subjects[@]}"
            server_down
        done
    done
}
