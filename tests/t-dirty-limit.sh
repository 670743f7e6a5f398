#!/bin/bash
# limit: 90
# With the store away, writes go on up to the dirty limit and then wait; they resume with the store.
. "$(dirname "$0")/lib/common.sh"

STORE=s3d
start_volume --dirty-limit 8M --cache-size 64M
tool fill "$IMAGE" 0 1M 1
sync "$IMAGE"
s3d_fault down=1
tool fill "$IMAGE" 0 40M 2 &
writer=$!
wait_for 30 eval "[ \$(status dirty_bytes) -ge $((7 << 20)) ]"
failed=$(status requests.failed)
wait_for 60 eval "[ \$(status requests.failed) -ge $((failed + 3)) ]"
kill -0 $writer || fail "the writer did not wait"
within "$(status dirty_bytes)" $((7 << 20)) $((9 << 20)) "dirty bytes"
tool verify "$IMAGE" 0 1M 2
s3d_fault up=1
wait_for 60 eval "! kill -0 $writer"
wait $writer
tool verify "$IMAGE" 0 40M 2
umount_volume
new_cache
mount_volume
tool verify "$IMAGE" 0 40M 2
umount_volume
