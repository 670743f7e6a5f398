#!/bin/bash
# How the server comes and goes: options that make no sense, default and given sockets, socket
# activation, readiness, --single, --stdin, --read-only, --max-connections, the process id file, signals.
. "$(dirname "$0")/lib/common.sh"
. "$(dirname "$0")/lib/nbd.sh"

truncate -s 16M "$T/raw"
tool fill "$T/raw" 0 1M 1
s3vol-nbd --version | grep -qE '^s3vol-nbd [0-9]+\.[0-9]+' || fail "--version"
s3vol-nbd --help | grep -q -- --tls-ca || fail "--help"
refused 'nothing to serve' s3vol-nbd
refused 'no such option' s3vol-nbd --nonsense "$T/raw"
refused 'value is missing' s3vol-nbd --unix
refused 'max-connections' s3vol-nbd --max-connections 0 "$T/raw"
refused '--grace.*not a time' s3vol-nbd --grace soon "$T/raw"
refused 'not a size' s3vol-nbd --volumes "$T" --mount-dir "$T" --create-size big
refused 'go together' s3vol-nbd --volumes "$T"
refused 'go together' s3vol-nbd --mount-dir "$T" "$T/raw"
refused '--mount-dir .*nothing' s3vol-nbd --unix "$SOCK" --volumes "$T" --mount-dir "$T/nothing"
refused 'need --tls-cert' s3vol-nbd --tls-key "$T/raw" "$T/raw"
refused '--stdin goes with' s3vol-nbd --stdin --unix "$SOCK" "$T/raw"
refused 'No such file' s3vol-nbd --unix "$SOCK" "$T/nothing"
refused 'directory' s3vol-nbd --unix "$SOCK" "$T"
refused 'neither a file' s3vol-nbd --unix "$SOCK" /dev/null
mkfifo "$T/fifo"
refused 'neither a file' s3vol-nbd --unix "$SOCK" "$T/fifo"
refused 'same name' s3vol-nbd --unix "$SOCK" a="$T/raw" a="$T/raw"
refused 'cannot listen' s3vol-nbd --unix "$T/raw" "$T/raw"
refused 'write ADDR:PORT' s3vol-nbd --listen nowhere.invalid:1 "$T/raw"
[ -f "$T/raw" ] || fail "the file in the way of a socket is gone"
[ ! -e "$SOCK" ] || fail "a socket is left"

# Names; the socket is for its owner only; who is second is refused; a socket that is left over is not.
start_nbd one="$T/raw" two="$T/raw"
same "$(stat -c %a "$SOCK")" 600 "mode of the socket"
same "$(cat "$T/nbd.pid")" "$NBD" "process id file"
refused 'somebody else' s3vol-nbd --unix "$SOCK" "$T/raw"
nbdinfo --list --json "$URI" | jq -e '[.exports[]."export-name"] == ["one", "two"]' >/dev/null || fail "--list"
nbdinfo "$(uri two)" >"$T/info"
! nbdinfo "$URI" 2>"$T/info" || fail "there is no default among two"
kill -KILL $NBD
wait $NBD || :
start_nbd one="$T/raw"
nbdinfo "$URI" >"$T/info" # the only one is the default

# --read-only.
stop_nbd
start_nbd --read-only "$T/raw"
nbdinfo --json "$URI" | jq -e '.exports[0] | .is_read_only and (.can_trim | not) and (.can_zero | not)' >/dev/null || fail "read-only"
for request in "0 1 0 4096" "0 4 0 4096" "0 6 0 4096"; do
    # shellcheck disable=SC2086
    same "$(nbdpeer request "$SOCK" $request)" 1 "error of a write (EPERM)"
done
stop_nbd

# TCP: loopback by default; several at once.
port=$(free_port)
start_nbd --listen "$port" --listen "127.0.0.2:$port" "$T/raw"
nbdinfo "nbd://localhost:$port" >"$T/info"
nbdinfo "nbd://127.0.0.2:$port" >"$T/info"
! grep -qi "00000000:$(printf %04X "$port")" /proc/net/tcp || fail "listens on all addresses"
stop_nbd

# --single, --max-connections: the others wait.
start_nbd --single "$T/raw"
nbdinfo --size "$URI" >"$T/info" # makes one connection
nbd_ends 0
start_nbd --max-connections 1 "$T/raw"
hold_client
nbdinfo --size "$URI" >"$T/size" 7>&- &
waiting=$!
# It is there (02: connected, and not accepted; 03: accepted), and has no answer after another one has all of its.
wait_for 20 eval "[ -s '$T/size' ] || [ \$(grep -c ' 0[23] *[0-9]* $SOCK\$' /proc/net/unix) = 2 ]"
nbdinfo --size -- [ s3vol-nbd "$T/raw" ] >"$T/info" 7>&-
[ ! -s "$T/size" ] && kill -0 $waiting || fail "the second client did not wait"
exec 7>&-
wait $waiting
same "$(cat "$T/size")" 16777216 "what the second client was told"
tool verify "$T/raw" 4096 $(((1 << 20) - 4096)) 1
same "$(head -c 4096 "$T/raw" | tr -d x | wc -c)" 0 "what the first client wrote"

# SIGTERM: idle clients are sent away, and nothing is left.
hold_client
stop_nbd
exec 7>&-
! wait $HOLDER || fail "the client did not notice"

# --stdin, with a socket and with pipes.
nbdinfo --size -- [ s3vol-nbd --stdin "$T/raw" ] >"$T/size" 2>&1 || :
mkfifo "$T/there" "$T/back"
s3vol-nbd --stdin "$T/raw" <"$T/there" >"$T/back" 2>>"$T/nbd.log" &
NBD=$!
exec 8>"$T/there" 9<"$T/back"
same "$(head -c 8 <&9)" NBDMAGIC "greeting on standard output"
exec 8>&- 9<&-
nbd_ends 0

# Socket activation, as systemd does it (libnbd does the same), and what is told to systemd.
nbdinfo --json -- [ s3vol-nbd "$T/raw" ] | jq -e '.exports[0]."export-size" == 16777216' >/dev/null || fail "socket activation"
! nbdinfo -- [ s3vol-nbd --unix "$SOCK" "$T/raw" ] >"$T/info" 2>&1 || fail "socket activation and --unix"
grep -q 'handed over' "$T/info" || fail "socket activation and --unix: $(cat "$T/info")"
refused 'no listening socket' bash -c "LISTEN_PID=\$\$ LISTEN_FDS=1 exec s3vol-nbd '$T/raw' 3</dev/null"
nbdpeer notified "$T/notify" 2 >"$T/notified" &
wait_for 20 test -S "$T/notify"
NOTIFY_SOCKET=$T/notify start_nbd "$T/raw"
wait_for 20 grep -qx READY=1 "$T/notified"
! grep -qx STOPPING=1 "$T/notified" || fail "stopping too early"
stop_nbd
wait_for 20 grep -qx STOPPING=1 "$T/notified"
