#!/bin/bash
# quick
# A superblock that is damaged, cut, or of an unknown version: one line that says so; nothing is mounted
# or changed.
. "$(dirname "$0")/lib/common.sh"

new_volume
mkdir "$MNT"
cp "$URL/volume" "$T/volume"
for damage in 'tool flip FILE 0' 'tool flip FILE 30' 'tool flip FILE -5' ': >FILE' 'truncate -s 40 FILE' \
    'head -c 500 /dev/urandom >FILE' 'echo {} >FILE' 'sed -i s/1073741824/2147483648/ FILE' 'head -c 100000 /dev/zero >FILE'; do
    echo "--- $damage"
    eval "${damage//FILE/$URL/volume}"
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
