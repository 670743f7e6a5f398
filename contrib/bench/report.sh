# From $OUT/results.jsonl: the table, what became of the targets, and for each group a picture. Sourced.
# shellcheck shell=bash disable=SC2154

version() { # version COMMAND…: the first line that it says
    local said
    said=$(limited 10 "$@" 2>&1 | head -n 1)
    jq -n --arg name "$1" --arg said "$said" '{($name): $said}'
}

report_machine() {
    {
        version s3vol --version
        jq -n --arg commit "$(git -C "$top" describe --always --dirty 2>/dev/null)" '{commit: $commit}'
        version s3backer --version
        version fio --version
        version curl --version
        version nbdkit --version
        version qemu-nbd --version
        version sqlite3 --version
        ! command -v radosgw >/dev/null || version radosgw --version
    } | jq -s add >"$T/versions"
    jq -n --arg date "$(date -u +%FT%TZ)" --arg load "$(cut -d' ' -f1-3 /proc/loadavg)" --arg kernel "$(uname -sr)" \
        --arg cpu "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)" --argjson cores "$(nproc)" \
        --argjson memory "$(awk '/MemTotal/ { print $2 * 1024 }' /proc/meminfo)" \
        --arg disk "$(stat -f -c %T "$T") on $(df --output=source "$T" | tail -n 1)" --arg quick "$quick" \
        --arg suites "${suites[*]}" --slurpfile versions "$T/versions" \
        '{$date, quick: ($quick != ""), $suites, machine: {$cpu, $cores, memory_bytes: $memory, $kernel, $disk,
            load_before: $load}, versions: $versions[0]}' >"$T/machine.json"
    jq -r '"\(.machine.cores) × \(.machine.cpu), \(.machine.memory_bytes / 1073741824 | round) GiB, \(.machine.kernel), "
        + "\(.machine.disk), load \(.machine.load_before), \(.date)", "s3vol commit \(.versions.commit); "
        + (.versions | del(.commit) | to_entries | map("\(.key) \(.value | [match("[0-9]+\\.[0-9.]+").string][0])") | join(", "))' "$T/machine.json" >"$T/machine"
}

# What is measured comes first in each workload: all ratios are its own, the others' in its place, so that
# more than 1 is good.
report_medians() {
    jq -s '
        def median: map(select(. != null)) | sort | if length == 0 then null else (.[(length - 1) / 2 | floor] + .[length / 2 | floor]) / 2 end;
        def rank: if startswith("s3vol") then 0 elif . == "bare" then 1 else 2 end;
        to_entries | group_by(.value.group) | sort_by(.[0].key)
        | map(group_by(.value.workload) | sort_by(.[0].key)
            | map(map(.value) | group_by(.subject) | map({
                group: .[0].group, workload: .[0].workload, subject: .[0].subject, unit: .[0].unit, rounds: length,
                value: (map(.value) | median), ops: (map(.ops) | median), moved: (map(.moved) | median),
                requests: (map(.requests) | median), bytes_up: (map(.bytes_up) | median),
                bytes_down: (map(.bytes_down) | median), cpu_s: (map(.cpu_s) | median),
                peak_bytes: (map(.peak_bytes) | median)})
                | sort_by(.subject | rank, .)
                | (.[0].value) as $own | (.[0].unit | endswith("/s")) as $more
                | map(.ratio = if .value == 0 or $own == 0 then null elif $more then $own / .value else .value / $own end)))
        | flatten' "$OUT/results.jsonl"
}

