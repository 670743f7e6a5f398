#!/bin/bash
# A cache disk that is full from the start, or read-only: one line that says which directory.
. "$(dirname "$0")/lib/common.sh"

new_volume
mkdir "$CACHE" "$MNT"
mount -t tmpfs -o size=16k none "$CACHE"
refused "$CACHE" s3vol mount --cache-dir "$CACHE" "$URL" "$MNT"
mount -o remount,ro "$CACHE"
refused "$CACHE" s3vol mount --cache-dir "$CACHE" "$URL" "$MNT"
