#!/bin/bash
# limit: 120
# The cache's disk begins to refuse writes with I/O errors while ext4 on the volume is busy: whoever writes
# gets an error, nothing hangs, status and the log say that it is the cache disk, and what was
# acknowledged in bucket mode is in the bucket. When the disk is well again, so is the volume.
. "$(dirname "$0")/lib/common.sh"
. "$(dirname "$0")/lib/busy.sh"
need mkfs.ext4 sqlite3
need_fs ext4

# ext4 on a loop device whose file cannot grow any more: the kernel gives EIO to whoever syncs.
mkdir "$T/disk" "$CACHE"
mount -t tmpfs -o size=64m none "$T/disk"
truncate -s 200M "$T/disk/file"
mkfs.ext4 -q -F -m 0 "$T/disk/file"
mount -o loop,errors=continue "$T/disk/file" "$CACHE"

new_volume
mount_volume --cache-size 100M --writeback-delay 1h # nothing is uploaded but what a flush asks for
new_busy 1
start_busy
busy_goes_on 3
dd if=/dev/zero of="$T/disk/filler" bs=64k status=none 2>/dev/null || : # until it is full
tool fill "$IMAGE" 600M 64M 2 >"$T/said" 2>&1 &
writer=$!
wait_for 60 eval "! kill -0 $writer"
wait_for 60 eval "! kill -0 ${BUSY[0]}" # the diary has got an error
set_floor
echo "acknowledged: ${FLOOR[diary]} ${FLOOR[sqlite]}, state: $(status state), last error: $(status last_error)"
case $(status state) in failed | damaged) ;; *) fail "state is $(status state)" ;; esac
grep -qF "$CACHE" "$DAEMON_LOG" || fail "the log does not name the cache"
end_busy
timeout 60 umount "$FS" || umount -l "$FS"
drop_loop
timeout $((60 * SLOW)) s3vol umount "$MNT" || :
kill -0 $DAEMON 2>/dev/null && fail "the daemon stays" || :
wait $DAEMON || :
umount -l "$MNT" 2>/dev/null || :

umount "$CACHE"
rm "$T/disk/filler"
e2fsck -fy "$T/disk/file" >"$T/e2fsck.cache" 2>&1 || [ $? = 1 ] || fail "$(cat "$T/e2fsck.cache")"
mount -o loop "$T/disk/file" "$CACHE"
for cache in kept new; do
    [ $cache = kept ] || { umount "$CACHE" && new_cache; }
    if ! (mount_volume) >"$T/said" 2>&1; then
        cat "$T/said"
        grep -q -- --discard-local "$T/said" || fail "the cache is refused without a way out"
        mount_volume --discard-local
    fi
    IMAGE=$MNT/image
    mount_busy
    verify_busy
    umount_busy
    s3vol umount "$MNT"
    wait
done
