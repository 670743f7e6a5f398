#!/bin/bash
# stores: dir s3d
# quick
# A cache with changes that never reached the bucket, of a volume that another machine has attached
# since: mounting refuses and says how much it is about; clone --local saves what it was here as
# another volume; --discard-local takes the bucket's side.
. "$(dirname "$0")/lib/common.sh"

new_volume
mount_volume --sync cache --writeback-delay 1h
tool fill "$IMAGE" 8M 1M 3
sync "$IMAGE"
s3vol flush "$MNT"
tool fill "$IMAGE" 0 2M 1
sync "$IMAGE"
refused 'in use' s3vol clone --local --cache-dir "$CACHE" "$URL" "$URL-saved"
kill_daemon

MNT=$T/mnt2 CACHE=$T/cache2
mount_volume
tool fill "$IMAGE" 1M 2M 2
tool fill "$IMAGE" 8M 512K 4
refused 'no fork' s3vol clone --local --cache-dir "$T/cache3" "$URL" "$URL-saved"
umount_volume

MNT=$T/mnt CACHE=$T/cache
refused 'discard-local' s3vol mount --sync cache --cache-dir "$CACHE" "$URL" "$MNT"
grep -qE '2048 KiB|2(\.0)? ?M|2097152' "$REFUSED" || fail "it does not say how much"
refused 'discard-local' s3vol mount --cache-dir "$CACHE" "$URL" "$MNT"

refused 'not a snapshot' s3vol clone --local --cache-dir "$CACHE" "$URL@a" "$URL-saved"
s3vol clone --local --cache-dir "$CACHE" "$URL" "$URL-saved" | tee "$T/saved.out"
grep -qE '^saved: 3.5 MiB' "$T/saved.out" || fail "it does not say how much"
refused 'discard-local' s3vol mount --cache-dir "$CACHE" "$URL" "$MNT"
present=$URL URL=$URL-saved
mount_volume
tool verify "$IMAGE" 0 2M 1
tool verify "$IMAGE" 8M 1M 3
cmp <(tail -c +2097153 "$IMAGE" | head -c 1M) <(head -c 1M /dev/zero)
umount_volume
s3vol check "$URL"
URL=$present

mount_volume --discard-local
tool verify "$IMAGE" 1M 2M 2
cmp -n 1M "$IMAGE" /dev/zero
umount_volume
mount_volume
tool verify "$IMAGE" 1M 2M 2
umount_volume
