#!/bin/bash
# limit: 120
# Malformed handshakes and requests get the error that the protocol demands; whoever makes trouble, says
# half of something, takes no answers or disappears is not noticed by another client.
. "$(dirname "$0")/lib/common.sh"
. "$(dirname "$0")/lib/nbd.sh"

truncate -s 64M "$T/raw"
tool fill "$T/raw" 0 64M 1
start_nbd "$T/raw"

option() { # option REPLY FLAGS OPTION LENGTH HEX
    same "$(nbdpeer option "$SOCK" "${@:2}")" "$1" "reply to option ${*:2}"
}
ack=0x1 unsup=0x80000001 policy=0x80000002 invalid=0x80000003 unknown=0x80000006 too_big=0x80000009
option $ack 3 2 0 ""
option $ack 3 2 4 01020304
option $ack 3 3 0 ""
option $invalid 3 3 1 00
option $policy 3 5 0 ""
option $unsup 3 4 0 ""
option $unsup 3 11 0 ""
option $unsup 3 0xffffffff 3 000000
option $too_big 3 77 0x10001 zeroes
option closed 3 7 100 00000000
option closed 4 7 6 000000000000        # client flags that do not exist
option closed 0 7 6 000000000000        # not fixed newstyle: there is EXPORT_NAME only
option closed 3 1 5 6161616161          # no such export
option $ack 3 7 6 000000000000
option $ack 3 6 10 00000000000200030099
option $invalid 3 6 9 000000000002000300
option $invalid 3 6 6 ffffffff0000
option $invalid 3 6 6 000000000001
option $invalid 3 6 7 00000001000000    # NUL in a name
option $unknown 3 6 7 00000001610000
option $invalid 3 8 1 00
option $invalid 3 10 8 0000000000000000 # before structured replies

request() { # request ERROR FLAGS TYPE OFFSET LENGTH
    same "$(nbdpeer request "$SOCK" "${@:2}")" "$1" "error of request ${*:2}"
}
EINVAL=22 ENOSPC=28 EOVERFLOW=75
request 0 0 0 0 4096
request 0 0 0 0 0
request 0 0 0 0 33554432
request 0 0 0 67108863 1
request $EINVAL 0 0 67108863 2
request $EINVAL 0 0 67108864 1
request $EINVAL 0 0 0xffffffffffffffff 4096
request $EINVAL 0 0 0 33554433
request $EINVAL 4 0 0 4096     # DF without structured replies
request $EINVAL 32 0 0 4096    # an unknown flag
request $EINVAL 2 1 0 4096     # NO_HOLE is not for WRITE
request $ENOSPC 0 1 67108860 8
request $ENOSPC 0 1 0xfffffffffffff000 8192
request $EINVAL 0 1 0 33554433
request 0 1 3 0 0
request $EINVAL 0 3 0 1
request $EINVAL 0 3 1 0
request $EINVAL 0 4 67108000 4096
request $ENOSPC 0 6 67108000 4096
request $EINVAL 8 6 0 4096
request 0 0 5 0 33554432
request $EOVERFLOW 0 5 0 33554433
request $EINVAL 0 5 67108864 1
request $EINVAL 0 7 0 4096     # no metadata context
request $EINVAL 0 8 0 0
request $EINVAL 0 0xffff 0 0
tool verify "$T/raw" 0 64M 1
stop_nbd

# One at work, the others a nuisance.
truncate -s 64M "$T/nice"
start_nbd --max-connections 40 nice="$T/nice" "$T/raw"
(
    fio --name=verify --verify_state_save=0 --ioengine=nbd --uri="$(uri nice)" --rw=randrw --bs=4k --iodepth=16 --size=32M --loops=2 \
        --verify=crc32c --verify_fatal=1 >"$T/fio.out" 2>&1 && grep -q 'err= 0' "$T/fio.out"
) &
fio=$!
mkfifo "$T/stall"
nbdpeer stall "$SOCK" 8 <"$T/stall" >"$T/stalled" &
exec 7>"$T/stall"
wait_for 20 grep -qx stalled "$T/stalled"
nbdpeer rampage "$SOCK" 300
nbdpeer rampage "$SOCK" 300 &
nbdpeer rampage "$SOCK" 300
wait $!
wait $fio || { cat "$T/fio.out"; fail "the client at work noticed"; }
nbdcopy "$(uri nice)" "$T/copy"
cmp "$T/copy" "$T/nice"
kill -0 $NBD || fail "the server is gone"
rss=$(awk '/VmHWM/ { print int($2 / 1024) }' "/proc/$NBD/status")
case $B in *address* | *thread*) ;; *) within "$rss" 1 200 "MiB of memory" ;; esac
exec 7>&-
wait_for 20 connections 0
stop_nbd
