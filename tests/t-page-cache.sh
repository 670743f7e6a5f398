#!/bin/bash
# quick
# --no-direct-io, and kernels before 6.6: reads and writes of all kinds through the page cache agree; what
# is read again does not reach the daemon, and O_SYNC does.
. "$(dirname "$0")/lib/common.sh"

start_volume --no-direct-io
tool mirror "$IMAGE" "$T/ref" 8M 200 1 direct
tool mirror "$IMAGE" "$T/ref" 8M 200 2 plain
tool mirror "$IMAGE" "$T/ref" 8M 200 3 mmap
tool mirror "$IMAGE" "$T/ref" 8M 200 4 sync
cmp -n 8M "$IMAGE" "$T/ref"
sync "$IMAGE"
head -c 8M "$IMAGE" >/dev/null
hits=$(status hits)
head -c 8M "$IMAGE" >/dev/null
# 2048 blocks; the kernel may have dropped some.
within $(($(status hits) - hits)) 0 200 "blocks read when all is in the page cache"
commits=$(status commits)
dd if=/dev/urandom of="$IMAGE" bs=4k count=5 oflag=dsync conv=notrunc status=none
within $(($(status commits) - commits)) 5 6 "commits of 5 synchronous writes"
dd if=/dev/urandom of="$IMAGE" bs=4k count=5 oflag=direct,dsync conv=notrunc status=none
within $(($(status commits) - commits)) 10 12 "commits of 5 more, with O_DIRECT"
umount_volume
