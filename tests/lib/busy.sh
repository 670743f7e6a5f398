# A file system on a loop device over the image, with a diary (tests/diary.c) and an SQLite database that
# are written all the time, each change waited for until it is safe. For tests in which something
# happens meanwhile.
# shellcheck shell=bash disable=SC2154

FS=$T/fs BUSY=()
declare -A FLOOR=([diary]=0 [sqlite]=0) # what must be found

# mount_busy [OPTIONS of losetup]
mount_busy() {
    attach_loop "$@"
    mkdir -p "$FS"
    mount "$LOOP" "$FS"
}

# new_busy SEED [OPTIONS of losetup]
new_busy() {
    BUSY_SEED=$1
    shift
    attach_loop "$@"
    mkfs.ext4 -q -E lazy_itable_init=0 "$LOOP"
    mkdir -p "$FS"
    mount "$LOOP" "$FS"
    mkdir "$FS/diary"
    sqlite3 "$FS/db" 'create table t(n integer primary key, b blob)'
    sync -f "$FS"
}

sqlite_changes() { # sqlite_changes FROM JOURNAL_MODE
    local n
    echo "pragma journal_mode=$2; pragma synchronous=full;"
    for ((n = $1; ; n++)); do
        echo "begin; insert into t values($n, randomblob(3000)); delete from t where n < $n - 300; commit; select $n;"
    done
}

# start_busy: they go on from what FLOOR says is there. (With journal_mode=delete SQLite does not wait
# until it is safe that the journal is gone.)
start_busy() {
    local modes=(wal truncate persist)
    rm -f "$T"/busy.*
    diary write "$FS/diary" "$BUSY_SEED" $((FLOOR[diary] + 1)) >"$T/busy.diary" 2>"$T/busy.said" &
    BUSY=($!)
    sqlite_changes $((FLOOR[sqlite] + 1)) "${modes[RANDOM % 3]}" 2>/dev/null |
        stdbuf -oL sqlite3 -bail "$FS/db" >"$T/busy.sqlite" 2>>"$T/busy.said" &
    BUSY+=($!)
}

# acknowledged diary|sqlite: the last change that was called safe.
acknowledged() {
    { echo "${FLOOR[$1]}" && sed -n '/^[0-9]*$/p' "$T/busy.$1" 2>/dev/null || :; } | tail -n 1
}

# set_floor: what is called safe now must be found later.
set_floor() {
    FLOOR=([diary]=$(acknowledged diary) [sqlite]=$(acknowledged sqlite))
}

# busy_goes_on N: waits for N more changes of each.
busy_goes_on() {
    local d s
    d=$(($(acknowledged diary) + $1)) s=$(($(acknowledged sqlite) + $1))
    wait_for 60 eval "[ \$(acknowledged diary) -ge $d ] && [ \$(acknowledged sqlite) -ge $s ]"
}

# Those who write ended by themselves, because they got errors, or are stopped now.
end_busy() {
    local pid
    for pid in "${BUSY[@]}"; do
        kill "$pid" 2>/dev/null || :
        wait "$pid" 2>/dev/null || :
    done
    BUSY=()
}

# verify_busy: what is there is of one instant, and not less than FLOOR says; then that is the new floor.
verify_busy() {
    local n
    n=$(diary verify "$FS/diary" "$BUSY_SEED")
    [ "$n" -ge "${FLOOR[diary]}" ] || fail "the diary ends with $n; ${FLOOR[diary]} was acknowledged"
    FLOOR[diary]=$n
    same "$(sqlite3 "$FS/db" 'pragma integrity_check')" ok "SQLite's integrity_check"
    same "$(sqlite3 "$FS/db" 'select count(*) - (max(n) - min(n) + 1) from t')" "0" "rows that are missing"
    n=$(sqlite3 "$FS/db" 'select ifnull(max(n), 0) from t')
    [ "$n" -ge "${FLOOR[sqlite]}" ] || fail "SQLite ends with $n; ${FLOOR[sqlite]} was acknowledged"
    FLOOR[sqlite]=$n
}

# umount_busy: and e2fsck has nothing to say.
umount_busy() {
    umount "$FS"
    e2fsck -fn "$LOOP" >"$T/e2fsck.out" 2>&1 || { cat "$T/e2fsck.out"; fail "e2fsck finds something"; }
    detach_loop
}

# After the daemon was killed.
drop_busy() {
    end_busy
    umount -l "$FS"
    drop_loop
}
