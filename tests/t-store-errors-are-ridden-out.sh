#!/bin/bash
# limit: 150
# quick
# A store that answers 500, 503 and 429, cuts bodies in both directions, loses answers and hangs, all the
# time: slow, but right.
. "$(dirname "$0")/lib/common.sh"

STORE=s3d
new_volume
s3d_fault 'status=503&p=0.1&seed=1'
s3d_fault 'status=500&p=0.1&seed=2'
s3d_fault 'status=429&p=0.05&seed=3'
s3d_fault 'cut=1000&method=GET&p=0.1&seed=4'
s3d_fault 'cut=1000&method=PUT&p=0.1&seed=5'
s3d_fault 'lost=1&p=0.1&seed=6'
s3d_fault 'hang=1&count=3&skip=30'
mount_volume --stall-timeout 1s --cache-size 16M --writeback-delay 100ms
tool mirror "$IMAGE" "$T/ref" 32M 450 1 plain
cmp -n 32M "$IMAGE" "$T/ref"
sync "$IMAGE"
same "$(status state)" ok state
within "$(status requests.retried)" 5 100000 "retries"
umount_volume
new_cache
mount_volume --stall-timeout 1s
cmp -n 32M "$IMAGE" "$T/ref"
umount_volume
