#!/bin/bash
# stores: dir s3d
# limit: 240
# A volume that lost an object of its log, or whose checkpoint is damaged, cannot be mounted; check
# --repair brings it back as it was at the newest instant that can be read: a file system that needs
# its journal at most, with the files of before.
. "$(dirname "$0")/lib/common.sh"

# objects DIR: the keys below log, map, …, in order.
objects() {
    if [ "$STORE" = dir ]; then
        (cd "$URL" && find "$1" -type f | LC_ALL=C sort)
    else
        s3_curl GET "$S3_BUCKET?list-type=2&prefix=$(sed 's,/,%2F,g' <<<"$PREFIX/$1/")" |
            grep -o '<Key>[^<]*' | sed "s,<Key>$PREFIX/,,"
    fi
}

object_remove() {
    if [ "$STORE" = dir ]; then rm "$URL/$1"; else s3_curl DELETE "$S3_BUCKET/$PREFIX/$1"; fi
}

# object_flip KEY AT
object_flip() {
    if [ "$STORE" = dir ]; then
        tool flip "$URL/$1" "$2"
    else
        s3_curl GET "$S3_BUCKET/$PREFIX/$1" -o "$T/object"
        tool flip "$T/object" "$2"
        s3_curl PUT "$S3_BUCKET/$PREFIX/$1" --data-binary "@$T/object"
    fi
}

need mkfs.ext4 e2fsck losetup
start_volume
PREFIX=${URL#s3://*/}
attach_loop --direct-io=on
mkfs.ext4 -q "$LOOP"
mkdir -p "$T/fs"
mount "$LOOP" "$T/fs"
cp -r /usr/include/linux "$T/fs/first"
sync -f "$T/fs"
first=$(files_of "$T/fs/first")
for i in $(seq 40); do # each is some commits: enough for a checkpoint
    cp /usr/include/stdio.h "$T/fs/later$i" && sync -f "$T/fs"
done
umount "$T/fs"
detach_loop
umount_volume

# is_back FILE: it mounts, the journal makes it clean, and what was synced before is there.
is_back() {
    s3vol check "$URL"
    new_cache
    mount_volume
    attach_loop
    e2fsck -fy "$LOOP" || [ $? = 1 ] || fail "e2fsck finds more than a journal can mend"
    e2fsck -fn "$LOOP"
    mount "$LOOP" "$T/fs"
    same "$(files_of "$T/fs/first")" "$first" "files of before the loss"
    cmp "$T/fs/later1" /usr/include/stdio.h
    cmp "$T/fs/$1" /usr/include/stdio.h
    umount "$T/fs"
    detach_loop
    umount_volume
    s3vol check "$URL"
}

# Mounted: no.
mount_volume
refused 'is mounted at' s3vol check --repair --force "$URL"
umount_volume

echo "--- a damaged checkpoint: nothing is lost"
root=$(objects map | tail -n 1)
[ -n "$root" ] || fail "there is no checkpoint"
object_flip "$root" 9
check_finds "$root"
new_cache
refused "$root" s3vol mount --cache-dir "$CACHE" "$URL" "$MNT"
s3vol check --repair "$URL" </dev/null >"$T/said" 2>&1 && fail "repaired without being told to"
grep -q 'say --force' "$T/said" || fail "it does not say that it would have asked"
s3vol check --repair --force "$URL" | tee "$T/said"
grep -q 'nothing is lost' "$T/said" || fail "it calls something lost"
is_back later40

echo "--- the log loses a number"
mount_volume
attach_loop
mount "$LOOP" "$T/fs"
for i in $(seq 3); do
    cp /usr/include/stdio.h "$T/fs/more$i" && sync -f "$T/fs"
    [ "$i" != 1 ] || upto=$(objects log | tail -n 1)
done
umount "$T/fs"
detach_loop
kill_daemon
lost=$(objects log | grep -A 1 -F "$upto" | tail -n 1)
[ "$lost" != "$upto" ] && [ "$lost" != "$(objects log | tail -n 1)" ] || fail "there is nothing behind $upto"
object_remove "$lost"
check_finds "$lost"
new_cache
refused "$lost" s3vol mount --cache-dir "$CACHE" "$URL" "$MNT"
before=$(objects log | wc -l)
s3vol check --repair --force "$URL" 2>&1 | tee "$T/said"
grep -q "at $upto, of 20.*" "$T/said" || fail "it does not name the instant"
[ "$(objects log | wc -l)" -gt "$before" ] || fail "it claimed nothing"
is_back more1

# What is whole needs none.
s3vol check --repair "$URL"
