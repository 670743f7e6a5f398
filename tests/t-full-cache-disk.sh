#!/bin/bash
# limit: 120
# The cache's disk is smaller than the cache was allowed to be: writes go on as space is freed, or fail
# with an error that says so; nothing that was acknowledged is lost or wrong.
. "$(dirname "$0")/lib/common.sh"
need mkfs.ext4

# with_little_room MODE
with_little_room() {
    local good mib
    mkdir "$CACHE"
    truncate -s 96M "$T/disk"
    mkfs.ext4 -q -F -m 0 "$T/disk"
    mount -o loop "$T/disk" "$CACHE"
    mount_volume --sync "$1" --cache-size 2G --dirty-limit 1G
    good=0
    for mib in $(seq 0 16 240); do
        if tool fill "$IMAGE" ${mib}M 16M 1 >"$T/said" 2>&1 && sync "$IMAGE" 2>>"$T/said"; then
            good=$((good + 1))
        else
            grep -qE 'No space|Input/output' "$T/said" || fail "$(cat "$T/said")"
            [ -n "$(status last_error)" ] || fail "status has no error"
            break
        fi
    done
    echo "$1: $good of 16 pieces were accepted, state $(status state)"
    within $good 1 16 "pieces accepted"
    if [ "$(status state)" = ok ]; then
        tool verify "$IMAGE" 0 $((good * 16))M 1
        umount_volume
    else
        s3vol umount "$MNT" || :
        wait $DAEMON || :
    fi
    umount "$CACHE"
    rm "$T/disk"
    mount_volume
    tool verify "$IMAGE" 0 $((good * 16))M 1
    umount_volume
    s3vol delete --force "$URL"
    new_cache
}

for mode in bucket cache; do
    new_volume
    with_little_room $mode
done
