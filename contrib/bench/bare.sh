# The object server alone, by curl: as much as anybody can get of it. Sourced.
# shellcheck shell=bash disable=SC2154

# A section of curl's configuration; each needs all the options.
bare_request() { # bare_request PATH [OPTION…]
    local path=$1
    shift
    printf '%s\n' next "url = \"$AWS_ENDPOINT_URL/$S3_BUCKET/bench-$RUN/bare/$path\"" 'output = "/dev/null"' \
        "user = \"$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY\"" "aws-sigv4 = \"aws:amz:$AWS_REGION:s3\"" \
        'header = "x-amz-content-sha256: UNSIGNED-PAYLOAD"' 'expect100-timeout = 0.001' silent show-error fail "$@"
}

# bare_run SIZE COUNT DEPTH: all transfers of "$T/curl", over as many connections as it is deep.
bare_run() {
    local amount=$2
    [ "$unit" != MB/s ] || amount=$(($1 * $2))e-6
    sed -i 1d "$T/curl"
    timed "$amount" limited $limit curl -Z --parallel-immediate --parallel-max "$3" -K "$T/curl" >"$T/curl.log" 2>&1 ||
        { tail -n 5 "$T/curl.log" >&2; return 1; }
}

bare_put() { # bare_put SIZE COUNT DEPTH
    local i
    head -c "$1" /dev/urandom >"$T/object"
    for ((i = 0; i < $2; i++)); do bare_request "$1-$i" "upload-file = \"$T/object\""; done >"$T/curl"
    bare_run "$1" "$2" "$3"
}

bare_get() { # bare_get SIZE COUNT DEPTH: whole ones that bare_put has put
    local i
    for ((i = 0; i < $2; i++)); do bare_request "$1-$i"; done >"$T/curl"
    bare_run "$1" "$2" "$3"
}

bare_ranges() { # bare_ranges BYTES COUNT DEPTH OBJECTS: of objects of 8 MiB that bare_put has put
    local i from
    for ((i = 0; i < $2; i++)); do
        from=$(((RANDOM * 32768 + RANDOM) % ((8 << 20) / $1) * $1))
        bare_request "$((8 << 20))-$((RANDOM % $4))" "range = \"$from-$((from + $1 - 1))\""
    done >"$T/curl"
    bare_run "$1" "$2" "$3"
}
