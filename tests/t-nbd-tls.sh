#!/bin/bash
# TLS: real clients over nbds, plaintext is refused, client certificates are demanded when an authority
# for them is named, and a client that falls silent in the handshake holds nobody.
. "$(dirname "$0")/lib/common.sh"
. "$(dirname "$0")/lib/nbd.sh"
need openssl

# An authority, and certificates by it for the server and for a client; another authority's client.
authority() { # authority NAME
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=$1" -keyout "$T/$1.key" -out "$T/$1.pem" 2>>"$T/openssl.out"
}
certificate() { # certificate DIR NAME AUTHORITY: DIR/NAME-cert.pem, DIR/NAME-key.pem, DIR/ca-cert.pem
    mkdir -p "$T/$1"
    openssl req -newkey rsa:2048 -nodes -subj "/CN=localhost" -keyout "$T/$1/$2-key.pem" -out "$T/$1/$2.csr" 2>>"$T/openssl.out"
    openssl x509 -req -days 2 -in "$T/$1/$2.csr" -CA "$T/$3.pem" -CAkey "$T/$3.key" -CAcreateserial \
        -extfile <(echo "subjectAltName=DNS:localhost,IP:127.0.0.1") -out "$T/$1/$2-cert.pem" 2>>"$T/openssl.out"
    cp "$T/ours.pem" "$T/$1/ca-cert.pem"
}
authority ours
authority theirs
certificate server server ours
certificate friend client ours
certificate stranger client theirs
mkdir "$T/nobody" && cp "$T/ours.pem" "$T/nobody/ca-cert.pem"

truncate -s 32M "$T/raw"
tool fill "$T/raw" 1M 20M 1
port=$(free_port)
URI=nbds://localhost:$port/
tls() { echo "$URI?tls-certificates=$T/$1"; }
plain=nbd://localhost:$port/
qemu() { # qemu DIR COMMAND…: with the export in place of @
    qemu-img "$2" --object "tls-creds-x509,id=t,dir=$T/$1,endpoint=client" --image-opts \
        "driver=raw,file.driver=nbd,file.host=localhost,file.port=$port,file.tls-creds=t" "${@:3}"
}
no() { # no COMMAND…: fails, and the server lives
    ! timeout $((30 * SLOW)) "$@" >"$T/no.out" 2>&1 || fail "not refused: $*"
    kill -0 $NBD || fail "the server is gone after: $*"
}

refused 'ours.key' s3vol-nbd --unix "$SOCK" --tls-cert "$T/ours.key" --tls-key "$T/ours.key" "$T/raw"
refused 'nothing' s3vol-nbd --unix "$SOCK" --tls-cert "$T/server/server-cert.pem" --tls-key "$T/nothing" "$T/raw"
refused 'ours.key|key values mismatch' s3vol-nbd --unix "$SOCK" --tls-cert "$T/server/server-cert.pem" --tls-key "$T/ours.key" "$T/raw"

# Without client certificates.
start_nbd --listen "localhost:$port" --tls-cert "$T/server/server-cert.pem" --tls-key "$T/server/server-key.pem" "$T/raw"
nbdinfo --json "$(tls nobody)" | jq -e '.TLS and .structured' >/dev/null || fail "nbdinfo over TLS"
nbdcopy "$(tls nobody)" "$T/out"
cmp "$T/out" "$T/raw"
tool fill "$T/out" 5M 3M 2
nbdcopy --connections=4 "$T/out" "$(tls nobody)"
cmp "$T/out" "$T/raw"
qemu nobody map --output=json | jq -e 'map(select(.data) | .length) | add == 20971520' >/dev/null || fail "qemu-img map"
qemu-img compare --object "tls-creds-x509,id=t,dir=$T/nobody,endpoint=client" --image-opts driver=raw,file.filename="$T/raw" \
    "driver=raw,file.driver=nbd,file.host=localhost,file.port=$port,file.tls-creds=t"
no nbdinfo "$plain"
no nbdinfo --list "$plain"
no qemu-img info "$plain"
# What is answered without TLS: EXPORT_NAME by the end of the connection, all else by TLS_REQD.
while read -r reply number length; do
    same "$(nbdpeer option "$SOCK" 3 "$number" "$length" zeroes)" "$reply" "reply to option $number without TLS"
done <<END
0x80000005 3 0
0x80000005 7 6
0x80000005 6 6
0x80000005 8 0
0x80000005 99 0
closed 1 0
0x1 2 0
END
stop_nbd

# With them.
start_nbd --listen "localhost:$port" --tls-cert "$T/server/server-cert.pem" --tls-key "$T/server/server-key.pem" \
    --tls-ca "$T/ours.pem" "$T/raw"
nbdinfo "$(tls friend)" >"$T/info"
no nbdinfo "$(tls nobody)"
no nbdinfo "$(tls stranger)"
tool fill "$T/out" 1M 30M 3
nbdcopy --connections=4 --requests=32 --request-size=65536 "$T/out" "$(tls friend)"
cmp "$T/out" "$T/raw"
nbdcopy --connections=4 --requests=32 --request-size=4096 "$(tls friend)" "$T/back"
cmp "$T/out" "$T/back"
stop_nbd
