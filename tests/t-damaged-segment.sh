#!/bin/bash
# A damaged or cut segment: EIO or one line of error, never wrong bytes; check names the object.
. "$(dirname "$0")/lib/common.sh"

start_volume --no-compress
tool fill "$IMAGE" 0 6M 1
sync "$IMAGE"
tool fill "$IMAGE" 6M 2M 1
umount_volume
cp -a "$URL" "$T/whole"
s3vol check "$URL"
segment=$(cd "$URL" && ls -S log | head -n 1) # the largest
size=$(stat -c %s "$URL/log/$segment")

for damage in "tool flip FILE $((size / 2))" "tool flip FILE -1" "tool flip FILE 0" "tool flip FILE 40" "tool flip FILE 200" \
    "truncate -s $((size / 2)) FILE" "truncate -s $((size - 1)) FILE" "truncate -s 50 FILE" ": >FILE" \
    "cp $URL/log/$(cd "$URL" && ls log | tail -n 1) FILE"; do
    echo "--- $damage"
    rm -rf "$URL" && cp -a "$T/whole" "$URL"
    eval "${damage//FILE/$URL/log/$segment}"
    check_finds "log/$segment"
    new_cache
    if timeout 30 s3vol mount --cache-dir "$CACHE" "$URL" "$MNT" >"$T/said" 2>&1; then
        # What it gives must be right or EIO.
        for mib in 0 1 2 3 4 5 6 7; do
            tool verify "$IMAGE" ${mib}M 1M 1 >"$T/verify" 2>&1 || grep -q 'Input/output' "$T/verify" ||
                fail "$(cat "$T/verify")"
        done
        if tool verify "$IMAGE" 0 8M 1 2>/dev/null; then fail "the damage was not noticed"; fi
        s3vol status --json "$MNT" | jq -r .last_error | grep -q "$segment" || fail "status does not name the object"
        s3vol umount "$MNT"
    else
        cat "$T/said"
        same "$(wc -l <"$T/said")" 1 "lines that mount said"
        grep -q "log/" "$T/said" || fail "mount does not name the object"
    fi
done
