# How the suites of contrib/bench/ measure, sourced. They have $T, a scratch directory on the disk to use,
# and $OUT, where the results go. One measurement is one line of $OUT/results.json.
# shellcheck shell=bash disable=SC2154

need_root() {
    [ "$(id -u)" = 0 ] || { echo "bench: needs root, for mounts and loop devices: sudo make bench" >&2; exit 1; }
}

say() { # what is under way: on a terminal, and with times in $OUT/log
    echo "$SECONDS s: $*" >>"$OUT/log"
    [ ! -t 2 ] || printf '\r\033[K  %s' "$*" >&2
}

skipped() { # skipped WHAT WHY
    [ ! -t 2 ] || printf '\r\033[K' >&2
    echo "skipped: $1: $2" | tee -a "$OUT/skipped" >&2
}

now_us() {
    echo "${EPOCHREALTIME/./}"
}

# record GROUP WORKLOAD TARGET UNIT VALUE [JSON]: units that end in /s are better when there is more.
record() {
    jq -cn --arg group "$1" --arg workload "$2" --arg target "$3" --arg unit "$4" --argjson value "$5" \
        --argjson more "${6:-{\}}" '{$group, $workload, $target, $unit, $value} + $more' >>"$OUT/results.json"
}

# run_fio UNIT OPTIONS…: prints the rate over the time that fio took, in MB/s or ops/s.
run_fio() {
    local unit=$1
    shift
    rm -f "$T/fio.json"
    timeout -k 10 300 fio --name=x --group_reporting --iomem_align=4k --output-format=json --output="$T/fio.json" "$@" >"$T/fio.log" 2>&1 </dev/null ||
        { cat "$T/fio.log" "$T/fio.json" >&2; return 1; }
    fio_rate "$unit" 0
}

# fio_rate UNIT US: the same again, with so many microseconds added.
fio_rate() {
    jq --arg unit "$1" --argjson us "$2" '.jobs[0] | [.read, .write]
        | (map(if $unit == "MB/s" then .io_bytes / 1000000 else .total_ios end) | add)
            / ((map(.runtime) | max) + $us / 1000) * 1000' "$T/fio.json"
}

# rotated N WORDS…: the words, beginning with another one each round, so that nobody is always first.
rotated() {
    local n=$(($1 % ($# - 1)))
    shift
    echo "${@:n+1}" "${@:1:n}"
}

# cpu_ms PID: of a daemon with all its threads, until now.
cpu_ms() {
    awk -v hz="$(getconf CLK_TCK)" '{ sub(/.*\) /, ""); printf "%d\n", ($12 + $13) * 1000 / hz }' "/proc/$1/stat" 2>/dev/null ||
        echo 0
}
