#!/bin/bash
# stores: dir radosgw
# umount --keep-local uploads nothing and loses nothing; the next mount goes on from there.
. "$(dirname "$0")/lib/common.sh"

objects() { # how many are in the bucket, of this volume
    if [ "$STORE" = dir ]; then
        find "$URL" -type f | wc -l
    else
        s3_curl GET "$S3_BUCKET?list-type=2&prefix=$(sed 's,/,%2F,g' <<<"${URL#s3://*/}/")" | grep -o '<Key>' | wc -l
    fi
}

new_volume
mount_volume --sync cache --writeback-delay 1h
tool fill "$IMAGE" 0 3M 1
before=$(objects)
within "$before" 1 100 "objects"
umount_volume --keep-local
same "$(objects)" "$before" "objects after umount --keep-local"
mount_volume --writeback-delay 1h
within "$(status dirty_bytes)" $((3 << 20)) $((4 << 20)) "dirty bytes"
tool verify "$IMAGE" 0 3M 1
umount_volume
new_cache
mount_volume
tool verify "$IMAGE" 0 3M 1
umount_volume
