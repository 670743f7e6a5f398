# The suite nbd, sourced: s3vol-nbd, nbdkit file and qemu-nbd on one raw file, and on the image of one mounted
# volume whose blocks are all cached; each over a Unix socket, in turns.
# shellcheck shell=bash disable=SC2154

NBD_SERVERS=(s3vol-nbd nbdkit qemu-nbd)

nbd_server() { # nbd_server NAME FILE SOCKET: in its place
    case $1 in
    s3vol-nbd) exec s3vol-nbd --unix "$3" "$2" ;;
    nbdkit) exec nbdkit -f -U "$3" file "$2" ;;
    qemu-nbd) exec qemu-nbd -f raw -t -e 16 -k "$3" "$2" ;;
    esac
}

nbd_up() { # nbd_up FILE: all of them; as daemons of subjects
    local name
    for name in "${NBD_SERVERS[@]}"; do
        rm -f "$T/$name.sock"
        nbd_server "$name" "$1" "$T/$name.sock" >"$T/$name.log" 2>&1 </dev/null &
        daemons[$name]=$!
        disown "$!"
        await 10 nbd_shown || { cat "$T/$name.log" >&2 && complain "$name does not start"; }
    done
}

nbd_shown() {
    [ -S "$T/$name.sock" ] || gone "${daemons[$name]}"
}

nbd_down() {
    local name
    for name in "${NBD_SERVERS[@]}"; do
        stop_server "${daemons[$name]}"
        daemons[$name]=''
    done
}

nbd_once() {
    nbd_measure "read 4 KiB, depth 1" ops/s --rw=randread --bs=4k --iodepth=1
    nbd_measure "read 4 KiB, depth 32" ops/s --rw=randread --bs=4k --iodepth=32
    nbd_measure "write 4 KiB, depth 1" ops/s --rw=randwrite --bs=4k --iodepth=1
    nbd_measure "write 4 KiB, depth 32" ops/s --rw=randwrite --bs=4k --iodepth=32
    nbd_measure "sequential read 1 MiB" MB/s --rw=read --bs=1M --iodepth=4
    nbd_measure "sequential write 1 MiB" MB/s --rw=write --bs=1M --iodepth=4
}

nbd_measure() { # nbd_measure WORKLOAD UNIT FIO-OPTIONS…: by each server
    local name workload=$1 unit=$2
    shift 2
    for name in $(rotated "$round" "${NBD_SERVERS[@]}"); do
        subject_use "$name"
        measure "$workload" "$unit" run_fio --ioengine=nbd --uri="nbd+unix:///?socket=$T/$name.sock" --size="$bytes" \
            --time_based --ramp_time=100ms --runtime="$ms"ms "$@"
    done
}

suite_nbd() {
    local bytes=256M ms=2000 n=5 round group
    [ -z "$quick" ] || ms=250 n=2 bytes=128M
    server_up dir || return
    disk_size=1G mount_options='--writeback-delay 1h'

    if [ -z "$quick" ]; then
        group="NBD, a raw file"
        dd if=/dev/urandom of="$T/raw" bs=1M count=${bytes%M} status=none
        nbd_up "$T/raw"
        for ((round = 1; round <= ${rounds:-$n}; round++)); do nbd_once; done
        nbd_down
        rm "$T/raw"
    fi

    group="NBD, a mounted image"
    subject_use s3vol
    if subject_new && fill; then
        nbd_up "$file"
        for ((round = 1; round <= ${rounds:-$n}; round++)); do nbd_once; done
        nbd_down
    fi
    subject_use s3vol
    subject_gone
    server_down
}
