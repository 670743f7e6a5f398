#!/bin/bash
# A file system made in the base is in the clone, whole; both are written apart, at the same time, by their own mounts.
# limit: 180
. "$(dirname "$0")/lib/common.sh"
need mkfs.ext4 e2fsck
need_fs ext4

start_volume
base=$URL
attach_loop
mkfs.ext4 -q "$LOOP"
mkdir -p "$T/fs" "$T/fs2"
mount "$LOOP" "$T/fs"
mkdir "$T/fs/files"
real_files | tar -x -C "$T/fs/files"
files_of "$T/fs/files" >"$T/sums"
# as after a power cut: the file system is in use
fsfreeze -f "$T/fs" 2>/dev/null && frozen=yes || sync -f "$T/fs"
s3vol clone "$MNT" "$base-a"
[ -z "${frozen:-}" ] || fsfreeze -u "$T/fs"

first=$LOOP
MNT2=$T/mnt2
(
    MNT=$MNT2 CACHE=$T/cache2 URL=$base-a
    mount_volume
    IMAGE=$MNT/image
    attach_loop
    e2fsck -fp "$LOOP" || [ $? -le 1 ] || fail "e2fsck of the clone"
    mount "$LOOP" "$T/fs2"
    files_of "$T/fs2/files" | cmp - "$T/sums"
    cp -a "$T/fs2/files" "$T/fs2/more"
    rm -r "$T/fs2/files" "$T/fs2/more/include/linux"
    echo clone >"$T/fs2/who"
    (echo base >"$T/fs/who" && rm -r "$T/fs/files/include/asm-generic" && real_files | tar -x -C "$T/fs" && sync -f "$T/fs")
    sync -f "$T/fs2"
    files_of "$T/fs2/more" >"$T/sums2"
    umount "$T/fs2"
    e2fsck -fp "$LOOP"
    detach_loop
    umount_volume
)
files_of "$T/fs" >"$T/sums1"
umount "$T/fs"
e2fsck -fp "$first"
detach_loop "$first"
umount_volume
s3vol check "$base"
s3vol check "$base-a"

# without any cache
verify() { # verify URL SUMS DIR WHO
    URL=$1
    new_cache
    mount_volume
    attach_loop
    mount "$LOOP" "$T/fs"
    files_of "$T/fs$3" | cmp - "$T/$2"
    same "$(cat "$T/fs/who")" "$4" "who wrote it"
    umount "$T/fs"
    detach_loop
    umount_volume
}
verify "$base" sums1 "" base
verify "$base-a" sums2 /more clone
