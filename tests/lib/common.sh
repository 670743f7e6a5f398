# Sourced by every tests/t-*.sh. tests/run gives it: T, a scratch directory; STORE, which kind of
# store to use; B, where the binaries are; SERVERS, what the shared servers said. Without tests/run
# (`sudo tests/t-….sh`) it finds its own. A test ends with an error at the first command that fails.
#
# The test's volume is $URL; mount_volume shows it as $IMAGE. A second mount is a second shell with
# other variables: `MNT=$T/mnt2 CACHE=$T/cache2 mount_volume`.
# shellcheck shell=bash
set -eEuo pipefail
TOP=${TOP:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}
B=${B:-$TOP/build/release}
NAME=${NAME:-$(basename "$0" .sh)}
STORE=${STORE:-dir}
SLOW=${SLOW:-1}
PATH=$B:$B/tests:$TOP/tests/lib:/usr/sbin:/sbin:$PATH
if [ -z "${T:-}" ]; then
    T=$(mktemp -d "${TMPDIR:-/var/tmp}/$NAME.XXXXXX")
    own_scratch=$T
fi
MNT=$T/mnt CACHE=$T/cache IMAGE=$T/mnt/image
export T PATH

# ------------------------------------------------------------------------------------ outcomes

fail() {
    echo "FAIL: $*" >&2
    exit 1
}

skip() {
    echo "$*" >"$T/skip"
    echo "SKIP: $*"
    exit 77
}

need_root() {
    [ "$(id -u)" = 0 ] || skip "needs root"
    [ -c /dev/fuse ] || skip "needs /dev/fuse"
}

need() {
    local c
    for c; do
        command -v "$c" >/dev/null || skip "needs $c: sudo contrib/setup test"
    done
}

need_fs() {
    grep -qw "$1" /proc/filesystems || modprobe -q "$1" 2>/dev/null || skip "the kernel has no $1"
}

# same A B [WHAT]: two words are equal.
same() {
    [ "$1" = "$2" ] || fail "${3:-value}: is $1, should be $2"
}

# within N LOW HIGH [WHAT]
within() {
    [ "$1" -ge "$2" ] && [ "$1" -le "$3" ] || fail "${4:-value}: is $1, should be from $2 to $3"
}

# wait_for SECONDS COMMAND…: until it succeeds; fails when it has not by then.
wait_for() {
    local deadline=$((SECONDS + $1 * SLOW))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -le $deadline ] || fail "waited in vain for: $*"
        sleep 0.05
    done
}

# refused PATTERN COMMAND…: it fails by itself (exit 1 or 2) within 30 s, having said one line, which
# contains the pattern. The line is in $REFUSED.
REFUSED=$T/refused
refused() {
    local pattern=$1 rc=0
    shift
    timeout $((30 * SLOW)) "$@" >"$REFUSED.all" 2>&1 || rc=$?
    cat "$REFUSED.all"
    within $rc 1 2 "exit code of $*"
    grep -v '^s3vol: warning' "$REFUSED.all" >"$REFUSED" || :
    same "$(wc -l <"$REFUSED")" 1 "number of lines that $* said"
    grep -qiE -- "$pattern" "$REFUSED" || fail "$*: the message does not say '$pattern'"
}

# check_finds OBJECT: s3vol check says that this one is damaged, and exits 1.
check_finds() {
    local rc=0
    timeout $((60 * SLOW)) s3vol check "$URL" >"$T/check.out" 2>&1 || rc=$?
    cat "$T/check.out"
    same $rc 1 "exit code of check"
    grep -qF -- "$1" "$T/check.out" || fail "check does not name $1"
}

# eio COMMAND…: fails with an I/O error.
eio() {
    local rc=0
    "$@" >"$T/eio.out" 2>&1 || rc=$?
    [ $rc != 0 ] && grep -qiE 'input/output error|EIO|fsync failed|connection timed out' "$T/eio.out" ||
        { cat "$T/eio.out"; fail "no I/O error (exit $rc) from: $*"; }
}

# ---------------------------------------------------------------------------------- the volume

# Sets URL, of a volume that does not exist yet, in the store that the test was asked to use.
use_store() {
    case $STORE in
    dir) URL=$T/bucket/vm1 && mkdir -p "$T/bucket" ;;
    s3d) start_s3d && URL=s3://$S3_BUCKET/${NAME%@*}/vm1 ;;
    radosgw) use_radosgw && URL=s3://$S3_BUCKET/${NAME%@*}-$$-$RANDOM/vm1 ;;
    s3rver) use_s3rver && URL=s3://$S3_BUCKET/${NAME%@*}-$$-$RANDOM/vm1 ;;
    *) fail "STORE=$STORE: there is dir, s3d, radosgw, s3rver" ;;
    esac
    export URL
}

# new_volume [OPTIONS of create]
new_volume() {
    need_root
    use_store
    s3vol create --size 1G "$@" "$URL"
}

