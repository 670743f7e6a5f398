#!/bin/bash
# limit: 180
# A writer far away that flushes all the time, alone or with eight at once, is quicker than any claim at
# the number that is missing now: its next segment is under way before the claimer hears of the last one.
# Who mounts all the same gets the volume, with every flush that was acknowledged, and the writer is fenced.
# ROUNDS=n: so many.
. "$(dirname "$0")/lib/common.sh"

need fio
BLOCKS=2048
start_s3d --latency 20 || exit
URL=s3://$S3_BUCKET/vm1
export URL
need_root
s3vol create --size 1G "$URL"

for round in $(seq "${ROUNDS:-4}"); do
    MNT=$T/mnt1 CACHE=$T/cache1
    mount_volume --discard-local
    first=$DAEMON first_log=$DAEMON_LOG first_image=$IMAGE
    fallocate -z -l $((BLOCKS * 4096)) "$IMAGE"
    s3vol flush "$MNT"
    fio=
    if [ $((round % 2)) = 0 ]; then
        fio --name=others --filename="$IMAGE" --offset=64M --size=64M --rw=randwrite --bs=4k --fsync=1 --numjobs=8 \
            --thread --ioengine=psync --time_based --runtime=600 --output="$T/fio" &
        fio=$!
    fi
    ledger write "$IMAGE" $BLOCKS 100000000 "$round" 5 >"$T/acknowledged" 2>"$T/said" &
    ledger=$!
    wait_for 60 eval "[ \$(wc -l <'$T/acknowledged') -ge 10 ]"

    MNT=$T/mnt2 CACHE=$T/cache2
    mount_volume --discard-local
    found=$(ledger verify "$IMAGE" $BLOCKS 100000000 "$round")
    wait_for 60 eval "! kill -0 $ledger"
    acknowledged=$(tail -n 1 "$T/acknowledged")
    echo "round $round: ${fio:+with eight others, }acknowledged $acknowledged, found $found"
    [ "$found" -ge "$acknowledged" ] || fail "a flush was acknowledged that the log does not hold"
    grep -q 'Input/output error' "$T/said" || fail "the writer got no EIO: $(cat "$T/said")"
    [ -z "$fio" ] || ! wait $fio || fail "the eight others got no error"
    eio sync "$first_image"
    grep -q 'fenced: the volume was attached by host .*, process [0-9]* at 2' "$first_log" || fail "nobody told the writer"
    : >"$first_log"
    DAEMON=$first MNT=$T/mnt1 kill_daemon
    umount_volume
    rm -rf "$T/cache1"
done
s3vol check "$URL"
