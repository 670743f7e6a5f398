#!/bin/bash
# Snapshots keep what was, clones begin with it and go their own ways, a rollback can be undone; what
# others depend on is not deleted.
# stores: dir s3d radosgw
# limit: 240
. "$(dirname "$0")/lib/common.sh"

# fill BLOCK TEXT: 64 KiB of it, from that block of 4 KiB on, and a flush.
text() { yes "$1" 2>/dev/null | head -c 65536 || :; }
fill() { dd if=<(text "$2") of="$IMAGE" bs=4k seek="$1" count=16 iflag=fullblock conv=notrunc,fsync status=none; }
# holds BLOCK TEXT
holds() { cmp <(text "$2") <(dd if="$IMAGE" bs=4k skip="$1" count=16 status=none); }
use() { URL=$1 && mount_volume; }

start_volume
first=$URL
fill 0 one
fill 1000 kept
s3vol snapshot create "$MNT@monday"
fill 0 two
s3vol snapshot create "$first@tuesday" # as it is in the bucket, mounted or not
refused 'already' s3vol snapshot create "$first@monday"
refused 'is mounted' s3vol snapshot rollback "$first@monday"

# of a snapshot, of the present, and of a clone
s3vol clone "$first@monday" "$first-a"
s3vol clone "$first" "$first-b"
fill 0 three
umount_volume
use "$first-a"
before=$(status requests.get) down=$(status bytes_down)
holds 0 one && holds 1000 kept
[ "$(status requests.get)" -gt "$before" ] && [ "$(status bytes_down)" -gt "$down" ] || fail "requests to the base are not counted"
fill 16 ours
umount_volume
s3vol clone "$first-a" "$first-c"
use "$first-b" && holds 0 two && umount_volume
use "$first-c" && holds 0 one && holds 16 ours && holds 1000 kept
fill 1000 changed
umount_volume
use "$first-c" && holds 1000 changed && holds 0 one && umount_volume # with a warm cache
rm -rf "${CACHE:?}"
use "$first-c" && holds 1000 changed && holds 0 one && holds 16 ours && umount_volume
use "$first-a" && holds 1000 kept && holds 16 ours && umount_volume

# back, and forth again
s3vol snapshot rollback "$first@monday" >"$T/said"
before=$(sed -n 's/.*snapshot //p' "$T/said")
use "$first" && holds 0 one && fill 32 later && umount_volume
s3vol snapshot rollback "$first@$before" >"$T/said"
use "$first" && holds 0 three && umount_volume
rm -rf "${CACHE:?}"
use "$first" && holds 0 three && holds 1000 kept && umount_volume
for volume in "$first" "$first-a" "$first-b" "$first-c"; do s3vol check "$volume"; done
s3vol snapshot list "$first"
s3vol snapshot list --json "$first" | python3 -c 'import json, sys
names = [s["name"] for s in json.load(sys.stdin)]
assert "monday" in names and "tuesday" in names and sum(n.startswith("clone-") for n in names) == 3, names'

same "$(s3vol status --json "$first" | jq -c '[.snapshots, .clone_of]')" '[4,null]' "snapshots of the first"
same "$(s3vol status --json "$first-a" | jq -r .clone_of)" "$first" "what it is a clone of"

# a clone's pin is the clone's alone
pin=$(s3vol snapshot list "$first" | sed -n "s|^\(clone-[^ ]*\).*$first-b$|\1|p")
refused "$first-b" s3vol snapshot delete "$first@$pin"
refused 'only its clone' s3vol snapshot rollback "$first@$pin"
refused 'only its clone' s3vol mount "$first@$pin" "$MNT"
refused 'only its clone' s3vol clone "$first@$pin" "$first-d"

# in the wrong order
refused "$first-a" s3vol delete --force "$first"
refused "$first-a" s3vol snapshot delete "$first@monday"
refused "$first-c" s3vol delete --force "$first-a"
s3vol delete --force "$first-c"
s3vol delete --force "$first-a"
# killed before the pins of what it had were deleted: they can be, one by one
if [ "$STORE" = dir ]; then
    cp "$first/snapshot/$pin" "$T/pin"
    s3vol delete --force "$first-b"
    ! s3vol snapshot list "$first" | grep -q "$pin" || fail "the clone's pin is left"
    cp "$T/pin" "$first/snapshot/$pin"
    s3vol snapshot delete "$first@$pin"
    [ ! -e "$first/snapshot/$pin" ] || fail "the pin is left"
    # another volume is there by now: not the clone
    cp "$T/pin" "$first/snapshot/$pin"
    s3vol create --size 1M "$first-b"
    s3vol snapshot delete "$first@$pin"
fi
s3vol delete --force "$first-b"
s3vol snapshot delete "$first@monday"
s3vol snapshot delete "$first@tuesday"
refused 'no such snapshot' s3vol snapshot delete "$first@tuesday"
! s3vol snapshot list "$first" | grep -v before-rollback || fail "more is left"
use "$first" && holds 0 three && umount_volume
s3vol delete --force "$first"

# clones of clones go eight deep
s3vol create --size 64M "$first-0"
use "$first-0" && fill 0 bottom && umount_volume
for n in 1 2 3 4 5 6 7 8; do s3vol clone "$first-$((n - 1))" "$first-$n"; done
refused '8 deep.*flatten' s3vol clone "$first-8" "$first-9"
use "$first-8" && holds 0 bottom && umount_volume
s3vol flatten "$first-8"
s3vol clone "$first-8" "$first-9"
use "$first-9" && holds 0 bottom && umount_volume
