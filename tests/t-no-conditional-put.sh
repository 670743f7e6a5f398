#!/bin/bash
# stores: s3rver
# A store that ignores If-None-Match: found out at create, warned about at every mount, and in status.
. "$(dirname "$0")/lib/common.sh"

need_root
use_store
s3vol create --size 64M "$URL" 2>&1 | tee "$T/said"
for n in 1 2; do
    mount_volume
    same "$(grep -c '^s3vol: warning.*twice\|^s3vol: warning.*conditional' "$DAEMON_LOG")" $n "warnings after $n mounts"
    same "$(status conditional_put)" false "conditional_put in status"
    umount_volume
done
