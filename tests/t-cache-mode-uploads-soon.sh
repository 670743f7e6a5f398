#!/bin/bash
# stores: dir s3d
# --sync cache: the bucket follows by itself, in order: it is a disk that once existed.
. "$(dirname "$0")/lib/common.sh"

new_volume
mount_volume --sync cache --writeback-delay 300ms
ledger write "$IMAGE" 8192 6000 1 100 >"$T/acknowledged"
wait_for 20 status_is dirty_bytes 0
kill_daemon
new_cache
mount_volume
same "$(ledger verify "$IMAGE" 8192 6000 1)" 6000 "operations in the bucket"
umount_volume
