#!/bin/bash
# limit: 120
# fio writes and verifies at depth 32 on four connections at once: a mounted volume, a raw file.
. "$(dirname "$0")/lib/common.sh"
. "$(dirname "$0")/lib/nbd.sh"

verify() { # verify URI
    fio --name=verify --verify_state_save=0 --ioengine=nbd --uri="$1" --rw=randwrite --bsrange=512-64k --blockalign=512 --iodepth=32 \
        --numjobs=4 --size=12M --offset_increment=12M --verify=crc32c --do_verify=1 --verify_fatal=1 \
        --group_reporting >"$T/fio.out" 2>&1 || { tail "$T/fio.out"; fail "fio"; }
    grep -q 'err= 0' "$T/fio.out" || { cat "$T/fio.out"; fail "fio"; }
}

start_volume
truncate -s 64M "$T/raw"
start_nbd volume="$IMAGE" raw="$T/raw"
verify "$(uri volume)"
verify "$(uri raw)"
stop_nbd
umount_volume
