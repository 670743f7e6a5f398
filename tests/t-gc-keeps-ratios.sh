#!/bin/bash
# limit: 300
# A volume is written over and over, all blocks in random order each time: what the bucket stores stays
# within 1.4 of what is needed (a moment later), and at most 1.6 bytes are sent for each byte written. Then one half is
# discarded, and the bucket shrinks. LONG=1: 4 GiB, ten times.
. "$(dirname "$0")/lib/common.sh"
size=512M passes=5
[ -z "${LONG:-}" ] || size=4G passes=10
bytes=$((${size%[MG]} << (${#size} == 2 ? 30 : 20)))

stored() { du -sb "$T/bucket/vm1/log" | cut -f1; }

new_volume --size $size
mount_volume --no-compress --gc-grace 0 --cache-size 2G --dirty-limit 256M
tool fill "$IMAGE" 0 $size 1
sync "$IMAGE"
up=$(status bytes_up)
for pass in $(seq 2 $((passes + 1))); do
    tool shuffle "$IMAGE" $size "$pass"
    sync "$IMAGE"
    # at the end of a pass the last blocks of all old segments die, all at once
    now=$(stored)
    wait_for 30 eval '[ $(stored) -le $((bytes * 140 / 100)) ]'
    echo "pass $pass: $((now * 100 / bytes))%, soon $(($(stored) * 100 / bytes))% stored, $((($(status bytes_up) - up) * 100 / bytes / (pass - 1)))% sent, moved $(status moved_bytes)"
done
within $((($(status bytes_up) - up) * 100 / bytes / passes)) 100 160 "% of what was written is sent"
s3vol gc "$MNT"
within $(($(stored) * 100 / bytes)) 100 115 "% of what is needed is stored after gc"
fallocate --punch-hole --offset 0 --length $((bytes / 2)) "$IMAGE"
s3vol gc "$MNT"
within $(($(stored) * 200 / bytes)) 100 115 "% of what is needed is stored after a discard"
umount_volume
s3vol check "$URL"
new_cache
mount_volume
cmp -n $((bytes / 2)) "$IMAGE" /dev/zero
tool verify "$IMAGE" $((bytes / 2)) $((bytes / 2)) $((passes + 1))
umount_volume
