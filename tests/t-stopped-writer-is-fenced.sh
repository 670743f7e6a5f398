#!/bin/bash
# stores: dir s3d radosgw
# limit: 180
# Two mounts of one volume that both write and flush all the time; the second attaches at a random moment.
# One of them may be stopped (SIGSTOP) across the other's attachment, as a machine that sleeps. Nobody is
# ever told of a flush that the log does not hold. The loser gets EIO, a message and the state "fenced";
# its cache is then refused as a fork, which says how much and since when; --discard-local works.
# ROUNDS=n: so many; SEED=n: other choices.
. "$(dirname "$0")/lib/common.sh"

seed=${SEED:-$RANDOM}
echo "SEED=$seed"
RANDOM=$seed
BLOCKS=2048

# Mounts as number N, with a cache of its own.
mount_as() { # mount_as N [OPTIONS of mount]
    MNT=$T/mnt$1 CACHE=$T/cache$1
    mount_volume "${@:2}"
}

# A new ledger, on zeros; sets LEDGER.
start_ledger() { # start_ledger SEED
    fallocate -z -l $((BLOCKS * 4096)) "$IMAGE"
    s3vol flush "$MNT"
    : >"$T/acknowledged$1"
    ledger write "$IMAGE" $BLOCKS 100000000 "$1" $((RANDOM % 4 * 5 + 1)) >"$T/acknowledged$1" 2>"$T/said$1" &
    LEDGER=$!
    goes_on "$1" 5
}

acknowledged() {
    { echo 0 && cat "$T/acknowledged$1"; } | tail -n 1
}

# So many more flushes, or the writer has got its error.
goes_on() { # goes_on SEED N
    local lines
    lines=$(($(wc -l <"$T/acknowledged$1") + $2))
    wait_for 60 eval "[ \$(wc -l <'$T/acknowledged$1') -ge $lines ] || ! kill -0 $LEDGER"
}

# The second one attaches while the first one writes; who is stopped meanwhile goes on at the end.
attach_second() { # attach_second NOBODY|FIRST|SECOND SEED-OF-FIRST
    case $1 in
    FIRST)
        kill -STOP "$DAEMON"
        STOPPED=$DAEMON
        mount_as 2
        ;;
    SECOND)
        mkdir -p "$T/mnt2"
        s3vol mount -f --cache-dir "$T/cache2" "$URL" "$T/mnt2" >>"$T/daemon-mnt2.log" 2>&1 &
        DAEMON=$!
        sleep "0.0$((RANDOM % 6))" # the moment is the point
        kill -STOP $DAEMON
        goes_on "$2" 10
        kill -CONT $DAEMON
        MNT=$T/mnt2 CACHE=$T/cache2 IMAGE=$T/mnt2/image
        wait_for 30 test -f "$IMAGE"
        ;;
    *) mount_as 2 ;;
    esac
}

new_volume
mode=bucket
for round in $(seq "${ROUNDS:-4}"); do
    a=$((2 * round)) b=$((2 * round + 1)) STOPPED=
    case $((RANDOM % 4)) in 0) who=NOBODY ;; 1) who=SECOND ;; *) who=FIRST ;; esac
    mount_as 1 --discard-local --sync $mode --writeback-delay 100ms
    first=$DAEMON first_log=$DAEMON_LOG
    : >"$first_log"
    start_ledger $a
    ledger_a=$LEDGER
    goes_on $a $((RANDOM % 20))

    attach_second $who $a
    found=$(ledger verify "$IMAGE" $BLOCKS 100000000 $a)
    start_ledger $b
    [ -z "$STOPPED" ] || kill -CONT "$STOPPED"
    wait_for 60 eval "! kill -0 $ledger_a"
    echo "round $round: $mode, stopped: $who, acknowledged $(acknowledged $a), the second found $found"
    [ $mode = cache ] || [ "$found" -ge "$(acknowledged $a)" ] || fail "a flush was acknowledged that the log does not hold"
    grep -q 'Input/output error' "$T/said$a" || fail "the loser got no EIO: $(cat "$T/said$a")"

    eio sync "$T/mnt1/image"
    same "$(s3vol status --json "$T/mnt1" | jq -r .state)" fenced "state of the loser"
    same "$(grep -c 'fenced: the volume was attached by host .*, process [0-9]* at 2' "$first_log")" 1 "lines that tell the loser"
    refused 'unmounting, but [1-9][0-9]* bytes are not in the bucket' s3vol umount "$T/mnt1"
    wait $first || :
    refused 'a fork: this cache .* has [1-9][0-9]* KiB .* attached elsewhere since, by host .*, process .* at 20.*--discard-local' \
        s3vol mount --cache-dir "$T/cache1" "$URL" "$T/mnt1"

    goes_on $b 3 # the winner does not notice any of this
    kill -0 "$LEDGER" || fail "the winner got an error: $(cat "$T/said$b")"
    kill "$LEDGER"
    wait "$LEDGER" || :
    if [ $((RANDOM % 2)) = 0 ]; then kill_daemon && new_cache; else umount_volume; fi
    mount_as 1 --discard-local
    found=$(ledger verify "$IMAGE" $BLOCKS 100000000 $b)
    [ "$found" -ge "$(acknowledged $b)" ] || fail "$(acknowledged $b) was acknowledged; the bucket has $found"
    umount_volume
    if [ $((RANDOM % 3)) = 0 ]; then mode=cache; else mode=bucket; fi
done
s3vol check "$URL"
