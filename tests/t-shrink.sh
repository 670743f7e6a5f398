#!/bin/bash
# stores: dir s3d radosgw
# limit: 120
# resize --shrink refuses to cut off data unless told to; what was cut off reads as zeros when the volume grows
# again, with this cache and without it; a mount that was killed meanwhile has one size or the other.
. "$(dirname "$0")/lib/common.sh"

start_volume
tool fill "$IMAGE" 0 8M 1
tool fill "$IMAGE" 600M 8M 2
refused 'data beyond 500.0 MiB' s3vol resize --shrink "$MNT" 500M
same "$(stat -c %s "$IMAGE")" $((1 << 30)) "size after the refusal"
tool verify "$IMAGE" 600M 8M 2
s3vol resize --shrink "$MNT" 608M
same "$(stat -c %s "$IMAGE")" $((608 << 20)) "size without the empty tail"
tool verify "$IMAGE" 600M 8M 2
if truncate -s 500M "$IMAGE" 2>"$T/said"; then fail "truncate made it smaller"; fi

s3vol resize --shrink --discard-data "$MNT" 604M
same "$(stat -c %s "$IMAGE")" $((604 << 20)) "size after cutting"
same "$(status size_bytes)" $((604 << 20)) "size that status says"
if dd if=/dev/zero of="$IMAGE" bs=4k seek=$((604 << 8)) count=1 conv=notrunc status=none 2>"$T/said"; then
    fail "a write past the end succeeded"
fi
tool verify "$IMAGE" 600M 4M 2
s3vol resize "$MNT" 1G
tool verify "$IMAGE" 600M 4M 2
cmp -n 420M -i 604M:0 "$IMAGE" /dev/zero
s3vol resize --shrink "$MNT" 604M
remount_volume
same "$(stat -c %s "$IMAGE")" $((604 << 20)) "size after a remount"
! grep -q contradict "$DAEMON_LOG" || fail "what is cached was thrown away"
tool verify "$IMAGE" 0 8M 1
umount_volume

# By URL, in cache mode with what only the cache has.
mount_volume --sync cache --writeback-delay 1h
tool fill "$IMAGE" 300M 4M 3
sync "$IMAGE"
umount_volume --keep-local
refused 'data beyond 200.0 MiB' s3vol resize --shrink --cache-dir "$CACHE" "$URL" 200M
s3vol resize --shrink --discard-data --cache-dir "$CACHE" "$URL" 302M
new_cache
mount_volume
same "$(stat -c %s "$IMAGE")" $((302 << 20)) "size by URL"
tool verify "$IMAGE" 300M 2M 3
s3vol check "$URL"
umount_volume

# Killed at any point.
for i in 1 2 3 4 5 6; do
    mount_volume --sync cache
    s3vol resize "$MNT" 400M
    tool fill "$IMAGE" 390M 8M $((10 + i))
    sync "$IMAGE"
    s3vol resize --shrink --discard-data "$MNT" 320M >"$T/said" 2>&1 &
    sleep "0.0$((i * 15 - 14))" # no event to wait for: any point will do
    kill_daemon
    wait $! 2>/dev/null || :
    [ $((i % 2)) = 0 ] || new_cache
    mount_volume
    size=$(stat -c %s "$IMAGE")
    echo "killed $i: size $((size >> 20))M"
    [ "$size" = $((400 << 20)) ] || same "$size" $((320 << 20)) "size after a kill"
    tool verify "$IMAGE" 300M 2M 3
    s3vol resize "$MNT" 400M
    [ "$size" = $((400 << 20)) ] || cmp -n 80M -i 320M:0 "$IMAGE" /dev/zero
    umount_volume
done
s3vol check "$URL"
