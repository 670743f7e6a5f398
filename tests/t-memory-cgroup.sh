#!/bin/bash
# stores: s3d
# limit: 300
# Daemon and writer, ext4 on a loop device, in one memory cgroup of 192 MiB: 1 GiB is written and
# synced without a deadlock or an out-of-memory kill. The store is outside of it: what a directory's file
# system allocates is not ours to reserve.
. "$(dirname "$0")/lib/common.sh"
need mkfs.ext4
need_fs ext4
[ "$SLOW" = 1 ] || skip "a sanitizer needs more memory than this"

if [ -d /sys/fs/cgroup/memory ]; then # version 1
    # In version 1 whoever allocates may wait for the group's pages to be written, also the daemon that
    # is to write them, unless the kernel knows it as such (PR_SET_IO_FLUSHER): fuse/DESIGN.md.
    capabilities=$(awk '/CapEff/ { print $2 }' /proc/self/status)
    ((0x$capabilities >> 24 & 1)) || skip "needs CAP_SYS_RESOURCE, which root does not have here, or cgroups of version 2"
    group=/sys/fs/cgroup/memory/s3vol-test-$$-$RANDOM limit=memory.limit_in_bytes
elif grep -qw memory /sys/fs/cgroup/cgroup.subtree_control 2>/dev/null; then
    group=/sys/fs/cgroup/s3vol-test-$$-$RANDOM limit=memory.max
else
    skip "no memory cgroups"
fi
mkdir "$group" 2>/dev/null || skip "memory cgroups are read-only"
on_exit() {
    local n
    kill -KILL "$DAEMON" 2>/dev/null
    for n in $(seq 100); do rmdir "$group" && break || sleep 0.1; done 2>/dev/null
}
echo $((192 << 20)) >"$group/$limit"

for dio in off on; do
    new_cache
    rm -rf "$T/bucket"
    new_volume --size 4G
    echo $$ >"$group/cgroup.procs"
    mount_volume --cache-size 1G
    attach_loop --direct-io=$dio
    mkfs.ext4 -q "$LOOP"
    mkdir -p "$T/fs"
    mount "$LOOP" "$T/fs"
    : >"$T/fs/big"
    timeout 120 tool fill "$T/fs/big" 0 1G 1 || fail "writing hangs (direct-io=$dio)"
    timeout 120 sync "$T/fs/big" || fail "fsync hangs (direct-io=$dio)"
    timeout 120 tool verify "$T/fs/big" 0 1G 1 || fail "reading (direct-io=$dio)"
    umount "$T/fs"
    detach_loop
    umount_volume
    echo $$ >"${group%/*}/cgroup.procs"
done
