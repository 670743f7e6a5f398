#!/bin/bash
# stores: dir s3d radosgw
# quick
# Two mounts of one volume: the newer one wins. The older one's flush fails with EIO, its status and
# its log say why, and nothing of what it wrote afterwards is ever seen.
. "$(dirname "$0")/lib/common.sh"

start_volume
first_mnt=$MNT first_daemon=$DAEMON first_log=$DAEMON_LOG first_image=$IMAGE
tool fill "$IMAGE" 0 1M 1
sync "$IMAGE"

MNT=$T/mnt2 CACHE=$T/cache2
mount_volume
tool verify "$IMAGE" 0 1M 1
tool fill "$IMAGE" 1M 1M 2
sync "$IMAGE"

eio dd if=/dev/zero of="$first_image" bs=64k count=4 conv=fsync,notrunc
eio sync "$first_image"
eio dd if=/dev/zero of="$first_image" bs=64k count=1 oflag=sync conv=notrunc
same "$(s3vol status --json "$first_mnt" | jq -r .state)" fenced "state of the first"
grep -qi 'attached\|fenced\|another' "$first_log" || fail "the log does not say why"
s3vol status "$first_mnt" | grep -qi fenced || fail "status does not say it"

same "$(status state)" ok "state of the second"
tool fill "$IMAGE" 2M 1M 3
sync "$IMAGE"
umount_volume

s3vol umount "$first_mnt" || :
wait_for 60 eval "! kill -0 $first_daemon"
new_cache
mount_volume
tool verify "$IMAGE" 0 1M 1
tool verify "$IMAGE" 1M 1M 2
tool verify "$IMAGE" 2M 1M 3
umount_volume
