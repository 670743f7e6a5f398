#!/bin/bash
# quick
# Volumes, mount points and caches that are not there or are not what they should be: one line each.
. "$(dirname "$0")/lib/common.sh"

need_root
use_store
refused "no volume|not exist|create" s3vol mount --cache-dir "$CACHE" "$URL" "$T"
s3vol create --size 64M "$URL"
refused "exists|already" s3vol create --size 64M "$URL"
refused "$T/nowhere" s3vol mount --cache-dir "$CACHE" "$URL" "$T/nowhere"
: >"$T/file"
refused "$T/file.*director" s3vol mount --cache-dir "$CACHE" "$URL" "$T/file"
refused "$T/file" s3vol mount --cache-dir "$T/file" "$URL" "$T"
refused "$T.*not" s3vol umount "$T"
refused "$T/nowhere" s3vol umount "$T/nowhere"
refused "$T" s3vol status "$T"
refused "$T" s3vol flush "$T"
refused "no volume|not exist|create" s3vol check "$T/bucket/vm2"
refused "no volume|not exist|create" s3vol delete --force "$T/bucket/vm2"

mount_volume
mkdir "$T/mnt2"
refused "in use|busy|mounted" s3vol mount --cache-dir "$CACHE" "$URL" "$T/mnt2"
# That must not have disturbed the one that is mounted.
tool fill "$IMAGE" 0 1M 1
sync "$IMAGE"
umount_volume
