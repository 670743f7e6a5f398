# The suite nbd: s3vol-nbd, nbdkit file and qemu-nbd on one raw file, and on the image of one mounted
# volume whose blocks are all cached; each over a Unix socket, in turns. Sourced by run.
# shellcheck shell=bash disable=SC2154

NBD_SERVERS=(s3vol-nbd nbdkit qemu-nbd)

nbd_server() { # nbd_server NAME FILE SOCKET: in its place
    case $1 in
    s3vol-nbd) exec s3vol-nbd --unix "$3" "$2" ;;
    nbdkit) exec nbdkit -f -U "$3" file "$2" ;;
    qemu-nbd) exec qemu-nbd -f raw -t -e 16 -k "$3" "$2" ;;
    esac
}

nbd_start() { # nbd_start FILE: all of them; sets nbd_pid[NAME]
    local name
    for name in "${NBD_SERVERS[@]}"; do
        rm -f "$T/$name.sock"
        nbd_server "$name" "$1" "$T/$name.sock" >"$T/$name.log" 2>&1 </dev/null &
        nbd_pid[$name]=$!
        children+=($!)
        until [ -S "$T/$name.sock" ]; do
            kill -0 "${nbd_pid[$name]}" 2>/dev/null || { cat "$T/$name.log" >&2; return 1; }
            sleep 0.02
        done
    done
}

nbd_stop() {
    local name
    for name in "${NBD_SERVERS[@]}"; do
        kill "${nbd_pid[$name]}"
        wait "${nbd_pid[$name]}" || :
    done
}

nbd_measure() { # nbd_measure GROUP WORKLOAD UNIT FIO-OPTIONS…: by each server
    local group=$1 workload=$2 unit=$3 name cpu value
    shift 3
    for name in $(rotated "$round" "${NBD_SERVERS[@]}"); do
        say "$group, round $round: $workload, $name"
        cpu=$(cpu_ms "${nbd_pid[$name]}")
        value=$(run_fio "$unit" --ioengine=nbd --uri="nbd+unix:///?socket=$T/$name.sock" --size="$nbd_size" \
            --time_based --ramp_time=200ms --runtime="$nbd_ms"ms "$@")
        record "$group" "$workload" "$name" "$unit" "$value" \
            "{\"round\": $round, \"cpu_s\": $((($(cpu_ms "${nbd_pid[$name]}") - cpu)))e-3}"
    done
}

nbd_workloads() { # nbd_workloads GROUP
    local round
    for ((round = 1; round <= nbd_rounds; round++)); do
        nbd_measure "$1" "read 4 KiB, depth 1" ops/s --rw=randread --bs=4k --iodepth=1
        nbd_measure "$1" "read 4 KiB, depth 32" ops/s --rw=randread --bs=4k --iodepth=32
        nbd_measure "$1" "write 4 KiB, depth 1" ops/s --rw=randwrite --bs=4k --iodepth=1
        nbd_measure "$1" "write 4 KiB, depth 32" ops/s --rw=randwrite --bs=4k --iodepth=32
        nbd_measure "$1" "sequential read 1 MiB" MB/s --rw=read --bs=1M --iodepth=4
        nbd_measure "$1" "sequential write 1 MiB" MB/s --rw=write --bs=1M --iodepth=4
    done
}

suite_nbd() {
    local -A nbd_pid
    local nbd_size=256M nbd_ms=2000 nbd_rounds=7 c
    [ -z "$quick" ] || nbd_ms=300 nbd_rounds=2 nbd_size=128M
    for c in "${NBD_SERVERS[@]}"; do
        command -v "$c" >/dev/null || { skipped nbd "$c is missing: sudo contrib/setup bench"; return; }
    done

    dd if=/dev/urandom of="$T/raw" bs=1M count=${nbd_size%M} status=none
    nbd_start "$T/raw" && nbd_workloads "NBD, a raw file" && nbd_stop
    rm "$T/raw"

    server_up dir
    target_size=$nbd_size writeback_delay=1h
    target_use s3vol && target_new
    dd if=/dev/urandom of="$file" bs=1M count=${nbd_size%M} conv=notrunc status=none
    nbd_start "$file" && nbd_workloads "NBD, a mounted image" && nbd_stop
    target_gone
    server_down
    writeback_delay=''
}
