#!/bin/bash
# stores: dir s3d
# quick
# mount returns when the image can be used, or with the reason why not; the daemon holds no terminal and
# no directory; umount returns when everything is in the bucket and the daemon has gone.
. "$(dirname "$0")/lib/common.sh"

new_volume
mkdir "$MNT"
timeout 30 s3vol mount --cache-dir "$CACHE" "$URL" "$MNT" >"$T/said" 2>&1
[ -f "$IMAGE" ] || fail "no image after mount returned"
tool fill "$IMAGE" 0 5M 1
pid=$(status pid)
same "$(readlink "/proc/$pid/cwd")" / "working directory of the daemon"
for fd in 0 1 2; do
    same "$(readlink "/proc/$pid/fd/$fd")" /dev/null "file descriptor $fd of the daemon"
done
s3vol umount "$MNT"
! kill -0 "$pid" 2>/dev/null || fail "the daemon is still there"
! mountpoint -q "$MNT" || fail "still mounted"
s3vol mount --cache-dir "$T/cache2" "$URL" "$MNT"
tool verify "$IMAGE" 0 5M 1
# An ordinary umount works as well; the daemon uploads what is left and then goes.
tool fill "$IMAGE" 5M 5M 1
pid=$(status pid)
umount "$MNT"
wait_for 30 eval "! kill -0 $pid"
s3vol mount --cache-dir "$T/cache3" "$URL" "$MNT"
tool verify "$IMAGE" 0 10M 1
s3vol umount "$MNT"

refused "no volume|not exist|create" s3vol mount --cache-dir "$CACHE" "${URL%1}9" "$MNT"
