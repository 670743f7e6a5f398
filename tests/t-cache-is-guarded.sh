#!/bin/bash
# quick
# A cache directory serves many volumes; each has its own place in it, by its uuid, private, and locked
# while in use. A place of another volume is not believed.
. "$(dirname "$0")/lib/common.sh"

new_volume
s3vol create --size 1G "$T/bucket/vm2"
first=$URL second=$T/bucket/vm2
mount_volume
tool fill "$IMAGE" 0 4M 1
uuid1=$(status uuid) dir1=$(status cache_dir)
URL=$second MNT=$T/mnt2
mount_volume
tool fill "$IMAGE" 0 4M 2
uuid2=$(status uuid) dir2=$(status cache_dir)
[ "$dir1" != "$dir2" ] || fail "both use $dir1"
same "$(stat -c %a "$dir1")" 700 "mode of the volume's cache"
umount_volume
URL=$first MNT=$T/mnt IMAGE=$T/mnt/image
s3vol umount "$MNT"
wait

mv "$dir1" "$T/x" && mv "$dir2" "$dir1" && mv "$T/x" "$dir2"
for vm in 1 2; do
    URL=$T/bucket/vm$vm
    if (mount_volume) >"$T/said" 2>&1; then # it started over
        tool verify "$MNT/image" 0 4M $vm
        s3vol umount "$MNT"
    else
        grep -qE "$uuid1|$uuid2|another volume" "$T/said" || fail "it does not say why: $(cat "$T/said")"
    fi
    wait
done
