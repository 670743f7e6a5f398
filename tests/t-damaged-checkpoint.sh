#!/bin/bash
# limit: 120
# A damaged, cut or missing checkpoint: the mount is right all the same, or says in one line what is
# wrong; check names the object.
. "$(dirname "$0")/lib/common.sh"

start_volume
tool fill "$IMAGE" 0 4M 1
tool scatter "$IMAGE" 512M 500 1
# Enough commits that umount makes a checkpoint.
dd if=/dev/urandom of="$IMAGE" bs=4k count=100 seek=150000 oflag=dsync conv=notrunc status=none
umount_volume
checkpoint=$(ls "$URL/map" | tail -n 1)
cp -a "$URL" "$T/whole"
for file in "map/$checkpoint" "part/$(ls "$URL/part" | tail -n 1)"; do
    size=$(stat -c %s "$URL/$file")
    for damage in "tool flip FILE 0" "tool flip FILE 9" "tool flip FILE 130" "tool flip FILE -1" "tool flip FILE $((size / 2))" \
        "truncate -s $((size / 2)) FILE" ": >FILE" "rm FILE"; do
        echo "--- $damage ($file)"
        rm -rf "$URL" && cp -a "$T/whole" "$URL"
        eval "${damage//FILE/$URL/$file}"
        case $damage,$file in
        rm*,map/*) s3vol check "$URL" ;; # nobody knows that there was one, and the log has it all
        *) check_finds "$file" ;;
        esac
        new_cache
        if timeout 30 s3vol mount --cache-dir "$CACHE" "$URL" "$MNT" >"$T/said" 2>&1; then
            tool verify "$IMAGE" 0 4M 1
            tool verify-scatter "$IMAGE" 512M 500 1
            s3vol umount "$MNT"
        else
            cat "$T/said"
            same "$(wc -l <"$T/said")" 1 "lines that mount said"
            grep -qE "$file" "$T/said" || fail "mount does not name the object"
        fi
    done
done
