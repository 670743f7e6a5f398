#!/bin/bash
# limit: 500
# A volume is written over and over, all blocks in random order each time: what the bucket stores stays
# within 1.4 of what is needed (a moment later), and at most 1.6 bytes are sent for each byte written. Then one half is
# discarded, and the bucket shrinks. The same with three snapshots, taken after different passes, and two clones, one of a
# snapshot and one of the present: what these hold is needed as well; when they are deleted, the bucket shrinks. LONG=1:
# 4 GiB, ten times; PLAIN=1, PINNED=1: only the one, or the other.
. "$(dirname "$0")/lib/common.sh"
size=512M passes=5 pinned_size=192M
[ -z "${LONG:-}" ] || size=4G passes=10 pinned_size=4G
bytes_of() { numfmt --from=iec "$1"; }
bytes=$(bytes_of $size)

# What is deleted while du looks is not counted.
stored() { { du -sb "$T/bucket/vm1/log" 2>/dev/null || true; } | cut -f1; }

plain() {
    new_volume --size $size
    mount_volume --no-compress --gc-grace 0 --cache-size 2G --dirty-limit 256M
    tool fill "$IMAGE" 0 $size 1
    sync "$IMAGE"
    up=$(status bytes_up)
    for pass in $(seq 2 $((passes + 1))); do
        tool shuffle "$IMAGE" $size "$pass"
        sync "$IMAGE"
        # at the end of a pass the last blocks of all old segments die, all at once
        now=$(stored)
        wait_for 30 eval '[ $(stored) -le $((bytes * 140 / 100)) ]'
        echo "pass $pass: $((now * 100 / bytes))%, soon $(($(stored) * 100 / bytes))% stored, $((($(status bytes_up) - up) * 100 / bytes / (pass - 1)))% sent, moved $(status moved_bytes)"
    done
    within $((($(status bytes_up) - up) * 100 / bytes / passes)) 100 160 "% of what was written is sent"
    s3vol gc "$MNT"
    within $(($(stored) * 100 / bytes)) 100 115 "% of what is needed is stored after gc"
    fallocate --punch-hole --offset 0 --length $((bytes / 2)) "$IMAGE"
    s3vol gc "$MNT"
    within $(($(stored) * 200 / bytes)) 100 115 "% of what is needed is stored after a discard"
    umount_volume
    s3vol check "$URL"
    new_cache
    mount_volume
    cmp -n $((bytes / 2)) "$IMAGE" /dev/zero
    tool verify "$IMAGE" $((bytes / 2)) $((bytes / 2)) $((passes + 1))
    umount_volume
}

# ratio N: what is stored, in percent of N times the volume.
ratio() { echo $(($(stored) * 100 / (bytes * $1))); }

with_pins() {
    local pass up held=1 clone
    size=$pinned_size bytes=$(bytes_of $pinned_size)
    new_volume --size "$size"
    mount_volume --no-compress --gc-grace 0 --cache-size 2G --dirty-limit 64M
    tool fill "$IMAGE" 0 "$size" 1
    sync "$IMAGE"
    up=$(status bytes_up)
    for pass in $(seq 2 $((passes + 1))); do
        # each of these instants is another volume full of data, once it is overwritten
        case $pass in
        2 | 3 | 4) s3vol snapshot create "$MNT@pass-$pass" && held=$((held + 1)) ;;
        5) s3vol clone "$MNT" "$URL-present" && held=$((held + 1)) ;;
        esac
        [ "$pass" != 4 ] || s3vol clone "$MNT@pass-3" "$URL-old" # needs what that snapshot does
        tool shuffle "$IMAGE" "$size" "$pass"
        sync "$IMAGE"
        wait_for 60 eval '[ $(ratio $held) -le 140 ]'
        echo "pinned, pass $pass: $(ratio $held)% of $held volumes stored, $((($(status bytes_up) - up) * 100 / bytes / (pass - 1)))% sent"
    done
    within $((($(status bytes_up) - up) * 100 / bytes / passes)) 100 160 "% of what was written is sent, with snapshots"
    for clone in old present; do
        [ $clone = old ] && pass=2 || pass=4
        (URL=$URL-$clone MNT=$T/mnt2 CACHE=$T/cache2 && mount_volume && tool verify "$IMAGE" 0 "$size" $pass && umount_volume)
        s3vol delete --force "$URL-$clone"
    done
    for pass in 2 3 4; do s3vol snapshot delete "$URL@pass-$pass"; done
    s3vol gc "$MNT"
    echo "pins deleted, after gc: $(ratio 1)% stored"
    within "$(ratio 1)" 100 140 "% of what is needed is stored after all snapshots and clones were deleted"
    tool verify "$IMAGE" 0 "$size" $((passes + 1))
    umount_volume
    s3vol check "$URL"
}

[ -n "${PINNED:-}" ] || plain
rm -rf "${T:?}/bucket" "${CACHE:?}"
[ -n "${PLAIN:-}" ] || with_pins
