#!/bin/bash
# Read-only mounts beside a writer: of a snapshot, of one instant, following. Each is what the volume
# was at one instant, whatever the writer, its garbage collection and a rollback do; nothing is ever
# written to the bucket, and the writer is not fenced.
# stores: dir s3d radosgw
# limit: 300
. "$(dirname "$0")/lib/common.sh"

BLOCKS=256 COUNT=3000

# look_at NAME [OPTIONS] [URL[@SNAPSHOT]]: mounted at $T/NAME, in the background, all with one cache directory.
look_at() {
    local at=$T/$1
    shift
    mkdir -p "$at"
    s3vol mount --cache-dir "$T/caches" --cache-size 64M "$@" "$at"
}
view_status() { s3vol status --json "$T/$1" | jq -r ".$2"; }
view_requests() { s3vol status --json "$T/$1" | jq '.requests | .get + .list + .head'; }
instant() { ledger verify "${1:-$IMAGE}" $BLOCKS $COUNT 7; }

# wrote_nothing NAME…
wrote_nothing() {
    local v
    for v; do
        same "$(view_status "$v" 'requests | .put + .delete')" 0 "what $v wrote"
        same "$(view_status "$v" bytes_up)" 0 "bytes that $v sent"
        same "$(view_status "$v" read_only)" true "read_only of $v"
    done
}

# erofs COMMAND…
erofs() {
    ! "$@" >"$T/erofs.out" 2>&1 || fail "not refused: $*"
    grep -qi 'read-only file system' "$T/erofs.out" || { cat "$T/erofs.out"; fail "not EROFS: $*"; }
}

refuses_writes() { # refuses_writes IMAGE
    erofs dd if=/dev/zero of="$1" bs=4k count=1 conv=notrunc
    erofs fallocate -l 2G "$1"
    erofs fallocate -p -o 0 -l 1M "$1"
    erofs truncate -s 2G "$1"
    erofs chmod 600 "$1"
}

new_volume
mkdir "$T/none"
refused 'nothing was ever written' s3vol mount --cache-dir "$T/caches" --read-only "$URL" "$T/none"
refused 'no such snapshot' s3vol mount --cache-dir "$T/caches" "$URL@monday" "$T/none"
mount_volume --gc-grace 1s

# -- a file system, kept
attach_loop --direct-io=on
mkfs.ext4 -q -E nodiscard "$LOOP"
mkdir "$T/fs" && mount "$LOOP" "$T/fs"
cp -r "$TOP/store" "$T/fs/"
sync -f "$T/fs"
s3vol snapshot create "$MNT@files"
umount "$T/fs"
detach_loop
blkdiscard -f "$IMAGE" 2>/dev/null || fallocate -p -o 0 -l 1G "$IMAGE"
sync -d "$IMAGE"
look_at files "$URL@files"
same "$(stat -c %a "$T/files/image")" 400 "mode"
grep -q " $T/files fuse.s3vol ro," /proc/mounts || fail "the kernel's mount is not ro"
LOOP=$(losetup -f --show -r "$T/files/image")
echo "$LOOP $(losetup -nO BACK-INO,BACK-MAJ:MIN "$LOOP" | xargs)" >>"$T/loops"
same "$(blockdev --getro "$LOOP")" 1 "loop device is read-only"
mount -o ro,noload "$LOOP" "$T/fs"
diff -r "$TOP/store" "$T/fs/store"
refused 'in use by' s3vol umount "$T/files"
umount "$T/fs"
detach_loop
refuses_writes "$T/files/image"
# the daemon does not rely on the kernel
mount -i -o remount,rw "$T/files"
chmod 600 "$T/files/image"
erofs dd if=/dev/zero of="$T/files/image" bs=4k count=1 conv=notrunc,fsync
erofs fallocate -p -o 0 -l 1M "$T/files/image"
erofs fallocate -l 2G "$T/files/image"
erofs truncate -s 2G "$T/files/image"
mount -i -o remount,ro "$T/files"
refused 'read-only' s3vol resize "$T/files" 2G
refused 'read-only' s3vol gc "$T/files"
refused 'snapshot' s3vol snapshot create "$T/files@again"
s3vol flush "$T/files"
wrote_nothing files
s3vol umount "$T/files"

# -- one instant each, while the writer goes on
ledger write "$IMAGE" $BLOCKS 500 7 20 >"$T/acknowledged"
s3vol snapshot create "$MNT@monday"
look_at snap1 "$URL@monday"
look_at snap2 "$URL@monday"
look_at still -o ro "$URL"
look_at follow --read-only --follow 100ms "$URL"
refused 'monday' s3vol mount --cache-dir "$T/caches" "$URL@tuesday" "$T/none"
grep -q files "$REFUSED" || fail "not all snapshots are named"
for v in snap1 snap2 still follow; do same "$(instant "$T/$v/image")" 500 "instant of $v"; done
before=$(requests)

fallocate -p -o 0 -l 1M "$IMAGE" && sync -d "$IMAGE"
wait_for 30 eval "[ \"\$(ledger verify $T/follow/image $BLOCKS $COUNT 7)\" = 0 ]"
ledger write "$IMAGE" $BLOCKS $COUNT 7 3 >"$T/acknowledged" &
writer=$!
last=0 seen=0 changes=0
while kill -0 $writer 2>/dev/null; do
    n=$(instant "$T/follow/image")
    [ "$n" -ge $last ] || fail "went back from $last to $n"
    [ "$n" = $last ] || changes=$((changes + 1))
    last=$n seen=$((seen + 1))
