#!/bin/bash
# stores: dir s3d
# After defragmenting, a volume that was written in random order is planned to take at most 1.2 times the requests
# of one written in order to be read in order, and takes at most 1.5 times, with a cold cache; a range can be chosen; the volume is in use meanwhile.
. "$(dirname "$0")/lib/common.sh"

# cold_gets: sets GETS, what reading the whole image costs with nothing cached.
cold_gets() {
    umount_volume
    new_cache
    mount_volume --cache-size 512M --read-ahead 4M
    GETS=$(status requests.get)
    tool verify "$IMAGE" 0 128M "$1"
    GETS=$(($(status requests.get) - GETS))
}

new_volume --size 128M
mount_volume --no-compress --no-gc --writeback-delay 1h # one commit, which ends nowhere else
tool fill "$IMAGE" 0 128M 1
cold_gets 1
in_order=$GETS
# What its pieces take if they are read as planned, whatever a reader and the machine's load make of it.
planned() { s3vol defrag "$@" "$MNT" | sed -n 's/.* in order: \([0-9]*\) before, \([0-9]*\) now$/\1 \2/p'; }
planned_in_order=$(planned)
same "${planned_in_order% *}" "${planned_in_order#* }" "requests for what is in order"
umount_volume
s3vol delete --force "$URL"
s3vol create --size 128M "$URL"
new_cache
mount_volume --no-compress --dirty-limit 16M --no-gc
tool shuffle "$IMAGE" 128M 2
cold_gets 2
scattered=$GETS
[ "$scattered" -ge $((5 * in_order)) ] || fail "$scattered requests is not scattered, beside $in_order"
s3vol defrag --offset 32M --length 32M "$MNT"
cold_gets 2
part=$GETS
within $((100 * part / scattered)) 60 90 "% of the requests, with a quarter defragmented"
for n in 1 2 3 4; do tool fill "$IMAGE" 100M 1M 2; done & # somebody writes meanwhile
planned >"$T/said"
wait $!
read -r before now <"$T/said"
[ "$before" -ge $((3 * now)) ] || fail "$before requests per GiB before, $now now"
within $((100 * now / ${planned_in_order% *})) 50 120 "% of the requests of a volume written in order, as planned"
cold_gets 2
echo "in order $in_order, scattered $scattered, a quarter done $part, all $GETS"
within $((100 * GETS / in_order)) 50 150 "% of the requests of a volume written in order"
umount_volume
s3vol check "$URL"
