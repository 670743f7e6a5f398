#!/bin/bash
# --timeout below s3vol-nbd: with the store away a FLUSH and a FUA write fail after that time; with the
# store back they succeed, for the same clients, and what was acknowledged is in the bucket.
. "$(dirname "$0")/lib/common.sh"
. "$(dirname "$0")/lib/nbd.sh"

STORE=s3d
start_volume --timeout 2s
start_nbd "$IMAGE"
hold_client # so that the image is not opened anew for each request
request() { # request ERROR FLAGS TYPE OFFSET LENGTH
    same "$(nbdpeer request "$SOCK" "${@:2}")" "$1" "error of request ${*:2}"
}
flushed() {
    [ "$(nbdpeer request "$SOCK" 0 $flush 0 0)" = 0 ]
}
EIO=5 fua=1 write=1 flush=3
request 0 0 $write 0 4096
request 0 0 $flush 0 0
s3d_fault down=1
tool fill "$IMAGE" 10M 1M 2
request $EIO 0 $flush 0 0
request $EIO $fua $write 0 4096
s3d_fault up=1
wait_for 30 flushed
request 0 $fua $write 0 4096
kill_daemon
new_cache
mount_volume
tool verify "$IMAGE" 10M 1M 2
same "$(head -c 4096 "$IMAGE" | tr -d '\0' | wc -c)" 0 "what was written"
