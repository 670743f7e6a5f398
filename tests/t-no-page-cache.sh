#!/bin/bash
# quick
# From Linux 6.6 on the image is open for direct I/O: every read reaches the daemon.
. "$(dirname "$0")/lib/common.sh"

[ "$(uname -r | awk -F. '{ print $1 * 100 + $2 }')" -ge 606 ] || skip "needs Linux 6.6"
start_volume
tool fill "$IMAGE" 0 8M 1
hits=$(status hits)
head -c 8M "$IMAGE" >/dev/null
within $(($(status hits) - hits)) 2048 3000 "blocks read"
hits=$(status hits)
head -c 8M "$IMAGE" >/dev/null
within $(($(status hits) - hits)) 2048 3000 "blocks read again"
umount_volume
