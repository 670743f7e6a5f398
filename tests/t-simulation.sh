#!/bin/bash
# limit: 900
# The simulation (tests/sim), so many seeds; a seed is one run, always the same; SEEDS=n: so many new ones. All that it
# counts has happened.
. "$(dirname "$0")/lib/common.sh"
[ -x "$B/tests/sim" ] || skip "not built"

trace() { sim --seed "$1" -v 2>&1 | grep -o 'trace .*'; }
for seed in 3 4 5; do
    same "$(trace $seed)" "$(trace $seed)" "the run of seed $seed"
done
[ "$(trace 3)" != "$(trace 4)" ] || fail "two seeds, one run"
if [ -n "${SEEDS:-}" ]; then
    sim --seed "$RANDOM$RANDOM" --count "$SEEDS"
elif [ "$SLOW" -gt 1 ]; then
    sim --seed 1 --count 500
else
    sim --seed 1 --count 6000 | tee "$T/said"
    grep '^runs with snapshots: ' "$T/said" >"$T/counts"
    ! grep -oE '[^ ,][^,]*: 0(,|$)' "$T/counts" || fail "so much of it has never happened"
fi
