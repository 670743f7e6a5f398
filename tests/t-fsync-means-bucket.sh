#!/bin/bash
# stores: dir s3d radosgw
# quick
# What fsync, fdatasync, O_SYNC or O_DSYNC has returned for is in the bucket: it survives the loss of
# daemon and cache.
. "$(dirname "$0")/lib/common.sh"

new_volume
at=0
for how in fsync fdatasync osync odsync; do
    mount_volume
    case $how in
    fsync) tool fill "$IMAGE" $at 1M 1 && sync "$IMAGE" ;;
    fdatasync) tool fill "$IMAGE" $at 1M 1 && sync -d "$IMAGE" ;;
    osync) dd if=/dev/urandom of="$T/random" bs=1M count=1 status=none &&
        dd if="$T/random" of="$IMAGE" bs=64k seek=$((at / 65536)) oflag=sync conv=notrunc status=none ;;
    odsync) dd if="$T/random" of="$IMAGE" bs=64k seek=$((at / 65536)) oflag=dsync conv=notrunc status=none ;;
    esac
    tool fill "$IMAGE" 512M 8M 2 # nobody waits for these
    kill_daemon
    new_cache
    mount_volume
    case $how in
    f*) tool verify "$IMAGE" $at 1M 1 ;;
    o*) cmp -n 1048576 -i $at:0 "$IMAGE" "$T/random" ;;
    esac
    kill_daemon
    new_cache
    at=$((at + 1048576))
done
mount_volume
tool verify "$IMAGE" 0 2M 1
umount_volume
