#!/bin/bash
# limit: 900
# quick
# The model test (tests/model.c), with a fixed seed and a new one; RUNS=n: with so many.
. "$(dirname "$0")/lib/common.sh"

seeds="1 $RANDOM"
[ -z "${LONG:-}${RUNS:-}" ] || seeds=$(seq 1 "${RUNS:-100}")
for seed in $seeds; do
    for sync in bucket cache; do
        mkdir -p "$T/model"
        timeout $((280 * SLOW)) model --seed $seed --sync $sync "$T/model" >"$T/said" 2>&1 ||
            { cat "$T/said"; fail "again: model --seed $seed --sync $sync DIR"; }
        head -n 1 "$T/said"
    done
done
