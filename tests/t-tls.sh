#!/bin/bash
# https with a private certificate authority: trusted with --ca-file, refused without, and refused for
# another host's certificate. A relative path means the same file when the daemon is in the background, and connects again.
. "$(dirname "$0")/lib/common.sh"
need openssl

STORE=s3d
need_root
certificate() { # certificate NAME HOST
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=$1" -addext "subjectAltName=$2" \
        -keyout "$T/$1.key" -out "$T/$1.pem" 2>"$T/openssl.out"
}
certificate right IP:127.0.0.1
certificate other DNS:example.org
start_s3d --tls-cert "$T/right.pem" --tls-key "$T/right.key"
case $AWS_ENDPOINT_URL in https://*) ;; *) fail "the server speaks no TLS: $AWS_ENDPOINT_URL" ;; esac
URL=s3://$S3_BUCKET/vm1
refused 'certificate' s3vol create --size 64M "$URL"
refused "$T/nothing.pem" s3vol create --size 64M --ca-file "$T/nothing.pem" "$URL"
refused 'certificate' s3vol create --size 64M --ca-file "$T/other.pem" "$URL"
s3vol create --size 64M --ca-file "$T/right.pem" "$URL"
mount_volume --ca-file "$T/right.pem"
tool mirror "$IMAGE" "$T/ref" 8M 200 1 plain
umount_volume
new_cache
mount_volume --ca-file "$T/right.pem"
cmp -n 8M "$IMAGE" "$T/ref"
umount_volume
cd "$T" || exit
for given in option variable; do
    new_cache
    case $given in
    option) s3vol mount --ca-file right.pem --cache-dir "$CACHE" --timeout 20s "$URL" "$MNT" ;;
    variable) AWS_CA_BUNDLE=right.pem s3vol mount --cache-dir "$CACHE" --timeout 20s "$URL" "$MNT" ;;
    esac
    s3d_fault down=1
    s3d_fault up=1
    connections=$(s3d_stats connections)
    tool fill "$IMAGE" 10M 1M 2
    sync "$IMAGE"
    [ "$(s3d_stats connections)" -gt $((connections + 1)) ] || fail "no new connection"
    s3vol umount "$MNT"
done
stop_s3d
start_s3d --tls-cert "$T/other.pem" --tls-key "$T/other.key"
refused 'certificate' s3vol check --ca-file "$T/other.pem" "$URL"
