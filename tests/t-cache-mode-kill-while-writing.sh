#!/bin/bash
# stores: dir
# limit: 120
# --sync cache, killed in the middle of writes and uploads, cache kept: all that was acknowledged is
# there, and no block is torn.
. "$(dirname "$0")/lib/common.sh"

new_volume
for round in 1 2 3 4; do
    : >"$T/note"
    mount_volume --sync cache --writeback-delay 100ms
    for n in $(seq 0 20000); do
        tool fill "$IMAGE" $((round * (64 << 20) + n * 4096)) 4096 "$n" 2>/dev/null && sync -d "$IMAGE" 2>/dev/null || break
        echo "$n" >>"$T/note"
    done &
    writer=$!
    wait_for 30 eval "[ \$(wc -l <'$T/note') -ge $((round * 20)) ]"
    kill_daemon
    wait $writer || :
    mount_volume --sync cache
    while read -r n; do
        tool verify "$IMAGE" $((round * (64 << 20) + n * 4096)) 4096 "$n"
    done <"$T/note"
    umount_volume
done
