#!/bin/bash
# A clone of 100 GiB takes under a second and under ten requests, however its data is scattered; clones that all read the
# same, and write a tenth of it, store what they share once. LONG=1: 50 clones that read 500 MiB and write 50 MiB each.
# stores: s3d
# limit: 300
. "$(dirname "$0")/lib/common.sh"
clones=10 reads=50 writes=5 # MiB
[ -z "${LONG:-}" ] || clones=50 reads=500 writes=50

# scatter MIB: runs of 1 to 8 random blocks, all over the image.
scatter() {
    python3 - "$IMAGE" "$1" <<'EOF'
import os, random, sys
random.seed(1)
fd = os.open(sys.argv[1], os.O_WRONLY)
blocks, left = (100 << 30) // 4096, int(sys.argv[2]) * 256
while left > 0:
    n = min(random.randint(1, 8), left)
    os.pwrite(fd, os.urandom(n * 4096), random.randrange(blocks - n) * 4096)
    left -= n
os.fsync(fd)
EOF
}
stored() { s3vol status --json "$1" | jq .stored_bytes; }
# cloned FROM TO [MORE]: prints what it took; MORE requests may, for further bases.
cloned() {
    local before start took n
    before=$(s3d_stats requests) start=${EPOCHREALTIME/./}
    s3vol clone "$1" "$2"
    took=$(((${EPOCHREALTIME/./} - start) / 1000)) n=$(($(s3d_stats requests) - before))
    echo "clone of ${1##*/}: $took ms, $n requests"
    within $took 0 $((1000 * SLOW - 1)) "milliseconds"
    within $n 1 $((9 + ${3:-0})) "requests"
}

new_volume --size 100G
base=$URL
mount_volume
scatter 300
scatter 1
cloned "$base" "$base-mounted"
umount_volume
cloned "$base" "$base-present"
s3vol snapshot create "$base@monday"
cloned "$base@monday" "$base-monday"
cloned "$base-monday" "$base-deeper" 5
URL=$base-deeper
new_cache
start=${EPOCHREALTIME/./}
mount_volume
echo "its first mount: $(((${EPOCHREALTIME/./} - start) / 1000)) ms, $(requests) requests"
umount_volume

# like machines that boot from one image
base=$base-image
URL=$base
s3vol create --size 4G "$base"
mount_volume --no-compress
tool fill "$IMAGE" 0 ${reads}M 1
umount_volume
image=$(stored "$base")
all=$image
for i in $(seq $clones); do
    URL=$base-$i
    s3vol clone "$base" "$URL"
    rm -rf "${CACHE:?}"
    mount_volume --no-compress
    tool verify "$IMAGE" 0 ${reads}M 1
    tool fill "$IMAGE" $((i % 10))M ${writes}M $((i + 1))
    umount_volume
    all=$((all + $(stored "$URL")))
done
written=$((clones * writes << 20))
echo "$clones clones, each reads $reads MiB and writes $writes MiB: $((image >> 10)) KiB of the image, $(((all - image) >> 10)) KiB of the clones, $(((all - image) * 100 / written))% of what they wrote"
within $((all - image)) $written $((written * 105 / 100)) "bytes stored by clones"
same "$(stored "$base" | awk -v i="$image" '{ print $1 - i < 65536 * '$clones' }')" 1 "the image grows by pins only"
i=1
URL=$base-$i
rm -rf "${CACHE:?}"
mount_volume
tool verify "$IMAGE" ${i}M ${writes}M $((i + 1))
tool verify "$IMAGE" $((i + writes))M $((reads - i - writes))M 1
umount_volume
