#!/bin/bash
# stores: dir
# limit: 120
# --sync cache, killed in the middle of writes and uploads, cache kept: all that was acknowledged is
# there; the one block that was not is whole or as it was before, and nothing else is there.
. "$(dirname "$0")/lib/common.sh"

is_zero() { # is_zero OFFSET LEN
    cmp -n "$2" -i "$1:0" "$IMAGE" /dev/zero
}

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
    at=$((round * (64 << 20))) end=$(((round + 1) * (64 << 20)))
    for n in $(cat "$T/note"); do
        tool verify "$IMAGE" $at 4096 "$n"
        at=$((at + 4096))
    done
    tool verify "$IMAGE" $at 4096 $((n + 1)) 2>/dev/null || is_zero $at 4096
    is_zero $((at + 4096)) $((end - at - 4096))
    umount_volume
done
