#!/bin/bash
# quick
# What makes no sense is refused at once, with one line that names it and exit code 2; nothing is made.
. "$(dirname "$0")/lib/common.sh"

bad() { # bad PATTERN ARGUMENTS OF s3vol…
    local pattern=$1
    shift
    refused "$pattern" s3vol "$@"
    rc=0
    timeout 20 s3vol "$@" >/dev/null 2>&1 || rc=$?
    same $rc 2 "exit code of s3vol $*"
}

URL=$T/bucket/vm1
mkdir "$T/bucket" "$T/mnt"
for size in 0 1 4095 1000000 4096x 1.5.1G -1G 10Q "" 8E 100000000T 1048577; do
    bad "size" create --size "$size" "$URL"
done
bad "size" create --size
[ ! -e "$URL" ] || fail "a volume was made"
bad "URL|argument" create --size 1G
bad "frobnicate" frobnicate
bad "no-such-option" create --no-such-option "$URL"
bad "no-such-option" mount -o no-such-option "$URL" "$T/mnt"
bad "sync" mount --sync sometimes "$URL" "$T/mnt"
bad "cache-size" mount --cache-size 1 "$URL" "$T/mnt"
bad "cache-size" mount --cache-size=-5G "$URL" "$T/mnt"
bad "dirty-limit" mount --dirty-limit 3 "$URL" "$T/mnt"
bad "timeout" mount --timeout never "$URL" "$T/mnt"
bad "timeout" mount --timeout -3s "$URL" "$T/mnt"
bad "writeback-delay" mount --writeback-delay 99999999999999999999s "$URL" "$T/mnt"
bad "read-ahead" mount --read-ahead 1E "$URL" "$T/mnt"
bad "follow" mount --follow 5s "$URL" "$T/mnt"
bad "follow" mount --read-only --follow 0 "$URL" "$T/mnt"
bad "snapshot" mount --follow 5s "$URL@monday" "$T/mnt"
bad "direct-io" mount --read-only --follow 5s --no-direct-io "$URL" "$T/mnt"
for writing in --sync=bucket --dirty-limit=1G --writeback-delay=1s --uploads=2 --no-gc --gc-grace=1s --no-compress \
    --discard-local; do
    bad "read-only" mount --read-only "$writing" "$URL" "$T/mnt"
    bad "read-only" mount "$writing" "$URL@monday" "$T/mnt"
done
bad "many|unexpected|argument" umount "$T/mnt" "$T/mnt"
bad "size" import - "$URL"
bad "size" import --size 0 - "$URL"
bad "argument" import "$URL"
bad "snapshot" import "$T/bucket" "$URL@monday"
bad "ftp" export ftp://host/vm1 "$T/file"
bad "argument" export "$URL"
bad "ftp" create --size 1G ftp://host/vm1
bad "bucket" create --size 1G s3://
for url in ftp://host/vm1 s3:// ""; do
    bad "." status "$url"
    bad "." resize "$url" 1G
    bad "." flatten "$url"
    bad "." snapshot create "$url@monday"
    bad "." snapshot list "$url"
    bad "." clone "$url" "$URL"
    bad "." clone "$URL" "$url"
done
bad "--local" clone --force "$URL" "$URL-clone"
for verb in create delete rollback; do bad "json" snapshot "$verb" --json "$URL@monday"; done
