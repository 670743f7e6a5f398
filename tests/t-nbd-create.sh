#!/bin/bash
# Volumes created on demand: in the store that the mount options say, and the reason if that fails.
. "$(dirname "$0")/lib/common.sh"
. "$(dirname "$0")/lib/nbd.sh"
need openssl

STORE=s3d
need_root
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=here -addext subjectAltName=IP:127.0.0.1 \
    -keyout "$T/key" -out "$T/a,b.pem" 2>"$T/openssl.out"
start_s3d --tls-cert "$T/a,b.pem" --tls-key "$T/key" --region eu-south-3
endpoint=$AWS_ENDPOINT_URL
unset AWS_ENDPOINT_URL AWS_REGION
export S3VOL_CACHE_DIR=$T/cache
mkdir "$T/vols"
start_nbd --volumes "s3://$S3_BUCKET" --mount-dir "$T/vols" --create-size 32M \
    --mount-options "sync=cache,region=eu-south-3,ca_file=$T/a\\,b.pem,endpoint=$endpoint"
nbdinfo --size "$(uri new)" >"$T/size"
same "$(cat "$T/size")" 33554432 "size of new"
stop_nbd
s3vol check --region eu-south-3 --ca-file "$T/a,b.pem" --endpoint "$endpoint" "s3://$S3_BUCKET/new"

# It says why not.
touch "$T/file"
start_nbd --volumes "$T/file" --mount-dir "$T/vols" --create-size 32M
! nbdinfo --size "$(uri new)" >"$T/size" 2>&1 || fail "it was created in a file"
grep -q "cannot be mounted on $T/vols/new: s3vol: .*; nor created: s3vol: " "$T/nbd.log" || fail "the log does not say why"
stop_nbd
