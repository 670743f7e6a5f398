#!/bin/bash
# stores: dir s3d
# quick
# Bits of the slots flip: what the bucket has is read from there again, under a running mount and after
# one; what it has not is an error that names the bytes, and is never uploaded.
. "$(dirname "$0")/lib/common.sh"

# flip_slots: a byte in the second block of each chunk of the cache.
flip_slots() {
    local at
    for ((at = 5000; at < $(stat -c %s "$slots"); at += 256 * 1024)); do tool flip "$slots" $at; done
}

# daemon_said PATTERN
daemon_said() {
    grep -qE -- "$1" "$DAEMON_LOG" || { cat "$DAEMON_LOG"; fail "the daemon did not say '$1'"; }
}

start_volume --direct-io
slots=$(status cache_dir)/slots
tool fill "$IMAGE" 0 8M 1
sync -d "$IMAGE"
flip_slots
wait_for 30 tool verify "$IMAGE" 0 8M 1 # what is not in the index yet cannot be fetched
within "$(status cache_errors)" 32 1000 "cache errors"
daemon_said "/slots: chunk 31, blocks 1 to 1 \(bytes 8130560 to 8134655 .*fetching"
umount_volume

flip_slots
mount_volume --direct-io
before=$(status requests.get)
tool verify "$IMAGE" 0 8M 1
same "$(status cache_errors)" 32 "cache errors"
within "$(status requests.get)" $((before + 1)) $((before + 40)) "GETs"
s3vol status "$MNT" | grep -q "32 blocks came back damaged" || fail "status does not tell"
tool verify "$IMAGE" 0 8M 1
same "$(status cache_errors)" 32 "cache errors when all is well again"

tool fill "$IMAGE" 0 4K 2
tool fill "$IMAGE" 4K 4K 2
umount_volume --keep-local
tool flip "$slots" 5000
for go in first second; do
    mount_volume --direct-io
    eio tool verify "$IMAGE" 4K 4K 2
    tool verify "$IMAGE" 0 4K 2
    tool verify "$IMAGE" 8K 8184K 1
    eio sync -d "$IMAGE"
    wait_for 30 status_is state damaged
    daemon_said "bytes 4096 to 8191 of the volume.*lost.*--discard-local"
    tool verify "$IMAGE" 0 4K 2
    rc=0
    s3vol umount "$MNT" || rc=$?
    same $rc 1 "exit code of the $go umount"
    daemon_ends 1
done
mount_volume --direct-io --discard-local
tool verify "$IMAGE" 0 8M 1
tool fill "$IMAGE" 0 4M 3
umount_volume
new_cache
mount_volume
tool verify "$IMAGE" 0 4M 3
tool verify "$IMAGE" 4M 4M 1
