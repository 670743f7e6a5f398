# Sourced by the tests of s3vol-nbd: starts a server, and knows its URIs.
# shellcheck shell=bash
need nbdinfo nbdcopy qemu-img qemu-io fio jq

SOCK=$T/nbd.sock
URI="nbd+unix:///?socket=$SOCK"

# start_nbd WORDS…: in the background on $SOCK, until it is ready; sets NBD. What it says is in $T/nbd.log.
start_nbd() {
    rm -f "$T/nbd.pid"
    s3vol-nbd --unix "$SOCK" --pid-file "$T/nbd.pid" "$@" >>"$T/nbd.log" 2>&1 &
    NBD=$!
    wait_for 20 nbd_is_up
}

nbd_is_up() {
    [ -s "$T/nbd.pid" ] || ! kill -0 $NBD
}

# stop_nbd [CODE]: asks it to end, and it ends so.
stop_nbd() {
    kill -TERM $NBD
    nbd_ends "${1:-0}"
}

nbd_ends() {
    local rc=0
    wait_for 60 eval "! kill -0 $NBD"
    wait $NBD || rc=$?
    same $rc "$1" "exit code of s3vol-nbd"
    [ "$rc" != 0 ] || [ ! -e "$T/nbd.pid" ] || fail "the process id file is still there"
    [ "$rc" != 0 ] || [ ! -e "$SOCK" ] || fail "the socket is still there"
}

# uri NAME
uri() {
    echo "nbd+unix:///$1?socket=$SOCK"
}

# connections N: the server has so many.
connections() {
    [ "$(find "/proc/$NBD/fd" -lname 'socket:*' | wc -l)" = $(($1 + ${LISTENERS:-1})) ]
}

# A client that is there until file 7 is closed, and then writes; sets HOLDER.
hold_client() {
    rm -f "$T/hold" && mkfifo "$T/hold"
    nbdpeer hold "$SOCK" <"$T/hold" >"$T/held" 7>&- &
    HOLDER=$!
    exec 7>"$T/hold"
    wait_for 20 grep -qx in "$T/held"
}
