# S3 servers for tests, sourced. Each start_… begins a server on a free port of 127.0.0.1, waits
# until it answers, makes the bucket $S3_BUCKET, and exports how to get there as every AWS tool wants
# it: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION. What it writes is below
# the directory given, or $T/SERVER. It returns 77 when something is not installed and 1 when the
# server does not come up, and says why on stderr and in $SERVER_WHY. stop_servers ends them all.
#
#   start_s3d [OPTIONS of s3d]     the project's own: s3d_fault 'status=503&count=2', s3d_clear (no
#                                  more faults), s3d_log, s3d_stats NAME; stop_s3d, resume_s3d
#   start_radosgw [DIR]            Ceph's object gateway: 1 monitor, 1 OSD in memory, the gateway
#   start_s3rver [DIR]             s3rver from npm: a store without conditional PUT
#   share_radosgw DIR, use_radosgw     one for many tests: tests/run starts it and leaves a note in
#   share_s3rver DIR, use_s3rver       DIR = $SERVERS; a test uses that, or starts one if there is none
# shellcheck shell=bash

SERVER_PIDS=() # of the servers of this shell, in the order in which they were started
SERVER_WHY=

server_cannot() {
    SERVER_WHY="$2"
    echo "$2" >&2
    return "$1"
}

# free_port [N]: the first of N ports in a row that nobody has. Below the range from which the kernel
# takes its own.
free_port() {
    local port n=${1:-1} used tries p
    used=$(awk '{ sub(/.*:/, "", $2); print $2 }' /proc/net/tcp /proc/net/tcp6 2>/dev/null)
    for ((tries = 0; tries < 100; tries++)); do
        port=$((10000 + RANDOM % 22000))
        for ((p = port; p < port + n; p++)); do
            case $used in *"$(printf %04X $p)"*) continue 2 ;; esac
        done
        echo "$port"
        return
    done
    return 1
}

# server_ready PID SECONDS COMMAND…: the command succeeds within that time, while the process lives.
server_ready() {
    local pid=$1 deadline=$((SECONDS + $2 * ${SLOW:-1}))
    shift 2
    until "$@" >/dev/null 2>&1; do
        kill -0 "$pid" 2>/dev/null && [ $SECONDS -le $deadline ] || return 1
        sleep 0.05
    done
}

# server_access URL KEY SECRET: for the commands that follow.
server_access() {
    export AWS_ENDPOINT_URL=$1 AWS_ACCESS_KEY_ID=$2 AWS_SECRET_ACCESS_KEY=$3 AWS_REGION=us-east-1
    export S3_BUCKET=s3vol-tests
    unset AWS_SESSION_TOKEN AWS_PROFILE AWS_DEFAULT_REGION AWS_ENDPOINT_URL_S3
}

# s3_curl METHOD PATH [OPTIONS of curl]: a signed request to the server in use.
s3_curl() {
    local method=$1 path=$2
    shift 2
    curl -sS --max-time $((20 * ${SLOW:-1})) --aws-sigv4 "aws:amz:$AWS_REGION:s3" \
        -u "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" -H "x-amz-content-sha256: UNSIGNED-PAYLOAD" \
        -X "$method" "$@" "$AWS_ENDPOINT_URL/$path"
}

stop_servers() {
    local i
    for ((i = ${#SERVER_PIDS[@]} - 1; i >= 0; i--)); do
        stop_server "${SERVER_PIDS[i]}"
    done
    SERVER_PIDS=()
}

stop_server() {
    local i
    kill "$1" 2>/dev/null || return 0
    for ((i = 0; i < 100; i++)); do
        kill -0 "$1" 2>/dev/null || break
        sleep 0.05
    done
    { kill -KILL "$1" && wait "$1"; } 2>/dev/null || :
}

# ----------------------------------------------------------------------------------------------- s3d

start_s3d() {
    local dir=$T/s3d
    [ -x "$B/tests/s3d/s3d" ] || server_cannot 1 "s3d is not built: make tests" || return
    command -v curl >/dev/null || server_cannot 77 "curl is missing: sudo contrib/setup test" || return
    mkdir -p "$dir"
    S3D_OPTIONS=("$@") S3D_PORT=0
    resume_s3d
}

# Starts it again as it was, on its old port; what it keeps is what --data DIR keeps.
resume_s3d() {
    local dir=$T/s3d
    : >"$dir/url"
    "$B/tests/s3d/s3d" --port "$S3D_PORT" --bucket s3vol-tests "${S3D_OPTIONS[@]}" >"$dir/url" 2>>"$dir/s3d.log" </dev/null &
    S3D_PID=$!
    SERVER_PIDS+=("$S3D_PID")
    server_ready $S3D_PID 10 test -s "$dir/url" || {
        cat "$dir/s3d.log" >&2
        server_cannot 1 "s3d does not start"
        return
    }
    server_access "$(cat "$dir/url")" test testsecret
    S3D_PORT=${AWS_ENDPOINT_URL##*:}
}

stop_s3d() {
    stop_server "$S3D_PID"
}

# s3d_fault 'QUERY': what can be said is at the top of tests/s3d/s3d.c.
s3d_fault() {
    s3d_control -X POST "?$1" >"$T/s3d/said" || { cat "$T/s3d/said" >&2 && return 1; }
}

s3d_clear() {
    s3d_control -X POST /clear >/dev/null
}

s3d_log() {
    s3d_control /log
}

# s3d_stats [NAME]: a number, such as PUT, LIST, requests, faults, bytes_in, connections; or all.
s3d_stats() {
    s3d_control /stats | awk -v name="${1:-}" 'name == "" { print } $1 == name { print $2 }'
}

s3d_control() {
    curl -sS -k --fail-with-body --max-time $((10 * ${SLOW:-1})) "${@:1:$#-1}" "$AWS_ENDPOINT_URL/_control${!#}"
}
