#!/bin/bash
# limit: 120
# quick
# The store flips bits, sends garbage of the right length, or another length: right bytes or EIO, never
# wrong bytes; when it is honest again, so is the volume.
. "$(dirname "$0")/lib/common.sh"

STORE=s3d
start_volume
tool fill "$IMAGE" 0 16M 1
umount_volume
for lie in 'flip=1' 'garbage=1' 'cut=3000'; do
    new_cache
    mount_volume --timeout 3s --read-ahead 0
    s3d_fault "$lie&method=GET&match=log/&p=0.5&seed=7"
    for mib in $(seq 0 15); do
        tool verify "$IMAGE" ${mib}M 1M 1 >"$T/said" 2>&1 || grep -qi 'Input/output\|timed out' "$T/said" ||
            fail "$lie: $(cat "$T/said")"
    done
    s3d_clear
    tool verify "$IMAGE" 0 16M 1
    umount_volume
    # Attaching itself.
    new_cache
    s3d_fault "$lie&method=GET&p=0.7&seed=9"
    if timeout 30 s3vol mount --cache-dir "$CACHE" "$URL" "$MNT" >"$T/said" 2>&1; then
        s3d_clear
        tool verify "$IMAGE" 0 16M 1
        s3vol umount "$MNT"
    else
        s3d_clear
        same "$(grep -vc '^s3vol: warning' "$T/said")" 1 "lines that mount said"
    fi
done
s3vol check "$URL"
