#!/bin/bash
# quick
# Includes point only downwards, store <- cache <- fuse, and no file holds two nouns.
cd "$(dirname "$0")/.." || exit 1
bad=0

complain() {
    [ -z "$1" ] || { printf '%s\n' "$2" "$1"; bad=1; }
}

complain "$(grep -nE '#include "(\.\./)?(cache|fuse|contrib|tests)/' store/*.[ch])" "store/ depends on nothing of ours:"
complain "$(grep -nE '#include "(\.\./)?(fuse|contrib|tests)/' cache/*.[ch])" "cache/ depends on store/ only:"
complain "$(grep -nE '#include "(\.\./)?(contrib|tests)/' fuse/*.[ch])" "fuse/ depends on cache/ and store/ only:"
complain "$(grep -nE '#include "(\.\./)*(cache|tests)/' contrib/*/*.[ch])" "contrib/ depends on store/ and fuse/ only:"
complain "$(wc -l -- */*.[ch] tests/*/*.[ch] tests/*.sh tests/*/*.sh tests/run contrib/*/* contrib/* 2>/dev/null |
    awk '$2 != "total" && $1 > 600')" "past 600 lines:"
complain "$(grep -nE '\b(TODO|FIXME|XXX)\b' -- */*.[ch] */*/*.[ch])" "not finished:"
exit $bad
