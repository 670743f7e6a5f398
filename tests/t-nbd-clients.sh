#!/bin/bash
# limit: 120
# Real clients agree about a mounted volume: nbdinfo, nbdcopy, nbdfuse, qemu-img, qemu-io.
. "$(dirname "$0")/lib/common.sh"
. "$(dirname "$0")/lib/nbd.sh"
need nbdfuse

new_volume --size 128M
mount_volume
tool fill "$IMAGE" 3M 5M 1
tool fill "$IMAGE" 70M 8K 2
start_nbd "$IMAGE"

# What is offered.
nbdinfo --json "$URI" >"$T/info.json"
jq -e '.protocol == "newstyle-fixed" and .structured and (.exports[0]
    | ."export-size" == 134217728 and .contexts == ["base:allocation"] and (.is_read_only | not)
    and .can_cache and .can_df and .can_fast_zero and .can_flush and .can_fua and .can_multi_conn and .can_trim
    and .can_zero and .block_size_minimum == 1 and .block_size_preferred >= 4096
    and .block_size_maximum == 33554432)' "$T/info.json" >/dev/null || fail "nbdinfo: $(cat "$T/info.json")"
nbdinfo --list "$URI" | grep -q "$IMAGE" || fail "nbdinfo --list: $(nbdinfo --list "$URI")"

# Where data is.
nbdinfo --map --json "$URI" | jq -r '.[] | "\(.type) \(.offset) \(.length)"' >"$T/map"
diff "$T/map" - <<END
3 0 3145728
0 3145728 5242880
3 8388608 65011712
0 73400320 8192
3 73408512 60809216
END
qemu-img map --output=json -f raw "$URI" >"$T/map.json"
same "$(jq '[.[] | select(.data) | .length] | add' "$T/map.json")" $(((5 << 20) + 8192)) "bytes of data that qemu-img map says"

# Out and in, verified.
nbdcopy "$URI" "$T/out"
tool verify "$T/out" 3M 5M 1
cmp "$T/out" "$IMAGE"
qemu-img compare -f raw -F raw "$T/out" "$URI"
truncate -s 128M "$T/disk.raw"
tool fill "$T/disk.raw" 1M 30M 3
tool fill "$T/disk.raw" 90M 70000 4
nbdcopy --connections=4 --flush "$T/disk.raw" "$URI"
cmp "$T/disk.raw" "$IMAGE"
within "$(($(stat -c %b "$IMAGE") * 512))" $((30 << 20)) $((32 << 20)) "allocated bytes after nbdcopy"
qemu-img convert -O qcow2 "$T/out" "$T/out.qcow2"
qemu-img convert -n -f qcow2 -O raw "$T/out.qcow2" "$URI"
qemu-img compare -f qcow2 -F raw "$T/out.qcow2" "$URI"
cmp "$T/out" "$IMAGE"

# FUA is a flush: one more object in the bucket; a plain write is none.
s3vol flush "$MNT"
puts=$(status requests.put)
qemu-io -f raw -c 'write -P 7 1M 64k' -c 'read -P 7 1M 64k' --cache writeback "$URI" >"$T/qemu-io"
before=$(status requests.put)
within "$before" $((puts)) $((puts + 2)) "PUTs of a write, and of the flush at the end"
qemu-io -f raw -t writeback -c 'write -f -P 8 2M 64k' -c 'flush' "$URI" >>"$T/qemu-io"
same "$(status dirty_bytes)" 0 "dirty bytes after FUA"
[ "$(status requests.put)" -gt "$before" ] || fail "FUA made no PUT"

# Discard and zeroes.
qemu-io -f raw -d unmap -c 'discard 3M 1M' -c 'write -z -u 4M 1M' -c 'read -P 0 4M 1M' -c 'write -z 5M 4k' \
    -c 'read -P 0 5M 4k' "$URI" >>"$T/qemu-io"
! grep -iE 'fail|error|mismatch' "$T/qemu-io" || fail "qemu-io"
nbdinfo --map --json "$URI" | jq -e 'any(.[]; .type == 3 and .offset <= 3145728 and .offset + .length >= 5242880)' >/dev/null ||
    fail "no hole where 3M to 5M was discarded: $(nbdinfo --map "$URI")"

# A hole in what is known to be data, of an image that stays open.
hold_client
nbdinfo --map --json "$URI" | jq -e '.[-2] | .type == 0 and .offset == 73400320 and .length == 8192' >/dev/null || fail "the last data"
qemu-io -f raw -d unmap -c 'discard 70M 4k' "$URI" >>"$T/qemu-io"
nbdinfo --map --json "$URI" | jq -e '.[-2] | .type == 0 and .offset == 73404416 and .length == 4096' >/dev/null ||
    fail "no hole at 70M: $(nbdinfo --map "$URI")"
exec 7>&-
wait $HOLDER

# libnbd's own file system.
mkdir "$T/fuse"
nbdfuse "$T/fuse/disk" "$URI" 2>"$T/nbdfuse.log" &
wait_for 20 test -f "$T/fuse/disk"
tool fill "$T/fuse/disk" 100M 300000 5
sync "$T/fuse/disk"
tool verify "$IMAGE" 100M 300000 5
tool verify "$T/fuse/disk" 7M 1M 1
fusermount3 -u "$T/fuse"
stop_nbd
umount_volume
