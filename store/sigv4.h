/*
 * AWS Signature Version 4 as S3 wants it: what a client puts into its Authorization header, and
 * what a server computes to check one. No I/O, no state, no clock: the time comes in as an
 * argument.
 *
 * Source: "Signature Calculations for the Authorization Header: Transferring Payload in a Single
 * Chunk (AWS Signature Version 4)" in the Amazon S3 API reference. S3 differs from other services
 * in that paths are encoded once and never normalised ("a/../b" and "a//b" are keys like any
 * other).
 *
 * A client:  sigv4_encode_path(), sigv4_encode_query() for the URL; sigv4_date(),
 * sigv4_sha256_hex() for the headers; sigv4_authorization(). A server: sigv4_parse_authorization();
 * sigv4_signature() over the request as it came, with path and query put through
 * sigv4_canonical_path() and sigv4_canonical_query().
 *
 * All return 0, -EINVAL for what cannot be signed or parsed, or -ENAMETOOLONG if a buffer is too
 * small; -EIO if OpenSSL fails.
 */
#ifndef S3VOL_SIGV4_H
#define S3VOL_SIGV4_H

#include <stddef.h>
#include <time.h>

enum {
    SIGV4_HEX_SIZE = 65,         /* a SHA-256 in lower-case hex, with its NUL */
    SIGV4_DATE_SIZE = 17,        /* "20130524T000000Z" */
    SIGV4_PAIRS_MAX = 64,        /* headers, or query parameters, of one request */
    SIGV4_CANONICAL_SIZE = 16384 /* the largest canonical request */
};

/* In place of the payload's hash, where the payload is not to be signed. */
#define SIGV4_UNSIGNED_PAYLOAD "UNSIGNED-PAYLOAD"
/* The hash of no payload at all. */
#define SIGV4_EMPTY_PAYLOAD "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

/* One header (names in any case) or one query parameter (not encoded; value NULL: ""). */
struct sigv4_pair {
    const char *name, *value;
};

struct sigv4_request {
    const char *method; /* "GET" */
    const char *path;   /* encoded, from '/' on */
    const char *query;  /* encoded and in order, without '?'; "" if there is none */
    const struct sigv4_pair *headers;
    size_t nheaders;
    const char *signed_headers; /* "host;range;x-amz-date": those of `headers` to sign, lower case
                                   and sorted; NULL: all of them */
    const char *payload_hash;   /* as sent in x-amz-content-sha256 */
};

/* Who signs, when, for where. */
struct sigv4_scope {
    const char *access_key, *secret; /* sigv4_signature() needs no access key */
    const char *date;                /* sigv4_date() */
    const char *region;              /* "us-east-1" */
    const char *service;             /* "s3" */
};

/* Percent-encodes all but letters, digits and "-._~", and with `keep_slash` '/'; upper-case hex. */
int sigv4_encode(const char *text, int keep_slash, char *buf, size_t size_bytes);
/* "/bucket/a key" becomes "/bucket/a%20key". */
int sigv4_encode_path(const char *path, char *buf, size_t size_bytes);
/* Encodes, sorts and joins; a parameter without a value gets its '='. */
int sigv4_encode_query(const struct sigv4_pair *params, size_t nparams, char *buf,
                       size_t size_bytes);

/* The same from a path or query (without '?') as received, encoded in whatever way. -EINVAL for a
 * broken escape or an encoded NUL. */
int sigv4_canonical_path(const char *received, char *buf, size_t size_bytes);
int sigv4_canonical_query(const char *received, char *buf, size_t size_bytes);

/* Undoes percent-encoding ('+' stays a plus); the result is never longer. */
int sigv4_decode(const char *text, char *buf, size_t size_bytes);

/* For x-amz-date, and back. */
int sigv4_date(time_t when, char ret_date[SIGV4_DATE_SIZE]);
int sigv4_parse_date(const char *date, time_t *ret_when);

int sigv4_sha256_hex(const void *data, size_t len, char ret_hex[SIGV4_HEX_SIZE]);

/* The steps, each on its own for the tests. -EINVAL if a signed header is not among `headers`. */
int sigv4_canonical_request(const struct sigv4_request *request, char *buf, size_t size_bytes);
int sigv4_string_to_sign(const struct sigv4_request *request, const struct sigv4_scope *scope,
                         char *buf, size_t size_bytes);
int sigv4_signature(const struct sigv4_request *request, const struct sigv4_scope *scope,
                    char ret_signature[SIGV4_HEX_SIZE]);

/* The whole value: "AWS4-HMAC-SHA256 Credential=…,SignedHeaders=…,Signature=…". The caller has put
 * host, x-amz-date, x-amz-content-sha256 and, if there is a session token, x-amz-security-token
 * among the headers, and sends them as they are there. */
int sigv4_authorization(const struct sigv4_request *request, const struct sigv4_scope *scope,
                        char *buf, size_t size_bytes);

/* What such a value says. Compare `signature` in constant time (CRYPTO_memcmp). */
struct sigv4_claim {
    char access_key[129];
    char day[9]; /* "20130524" */
    char region[64];
    char service[32];
    char signed_headers[1024];
    char signature[SIGV4_HEX_SIZE];
};
int sigv4_parse_authorization(const char *value, struct sigv4_claim *ret_claim);

#endif
