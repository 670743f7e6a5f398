#!/bin/bash
# quick
# Who may read the image, and not write it, may ask how it is, and do nothing else to the volume: neither with the
# commands nor with ioctls of his own.
. "$(dirname "$0")/lib/common.sh"
need setpriv

# As one of the others, whatever the mode of the directories above.
reader="setpriv --bounding-set=-all --inh-caps=-all"

start_volume
tool fill "$IMAGE" 8M 4M 1
chown 65534 "$IMAGE"
chmod 0644 "$IMAGE"
$reader tool verify "$IMAGE" 8M 4M 1
! $reader dd if=/dev/zero of="$IMAGE" bs=4k count=1 conv=notrunc 2>"$T/said" || fail "a reader may write"

$reader s3vol status "$MNT" | grep -q 'size.*1.0 GiB' || fail "a reader may not ask for the status"
refused "$IMAGE: Permission denied" $reader s3vol resize --shrink --discard-data "$MNT" 1M
refused "$IMAGE: Permission denied" $reader s3vol resize "$MNT" 2G
for command in flush gc defrag flatten umount "umount --keep-local"; do
    refused "$IMAGE: Permission denied" $reader s3vol $command "$MNT"
done
refused "$IMAGE: Permission denied" $reader s3vol snapshot create "$MNT@mine"

tool order "$IMAGE" 0
for kind in 1 2 3 4 5 6 7 8 9 10 keep-local; do
    refused 'Operation not permitted' tool order "$IMAGE" $kind
done
same "$(status size_bytes)" $((1 << 30)) size_bytes

# What is dirty must not stay behind: somebody asked for that in vain.
tool fill "$IMAGE" 16M 1M 2
umount_volume
new_cache
mount_volume --read-only
tool verify "$IMAGE" 8M 4M 1
tool verify "$IMAGE" 16M 1M 2
s3vol flush "$MNT"
umount_volume
