#!/bin/bash
# stores: dir radosgw
# Shared and private mappings of the image, mixed with reads and writes; what msync has returned for
# is in the bucket.
. "$(dirname "$0")/lib/common.sh"

start_volume
tool mirror "$IMAGE" "$T/ref" 8M 500 1 mmap
tool mirror "$IMAGE" "$T/ref" 8M 500 2 private
tool mirror "$IMAGE" "$T/ref" 8M 500 3 mmap
sync "$IMAGE"
cmp -n 8M "$IMAGE" "$T/ref"
remount_volume --writeback-delay 1h
tool mirror "$IMAGE" "$T/ref" 8M 200 4 msync
kill_daemon
new_cache
mount_volume
tool mirror "$IMAGE" "$T/ref" 8M 0 5 plain || fail "msync returned before the bytes were in the bucket"
umount_volume
