#!/bin/bash
# import makes a volume of a file, export writes one to a file: the same bytes and holes, of any size; zeros cost nothing.
# Neither overwrites anything. An import that is killed leaves no volume that can be used, and can be begun again; an
# outage is a pause. Export takes nothing from a writer, and asks for much at once.
# stores: dir s3d radosgw
# limit: 300
. "$(dirname "$0")/lib/common.sh"
need cmp jq python3

export S3VOL_CACHE_DIR=$CACHE
stored() { s3vol status --json "$1" | jq .stored_bytes; }
blocks() { stat -c %b "$1"; } # of 512 bytes
no_caches() { [ ! -e "$CACHE" ] || same "$(find "$CACHE" -mindepth 1 | wc -l)" 0 "what is left of caches"; }
# unusable URL: there is something, and nobody takes it for a volume.
unusable() {
    refused unfinished s3vol mount "$1" "$MNT"
    refused unfinished s3vol mount --read-only "$1" "$MNT"
    refused unfinished s3vol export "$1" "$T/none"
    refused unfinished s3vol clone "$1" "$1-clone"
    [ ! -e "$T/none" ] || fail "export made a file"
}

need_root
use_store
mkdir -p "$MNT"

# -- sparse, with blocks of zeros that are no holes, and an odd size
image=$T/image
python3 - "$image" <<'EOF'
import os, random, sys
random.seed(7)
f = open(sys.argv[1], 'wb')
f.truncate((512 << 20) + 777)
for at, n in (0, 3 << 20), (100 << 20, 40960), ((300 << 20) + 4096, 5 << 20), ((364 << 20) + 5, 100000), (512 << 20, 777):
    f.seek(at)
    f.write(random.randbytes(n))
f.seek(200 << 20)
for i in range(64):
    f.write(bytes(1 << 20))
f.close()
EOF
data=$(((8 << 20) + 40960 + 100000 + 777))
s3vol import "$image" "$URL"
no_caches
within "$(stored "$URL")" $data $((data + (1 << 20))) "bytes in the bucket"
same "$(s3vol status --json "$URL" | jq .size_bytes)" $(((512 << 20) + 4096)) "size"
s3vol check "$URL"
s3vol export "$URL" "$T/out"
no_caches
cmp -n $(((512 << 20) + 777)) "$image" "$T/out"
same "$(stat -c %s "$T/out")" $(((512 << 20) + 4096)) "size of the file"
cmp -n 3319 -i 0:$(((512 << 20) + 777)) /dev/zero "$T/out"
within "$(blocks "$T/out")" $((data / 512)) $((data / 512 + 2048)) "blocks of the file"
s3vol export "$URL" - | cmp - "$T/out"
s3vol import --size "$(stat -c %s "$T/out")" - "$URL-pipe" <"$T/out"
s3vol export "$URL-pipe" "$T/out-pipe"
cmp "$T/out" "$T/out-pipe"

# -- nothing is overwritten, nothing is left
refused 'there is a volume already' s3vol import "$image" "$URL"
refused 'force replaces' s3vol export "$URL" "$T/out-pipe"
echo old >"$T/out-pipe"
s3vol export --force "$URL" "$T/out-pipe"
cmp "$T/out" "$T/out-pipe"
rm "$T/out-pipe"
refused 'no such snapshot' s3vol export "$URL@monday" "$T/none"
refused 'no such file' s3vol import "$T/none" "$URL-none"
refused 'ended after' s3vol import --size 1G - "$URL-none" <"$image"
refused 'more than' s3vol import --size 512M - "$URL-none" <"$image"
refused 'no volume' s3vol status "$URL-none"
[ "$STORE" != dir ] || [ ! -e "$URL-none" ] || fail "something is left of what failed"
refused 'directory' s3vol export "$URL" "$T"
mkdir "$T/tiny"
mount -t tmpfs -o size=2M none "$T/tiny"
refused 'no space left' s3vol export "$URL" "$T/tiny/out"
same "$(find "$T/tiny" -type f | wc -l)" 0 "files of an export that failed"
no_caches
s3vol delete --force "$URL-pipe"

# -- sizes
for size in 1 4096 1048577 $((3 << 20)); do
    head -c "$size" "$image" >"$T/small"
    s3vol import --no-compress "$T/small" "$URL-small"
    s3vol export "$URL-small" "$T/small-out"
    cmp -n "$size" "$T/small" "$T/small-out"
    within "$(stat -c %s "$T/small-out")" "$size" $((size < 1 << 20 ? 1 << 20 : size + 4095)) "size of what was $size bytes"
    s3vol delete --force "$URL-small"
    rm "$T/small-out"
done
printf 'QFI\373.' >"$T/small"
s3vol import "$T/small" "$URL-small" 2>"$T/said"
grep -q 'warning.*qcow2' "$T/said" || fail "it said: $(cat "$T/said")"
s3vol delete --force "$URL-small"
: >"$T/small"
refused 'empty' s3vol import "$T/small" "$URL-small"

