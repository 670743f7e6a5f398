#!/bin/bash
# cp --sparse=always and plain cp copy the image without filling its holes, and without reading them.
. "$(dirname "$0")/lib/common.sh"

new_volume --size 100G
mount_volume
tool fill "$IMAGE" 7M 3M 1
tool fill "$IMAGE" 99G 5000 2
remount_volume
for how in --sparse=always --sparse=auto; do
    timeout $((30 * SLOW)) cp $how "$IMAGE" "$T/copy" || fail "cp $how takes too long"
    same "$(stat -c %s "$T/copy")" $((100 << 30)) "size of the copy"
    within "$(($(stat -c %b "$T/copy") * 512))" $((3 << 20)) $((4 << 20)) "space that the copy takes"
    tool verify "$T/copy" 7M 3M 1
    tool verify "$T/copy" 99G 5000 2
    rm "$T/copy"
done
umount_volume
