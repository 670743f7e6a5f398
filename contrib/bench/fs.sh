# The suites fs, gc and big, sourced.
# shellcheck shell=bash disable=SC2154

# ------------------------------------------------------------------------------------ fs

# The sources of s3vol itself, many times, as one git repository that can be compiled.
fs_tree() { # fs_tree COPIES
    local i tree=$T/tree
    {
        git -C "$top" archive --prefix=tree/ HEAD | tar -C "$T" -x &&
            mkdir "$tree/copies" &&
            for ((i = 0; i < $1; i++)); do git -C "$top" archive --prefix="copies/$i/" HEAD | tar -C "$tree" -x || return; done &&
            git -C "$tree" -c init.defaultBranch=main init -q && git -C "$tree" add -A &&
            git -C "$tree" -c user.name=bench -c user.email=bench -c gc.auto=0 commit -qm all &&
            tar -C "$T" -cf "$T/tree.tar" tree
    } || return
    rm -rf "$tree"
}

sqlite_transactions() {
    local i
    {
        echo "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE t (k INTEGER PRIMARY KEY, v TEXT);"
        for ((i = 0; i < transactions; i++)); do echo "INSERT INTO t (v) VALUES (hex(randomblob(100)));"; done
    } >"$T/sql"
    limited $limit sqlite3 "$fs/db" ".read $T/sql" >/dev/null
}

fs_untar() {
    limited $limit tar -C "$fs" -xf "$T/tree.tar" && limited $limit sync -f "$fs"
}

fs_status() {
    limited $limit git -C "$fs/tree" -c safe.directory='*' status --porcelain >/dev/null
}

fs_compile() {
    limited $limit make -C "$fs/tree" -j2 all >"$T/make.log" 2>&1 || { tail -n 5 "$T/make.log" >&2; return 1; }
}

fs_mount() {
    limited 60 mount -o discard "$dev" "$fs"
}

fs_workloads() {
    subject_new && loop_up || return
    measure mkfs s timed 1 limited $limit mkfs.ext4 -q "$dev"
    fs_mount || return
    measure "untar and sync" s timed 1 fs_untar
    limited $limit umount "$fs" && fs_mount || return # forgets it
    measure "git status" s timed 1 fs_status
    [ -n "$quick" ] || measure compile s timed 1 fs_compile
    measure "SQLite, small transactions" ops/s timed "$transactions" sqlite_transactions
}

fs_subject() {
    local rc=0
    fs_workloads || rc=1
    ! mountpoint -q "$fs" || limited 60 umount "$fs" || umount -l "$fs"
    subject_gone
    return $rc
}

suite_fs() {
    local round group name n=3 transactions=500 copies=20 fs=$T/fs servers=(s3d-far s3d)
    local subjects=(s3vol s3vol-cache plain barefuse-direct)
    [ -z "$quick" ] || { n=1 transactions=50 copies=4 servers=(s3d-far) subjects=(s3vol s3vol-cache plain); }
    say "fs: a tree"
    mkdir "$fs"
    fs_tree $copies || { failures=$((failures + 1)) && complain "fs: this is no git repository"; return; }
    disk_size=4G mount_options=''
    for name in "${servers[@]}"; do
        group="ext4 on loop, $name"
        for ((round = 1; round <= ${rounds:-$n}; round++)); do
            server_up "$name" || break
            each_subject fs_subject "${subjects[@]}"
            server_down
        done
    done
    rm "$T/tree.tar"
}

# ------------------------------------------------------------------------------------ gc

gc_stored() {
    result=$(limited 60 s3vol status --json "$url" | jq '.stored_bytes / .live_bytes')
}

gc_workloads() {
    subject_new && fill && subject_flush && again || return
    measure "overwritten $times times, 64 KiB, a flush each 16 MiB" MB/s io --rw=randwrite --bs=64k --iodepth=4 --size="$bytes" \
        --io_size=$((times * ${bytes%M}))M --fsync=256 --refill_buffers
    case $subject in s3vol*) measure "bytes stored for each live one, then" bytes gc_stored ;; esac
}

gc_subject() {
    local rc=0
    gc_workloads || rc=1
    subject_gone
    return $rc
}

suite_gc() {
    local round group="garbage, s3d-far" n=3 bytes=256M times=10 cap=120s subjects=(s3vol s3backer plain)
    [ -z "$quick" ] || { n=1 bytes=64M times=4 cap=10s; }
    disk_size=1G mount_options='--gc-grace 1s'
    for ((round = 1; round <= ${rounds:-$n}; round++)); do
        server_up s3d-far || return
        each_subject gc_subject "${subjects[@]}"
        server_down
    done
}

# ------------------------------------------------------------------------------------ big

resident() { # of the daemon, in bytes
    awk '/VmRSS/ { print $2 * 1024 }' "/proc/$daemon/status"
}

# An extent is a written block after one that is not.
big_mounts() {
    subject_new || return
    measure "$extents extents written, flush" ops/s io_flush --rw=write:4k --bs=4k --iodepth=32 --number_ios=$extents --size=16G \
        --buffer_pattern=0xbe
    for ((round = 1; round <= ${rounds:-$n}; round++)); do
        subject_umount || return
        measure "mount, warm, $extents extents" s timed 1 subject_mount
        subject_umount || return
        rm -rf "$cache"
        measure "mount, cold, $extents extents" s timed 1 subject_mount
    done
}

# A cached chunk costs the same however little of it is there: one block of each.
big_memory() {
    local before round=1
    subject_warm || return
    before=$(resident)
    measure "resident, 1 TiB volume" MiB given $((before >> 20))
    measure "one block of $chunks chunks written, flush" ops/s io_flush --rw=write:252k --bs=4k --iodepth=32 --number_ios=$chunks \
        --offset=64G --size=128G --buffer_pattern=0xbe
    measure "resident, $chunks chunks more cached" MiB given $(($(resident) >> 20))
}

big_subject() {
    local rc=0
    big_mounts && big_memory || rc=1
    subject_gone
    return $rc
}

# The cache is in memory: to delete a file of so many pieces takes minutes on a disk that is told of each.
suite_big() {
    local round=1 n=3 group="big, s3d-far" extents=1000000 chunks=400000 cache_size=100G cache_top=$T/big
    [ -z "$quick" ] || n=2 extents=100000 chunks=40000
    disk_size=1T mount_options=''
    server_up s3d-far || return
    if mkdir "$T/big" && mount -t tmpfs -o size=16G bench "$T/big"; then
        each_subject big_subject s3vol
        limited 60 umount "$T/big"
    fi
    server_down
}
