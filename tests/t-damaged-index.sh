#!/bin/bash
# stores: dir s3d
# A cache whose index.db, slots or sums are garbage, cut, gone or older: the volume is right, from the bucket.
. "$(dirname "$0")/lib/common.sh"

start_volume
tool fill "$IMAGE" 0 8M 1
umount_volume
n=1
for damage in 'rm -f index.db*' ': >index.db' 'truncate -s 4096 index.db' 'truncate -s 5000 index.db' \
    'head -c 20000 /dev/urandom >index.db' 'tool flip index.db 100' 'tool flip index.db 4500' \
    'tool flip index.db -2000' 'rm slots' 'truncate -s 100000 slots' ': >slots' \
    'rm sums' ': >sums' 'tool flip sums 300' 'tool flip sums 5000' 'head -c 12000 /dev/urandom >sums'; do
    mount_volume
    dir=$(status cache_dir)
    tool verify "$IMAGE" 0 8M $n
    tool fill "$IMAGE" 0 8M $((++n))
    umount_volume
    (cd "$dir" && eval "$damage")
    mount_volume
    tool verify "$IMAGE" 0 8M $n || fail "wrong bytes after: $damage"
    umount_volume
done

# An older index.db, and its slots have others' blocks by now.
read_some() {
    mount_volume --cache-size 16M
    dir=$(status cache_dir)
    tool verify "$IMAGE" "$1" "$2" 1 || fail "wrong bytes"
    umount_volume
}
mount_volume
tool fill "$IMAGE" 0 64M 1
umount_volume
new_cache
read_some 0 8M
cp "$dir/index.db" "$T/older"
read_some 16M 48M
cp "$T/older" "$dir/index.db"
read_some 0 64M
