#!/bin/bash
# quick
# A superblock that is damaged, cut, or of an unknown version: one line that says so; nothing is mounted
# or changed.
. "$(dirname "$0")/lib/common.sh"

new_volume
mkdir "$MNT"
cp "$URL/volume" "$T/volume"
for damage in 'tool flip F 0' 'tool flip F 30' 'tool flip F -5' ': >F' 'truncate -s 40 F' \
    'head -c 500 /dev/urandom >F' 'echo {} >F' 'sed -i s/1073741824/2147483648/ F' 'head -c 100000 /dev/zero >F'; do
    echo "--- $damage"
    eval "${damage//F/$URL/volume}"
    check_finds volume
    for command in "mount --cache-dir $CACHE $URL $MNT" "status $URL"; do
        # shellcheck disable=SC2086
        refused "volume" s3vol $command
    done
    cp "$T/volume" "$URL/volume"
done
sed -i 's/"s3vol":1,/"s3vol":99,/' "$URL/volume"
refused "does not know.*upgrade" s3vol mount --cache-dir "$CACHE" "$URL" "$MNT"
cp "$T/volume" "$URL/volume"
mount_volume
umount_volume
