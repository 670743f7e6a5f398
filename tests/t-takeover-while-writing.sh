#!/bin/bash
# stores: dir s3d radosgw
# limit: 120
# Machines that take a volume from each other in the middle of synchronous writes: each flush that
# was acknowledged is there in the end.
. "$(dirname "$0")/lib/common.sh"

# Writes block N of its own megabyte with seed N, one by one, and notes each that was acknowledged.
writer() { # writer IMAGE NOTE BASE_MIB
    local n
    for n in $(seq 0 5000); do
        tool fill "$1" $((($3 << 20) + n * 4096)) 4096 "$n" 2>/dev/null && sync -d "$1" 2>/dev/null || return 0
        echo "$n" >>"$2"
    done
}

new_volume
for i in 1 2 3 4; do
    MNT=$T/mnt$i CACHE=$T/cache$i
    : >"$T/note$i"
    mount_volume
    writer "$IMAGE" "$T/note$i" $((i * 32)) &
    wait_for 30 eval "[ \$(wc -l <'$T/note$i') -ge 20 ]"
done
kill_daemon
MNT=$T/mnt9 CACHE=$T/cache9
mount_volume
for i in 1 2 3 4; do
    while read -r n; do
        tool verify "$IMAGE" $((((i * 32) << 20) + n * 4096)) 4096 "$n"
    done <"$T/note$i"
done
wc -l "$T"/note?
umount_volume
