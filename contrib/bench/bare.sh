# The object server alone, by curl: as much as anybody can get of it. Sourced. Each leaves its rate in
# $result, as the workloads do.
# shellcheck shell=bash disable=SC2154

# curl_all DEPTH CONFIG: every transfer of the file. Sections of it need the options anew, so they are in
# each (bare_request). -Z opens as many connections as it is deep.
curl_all() {
    curl -Z --parallel-immediate --parallel-max "$1" -K "$2" >/dev/null 2>"$T/curl.log" || { cat "$T/curl.log" >&2; return 1; }
}

# bare_request PATH [OPTION…]: a section of curl's configuration.
bare_request() {
    local path=$1 option
    shift
    printf '%s\n' next "url = \"$AWS_ENDPOINT_URL/$S3_BUCKET/bench-$RUN/bare/$path\"" 'output = "/dev/null"' \
        "user = \"$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY\"" "aws-sigv4 = \"aws:amz:$AWS_REGION:s3\"" \
        'header = "x-amz-content-sha256: UNSIGNED-PAYLOAD"' 'expect100-timeout = 0.001' silent show-error fail "$@"
}

# timed UNIT AMOUNT COMMAND…: the amount a second.
timed() {
    local unit=$1 amount=$2 start
    shift 2
    start=$(now_us)
    "$@" || return
    result=$(awk -v n="$amount" -v us=$(($(now_us) - start)) -v unit="$unit" \
        'BEGIN { print unit == "s" ? us / 1e6 : n * 1e6 / us }')
}

bare_put() { # bare_put SIZE COUNT DEPTH UNIT
    local i
    head -c "$1" /dev/urandom >"$T/object"
    for ((i = 0; i < $2; i++)); do
        bare_request "$1-$i" "upload-file = \"$T/object\""
    done | sed 1d >"$T/curl"
    bare_run "$4" "$1" "$2" "$3"
}

bare_get() { # bare_get SIZE COUNT DEPTH UNIT: whole ones that bare_put has put
    local i
    for ((i = 0; i < $2; i++)); do bare_request "$1-$i"; done | sed 1d >"$T/curl"
    bare_run "$4" "$1" "$2" "$3"
}

bare_ranges() { # bare_ranges BYTES COUNT DEPTH OBJECTS: from objects of 8 MiB
    local i from
    for ((i = 0; i < $2; i++)); do
        from=$(((RANDOM * 32768 + RANDOM) % ((8 << 20) / $1) * $1))
        bare_request "$((8 << 20))-$((RANDOM % $4))" "range = \"$from-$((from + $1 - 1))\""
    done | sed 1d >"$T/curl"
    bare_run ops/s "$1" "$2" "$3"
}

bare_run() { # bare_run UNIT SIZE COUNT DEPTH
    local amount=$3
    [ "$1" != MB/s ] || amount=$(($2 * $3))e-6
    timed "$1" "$amount" curl_all "$4" "$T/curl"
}