# -- killed in the middle: of the pipe nothing comes any more
mkfifo "$T/pipe"
killed_import() {
    exec {pipe}<>"$T/pipe"
    s3vol import --size 64M "$T/pipe" "$URL-killed" &
    local import=$!
    head -c 20M /dev/urandom >&$pipe
    kill -KILL $import
    wait $import || :
    exec {pipe}>&-
}
killed_import
unusable "$URL-killed"
refused 'unfinished' s3vol import --cache-dir "$T/elsewhere" "$image" "$URL-killed" # it may be alive there
s3vol delete --force "$URL-killed"
refused 'no volume' s3vol status "$URL-killed"
rm -rf "$CACHE"
killed_import
s3vol import "$image" "$URL-killed"
no_caches
s3vol export "$URL-killed" - | cmp - "$T/out"
s3vol check "$URL-killed"
s3vol delete --force "$URL-killed"
[ "$STORE" != dir ] || [ ! -e "$URL-killed" ] || same "$(find "$URL-killed" -type f | wc -l)" 0 "files that are left"

# -- beside a writer, who does not notice
mount_volume
tool fill "$IMAGE" 16M 4M 1
s3vol snapshot create "$MNT@monday"
tool fill "$IMAGE" 16M 4M 2
sync "$IMAGE"
s3vol export "$URL@monday" "$T/monday"
s3vol export "$URL" "$T/now"
tool verify "$T/monday" 16M 4M 1
tool verify "$T/now" 16M 4M 2
cmp -n $((16 << 20)) "$T/now" "$T/out"
cmp -i $((20 << 20)) "$T/monday" "$T/out"
tool fill "$IMAGE" 16M 4M 3
sync "$IMAGE"
same "$(status state)" ok "state of the writer"
rm "$T/monday" "$T/now"

# -- a mounted image, and block devices
s3vol import "$IMAGE" "$URL-copy"
umount_volume
rm -rf "$CACHE"
s3vol export "$URL-copy" "$T/copy"
tool verify "$T/copy" 16M 4M 3
truncate -s 40M "$T/disk"
tool fill "$T/disk" 0 8M 4
attach_loop "$T/disk"
s3vol import "$LOOP" "$URL-disk"
within "$(stored "$URL-disk")" $((8 << 20)) $((9 << 20)) "bytes in the bucket"
tool fill "$LOOP" 0 40M 5
refused 'force overwrites' s3vol export "$URL-disk" "$LOOP"
refused 'has .* bytes' s3vol export --force "$URL" "$LOOP"
s3vol export --force "$URL-disk" "$LOOP"
s3vol export "$URL-disk" "$T/disk-out"
cmp "$LOOP" "$T/disk-out"
tool verify "$LOOP" 0 8M 4
mkfs.ext4 -q "$LOOP"
mkdir "$T/fs"
mount "$LOOP" "$T/fs"
refused 'busy' s3vol export --force "$URL-disk" "$LOOP"
umount "$T/fs"
detach_loop

[ "$STORE" = s3d ] || exit 0

# -- the store goes away, and comes back
truncate -s 64M "$T/random"
tool fill "$T/random" 0 64M 6
away() { # away COMMAND…: it does not end, and then it does
    local failed
    s3d_fault 'latency=1000' # so that it cannot be over
    "$@" &
    failed=$(s3d_stats requests)
    wait_for 30 eval "[ \$(s3d_stats requests) -gt $((failed + 5)) ]"
    s3d_fault down=1
    failed=$(s3d_stats connections)
    wait_for 60 eval "[ \$(s3d_stats connections) -gt $((failed + 20)) ]"
    kill -0 $! || fail "it did not wait: $*"
    s3d_fault up=1
    wait $! || fail "$*"
    s3d_clear
}
away s3vol import "$T/random" "$URL-random"
away s3vol export "$URL-random" "$T/random-out"
cmp "$T/random" "$T/random-out"

# -- asked to end: nothing is left
s3d_fault 'latency=500'
s3vol import "$T/random" "$URL-ended" 2>"$T/said" &
puts=$(s3d_stats PUT)
wait_for 30 eval "[ \$(s3d_stats PUT) -gt $((puts + 4)) ]"
kill -TERM $!
rc=0
wait $! || rc=$?
same $rc 1 "exit code"
grep -q 'not imported' "$T/said" || fail "it said: $(cat "$T/said")"
s3d_clear
refused 'no volume' s3vol status "$URL-ended"
no_caches

# -- many requests at once
s3d_fault 'latency=20'
before=$(s3d_stats connections) gets=$(s3d_stats GET)
rm "$T/random-out"
s3vol export "$URL-random" "$T/random-out"
gets=$(($(s3d_stats GET) - gets)) at_once=$(($(s3d_stats connections) - before))
echo "64 MiB: $gets GETs, up to $at_once at once"
within $at_once 8 40 "connections"
within "$gets" 16 60 "GETs"
