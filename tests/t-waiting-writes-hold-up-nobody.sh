#!/bin/bash
# limit: 240
# In an outage, at the dirty limit, a loop device has as many large writes under way as the kernel lets it, and a few
# programs have one each: cached reads and status are answered all the same, and everything is when the store is back.
. "$(dirname "$0")/lib/common.sh"
need_root
need_fs fusectl

STORE=s3d
start_volume --no-compress --dirty-limit 16M --cache-size 512M
tool fill "$IMAGE" 256M 4M 1
sync "$IMAGE"
truncate -s 96M "$T/data"
tool fill "$T/data" 0 96M 2
mkdir "$T/fusectl"
mount -t fusectl none "$T/fusectl"
connection=$(awk -v dir="$MNT" '$5 == dir { sub("0:", "", $3); print $3 }' /proc/self/mountinfo)
waiting() { cat "$T/fusectl/$connection/waiting"; }
# as_ever N: so many requests have been waiting for a while, and no more come.
as_ever() {
    local before
    before=$(waiting)
    sleep 1
    [ "$before" -ge "$1" ] && [ "$(waiting)" = "$before" ]
}

attach_loop --direct-io=on
largest=/sys/block/${LOOP#/dev/}/queue/max_sectors_kb # as one WRITE can be
usual=$(cat "$largest")
on_exit() { echo "$usual" >"$largest"; }
echo 1024 >"$largest"
s3d_fault down=1
dd if="$T/data" of="$LOOP" bs=96M iflag=fullblock oflag=direct status=none &
writers=($!)
wait_for 60 as_ever 32
before=$(waiting)
for mib in 128 129 130 131; do
    dd if="$T/data" of="$IMAGE" bs=1M count=1 seek=$mib oflag=direct conv=notrunc status=none &
    writers+=($!)
done
wait_for 60 as_ever $((before + 4))
for _ in 1 2 3 4 5 6 7 8 9 10; do
    timeout $((10 * SLOW)) s3vol status --json "$MNT" >"$T/status.json" || fail "status is not answered"
    timeout $((10 * SLOW)) tool verify "$IMAGE" 256M 4M 1 || fail "cached reads are not answered"
done
within "$(jq .dirty_bytes "$T/status.json")" $((8 << 20)) $((18 << 20)) "dirty bytes"
[ "$(waiting)" -ge "$before" ] || fail "the writes do not wait any more"
s3d_fault up=1
wait "${writers[@]}"
on_exit
detach_loop
umount_volume
new_cache
mount_volume
tool verify "$IMAGE" 256M 4M 1
tool verify "$IMAGE" 0 96M 2
umount_volume
