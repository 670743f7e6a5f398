#include "s3error.h"

#include "s3xml.h"
#include "scope.h"

#include <curl/curl.h>
#include <string.h>
#include <time.h>

/* S3 refuses requests that are further off than this. */
enum { SKEW_MAX_S = 15 * 60 };

/* An answer, taken apart. */
struct reply {
    const struct s3error_place *place;
    enum s3error_op op;
    const struct http_answer *answer;
    struct s3xml_error xml; /* all "" if the body was none */
    int64_t wall_s;
    struct store_error *error;
};

int s3error(struct store_error *ret_error, int err, enum store_fate fate, const char *fmt, ...)
{
    va_list ap;

    ret_error->fate = fate;
    va_start(ap, fmt);
    (void)!vformat(ret_error->text, sizeof ret_error->text, fmt, ap);
    va_end(ap);
    return err;
}

/* ------------------------------------------------------------------ no answer */

static int no_answer(const struct s3error_place *place, const struct http_answer *answer,
                     struct store_error *error)
{
    switch (answer->curl_code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
    case CURLE_OPERATION_TIMEDOUT:
        return s3error(error, -ETIMEDOUT, STORE_RETRY, "cannot reach %s: %s", place->endpoint,
                       answer->reason);
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_ISSUER_ERROR:
        return s3error(
            error, -EACCES, STORE_REFUSED,
            "the TLS certificate of %s is not trusted: %s (is it signed by a private CA? "
            "then give the CA's file)",
            place->endpoint, answer->reason);
    case CURLE_SSL_CACERT_BADFILE:
        return s3error(error, -EACCES, STORE_REFUSED,
                       "the file of CA certificates for %s cannot be used: %s", place->endpoint,
                       answer->reason);
    case CURLE_SSL_CONNECT_ERROR:
        return s3error(error, -ETIMEDOUT, STORE_RETRY, "no TLS connection to %s: %s",
                       place->endpoint, answer->reason);
    default:
        return s3error(error, -ETIMEDOUT, STORE_RETRY, "%s did not answer: %s", place->endpoint,
                       answer->reason);
    }
}

/* The requests that did not get a whole answer. */
static int not_answered(const struct s3error_place *place, const struct http_answer *answer,
                        struct store_error *error)
{
    switch (answer->end) {
    case HTTP_STOPPED:
        return s3error(error, -ECANCELED, STORE_FINAL, "stopped");
    case HTTP_NO_MEMORY:
        return s3error(error, -ENOMEM, STORE_RETRY, "out of memory");
    case HTTP_STALLED:
        return s3error(error, -ETIMEDOUT, STORE_RETRY,
                       "%s: nothing was received or sent for %lld ms", place->endpoint,
                       (long long)place->stall_timeout_ms);
    case HTTP_CUT:
        return s3error(error, -EIO, STORE_RETRY, "the answer of %s broke off: %s", place->endpoint,
                       answer->reason);
    default:
        return no_answer(place, answer, error);
    }
}

/* ------------------------------------------------------------------ refusals */

/* The server's time: from the error document, else from the Date header. */
static bool server_time(const struct reply *reply, int64_t *ret_s)
{
    struct tm tm = {0};
    const char *end = strptime(reply->xml.server_time, "%Y-%m-%dT%H:%M:%S", &tm);

    if (!end) {
        tm = (struct tm){0};
        end = strptime(reply->answer->date, "%a, %d %b %Y %H:%M:%S", &tm);
    }
    if (!end)
        return false;
    *ret_s = timegm(&tm);
    return true;
}

static int skewed(const struct reply *reply, int64_t there_s)
{
    int64_t off_s = reply->wall_s - there_s;
    char here[32] = "?", there[32] = "?";
    struct tm tm;

    if (gmtime_r(&(time_t){reply->wall_s}, &tm))
        strftime(here, sizeof here, "%F %T", &tm);
    if (gmtime_r(&(time_t){there_s}, &tm))
        strftime(there, sizeof there, "%F %T", &tm);
    return s3error(reply->error, -EACCES, STORE_REFUSED,
                   "%s refuses us because this machine's clock is %lld s %s: %s UTC here, %s UTC "
                   "there; set the clock",
                   reply->place->endpoint, (long long)(off_s < 0 ? -off_s : off_s),
                   off_s < 0 ? "behind" : "ahead", here, there);
}

