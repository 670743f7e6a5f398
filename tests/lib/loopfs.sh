# A file system on a loop device over the image, used hard: for t-loop-*.sh.
# shellcheck shell=bash

# use_file_system "MKFS…" "CHECK…" [OPTIONS of losetup]: fill it, sync it, mount it again elsewhere,
# compare, delete, trim. Both commands get the loop device as their last word.
use_file_system() {
    local mkfs=$1 check=$2 full
    shift 2
    attach_loop "$@"
    # mkfs.btrfs looks at all loop devices, and fails while one of another test has lost its file.
    # shellcheck disable=SC2086
    wait_for 20 $mkfs "$LOOP"
    mkdir -p "$T/fs"
    mount "$LOOP" "$T/fs"
    mkdir "$T/fs/files"
    real_files | tar -x -C "$T/fs/files"
    sync -f "$T/fs"
    files_of "$T/fs/files" >"$T/sums"
    echo 3 >/proc/sys/vm/drop_caches
    files_of "$T/fs/files" | cmp - "$T/sums"
    umount "$T/fs"
    $check "$LOOP" || fail "$check"
    detach_loop
    umount_volume

    new_cache
    mount_volume
    attach_loop "$@"
    $check "$LOOP" || fail "$check, without the cache"
    mount "$LOOP" "$T/fs"
    files_of "$T/fs/files" | cmp - "$T/sums"
    sync "$IMAGE"
    full=$(status allocated_bytes)
    rm -r "$T/fs/files"
    sync -f "$T/fs"
    fstrim "$T/fs"
    sync "$IMAGE"
    within "$(status allocated_bytes)" 0 $((full - (20 << 20))) "allocated bytes after fstrim (before: $full)"
    umount "$T/fs"
    $check "$LOOP" || fail "$check, after fstrim"
    detach_loop
    umount_volume
}
