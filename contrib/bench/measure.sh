# How the suites of contrib/bench/ measure, sourced. They have $T, a scratch directory on the disk to use,
# $OUT, where the results go, and say in $group and $round where they are. One measurement is one line of
# $OUT/results.jsonl.
# shellcheck shell=bash disable=SC2154

failures=0

now_us() {
    echo "${EPOCHREALTIME/./}"
}

say() { # what is under way: on a terminal, and with times in $OUT/log
    echo "$SECONDS s: $*" >>"$OUT/log"
    [ ! -t 2 ] || printf '\r\033[K  %s' "$*" >&2
}

complain() { # complain WHAT: something that was to be measured is not
    [ ! -t 2 ] || printf '\r\033[K' >&2
    echo "bench: $*" | tee -a "$OUT/problems" >&2
}

limited() { # limited SECONDS COMMAND…: nothing is waited for without end
    timeout --foreground -k 5 "$@" </dev/null
}

await() { # await SECONDS COMMAND…: until that succeeds
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.01
    done
}

gone() { # gone PID
    ! kill -0 "$1" 2>/dev/null
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

# measure WORKLOAD UNIT COMMAND…: of the subject in use. The command is a function that leaves its result in
# $result, in $unit; recorded with all that it cost. Units that end in /s are better when there is more.
measure() {
    local workload=$1 unit=$2 before after cpu='' peak='' was=0 result='' ended_ms=''
    shift 2
    say "$group, round $round: $workload, $subject"
    rm -f "$T/fio.json"
    before=$(counters)
    [ -z "$daemon" ] || { was=$(cpu_ms "$daemon") && echo 5 >"/proc/$daemon/clear_refs"; }
    if ! "$@" || [ -z "$result" ]; then
        failures=$((failures + 1))
        complain "$group: $workload, $subject: failed"
        return 0
    fi
    if [ -n "$daemon" ]; then
        cpu=$(($(cpu_ms "$daemon") - was))
        peak=$(awk '/VmHWM/ { print $2 * 1024 }' "/proc/$daemon/status")
    elif [ -n "$ended_ms" ]; then
        cpu=$((ended_ms - was))
    fi
    after=$(counters)
    record "$before $after" "$cpu $peak"
}

# What costs nothing, or cannot be told, is null.
record() {
    [ -e "$T/fio.json" ] || echo null >"$T/fio.json"
    jq -c --arg group "$group" --arg workload "$workload" --arg subject "$subject" --arg unit "$unit" \
        --argjson round "$round" --argjson value "$result" --arg asked "$1" --arg spent "$2" '
        ($asked | split(" ") | map(tonumber?)) as $n | ($spent | split(" ") | map(tonumber? // null)) as $s
        | (if type == "object" then .jobs[0] | [.read, .write] else null end) as $io
        | {$group, $workload, $subject, $round, $unit, $value,
            ops: (if $io then $io | map(.total_ios) | add else null end),
            moved: (if $io then $io | map(.io_bytes) | add else null end)}
        + (if ($n | length) == 6 then {requests: ($n[3] - $n[0]), bytes_up: ($n[4] - $n[1]), bytes_down: ($n[5] - $n[2])}
            else {} end)
        + {cpu_s: (if $s[0] then $s[0] / 1000 else null end), peak_bytes: $s[1]}' "$T/fio.json" >>"$OUT/results.jsonl"
}

# ------------------------------------------------------------------------------------ what is measured

given() { # given NUMBER
    result=$1
}

# timed AMOUNT COMMAND…: how much a second, or how long.
timed() {
    local amount=$1 start
    shift
    start=$(now_us)
    "$@" || return
    result=$(awk -v n="$amount" -v us=$(($(now_us) - start)) -v unit="$unit" \
        'BEGIN { print unit == "s" ? us / 1e6 : n * 1e6 / us }')
}

# $cap, if set: no longer than that, whatever is left undone; for those who are a hundred times slower.
io() { # io FIO-OPTIONS…
    run_fio --filename="${dev:-$file}" --allow_file_create=0 --direct=1 --ioengine=libaio ${cap:+--runtime="$cap"} "$@"
}

# With the flush that makes it last.
io_flush() {
    local start
    io "$@" || return
    start=$(now_us)
    subject_flush || return
    result=$(fio_rate $(($(now_us) - start)))
}

run_fio() {
    limited $limit fio --name=x --group_reporting --iomem_align=4k --randrepeat=1 --output-format=json \
        --output="$T/fio.json" "$@" >"$T/fio.log" 2>&1 || { tail -n 5 "$T/fio.log" "$T/fio.json" >&2; return 1; }
    result=$(fio_rate 0)
}

# fio_rate US: of what fio has done, as if it had taken so many microseconds more.
fio_rate() {
    jq --arg unit "$unit" --argjson us "$1" '.jobs[0] | [.read, .write]
        | (map(if $unit == "MB/s" then .io_bytes / 1000000 else .total_ios end) | add)
            / ((map(.runtime) | max) + $us / 1000) * 1000' "$T/fio.json"
}
