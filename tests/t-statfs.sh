#!/bin/bash
# statfs and the directory say what a tool expects: one file, its size, and how full it is.
. "$(dirname "$0")/lib/common.sh"

start_volume
same "$(ls "$MNT")" image "files in the mount"
read -r total free size < <(stat -f -c '%b %f %S' "$MNT")
same $((total * size)) $((1 << 30)) "size that statfs says"
tool fill "$IMAGE" 0 64M 1
read -r _ after size < <(stat -f -c '%b %f %S' "$MNT")
same $(((free - after) * size)) $((64 << 20)) "bytes that became used"
if touch "$MNT/other" 2>/dev/null; then fail "a second file was made"; fi
if rm -f "$IMAGE" 2>/dev/null; then fail "the image was removed"; fi
if mv "$IMAGE" "$MNT/x" 2>/dev/null; then fail "the image was renamed"; fi
[ -f "$IMAGE" ] || fail "the image is gone"
umount_volume
