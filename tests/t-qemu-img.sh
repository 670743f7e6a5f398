#!/bin/bash
# stores: dir radosgw
# QEMU's tools on the image: convert into it and out of it, compare, map, check.
. "$(dirname "$0")/lib/common.sh"
need qemu-img

start_volume
truncate -s 1G "$T/disk.raw"
tool fill "$T/disk.raw" 3M 5M 1
tool fill "$T/disk.raw" 700M 70000 2
qemu-img convert -O qcow2 "$T/disk.raw" "$T/disk.qcow2"
qemu-img convert -n -f qcow2 -O raw "$T/disk.qcow2" "$IMAGE"
qemu-img compare "$T/disk.raw" "$IMAGE"
within "$(($(stat -c %b "$IMAGE") * 512))" $((5 << 20)) $((6 << 20)) "allocated bytes after convert"
remount_volume
qemu-img convert -f raw -O qcow2 "$IMAGE" "$T/back.qcow2"
qemu-img check "$T/back.qcow2"
qemu-img compare "$T/back.qcow2" "$IMAGE"
qemu-img convert -t none -T none -f raw -O raw "$IMAGE" "$T/back.raw"
cmp "$T/back.raw" "$T/disk.raw"
qemu-img map --output=json -f raw "$IMAGE" >"$T/map.json"
same "$(jq '[.[] | select(.data) | .length] | add' "$T/map.json")" $(((5 << 20) + 73728)) "bytes of data that map says"
# The same bytes with other holes, and one different byte.
qemu-img compare -f raw -F raw "$T/disk.raw" "$IMAGE"
tool flip "$IMAGE" 3333333
if qemu-img compare -f raw -F raw "$T/disk.raw" "$IMAGE"; then fail "compare saw no difference"; fi
umount_volume