static int clock_skew(const struct reply *reply)
{
    int64_t there_s;

    if (server_time(reply, &there_s))
        return skewed(reply, there_s);
    return s3error(reply->error, -EACCES, STORE_REFUSED,
                   "%s refuses us because this machine's clock is wrong; set the clock",
                   reply->place->endpoint);
}

static int unknown_key(const struct reply *reply)
{
    return s3error(reply->error, -EACCES, STORE_REFUSED,
                   "%s does not know the access key from %s (%s); check the key and the endpoint",
                   reply->place->endpoint, reply->place->credentials, reply->xml.code);
}

static int wrong_secret(const struct reply *reply)
{
    return s3error(reply->error, -EACCES, STORE_REFUSED,
                   "%s does not accept the secret key from %s (%s); check the secret",
                   reply->place->endpoint, reply->place->credentials, reply->xml.code);
}

static int expired(const struct reply *reply)
{
    return s3error(reply->error, -EACCES, STORE_REFUSED,
                   "the credentials from %s have expired or been revoked (%s); renew them",
                   reply->place->credentials, reply->xml.code);
}

static int denied(const struct reply *reply)
{
    static const char *const what[] = {[S3ERROR_GET] = "read from",
                                       [S3ERROR_PUT] = "write to",
                                       [S3ERROR_PUT_IF_ABSENT] = "write to",
                                       [S3ERROR_LIST] = "list",
                                       [S3ERROR_DELETE] = "delete from"};

    return s3error(reply->error, -EACCES, STORE_REFUSED,
                   "access denied: the credentials from %s may not %s bucket '%s' at %s (%s)",
                   reply->place->credentials, what[reply->op], reply->place->bucket,
                   reply->place->endpoint, *reply->xml.code ? reply->xml.code : "no reason given");
}

/* ------------------------------------------------------------------ the wrong place */

static int no_bucket(const struct reply *reply)
{
    return s3error(reply->error, -EIO, STORE_FINAL,
                   "bucket '%s' does not exist at %s; create it or check the name",
                   reply->place->bucket, reply->place->endpoint);
}

static int bad_bucket_name(const struct reply *reply)
{
    return s3error(reply->error, -EINVAL, STORE_FINAL, "'%s' is no valid bucket name for %s",
                   reply->place->bucket, reply->place->endpoint);
}

/* 301, 307, AuthorizationHeaderMalformed …: the answer often says where the bucket is. */
static int elsewhere(const struct reply *reply)
{
    const char *region = *reply->xml.region ? reply->xml.region : reply->answer->region;
    const struct s3error_place *place = reply->place;

    if (*region && strcmp(region, place->region) != 0)
        return s3error(reply->error, -EINVAL, STORE_FINAL,
                       "bucket '%s' is in region '%s', not in '%s'; set the region", place->bucket,
                       region, place->region);
    if (*reply->xml.endpoint)
        return s3error(reply->error, -EINVAL, STORE_FINAL,
                       "bucket '%s' is not at %s but at %s; set endpoint and region", place->bucket,
                       place->endpoint, reply->xml.endpoint);
    return s3error(
        reply->error, -EINVAL, STORE_FINAL,
        "%s answers %d for bucket '%s' in region '%s' (%s%s%s); check endpoint and region",
        place->endpoint, reply->answer->status, place->bucket, place->region,
        *reply->xml.code ? reply->xml.code : "redirect", *reply->xml.message ? ": " : "",
        reply->xml.message);
}

static int no_conditional_put(const struct reply *reply)
{
    return s3error(reply->error, -EOPNOTSUPP, STORE_FINAL,
                   "%s has no conditional PUT (If-None-Match)", reply->place->endpoint);
}

/* ------------------------------------------------------------------ by status */

/* "ENDPOINT answered 500 InternalError: …" */
static int plain(const struct reply *reply, int err, enum store_fate fate)
{
    const struct s3xml_error *xml = &reply->xml;

    return s3error(reply->error, err, fate, "%s answered %d%s%s%s%s", reply->place->endpoint,
                   reply->answer->status, *xml->code ? " " : "", xml->code,
                   *xml->message ? ": " : "", xml->message);
}

static int not_found(const struct reply *reply)
{
    bool key = reply->op == S3ERROR_GET || reply->op == S3ERROR_DELETE;

    if (key && strcmp(reply->xml.code, "NoSuchKey") == 0)
        return -ENOENT;
    if (*reply->xml.code)
        return plain(reply, -EIO, STORE_FINAL);
    /* A proxy, or no S3 at all: to take it for "no such key" would be to guess. */
    return s3error(reply->error, -EIO, STORE_RETRY,
                   "%s answered 404 without saying what is missing; is it an S3 service?",
                   reply->place->endpoint);
}

