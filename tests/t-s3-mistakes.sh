#!/bin/bash
# stores: s3d radosgw
# limit: 150
# quick
# A wrong key, secret, bucket, region, clock or endpoint: create and mount say in one line which it is,
# within seconds.
. "$(dirname "$0")/lib/common.sh"

pids=()
both() { # both PATTERN URL WORDS… in front of s3vol: in the background, some of them take their time
    both_now "$@" &
    pids+=($!)
}
both_now() {
    local pattern=$1 url=$2
    shift 2
    REFUSED=$(mktemp "$T/refused.XXXXXX")
    refused "$pattern" "$@" s3vol create --size 1G "$url"
    refused "$pattern" "$@" s3vol mount --cache-dir "$CACHE" "$url" "$MNT"
}

new_volume
mkdir "$MNT"
new=${URL%1}2
both 'secret|signature' "$URL" env AWS_SECRET_ACCESS_KEY=wrong
both 'access key|key id' "$URL" env AWS_ACCESS_KEY_ID=nobody
both 'no-such-bucket' "s3://no-such-bucket/vm1" env
both 'credentials' "$URL" env -u AWS_ACCESS_KEY_ID -u AWS_SECRET_ACCESS_KEY HOME="$T"
both '127.0.0.1:1\b.*(connect|refused|reach)|(connect|refused|reach).*127.0.0.1:1\b' "$URL" env AWS_ENDPOINT_URL=http://127.0.0.1:1
both 'no-such-host.invalid' "$URL" env AWS_ENDPOINT_URL=http://no-such-host.invalid
both 'TLS|SSL|https' "$URL" env AWS_ENDPOINT_URL="${AWS_ENDPOINT_URL/http:/https:}"
both 'endpoint' "$URL" env AWS_ENDPOINT_URL=127.0.0.1
[ "$STORE" != s3d ] || both 'region.*us-east-1' "$URL" env AWS_REGION=eu-north-7
for pid in "${pids[@]}"; do wait "$pid"; done

# That the secret shows up nowhere.
mount_volume
! tr '\0' '\n' <"/proc/$DAEMON/cmdline" | grep -q "$AWS_SECRET_ACCESS_KEY" || fail "the secret is in the process list"
s3vol status "$MNT" | grep -q "$AWS_SECRET_ACCESS_KEY" && fail "status tells the secret"
umount_volume
! grep -rq "$AWS_SECRET_ACCESS_KEY" "$DAEMON_LOG" "$CACHE" || fail "the secret is in the log or the cache"

if [ "$STORE" = s3d ]; then
    stop_s3d
    start_s3d --clock-ahead 3600
    both_now 'clock.*36[0-9][0-9] s' "$URL" env
    # A network that swallows everything: nobody answers, ever.
    stop_s3d
    start_s3d
    s3d_fault hang=1
    both_now 'nothing was received' "$URL" env
fi
