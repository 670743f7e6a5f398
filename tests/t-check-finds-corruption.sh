#!/bin/bash
# limit: 180
# Every kind of damage to every kind of object: check names the object, and the blocks where it knows
# them, and exits 1; a mount of the same is right, or an error. What is interrupted, left over or not
# ours is no damage. (unit/check does the same by the hundred, and reads every block.)
. "$(dirname "$0")/lib/common.sh"

RANDOM=${SEED:-1}
start_volume --no-compress
tool fill "$IMAGE" 0 2M 1
sync "$IMAGE"
tool fill "$IMAGE" 4M 1M 9 # wholly overwritten by the next one
sync "$IMAGE"
tool fill "$IMAGE" 4M 1M 1
sync "$IMAGE"
dd if=/dev/urandom of="$IMAGE" bs=4k count=70 seek=150000 oflag=dsync conv=notrunc status=none
umount_volume # with a checkpoint
mount_volume
tool fill "$IMAGE" 6M 1M 1
sync "$IMAGE"
tool fill "$IMAGE" 8M 64K 1
umount_volume

log=("$URL"/log/*)
claim=log/$(basename "${log[0]}") first=log/$(basename "${log[1]}")
old=log/$(basename "${log[2]}") after=log/$(basename "${log[-2]}")
map=map/$(ls "$URL/map") part=part/$(ls "$URL/part" | tail -n 1)

# Nothing of this is damage: an orphan of a checkpoint, a segment far behind the end, files of others.
cp "$URL/$claim" "$URL/part/0000000000000007.00000000"
echo hello >"$URL/log/README"
echo hello >"$URL/map/ffff"
s3vol check "$URL" || fail "the volume is found damaged before it is"
cp -a "$URL" "$T/whole"
(URL=$T/bucket/vm2 && s3vol create --size 1G "$URL" && MNT=$T/mnt2 CACHE=$T/cache2 && mount_volume --no-compress &&
    tool fill "$IMAGE" 0 3M 2 && umount_volume)

# A place in the file, and a sector.
anywhere() { echo $(((RANDOM * 32768 + RANDOM) % $(stat -c %s "$1"))); }

flip() { tool flip "$1" "$(anywhere "$1")"; }
cut_off() { truncate -s "$(anywhere "$1")" "$1"; }
cut_one() { truncate -s -1 "$1"; }
longer() { echo >>"$1"; }
zero() { # the first sector, or the one in the middle
    dd if=/dev/zero of="$1" bs=512 count=1 seek=$((RANDOM % 2 * ($(stat -c %s "$1") / 1024))) conv=notrunc status=none
}
swap() { # with the last one of its directory
    local other
    other=$(find "${1%/*}" -type f -name '0*' ! -name "${1##*/}" | sort | tail -n 1)
    [ -n "$other" ] && mv "$1" "$1.other" && mv "$other" "$1" && mv "$1.other" "$other"
}
stranger() { # the same object of another volume
    local other
    other=$(find "$T/bucket/vm2/${1#"$URL/"}" -type f 2>/dev/null || find "$T/bucket/vm2/log" -type f | sort | tail -n 1)
    cp "$other" "$1"
}

# lost FIRST LAST: check's lines about the object name blocks from all over this range.
lost() {
    grep -F "$object:" "$T/check.out" | grep -qE "blocks $1 to [0-9]+" || fail "block $1 of $object is not named"
    grep -F "$object:" "$T/check.out" | grep -qE "blocks [0-9]+ to $2( |$)" || fail "block $2 of $object is not named"
}

n=0
for object in volume "$claim" "$first" "$old" "$after" "$map" "$part"; do
    for damage in flip flip flip cut_off cut_one zero longer swap stranger rm; do
        rm -rf "$URL" && cp -a "$T/whole" "$URL"
        [ "$damage" != swap ] || [ "$(find "$(dirname "$URL/$object")" -name '0*' | wc -l)" -gt 1 ] || continue
        [ "$damage $object" != "rm $old" ] || continue # as if it had been reclaimed
        [ "$damage $object" != "rm $map" ] || continue # the log has all of it
        echo "--- $damage $object"
        $damage "$URL/$object"
        n=$((n + 1))
        check_finds "$object"
        grep -q "errors were found\|error was found" "$T/check.out" || fail "no count of the errors"
        case "$damage $object" in
        "rm $first" | "swap $first") lost 0 511 ;;
        "rm $part" | "flip $part") lost 0 262143 ;;
        esac
        [ $((n % 4)) = 0 ] || continue
        new_cache
        mkdir -p "$MNT"
        if timeout $((30 * SLOW)) s3vol mount --cache-dir "$CACHE" "$URL" "$MNT" >"$T/said" 2>&1; then
            for mib in 0 1 4 6; do
                tool verify "$IMAGE" ${mib}M 1M 1 >"$T/verify" 2>&1 || grep -q 'Input/output' "$T/verify" ||
                    fail "$(cat "$T/verify")"
            done
            s3vol umount "$MNT"
        fi
    done
done
[ $n -gt 55 ] || fail "only $n damages were tried"

# The one that is named is the one that is wrong, and no other; and the loss is what it is.
rm -rf "$URL" && cp -a "$T/whole" "$URL"
object=$first
tool flip "$URL/$object" 1000000
check_finds "$object"
same "$(grep -c '^[a-z]*/' "$T/check.out")" 1 "objects that are called damaged"
grep -q 'no loss' "$T/check.out" && fail "a loss is called none"
rm -rf "$URL" && cp -a "$T/whole" "$URL"
tool flip "$URL/$old" 500000
check_finds "$old"
grep -F "$old" "$T/check.out" | grep -q 'no loss' || fail "what is overwritten is called a loss"