static int refused(const struct reply *reply)
{
    int64_t there_s;

    if (server_time(reply, &there_s) &&
        (reply->wall_s - there_s > SKEW_MAX_S || there_s - reply->wall_s > SKEW_MAX_S))
        return skewed(reply, there_s);
    return *reply->xml.code ? plain(reply, -EACCES, STORE_REFUSED) : denied(reply);
}

static int by_status(const struct reply *reply)
{
    int status = reply->answer->status;

    switch (status) {
    case 301:
    case 302:
    case 307:
    case 308:
        return elsewhere(reply);
    case 401:
    case 403:
        return refused(reply);
    case 404:
        return not_found(reply);
    case 408:
    case 409: /* a conditional PUT that met another one: whoever asks again is told */
        return plain(reply, -EIO, STORE_RETRY);
    case 412:
        return reply->op == S3ERROR_PUT_IF_ABSENT ? -EEXIST : plain(reply, -EIO, STORE_FINAL);
    case 429:
    case 503:
        return plain(reply, -EIO, STORE_SLOW);
    case 501:
        return reply->op == S3ERROR_PUT_IF_ABSENT ? no_conditional_put(reply)
                                                  : plain(reply, -EOPNOTSUPP, STORE_FINAL);
    case 405:
        return plain(reply, -EOPNOTSUPP, STORE_FINAL);
    default:
        return plain(reply, -EIO, status >= 500 || status / 100 == 2 ? STORE_RETRY : STORE_FINAL);
    }
}

static int again(const struct reply *reply)
{
    return plain(reply, -EIO, STORE_RETRY);
}

static int slow(const struct reply *reply)
{
    return plain(reply, -EIO, STORE_SLOW);
}

/* The codes that mean something whatever their status. */
static int by_code(const struct reply *reply)
{
    static const struct {
        const char *code;
        int (*mean)(const struct reply *reply);
    } table[] = {
        {"NoSuchBucket", no_bucket},
        {"InvalidBucketName", bad_bucket_name},
        {"InvalidAccessKeyId", unknown_key},
        {"SignatureDoesNotMatch", wrong_secret},
        {"AccessDenied", denied},
        {"AllAccessDisabled", denied},
        {"ExpiredToken", expired},
        {"InvalidToken", expired},
        {"TokenRefreshRequired", expired},
        {"RequestTimeTooSkewed", clock_skew},
        {"PermanentRedirect", elsewhere},
        {"TemporaryRedirect", elsewhere},
        {"AuthorizationHeaderMalformed", elsewhere},
        {"IllegalLocationConstraintException", elsewhere},
        /* Damaged on the way, or cut. */
        {"BadDigest", again},
        {"InvalidDigest", again},
        {"XAmzContentSHA256Mismatch", again},
        {"IncompleteBody", again},
        {"RequestTimeout", again},
        {"OperationAborted", again},
        {"InternalError", again},
        {"SlowDown", slow},
        {"ServiceUnavailable", slow},
        {"RequestLimitExceeded", slow},
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++)
        if (strcmp(reply->xml.code, table[i].code) == 0)
            return table[i].mean(reply);
    return by_status(reply);
}

int s3error_from_answer(const struct s3error_place *place, enum s3error_op op,
                        const struct http_answer *answer, int64_t wall_s,
                        struct store_error *ret_error)
{
    struct reply reply = {place, op, answer, {{0}, {0}, {0}, {0}, {0}}, wall_s, ret_error};

    if (answer->end != HTTP_ANSWERED)
        return not_answered(place, answer, ret_error);
    if (answer->body_len)
        (void)s3xml_parse_error(answer->body, answer->body_len, &reply.xml);
    return by_code(&reply);
}

int s3error_from_code(const struct s3error_place *place, const char *code, const char *message,
                      struct store_error *ret_error)
{
    const struct http_answer answer = {.end = HTTP_ANSWERED, .status = 200};
    struct reply reply = {place, S3ERROR_DELETE, &answer, {{0}, {0}, {0}, {0}, {0}}, 0, ret_error};

    (void)snprintf(reply.xml.code, sizeof reply.xml.code, "%s", code);
    (void)snprintf(reply.xml.message, sizeof reply.xml.message, "%s", message);
    return by_code(&reply);
}
