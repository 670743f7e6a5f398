#!/bin/bash
# limit: 240
# A gc, defrag or flatten whose command was interrupted goes on in the daemon. Its end does not wait until everything
# is moved, and loses nothing: neither what is dirty nor what was moved.
. "$(dirname "$0")/lib/common.sh"

options=(--no-compress --no-gc --writeback-delay 1h --dirty-limit 16M)
puts_more() { [ "$(status requests.put)" -gt "$1" ]; }

# interrupted umount|TERM COMMAND: it has begun to move what takes more than half a minute; the daemon ends soon.
interrupted() {
    local puts start command
    s3vol flush "$MNT"
    tool fill "$IMAGE" 256M 1M 2
    puts=$(status requests.put)
    s3d_fault bandwidth=3M
    s3vol "$2" "$MNT" >"$T/said" 2>&1 &
    command=$!
    wait_for 60 puts_more $((puts + 1))
    kill $command
    wait $command || :
    start=$SECONDS
    if [ "$1" = umount ]; then s3vol umount "$MNT"; else kill -TERM $DAEMON; fi
    daemon_ends 0
    echo "$2: the daemon has ended after $((SECONDS - start)) s"
    within $((SECONDS - start)) 0 $((15 * SLOW)) "seconds until the daemon had ended"
    s3d_clear
    s3vol check "$URL"
    new_cache
    mount_volume "${options[@]}"
    tool verify "$IMAGE" 0 128M 1
    tool verify "$IMAGE" 256M 1M 2
}

STORE=s3d
new_volume
mount_volume "${options[@]}"
tool shuffle "$IMAGE" 128M 1 # each part is in many segments
umount_volume
s3vol clone "$URL" "$URL-clone"

base=$URL URL=$URL-clone
mount_volume "${options[@]}"
interrupted umount flatten
umount_volume

URL=$base
mount_volume "${options[@]}"
interrupted TERM defrag
tool fill "$IMAGE" 64M 64M 1 # and each of these segments is needed in part
interrupted umount gc
umount_volume
