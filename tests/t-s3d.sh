#!/bin/bash
# The project's own S3 server does what S3 does, judged by curl: signatures, ranges, conditions, lists.
# quick
. "$(dirname "$0")/lib/common.sh"

need curl openssl
start_s3d --region eu-central-1 --data "$T/data"
export AWS_REGION=eu-central-1
bucket=$S3_BUCKET

# answers STATUS PATTERN METHOD PATH [OPTIONS of curl]: and the headers and body contain the pattern.
answers() {
    local status=$1 pattern=$2
    shift 2
    s3_curl "$@" -i -o "$T/answer" || [ -s "$T/answer" ] || fail "no answer to $*"
    grep -a '^HTTP/1.1 ' "$T/answer" | tail -n 1 | grep -q "^HTTP/1.1 $status " || { cat "$T/answer"; fail "$*: not answered $status"; }
    grep -aq -- "$pattern" "$T/answer" || { cat "$T/answer"; fail "$*: no '$pattern' in the answer"; }
}

# ---- objects
answers 404 NoSuchKey GET "$bucket/a/key"
answers 200 ETag PUT "$bucket/a/key" --data-binary 0123456789
answers 200 '^0123456789$' GET "$bucket/a/key"
answers 200 '^Content-Length: 10' HEAD "$bucket/a/key" -I
answers 206 '^Content-Range: bytes 0-0/10' GET "$bucket/a/key" -r 0-0
answers 206 '^3456$' GET "$bucket/a/key" -r 3-6
answers 206 '^Content-Range: bytes 7-9/10' GET "$bucket/a/key" -r 7-100
answers 206 '^89$' GET "$bucket/a/key" -r -2
answers 416 '<ActualObjectSize>10<' GET "$bucket/a/key" -r 10-11
answers 200 '^0123456789$' GET "$bucket/a/key" -H 'Range: lines=1-2'
answers 412 PreconditionFailed PUT "$bucket/a/key" --data-binary other -H 'If-None-Match: *'
answers 200 '^0123456789$' GET "$bucket/a/key"
answers 200 ETag PUT "$bucket/a/new" --data-binary '' -H 'If-None-Match: *'
answers 416 InvalidRange GET "$bucket/a/new" -r 0-0
answers 501 NotImplemented PUT "$bucket/a/key" --data-binary x -H 'If-Match: x'
answers 411 MissingContentLength PUT "$bucket/a/key"
answers 411 MissingContentLength PUT "$bucket/a/key" -H 'Transfer-Encoding: chunked' --data-binary x
answers 204 '' DELETE "$bucket/a/new"
answers 204 '' DELETE "$bucket/a/new"
head -c 3000000 /dev/urandom >"$T/big"
answers 200 ETag PUT "$bucket/big%20%C3%A4%2B%25" -H 'Expect: 100-continue' --data-binary "@$T/big"
s3_curl GET "$bucket/big%20%C3%A4%2B%25" -o "$T/big.out"
cmp "$T/big" "$T/big.out" || fail "the big object came back different"
answers 204 '' DELETE "$bucket/big%20%C3%A4%2B%25"

# ---- buckets
answers 404 NoSuchBucket GET nowhere/a
answers 404 NoSuchBucket PUT nowhere/a --data-binary x
answers 404 '' HEAD nowhere -I
answers 200 'x-amz-bucket-region: eu-central-1' HEAD "$bucket" -I
answers 200 '' PUT another
answers 409 BucketAlreadyOwnedByYou PUT another
answers 204 '' DELETE another
answers 409 BucketNotEmpty DELETE "$bucket"

