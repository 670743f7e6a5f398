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
    export S3_BUCKET=s3vol-tests no_proxy=127.0.0.1,localhost
    unset AWS_SESSION_TOKEN AWS_PROFILE AWS_DEFAULT_REGION AWS_ENDPOINT_URL_S3
}

# s3_curl METHOD PATH [OPTIONS of curl]: a signed request to the server in use. The body is not signed
# but with PAYLOAD=SHA256.
s3_curl() {
    local method=$1 path=$2
    shift 2
    curl -sS --max-time $((20 * ${SLOW:-1})) --aws-sigv4 "aws:amz:$AWS_REGION:s3" \
        -u "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" -H "x-amz-content-sha256: ${PAYLOAD:-UNSIGNED-PAYLOAD}" \
        -X "$method" "$@" "$AWS_ENDPOINT_URL/$path"
}

# stop_servers [N]: all but the first N.
stop_servers() {
    local i
    for ((i = ${#SERVER_PIDS[@]} - 1; i >= ${1:-0}; i--)); do
        stop_server "${SERVER_PIDS[i]}"
        unset "SERVER_PIDS[i]"
    done
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
    "$B/tests/s3d/s3d" --port "$S3D_PORT" --bucket s3vol-tests "${S3D_OPTIONS[@]}" >"$dir/url" 2>>"$T/s3d.log" </dev/null &
    S3D_PID=$!
    SERVER_PIDS+=("$S3D_PID")
    server_ready $S3D_PID 10 test -s "$dir/url" || {
        cat "$T/s3d.log" >&2
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

# ------------------------------------------------------------------------------------------- radosgw

start_radosgw() {
    local dir=${1:-$T/radosgw} c before=${#SERVER_PIDS[@]}
    for c in radosgw radosgw-admin ceph ceph-mon ceph-osd monmaptool curl; do
        command -v $c >/dev/null || server_cannot 77 "$c is missing: sudo contrib/setup test" || return
    done
    [ ${#dir} -le 80 ] || server_cannot 1 "$dir is too long a path for Ceph's sockets" || return
    mkdir -p "$dir"/{mon,osd,gateway,log}
    RGW_DIR=$dir
    RGW_PORT=$(free_port 40) || server_cannot 1 "there are no 40 free ports in a row" || return
    radosgw_config >"$dir/ceph.conf"
    : >"$dir/keyring"
    radosgw_monitor && radosgw_osd && radosgw_gateway && return
    tail -n 20 "$dir"/log/* >&2
    stop_servers "$before"
    server_cannot 1 "radosgw does not start: ${SERVER_WHY:-see above}"
}

# One monitor and one OSD that keeps everything in memory; no manager, no authentication inside.
# Without authentication the monitor's messages must be told not to be encrypted, or none arrives.
# Objects of 8 MiB in one piece: what is overwritten would otherwise pile up until a garbage
# collection.
radosgw_config() {
    local monitor="[v2:127.0.0.1:$((RGW_PORT + 1))/0]" subsystem
    cat <<END
[global]
fsid = $(cat /proc/sys/kernel/random/uuid)
mon_host = $monitor
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_msgr1 = false
ms_bind_port_min = $((RGW_PORT + 2))
ms_bind_port_max = $((RGW_PORT + 39))
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
ms_mon_client_mode = crc
keyring = $RGW_DIR/keyring
run_dir = $RGW_DIR
admin_socket = $RGW_DIR/\$type.sock
log_file = $RGW_DIR/log/\$name.log
log_to_stderr = false
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pgp_num = 8
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
paxos_propose_interval = 0.02
paxos_min_wait = 0.01
$(for subsystem in ms mon monc paxos osd objclass objecter rados rgw civetweb memstore auth; do
        echo "debug_$subsystem = 0/0"
    done)

[mon]
mon_data = $RGW_DIR/mon
mon_cluster_log_file = $RGW_DIR/log/cluster.log
mon_data_avail_crit = 1
mon_data_avail_warn = 2

[osd]
osd_data = $RGW_DIR/osd
osd_objectstore = memstore
memstore_device_bytes = 8589934592
osd_memory_target = 1073741824
osd_class_load_list = *
osd_class_default_list = *
osd_crush_update_on_start = false
osd_enable_op_tracker = false

[client]
admin_socket =
rgw_data = $RGW_DIR/gateway
rgw_frontends = beast endpoint=127.0.0.1:$RGW_PORT tcp_nodelay=1
rgw_enable_apis = s3, admin
rgw_enable_usage_log = false
rgw_enable_ops_log = false
rgw_enable_lc_threads = false
rgw_enable_quota_threads = false
rgw_run_sync_thread = false
rgw_dynamic_resharding = false
rgw_override_bucket_index_max_shards = 1
rgw_thread_pool_size = 64
rgw_max_chunk_size = 8388608
rgw_obj_stripe_size = 8388608
END
}

# radosgw_run LOG COMMAND…: to its end; radosgw_launch LOG COMMAND…: in the background, sets pid.
radosgw_run() {
    local log=$RGW_DIR/log/$1.out
    shift
    timeout $((60 * ${SLOW:-1})) "$1" -c "$RGW_DIR/ceph.conf" "${@:2}" >>"$log" 2>&1 </dev/null ||
        server_cannot 1 "$1 ${2:-} failed"
}

radosgw_launch() {
    local log=$RGW_DIR/log/$1.out
    shift
    "$1" -c "$RGW_DIR/ceph.conf" "${@:2}" >>"$log" 2>&1 </dev/null &
    pid=$!
    SERVER_PIDS+=("$pid")
}

# radosgw_says DAEMON COMMAND WORD: its answer on its socket contains the word.
radosgw_says() {
    ceph -c "$RGW_DIR/ceph.conf" daemon "$RGW_DIR/$1.sock" "$2" 2>/dev/null | grep -q "$3"
}

radosgw_monitor() {
    local pid fsid
    fsid=$(sed -n 's/^fsid = //p' "$RGW_DIR/ceph.conf")
    monmaptool --create --fsid "$fsid" --addv a "[v2:127.0.0.1:$((RGW_PORT + 1))]" "$RGW_DIR/monmap" \
        >"$RGW_DIR/log/monmap.out" 2>&1 || server_cannot 1 "monmaptool failed" || return
    radosgw_run mon ceph-mon -i a --mkfs --monmap "$RGW_DIR/monmap" --keyring "$RGW_DIR/keyring" || return
    radosgw_launch mon ceph-mon -i a -f
    server_ready $pid 30 radosgw_says mon mon_status '"leader"' || server_cannot 1 "ceph-mon does not get ready"
}

# Whoever speaks to the cluster before the OSD is up waits five seconds, so nobody does.
radosgw_osd() {
    local pid uuid
    uuid=$(cat /proc/sys/kernel/random/uuid)
    radosgw_run osd ceph osd new "$uuid" || return
    radosgw_run osd ceph osd crush add osd.0 1.0 root=default host=local || return
    radosgw_run osd ceph-osd -i 0 --mkfs --osd-uuid "$uuid" || return
    radosgw_launch osd ceph-osd -i 0 -f
    server_ready $pid 30 radosgw_says osd status '"state": "active"' || server_cannot 1 "ceph-osd does not get ready"
}

# The pools in one go: radosgw would make them one by one and wait for each.
radosgw_gateway() {
    local pid pool
    for pool in .rgw.root default.rgw.{log,control,meta,buckets.index,buckets.data,buckets.non-ec}; do
        echo "osd pool create $pool"
        echo "osd pool application enable $pool rgw"
    done | timeout 60 ceph -c "$RGW_DIR/ceph.conf" >"$RGW_DIR/log/pools.out" 2>&1 ||
        server_cannot 1 "the pools cannot be made" || return
    radosgw_run user radosgw-admin user create --uid=test --display-name=test --access-key=test \
        --secret-key=testsecret --max-buckets=0 || return
    radosgw_launch gateway radosgw -n client.rgw -f
    server_access "http://127.0.0.1:$RGW_PORT" test testsecret
    server_ready $pid 60 curl -s -o "$RGW_DIR/log/ready.out" "$AWS_ENDPOINT_URL/" ||
        server_cannot 1 "radosgw does not answer" || return
    s3_curl PUT "$S3_BUCKET" -f >"$RGW_DIR/log/bucket.out" 2>&1 || server_cannot 1 "radosgw does not make a bucket"
}

# -------------------------------------------------------------------------------------------- s3rver

# Installed once for each user. It accepts any secret; its access key is fixed.
start_s3rver() {
    local dir=${1:-$T/s3rver} home=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/s3vol-tests/s3rver c port pid
    for c in node npm curl; do
        command -v $c >/dev/null || server_cannot 77 "$c is missing: sudo contrib/setup test" || return
    done
    mkdir -p "$dir/data" "$home"
    (
        flock 9
        [ -e "$home/node_modules/s3rver/bin/s3rver.js" ] ||
            timeout 300 npm --prefix "$home" --no-audit --no-fund --no-update-notifier install s3rver@3.7.1
    ) >"$dir/npm.out" 2>&1 9>"$home/lock" </dev/null || {
        tail -n 5 "$dir/npm.out" >&2
        server_cannot 77 "npm cannot install s3rver"
        return
    }
    port=$(free_port) || server_cannot 1 "there is no free port" || return
    # Its use of MD5 is older than OpenSSL 3.
    NODE_OPTIONS=--openssl-legacy-provider node "$home/node_modules/s3rver/bin/s3rver.js" -d "$dir/data" \
        -a 127.0.0.1 -p "$port" --no-vhost-buckets --configure-bucket s3vol-tests >"$dir/s3rver.log" 2>&1 </dev/null &
    pid=$!
    SERVER_PIDS+=("$pid")
    server_access "http://127.0.0.1:$port" S3RVER S3RVER
    server_ready $pid 30 curl -s -o "$dir/ready.out" "$AWS_ENDPOINT_URL/" || {
        cat "$dir/s3rver.log" >&2
        server_cannot 1 "s3rver does not answer"
    }
}

# -------------------------------------------------------------------------------------------- shared

share_radosgw() { share_server radosgw "$1"; }
share_s3rver() { share_server s3rver "$1"; }
use_radosgw() { use_server radosgw; }
use_s3rver() { use_server s3rver; }

# The note that it leaves is the access, or why there is none.
share_server() {
    local rc=0
    "start_$1" "$2/$1" || rc=$?
    if [ $rc = 0 ]; then
        echo "server_access $AWS_ENDPOINT_URL $AWS_ACCESS_KEY_ID $AWS_SECRET_ACCESS_KEY" >"$2/$1.note"
    else
        echo "server_cannot $rc $(printf %q "$SERVER_WHY")" >"$2/$1.note"
    fi
}

# For the tests: skips when something is not installed, fails when the server does not come up.
use_server() {
    local rc=0
    if [ -e "${SERVERS:-/nonexistent}/$1.note" ]; then
        # shellcheck source=/dev/null
        . "$SERVERS/$1.note" || rc=$?
    else
        "start_$1" || rc=$?
    fi
    case $rc in
    0) ;;
    77) skip "$SERVER_WHY" ;;
    *) fail "$SERVER_WHY" ;;
    esac
}
