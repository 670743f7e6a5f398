#!/bin/bash
# stores: dir s3d radosgw
# limit: 120
# s3vol resize grows a volume that is in use: image, loop device and ext4 on it; and one that is not mounted.
. "$(dirname "$0")/lib/common.sh"
need mkfs.ext4 resize2fs
need_fs ext4

start_volume
attach_loop
mkfs.ext4 -q "$LOOP"
mkdir -p "$T/fs"
mount "$LOOP" "$T/fs"
truncate -s 16M "$T/fs/a"
tool fill "$T/fs/a" 0 16M 1
s3vol resize "$MNT" 3G
same "$(stat -c %s "$IMAGE")" $((3 << 30)) "size of the image"
losetup -c "$LOOP"
same "$(blockdev --getsize64 "$LOOP")" $((3 << 30)) "size of the loop device"
# Growing it while it is mounted needs CAP_SYS_RESOURCE, which containers often lack.
if ! resize2fs "$LOOP" >"$T/said" 2>&1; then
    grep -q 'Permission denied' "$T/said" || { cat "$T/said"; fail "resize2fs"; }
    umount "$T/fs"
    e2fsck -fp "$LOOP"
    resize2fs "$LOOP"
    mount "$LOOP" "$T/fs"
fi
within "$(df -B1 --output=size "$T/fs" | tail -n 1)" $((5 << 29)) $((3 << 30)) "size of the file system"
fallocate -l 1500M "$T/fs/large"
truncate -s 64M "$T/fs/b"
tool fill "$T/fs/b" 0 64M 2
sync -f "$T/fs"

refused 'say --shrink' s3vol resize "$MNT" 2G
refused 'multiple of 4096' s3vol resize "$MNT" 4000000001
refused 'not a size' s3vol resize "$MNT" much
refused 'goes with --shrink' s3vol resize --discard-data "$MNT" 2G
refused "$URL: is mounted at $MNT; name $MNT instead" s3vol resize --cache-dir "$T/other" "$URL" 4G
same "$(stat -c %s "$IMAGE")" $((3 << 30)) "size after refusals"
umount "$T/fs"
e2fsck -fn "$LOOP"
detach_loop

# Killed right after: whoever mounts it next finds the new size.
s3vol resize "$MNT" 4G
kill_daemon
new_cache
s3vol resize --cache-dir "$CACHE" "$URL" 5G
mount_volume
same "$(stat -c %s "$IMAGE")" $((5 << 30)) "size after growing by URL"
attach_loop
e2fsck -fn "$LOOP"
mount "$LOOP" "$T/fs"
tool verify "$T/fs/a" 0 16M 1
tool verify "$T/fs/b" 0 64M 2
umount "$T/fs"
detach_loop
umount_volume