done
wait $writer
echo "$seen views, $changes instants"
within $changes 3 100000 "instants that were seen"
wait_for 30 eval "[ \"\$(ledger verify $T/follow/image $BLOCKS $COUNT 7)\" = $COUNT ]"
same "$(instant)" $COUNT "the writer's"
[ "$(requests)" -gt "$before" ]
same "$(instant "$T/snap1/image")" 500 "instant of snap1"

# -- an idle one asks once in each interval, the others never
s3vol umount "$T/follow"
look_at follow --read-only --follow 1s "$URL"
same "$(instant "$T/follow/image")" $COUNT "instant of follow"
idle=$(view_requests snap2) from=$(view_requests follow) start=$(date +%s%N)
wait_for 60 eval "[ \$(s3vol status --json $T/follow | jq '.requests | .get + .list + .head') -ge $((from + 6)) ]"
within $((($(date +%s%N) - start) / 1000000)) 3900 1000000 "ms for six requests"
same "$(view_requests snap2)" "$idle" "requests of an idle snapshot"

# -- reclaimed under them: what has a snapshot stays, what follows goes on, the other says so
tool fill "$IMAGE" 0 64M 1 && sync -d "$IMAGE"
kill -KILL "$(view_status snap2 pid)"
reclaimed() {
    tool fill "$IMAGE" 512M 64K $SECONDS && sync -d "$IMAGE" && s3vol gc "$MNT"
    ! dd if="$T/still/image" of=/dev/null bs=1M iflag=direct count=1 2>/dev/null
}
# what it has in its cache it goes on to show, so another of the same instant, with an empty one
s3vol umount "$T/still"
ledger write "$IMAGE" $BLOCKS 100 9 10 >/dev/null
look_at still -o ro "$URL"
tool fill "$IMAGE" 0 64M 2 && sync -d "$IMAGE"
wait_for 100 reclaimed
eio dd if="$T/still/image" of=/dev/null bs=1M count=4
same "$(view_status still state)" gone "state of still"
view_status still last_error | grep -q 'with --follow' || fail "does not say what to do"
wrote_nothing still
s3vol umount "$T/still"
wait_for 30 tool verify "$T/follow/image" 0 64M 2
same "$(view_status follow state)" ok "state of follow"
s3vol umount "$T/snap2" 2>&1 | grep -q 'daemon had died' || fail "does not say that the daemon is dead"
look_at snap2 "$URL@monday" # after kill -9
same "$(instant "$T/snap2/image")" 500 "instant of snap2 after a kill"
same "$(instant "$T/snap1/image")" 500 "instant of snap1"
wrote_nothing snap1 snap2 follow
same "$(status state)" ok "state of the writer"

# -- grown, cut off, and back
s3vol resize "$MNT" 2G
wait_for 30 eval "[ \$(stat -c %s $T/follow/image) = $((2 << 30)) ]"
s3vol resize --shrink --discard-data "$MNT" 16M
wait_for 30 eval "[ \$(stat -c %s $T/follow/image) = $((16 << 20)) ]"
umount_volume
s3vol clone "$URL@monday" "$URL-clone"
s3vol snapshot rollback "$URL@monday" >"$T/said" # nobody has it mounted for writing here
wait_for 30 eval "[ \"\$(ledger verify $T/follow/image $BLOCKS $COUNT 7)\" = 500 ]"
same "$(stat -c %s "$T/follow/image")" $((1 << 30)) "size after the rollback"
for v in snap1 snap2; do same "$(instant "$T/$v/image")" 500 "instant of $v"; done
look_at clone --read-only "$URL-clone"
same "$(instant "$T/clone/image")" 500 "instant of the clone"
mount_volume --gc-grace 1s
wait_for 30 eval "[ \"\$(s3vol status --json $T/follow | jq .epoch)\" = \"$(status epoch)\" ]"
wrote_nothing snap1 snap2 follow clone
for v in snap1 snap2 follow clone; do s3vol umount "$T/$v"; done

# -- warm, until the snapshot is gone
look_at snap1 "$URL@monday"
same "$(instant "$T/snap1/image")" 500 "instant of snap1 with a warm cache"
within "$(view_requests snap1)" 2 3 "requests of a mount with a warm cache"
s3vol umount "$T/snap1"
rm -rf "$T/caches"
look_at snap1 "$URL@monday"
s3vol delete --force "$URL-clone"
s3vol snapshot delete "$URL@monday"
for name in $(s3vol snapshot list --json "$URL" | jq -r '.[].name'); do s3vol snapshot delete "$URL@$name"; done
forgotten() {
    tool fill "$IMAGE" 0 2M 3 && sync -d "$IMAGE" && s3vol gc "$MNT"
    ! dd if="$T/snap1/image" of=/dev/null bs=1M count=1 2>/dev/null
}
wait_for 100 forgotten
same "$(view_status snap1 state)" gone "state of snap1"
view_status snap1 last_error | grep -q 'snapshot was deleted' || fail "does not say why"
wrote_nothing snap1
s3vol umount "$T/snap1"
umount_volume
s3vol check "$URL"
