#!/bin/bash
# limit: 200
# Volumes on demand: mounted and created for the first client, shared, kept for the grace time, unmounted
# after the last client; names that would reach elsewhere do not exist; what was written is in the bucket.
. "$(dirname "$0")/lib/common.sh"
. "$(dirname "$0")/lib/nbd.sh"

need_root
mkdir -p "$T/bucket" "$T/vols"
export S3VOL_CACHE_DIR=$T/cache
s3vol create --size 64M "$T/bucket/old"
s3vol create --size 64M "$T/secret"

mounted() { mountpoint -q "$T/vols/$1"; }
not_mounted() { ! mounted "$1"; }

# Without --create-size only what exists is there; names are checked.
start_nbd --volumes "$T/bucket" --mount-dir "$T/vols" --grace 1h
nbdinfo --size "$(uri old)" >"$T/size"
same "$(cat "$T/size")" 67108864 "size of old"
mounted old || fail "old is not mounted in the grace time"
for name in new ../secret .. . '' -h a/b .hidden "$(printf '%0129d' 0)" 'a b' 'ä'; do
    ! nbdinfo --size "$(uri "$(jq -rn --arg n "$name" '$n | @uri')")" >"$T/out" 2>&1 || fail "there is an export '$name'"
done
[ "$(find "$T/vols" -mindepth 1 | wc -l)" = 2 ] || fail "more than old was touched: $(find "$T/vols")"
[ ! -e "$T/bucket/new" ] || fail "new was created"
stop_nbd
not_mounted old || fail "old is mounted after the end"

# With it.
start_nbd --volumes "$T/bucket" --mount-dir "$T/vols" --create-size 32M --mount-options sync=cache --grace 0s
truncate -s 32M "$T/data"
tool fill "$T/data" 0 8M 1
nbdcopy "$T/data" "$(uri new)"
wait_for 60 test ! -e "$T/vols/new"
same "$(s3vol status --json "$T/bucket/new" | jq .size_bytes)" 33554432 "size of new"
nbdcopy "$(uri new)" "$T/copy"
cmp "$T/copy" "$T/data"

# Two clients of one volume, another of another, while a third comes and goes.
nbdcopy --connections=4 "$(uri new)" "$T/copy1" &
copy1=$!
nbdcopy "$(uri old)" "$T/copy2" &
for i in 1 2 3 4 5 6; do
    nbdinfo --size "$(uri "old")" >/dev/null
done
wait $copy1 $!
cmp -n 8M "$T/copy1" "$T/data"

# Killed: the volumes stay mounted, and the next server takes them over.
wait_for 60 test ! -e "$T/vols/old"
stop_nbd
start_nbd --volumes "$T/bucket" --mount-dir "$T/vols" --grace 1h
nbdinfo --size "$(uri old)" >"$T/size"
kill -KILL $NBD
wait $NBD || :
mounted old || fail "old went with the server"
start_nbd --volumes "$T/bucket" --mount-dir "$T/vols" --grace 0s
nbdcopy "$T/data" "$(uri old)"
wait_for 60 test ! -e "$T/vols/old"

# One volume's daemon dies, and its clients try again and again: they get in long before the grace time is over.
stop_nbd
start_nbd --volumes "$T/bucket" --mount-dir "$T/vols" --grace 1h
nbdinfo --size "$(uri old)" >"$T/size"
kill -KILL "$(s3vol status --json "$T/vols/old" | jq .pid)"
wait_for 30 nbdinfo --size "$(uri old)"
nbdcopy "$(uri old)" "$T/again"
cmp -n 8M "$T/again" "$T/data"

# The same where the server comes anew; several come at once.
stop_nbd
start_nbd --volumes "$T/bucket" --mount-dir "$T/vols" --grace 1h
nbdinfo --size "$(uri old)" >"$T/size"
kill -KILL "$(s3vol status --json "$T/vols/old" | jq .pid)"
kill -KILL $NBD
wait $NBD || :
start_nbd --volumes "$T/bucket" --mount-dir "$T/vols" --grace 1h
for i in 1 2 3 4; do nbdcopy "$(uri old)" "$T/old$i" & done
for i in $(jobs -p | grep -vx $NBD); do wait "$i"; done
for i in 1 2 3 4; do cmp -n 8M "$T/old$i" "$T/data"; done
stop_nbd
same "$(find "$T/vols" -mindepth 1 | wc -l)" 0 "what is left in the directory"
s3vol check "$T/bucket/old"