# ---- lists
for key in b/1 b/2 b/3 c d/1 'e%26%3C%22'; do s3_curl PUT "$bucket/$key" --data-binary xy; done
# list QUERY, encoded: keys and common prefixes in the order in which they came, '+' when there is more.
list() {
    s3_curl GET "$bucket?$(tr '&' '\n' <<<"list-type=2${1:+&$1}" | LC_ALL=C sort | paste -sd'&')" -o "$T/list"
    grep -oP '(?<=<Key>)[^<]*|(?<=<CommonPrefixes><Prefix>)[^<]*|(?<=<IsTruncated>)true' "$T/list" | xargs
}
same "$(list '')" "a/key b/1 b/2 b/3 c d/1 e&amp;&lt;&quot;" "all keys"
same "$(list 'prefix=b%2F')" "b/1 b/2 b/3" "keys below b/"
same "$(list 'prefix=b%2F&start-after=b%2F2')" "b/3" "keys behind b/2"
same "$(list 'delimiter=%2F')" "c e&amp;&lt;&quot; a/ b/ d/" "with a delimiter"
same "$(list 'delimiter=%2F&start-after=b0')" "c e&amp;&lt;&quot; d/" "behind a common prefix"
same "$(list 'encoding-type=url&start-after=d0')" "e%26%3C%22" "encoded"
# page QUERY: everything, page by page.
page() {
    local query=$1 token=
    while list "$query$token" | sed 's/^true //' && grep -q '<IsTruncated>true' "$T/list"; do
        token="&continuation-token=$(grep -oP '(?<=<NextContinuationToken>)[^<]*' "$T/list")"
    done | xargs
}
same "$(page 'max-keys=2')" "a/key b/1 b/2 b/3 c d/1 e&amp;&lt;&quot;" "pages of 2"
same "$(page 'max-keys=1&delimiter=%2F')" "a/ b/ c d/ e&amp;&lt;&quot;" "pages of 1 with a delimiter"
answers 400 InvalidArgument GET "$bucket?continuation-token=zz&list-type=2"

# ---- batch deletes
echo '<Delete><Object><Key>b/1</Key></Object><Object><Key>none</Key></Object></Delete>' >"$T/delete"
md5=$(openssl md5 -binary "$T/delete" | base64)
answers 400 InvalidRequest POST "$bucket?delete=" --data-binary "@$T/delete"
answers 400 BadDigest POST "$bucket?delete=" --data-binary "@$T/delete" -H "Content-MD5: AAAA"
answers 200 '<Deleted><Key>b/1</Key></Deleted><Deleted><Key>none</Key>' POST "$bucket?delete=" \
    --data-binary "@$T/delete" -H "Content-MD5: $md5"
same "$(list 'prefix=b%2F')" "b/2 b/3" "what the batch left"
answers 400 MalformedXML POST "$bucket?delete=" --data-binary '<Delete>' \
    -H "Content-MD5: $(printf '<Delete>' | openssl md5 -binary | base64)"

# ---- who may
answers 403 InvalidAccessKeyId GET "$bucket/a/key" -u nobody:testsecret
answers 403 SignatureDoesNotMatch GET "$bucket/a/key" -u test:wrong
answers 400 '<Region>eu-central-1</Region>' GET "$bucket/a/key" --aws-sigv4 aws:amz:us-east-1:s3
answers 400 AuthorizationHeaderMalformed GET "$bucket/a/key" --aws-sigv4 aws:amz:eu-central-1:ec2
hash=$(printf y | sha256sum | cut -d' ' -f1)
PAYLOAD=$hash answers 400 XAmzContentSHA256Mismatch PUT "$bucket/a/signed" --data-binary x
PAYLOAD=$hash answers 200 ETag PUT "$bucket/a/signed" --data-binary y
answers 204 '' DELETE "$bucket/a/signed"
answers 400 InvalidToken GET "$bucket/a/key" -H 'x-amz-security-token: stolen'
same "$(curl -s -o "$T/answer" -w '%{http_code}' "$AWS_ENDPOINT_URL/$bucket/a/key")" 403 "an unsigned request"
grep -q AccessDenied "$T/answer"
answers 200 '^0123456789$' GET "$bucket/a/key"

# ---- virtual-hosted, a session token, a clock that is wrong, TLS
host=${AWS_ENDPOINT_URL/127.0.0.1/$bucket.localhost}
AWS_ENDPOINT_URL=$host answers 200 '^0123456789$' GET a/key
AWS_ENDPOINT_URL=$host answers 200 '<Key>a/key</Key>' GET '?list-type=2&prefix=a%2F'
kept=$(list '')
stop_s3d
resume_s3d && export AWS_REGION=eu-central-1
same "$(list '')" "$kept" "what --data kept"
answers 200 '^0123456789$' GET "$bucket/a/key"