# mount_volume [OPTIONS of mount]: the daemon is a child in the foreground, so that what it says and
# how it ends is seen; sets IMAGE and DAEMON. What it said is in $DAEMON_LOG.
mount_volume() {
    mkdir -p "$MNT" "$CACHE"
    IMAGE=$MNT/image
    DAEMON_LOG=$T/daemon-${MNT##*/}.log
    (
        cd "$T" && ulimit -c unlimited
        exec s3vol mount -f --cache-dir "$CACHE" "$@" "$URL" "$MNT" >>"$DAEMON_LOG" 2>&1
    ) &
    DAEMON=$!
    local deadline=$((SECONDS + 30 * SLOW))
    until [ -f "$IMAGE" ]; do
        kill -0 $DAEMON 2>/dev/null || { cat "$DAEMON_LOG"; fail "mount failed"; }
        [ $SECONDS -le $deadline ] || { cat "$DAEMON_LOG"; fail "mounting takes too long"; }
        sleep 0.02
    done
}

start_volume() {
    new_volume
    mount_volume "$@"
}

# umount_volume [OPTIONS of umount]: and the daemon must end well.
umount_volume() {
    s3vol umount "$@" "$MNT"
    daemon_ends 0
}

# daemon_ends CODE: it has ended, or does so soon, with this code.
daemon_ends() {
    local rc=0
    wait_for 60 eval "! kill -0 $DAEMON"
    wait $DAEMON || rc=$?
    same $rc "$1" "exit code of the daemon"
    ! mountpoint -q "$MNT" || fail "$MNT is still mounted"
}

# As if the machine had lost power, but for the page cache.
kill_daemon() {
    kill -KILL $DAEMON
    wait $DAEMON 2>/dev/null || :
    umount -l "$MNT" 2>/dev/null || :
}

# A volume that is mounted again: with its cache, or with `new_cache`, which loses it.
new_cache() {
    rm -rf "$CACHE"
}

remount_volume() {
    umount_volume
    mount_volume "$@"
}

# status KEY: dirty_bytes, requests.put, …
status() {
    s3vol status --json "$MNT" | jq -r ".$1"
}

status_is() {
    [ "$(status "$1")" = "$2" ]
}

# All requests so far.
requests() {
    s3vol status --json "$MNT" | jq '.requests | .get + .put + .head + .list + .delete'
}

# ------------------------------------------------------------------------------- loop devices

# attach_loop [OPTIONS of losetup] [FILE]: sets LOOP.
attach_loop() {
    local file=$IMAGE
    if [ $# -gt 0 ] && [ -f "${!#}" ]; then file=${!#} && set -- "${@:1:$#-1}"; fi
    LOOP=$(losetup -f --show "$@" "$file") || skip "no loop device"
    echo "$LOOP $(losetup -nO BACK-INO,BACK-MAJ:MIN "$LOOP" | xargs)" >>"$T/loops"
}

# detach_loop [DEVICE]
detach_loop() {
    losetup -d "${1:-$LOOP}"
    forget_loop "${1:-$LOOP}"
    # The kernel lets go of the file a moment later; until then the volume is busy.
    wait_for 20 eval "! losetup -n ${1:-$LOOP} | grep -q ."
}

# After the daemon was killed: a device of which the kernel tells nothing any more.
drop_loop() {
    wait_for 20 losetup -d "$LOOP"
    forget_loop "$LOOP"
}

# Another test's device may look the same soon, as inode numbers and device numbers are used again,
# and must not be detached when this test ends.
forget_loop() {
    sed -i "\\|^$1 |d" "$T/loops"
}

# Some thousands of real files, as a tar stream.
real_files() {
    tar -C /usr -c include
}

# files_of DIR: a checksum of every file in it, by relative name.
files_of() {
    (cd "$1" && find . -type f -not -path './lost+found/*' -print0 | sort -z | xargs -0 -r sha256sum)
}

# ------------------------------------------------------------------------------------- the end

# Ends what the test started, in reverse; nothing here may hang or change the outcome.
cleanup() {
    local rc=$? m
    trap - EXIT ERR
    trap '' INT TERM
    set +eE
    if [ $rc != 0 ] && [ $rc != 77 ] && mountpoint -q "$MNT"; then
        timeout 5 s3vol status "$MNT" 2>&1 | sed 's/^/status: /'
    elif [ $rc != 0 ] && [ $rc != 77 ] && [ -n "${DAEMON:-}" ] && ! kill -0 "$DAEMON" 2>/dev/null; then
        wait "$DAEMON"
        echo "the daemon ended with status $?"
        [ ! -e "$T/core" ] || gdb -q -batch -ex "bt 20" "$B/s3vol" "$T/core" 2>/dev/null | tail -n 22
    fi
    if declare -F on_exit >/dev/null; then on_exit; fi
    jobs -p >"$T/jobs" && disown -a 2>/dev/null # which says nothing about how they end
    xargs -r kill -KILL <"$T/jobs" 2>/dev/null
    for m in $(awk -v t="$T/" 'index($2, t) == 1 { print $2 }' /proc/self/mounts | tac); do
        timeout 10 umount "$m" 2>/dev/null || umount -l "$m"
    done
    if [ -n "${own_scratch:-}" ]; then
        awk '{ print $1 }' "$T/loops" 2>/dev/null | while read -r m; do losetup -d "$m" 2>/dev/null; done
        [ $rc != 0 ] && [ $rc != 77 ] && echo "left for you: $T" >&2 || rm -rf --one-file-system "$own_scratch"
    fi
    exit $rc
}
trap cleanup EXIT
trap 'echo "FAIL: ${BASH_SOURCE[0]##*/} line $LINENO: $BASH_COMMAND" >&2' ERR
trap 'echo "stopped from outside, in: $BASH_COMMAND" >&2; exit 143' INT TERM

# shellcheck source=tests/lib/servers.sh
[ ! -f "$TOP/tests/lib/servers.sh" ] || . "$TOP/tests/lib/servers.sh"
