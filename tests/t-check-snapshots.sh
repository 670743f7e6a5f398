#!/bin/bash
# limit: 240
# s3vol check finds what only a snapshot needs, or only a clone in its base: each kind of damage is named, with the
# snapshot or clone that it concerns, and what does not need it is not blamed.
. "$(dirname "$0")/lib/common.sh"

# object DIR: the newest of the log.
newest() { find "$1/log" -type f -name '0*' | sort | tail -n 1; }
# damaged PATTERN URL: check of it fails with a line like that. What only the other map needs is not in it.
damaged() {
    local rc=0
    s3vol check "$2" >"$T/check.out" 2>&1 || rc=$?
    cat "$T/check.out"
    same $rc 1 "exit code of check"
    grep -qE -- "$1" "$T/check.out" || fail "check does not say '$1'"
}
# with FILE COMMAND…: while the file is changed by $CHANGE, and then as it was
with() {
    local file=$1
    shift
    cp -a "$file" "$T/saved"
    case $CHANGE in
    remove) rm "$file" ;;
    flip) tool flip "$file" $(($(stat -c %s "$file") - 100)) ;;
    head) tool flip "$file" 50 ;;
    esac
    "$@"
    cp -a "$T/saved" "$file"
}

start_volume --no-compress
base=$URL
tool fill "$IMAGE" 0 1M 1
sync "$IMAGE"
tool fill "$IMAGE" 4M 1M 2 # blocks 1024 to 1279: the snapshot's
sync "$IMAGE"
pinned=$(newest "$base")
s3vol gc "$MNT" # with a checkpoint
umount_volume
s3vol snapshot create "$base@monday"
s3vol clone "$base" "$base-a" # its map needs the same, and what comes next is not its
mount_volume
tool fill "$IMAGE" 4M 1M 3
sync "$IMAGE"
for i in $(seq 100); do tool fill "$IMAGE" 8M 64K "$i" && sync "$IMAGE"; done
umount_volume
s3vol check "$base"
s3vol check "$base-a"

name=log/${pinned##*/}
for CHANGE in remove flip head; do
    with "$pinned" damaged "$name.* of snapshot monday" "$base"
    with "$pinned" damaged "$name.* of snapshot clone-.*, of the clone $base-a" "$base"
    ! grep -E "$name.*[0-9]$" "$T/check.out" || fail "blocks of the volume itself are blamed"
    with "$pinned" damaged "$base: $name.*: blocks [0-9]* to [0-9]*$" "$base-a"
done
s3vol check "$base"
s3vol check "$base-a"

# what a snapshot needs of the log after its checkpoint
mount_volume
s3vol gc "$MNT"
tool fill "$IMAGE" 10M 64K 1
sync "$IMAGE"
after=$(newest "$base")
s3vol snapshot create "$base@after"
for i in $(seq 3); do tool fill "$IMAGE" 10M 64K "$i" && s3vol gc "$MNT"; done
umount_volume
CHANGE=remove
with "$after" damaged 'snapshot/after: the map that it keeps cannot be read' "$base"
grep -q "log/${after##*/}: is missing" "$T/check.out" || fail "the object is not named"
CHANGE=flip
with "$after" damaged "log/${after##*/}: damaged at.* of snapshot after" "$base"
s3vol snapshot delete "$base@after"

# the pins themselves
CHANGE='head'
with "$base/snapshot/monday" damaged 'snapshot/monday: damaged' "$base"
pin=$(echo "$base"/snapshot/clone-*)
with "$pin" damaged "snapshot/${pin##*/}: is damaged" "$base-a"
CHANGE=remove
with "$pin" damaged "$base: snapshot/${pin##*/}: is missing" "$base-a"

# the root that a pin has, which is not the newest any more: of a second snapshot
s3vol snapshot create "$base@tuesday"
mount_volume
for i in $(seq 300); do tool fill "$IMAGE" 9M 64K "$i" && sync "$IMAGE"; done
s3vol gc "$MNT"
umount_volume
s3vol check "$base"
root=$(printf '%s/map/%016x' "$base" "$(jq .root "$base/snapshot/tuesday")")
[ "$root" != "$(find "$base/map" -type f | sort | tail -n 1)" ] || fail "the root is the newest one"
CHANGE=remove
with "$root" damaged 'snapshot/tuesday: .*is missing: map/' "$base"
CHANGE='head'
with "$root" damaged "map/${root##*/}: .*the map of all blocks$" "$base"
with "$root" damaged 'snapshot/tuesday: the map that it keeps cannot be read' "$base"
part=$(find "$base/part" -name "${root##*/}.*" | sort | head -n 1)
CHANGE=remove
with "$part" damaged "part/${part##*/}: is missing" "$base"
CHANGE=flip
with "$part" damaged "part/${part##*/}: .*the map of blocks" "$base"
s3vol check "$base"
s3vol check "$base-a"

# a snapshot of the clone that alone needs the base
mount_clone() { URL=$base-a && mount_volume; }
new_cache
mount_clone
s3vol snapshot create "$MNT@mine"
tool fill "$IMAGE" 4M 1M 5
umount_volume
CHANGE=remove
with "$pinned" damaged "$base: $name: is missing: blocks .* of snapshot mine" "$base-a"
with "$pin" damaged "$base: snapshot/${pin##*/}: is missing" "$base-a"
s3vol check "$base-a"
