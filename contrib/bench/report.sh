# From $OUT/results.json: the table, and for each group a picture. Needs jq and awk. Sourced.
# shellcheck shell=bash disable=SC2154

# What is measured comes first in each workload: all ratios are its own, the others' in its place, so that
# more than 1 is good.
report_medians() {
    jq -s '
        def median: map(select(. != null)) | sort | if length == 0 then null else .[(length - 1) / 2 | floor] end;
        def rank: if startswith("s3vol") then 0 elif . == "bare" then 1 else 2 end;
        to_entries | group_by(.value.group) | sort_by(.[0].key)
        | map(group_by(.value.workload) | sort_by(.[0].key)
            | map(map(.value) | group_by(.target) | map({
                group: .[0].group, workload: .[0].workload, target: .[0].target, unit: .[0].unit, rounds: length,
                value: (map(.value) | median), requests: (map(.requests) | median), bytes_up: (map(.bytes_up) | median),
                bytes_down: (map(.bytes_down) | median), cpu_s: (map(.cpu_s) | median),
                peak_bytes: (map(.peak_bytes) | median)})
                | sort_by(.target | rank, .)
                | (.[0].value) as $own | (.[0].unit | endswith("/s")) as $more
                | map(.ratio = if .value == 0 or $own == 0 then null elif $more then $own / .value else .value / $own end)))
        | flatten' "$OUT/results.json"
}

report_table() {
    jq -r '.[] | [.group, .workload, .target, .value, .unit, .ratio // "", .requests // "", .bytes_up // "", .bytes_down // "",
        .cpu_s // "", .peak_bytes // ""] | map(tostring) | join("\t")' "$OUT/medians.json" | awk -F'\t' '
        function number(n) { return n == "" ? "-" : n >= 100 ? sprintf("%.0f", n) : sprintf("%.3g", n) }
        function mib(n) { return n == "" ? "-" : sprintf("%.1f", n / 1048576) }
        $1 != group {
            group = $1
            printf "\n%s\n  %-44s %-16s %12s %-5s %6s %9s %9s %9s %7s %7s\n", group, "", "", "median", "", "ratio", "requests",
                "MiB up", "MiB down", "CPU s", "MiB mem"
        }
        {
            printf "  %-44s %-16s %12s %-5s %6s %9s %9s %9s %7s %7s\n", $2 == last ? "" : $2, $3, number($4), $5,
                $2 == last && $6 != "" ? sprintf("%.2f", $6) : "", number($7), mib($8), mib($9), number($10), mib($11)
            last = $2
        }'
}

# Bars: each workload has its own scale, so that the longest is the best, or, of seconds, the worst.
report_pictures() {
    jq -r '.[] | [.group, .workload, .target, .value, .unit] | map(tostring) | join("\t")' "$OUT/medians.json" |
        awk -F'\t' -v out="$OUT" -v machine="$(tr '\n' ';' <"$OUT/machine" | sed 's/[&<>"]//g')" '
        function finish(    i, y, w, file, colour) {
            if (!n) return
            file = group
            gsub(/[^a-z0-9]+/, "-", file)
            file = out "/" tolower(file) ".svg"
            printf "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"900\" height=\"%d\" font-family=\"sans-serif\" font-size=\"12\">\n", 70 + n * 16 + groups * 10 >file
            printf "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/><text x=\"10\" y=\"20\" font-size=\"15\">%s</text>\n", group >file
            y = 40
            for (i = 1; i <= n; i++) {
                if (workload[i] != workload[i - 1]) {
                    y += 10
                    printf "<text x=\"10\" y=\"%d\">%s</text>\n", y, workload[i] >file
                }
                w = best[workload[i]] > 0 ? 360 * value[i] / best[workload[i]] : 0
                colour = target[i] ~ /^s3vol/ ? "#3465a4" : target[i] == "bare" ? "#888a85" : "#c4a000"
                printf "<rect x=\"420\" y=\"%d\" width=\"%.1f\" height=\"12\" fill=\"%s\"/>", y - 10, w, colour >file
                printf "<text x=\"412\" y=\"%d\" text-anchor=\"end\" fill=\"#555\">%s</text>", y, target[i] >file
                printf "<text x=\"%.1f\" y=\"%d\">%s %s</text>\n", 425 + w, y, value[i] >= 100 ? sprintf("%.0f", value[i]) : sprintf("%.3g", value[i]), unit[i] >file
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
            workload[n] = $2; target[n] = $3; value[n] = $4 + 0; unit[n] = $5
            if (!($2 in best)) groups++
            if (value[n] > best[$2]) best[$2] = value[n]
        }
        END { finish() }'
}

report() {
    [ -s "$OUT/results.json" ] || { echo "bench: nothing was measured" >&2; return 1; }
    report_medians >"$OUT/medians.json"
    {
        cat "$OUT/machine"
        echo "ratio: the first line of a workload against this one; more than 1: the first is better"
        report_table
    } | tee "$OUT/report.txt"
    report_pictures
    echo
    echo "in $OUT: results.json (each round), medians.json, report.txt, and pictures, *.svg"
}
