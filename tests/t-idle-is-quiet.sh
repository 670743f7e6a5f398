#!/bin/bash
# stores: dir s3d radosgw
# limit: 150
# An idle mounted volume makes no request at all.
. "$(dirname "$0")/lib/common.sh"

quiet_for() { # quiet_for SECONDS
    local before
    before=$(requests)
    sleep "$1"
    same "$(requests)" "$before" "requests after $1 idle seconds"
}

start_volume --writeback-delay 1s
tool fill "$IMAGE" 0 4M 1
sync "$IMAGE"
tool fill "$IMAGE" 8M 4M 1 # written back without being asked to
wait_for 20 status_is dirty_bytes 0
if [ -n "${LONG:-}" ]; then quiet_for 60; else quiet_for 8; fi
# Nor do reads of what is cached.
before=$(requests)
tool verify "$IMAGE" 0 4M 1
same "$(requests)" "$before" "requests after cached reads"
umount_volume