start_s3d --token session --clock-ahead 1000
answers 400 InvalidToken GET "$bucket/a/key"
answers 403 RequestTimeTooSkewed GET "$bucket/a/key" -H 'x-amz-security-token: session'

openssl req -x509 -newkey rsa:2048 -nodes -keyout "$T/key.pem" -out "$T/cert.pem" -days 2 -subj /CN=localhost \
    -addext 'subjectAltName=DNS:localhost,DNS:*.localhost,IP:127.0.0.1' 2>"$T/openssl.out"
start_s3d --tls-cert "$T/cert.pem" --tls-key "$T/key.pem"
same "${AWS_ENDPOINT_URL%%:*}" https "scheme"
answers 200 ETag PUT "$bucket/big" --cacert "$T/cert.pem" --data-binary "@$T/big"
s3_curl GET "$bucket/big" --cacert "$T/cert.pem" -o "$T/big.out"
cmp "$T/big" "$T/big.out" || fail "the big object came back different over TLS"

# ---- faults, latency, bandwidth
start_s3d
answers 200 ETag PUT "$bucket/big" --data-binary "@$T/big"
s3d_fault 'status=503&count=2&method=GET&match=big&skip=1'
answers 206 '' GET "$bucket/big" -r 0-9
answers 503 SlowDown GET "$bucket/big"
answers 503 SlowDown GET "$bucket/big"
answers 206 '' GET "$bucket/big" -r 0-9
same "$(s3d_stats GET) $(s3d_stats faults) $(s3d_stats PUT)" "4 2 1" "GETs, faults, PUTs"
same "$(s3d_log | awk '$1 == "GET" { print $3, $7 }' | xargs)" "206 - 503 error 503 error 206 -" "the log"
s3d_fault 'refuse=1&count=1'
answers 403 AccessDenied GET "$bucket/big"
s3d_fault 'cut=1000&count=1'
! s3_curl GET "$bucket/big" -o "$T/big.out" 2>"$T/curl.out" || fail "a cut body looks whole"
same "$(stat -c %s "$T/big.out")" 1000 "bytes of a cut body"
s3d_fault 'lost=1&count=1'
! s3_curl DELETE "$bucket/big" 2>"$T/curl.out" || fail "a lost answer came"
answers 404 NoSuchKey GET "$bucket/big"
s3d_fault 'down=1'
! s3_curl GET "$bucket/big" 2>"$T/curl.out" || fail "an answer from a server that is down"
s3d_fault 'up=1'
answers 404 NoSuchKey GET "$bucket/big"
s3d_fault 'hang=1'
! s3_curl GET "$bucket/big" --max-time 1 2>"$T/curl.out" || fail "an answer from a server that hangs"
s3d_clear
for bad in nonsense=1 status=99 p=2 count=x match=big down=maybe latency=x; do
    ! s3d_fault "$bad" 2>"$T/curl.out" || [ $bad = down=maybe ] || fail "the fault $bad was accepted"
done
s3d_clear

# One connection that waits does not hold up another.
s3d_fault 'delay=3000&match=slow'
s3_curl GET "$bucket/slow" -o "$T/slow.out" &
answers 404 NoSuchKey GET "$bucket/fast"
kill -0 $! || fail "the slow request was not slow, or the fast one waited for it"
wait $!
s3d_fault 'latency=200'
start=${EPOCHREALTIME/./}
answers 404 NoSuchKey GET "$bucket/fast"
within $(((${EPOCHREALTIME/./} - start) / 1000)) 200 100000 "ms with a latency of 200"
s3d_fault 'latency=0&bandwidth=2M'
start=${EPOCHREALTIME/./}
answers 200 ETag PUT "$bucket/big" --data-binary "@$T/big"
within $(((${EPOCHREALTIME/./} - start) / 1000)) 1300 100000 "ms for 3 MB at 2 MiB/s"
stop_servers