report_table() {
    jq -r '.[] | [.group, .workload, .subject, .value, .unit, .ratio, .requests, .bytes_up, .bytes_down, .cpu_s, .peak_bytes]
        | map(. // "" | tostring) | join("\t")' "$T/medians" | awk -F'\t' '
        function number(n) { return n == "" ? "-" : n >= 100 ? sprintf("%.0f", n) : sprintf("%.3g", n) }
        function mib(n) { return n == "" ? "-" : sprintf("%.1f", n / 1048576) }
        $1 != group {
            group = $1
            printf "\n%s\n  %-48s %-15s %12s %-5s %6s %9s %9s %9s %7s %7s\n", group, "", "", "median", "", "ratio", "requests",
                "MiB up", "MiB down", "CPU s", "MiB mem"
        }
        {
            printf "  %-48s %-15s %12s %-5s %6s %9s %9s %9s %7s %7s\n", $2 == last ? "" : $2, $3, number($4), $5,
                $2 == last && $6 != "" ? sprintf("%.2f", $6) : "", number($7), mib($8), mib($9), number($10), mib($11)
            last = $2
        }'
}

report_targets() {
    jq -c -f "$top/contrib/bench/targets.jq" "$T/medians" | jq -s . >"$T/targets"
    printf '\n%-8s %9s %9s  %s\n' target wanted measured ''
    jq -r '.[] | [if .met then "met" elif .met == null then "unknown" else "NOT MET" end, .op + " " + (.wanted | tostring),
        .measured // "-", .what] | map(tostring) | join("\t")' "$T/targets" |
        awk -F'\t' '{ printf "%-8s %9s %9s  %s\n", $1, $2, $3 == "-" ? "-" : sprintf("%.3g", $3), $4 }'
}

# Bars: each workload has its own scale, so that the longest is the best, or, of seconds, the worst.
report_pictures() {
    jq -r '.[] | [.group, .workload, .subject, .value, .unit] | map(tostring) | join("\t")' "$T/medians" |
        awk -F'\t' -v out="$OUT" -v machine="$(head -n 2 "$T/machine" | tr '\n' ';' | sed 's/[&<>"]//g')" '
        function finish(    i, y, w, file, colour, said) {
            if (!n) return
            file = group
            gsub(/[^A-Za-z0-9]+/, "-", file)
            file = out "/" tolower(file) ".svg"
            printf "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"940\" height=\"%d\" font-family=\"sans-serif\" font-size=\"12\">\n", 70 + n * 16 + groups * 10 >file
            printf "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/><text x=\"10\" y=\"20\" font-size=\"15\">%s</text>\n", group >file
            y = 40
            for (i = 1; i <= n; i++) {
                if (workload[i] != workload[i - 1]) {
                    y += 10
                    printf "<text x=\"10\" y=\"%d\">%s</text>\n", y, workload[i] >file
                }
                w = best[workload[i]] > 0 ? 360 * value[i] / best[workload[i]] : 0
                colour = subject[i] ~ /^s3vol/ ? "#3465a4" : subject[i] == "bare" ? "#888a85" : "#c4a000"
                printf "<rect x=\"460\" y=\"%d\" width=\"%.1f\" height=\"12\" fill=\"%s\"/>", y - 10, w, colour >file
                printf "<text x=\"452\" y=\"%d\" text-anchor=\"end\" fill=\"#555\">%s</text>", y, subject[i] >file
                said = value[i] >= 100 ? sprintf("%.0f", value[i]) : sprintf("%.3g", value[i])
                printf "<text x=\"%.1f\" y=\"%d\">%s %s</text>\n", 465 + w, y, said, unit[i] >file
                y += 16
            }
            printf "<text x=\"10\" y=\"%d\" font-size=\"9\" fill=\"#555\">%s</text>\n</svg>\n", y + 12, machine >file
            close(file)
            n = groups = 0
            delete best
        }
        $1 != group { finish(); group = $1 }
        {
            n++
            workload[n] = $2; subject[n] = $3; value[n] = $4 + 0; unit[n] = $5
            if (!($2 in best)) groups++
            if (value[n] > best[$2]) best[$2] = value[n]
        }
        END { finish() }'
}

report() {
    [ -s "$OUT/results.jsonl" ] || { echo "bench: nothing was measured" >&2; return 1; }
    report_medians >"$T/medians"
    {
        cat "$T/machine"
        echo "ratio: the first line of a workload against this one; more than 1: the first is better"
        report_table
        report_targets
        [ ! -s "$OUT/problems" ] || { echo && cat "$OUT/problems"; }
    } | tee "$OUT/report.txt"
    report_pictures
    jq --slurpfile medians "$T/medians" --slurpfile targets "$T/targets" --slurpfile results "$OUT/results.jsonl" \
        '. + {targets: $targets[0], medians: $medians[0], $results}' "$T/machine.json" >"$OUT/results.json" &&
        rm "$OUT/results.jsonl"
    echo
    echo "in $OUT: results.json (machine, versions, targets, medians, each round), report.txt, and pictures, *.svg"
}
