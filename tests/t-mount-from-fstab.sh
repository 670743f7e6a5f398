#!/bin/bash
# mount -t fuse.s3vol, and a line in fstab, do what s3vol mount does.
. "$(dirname "$0")/lib/common.sh"

[ $$ = 1 ] || skip "only within tests/run, where it may mount over /sbin and /etc/fstab"
new_volume
mkdir "$MNT" "$T/upper" "$T/work"
# A helper in /sbin that only this test sees.
sbin=$(readlink -f /sbin)
mount -t tmpfs none "$T/work"
mkdir "$T/work/"{upper,work}
mount -t overlay -o "lowerdir=$sbin,upperdir=$T/work/upper,workdir=$T/work/work" none "$sbin" || skip "no overlayfs"
ln -s "$B/s3vol" "$sbin/mount.fuse.s3vol"

mount -t fuse.s3vol -o "cache-dir=$CACHE,sync=cache,writeback_delay=1h,rw,noatime,_netdev" "$URL" "$MNT"
same "$(status sync)" cache "sync"
tool fill "$IMAGE" 0 1M 1
s3vol umount "$MNT"

echo "$URL $MNT fuse.s3vol cache-dir=$CACHE,cache-size=64M,noauto,nofail,x-systemd.automount 0 0" >"$T/fstab"
mount --bind "$T/fstab" /etc/fstab
mount "$MNT"
same "$(status cache_limit_bytes)" $((64 << 20)) "cache limit"
tool verify "$IMAGE" 0 1M 1
umount "$MNT"

echo "$URL $MNT fuse.s3vol cache-dir=$CACHE,ro,follow=1s,noauto 0 0" >"$T/fstab"
mount "$MNT"
same "$(status read_only)" true "read_only"
same "$(status follow_s)" 1 "follow_s"
tool verify "$IMAGE" 0 1M 1
umount "$MNT"
mount -r -t fuse.s3vol -o "cache-dir=$CACHE" "$URL" "$MNT"
same "$(status read_only)" true "read_only of mount -r"
umount "$MNT"
