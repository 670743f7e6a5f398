#include "s3_internal.h"

#include "s3xml.h"
#include "scope.h"

#include <openssl/evp.h>
#include <string.h>

enum { BATCH_MAX = 1000 }; /* keys a request; S3's limit */

static int delete_one(struct s3 *s3, const char *key, struct store_error *err)
{
    struct s3_call call = {.method = "DELETE", .key = key, .op = S3ERROR_DELETE};
    int r = s3_call_send(s3, &call, err);

    if (!r && !s3_call_answered(&call, 204) && !s3_call_answered(&call, 200))
        r = s3_call_judge(s3, &call, err);
    s3_call_end(&call);
    return r == -ENOENT ? 0 : r;
}

/* The <Delete> document; the caller frees it. */
static char *delete_document(const struct s3 *s3, const char *const *keys, size_t nkeys)
{
    size_t each = 6 * strlen(s3->prefix) + 6 * STORE_KEY_MAX + 64, size = nkeys * each + 128;
    char *body = malloc(size);
    size_t len = 0;
    int r = body ? 0 : -ENOMEM;

    if (!r)
        r = format(body, size, "<Delete><Quiet>true</Quiet>");
    for (size_t i = 0; i < nkeys && !r; i++) {
        len += strlen(body + len);
        if (!(r = format(body + len, size - len, "<Object><Key>")) &&
            !(r = s3xml_escape(s3->prefix, body + len, size - len)) &&
            !(r = s3xml_escape(keys[i], body + len, size - len)))
            len += strlen(body + len), r = format(body + len, size - len, "</Key></Object>");
    }
    if (!r) {
        len += strlen(body + len);
        r = format(body + len, size - len, "</Delete>");
    }
    if (r)
        free(take(body));
    return body;
}

/* -EOPNOTSUPP: an OpenSSL that obeys FIPS has none. */
static int content_md5(const void *data, size_t len, char buf[32])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned n;

    if (!EVP_Digest(data, len, digest, &n, EVP_md5(), NULL))
        return -EOPNOTSUPP;
    EVP_EncodeBlock((unsigned char *)buf, digest, (int)n);
    return 0;
}

static int judge_deleted(struct s3 *s3, const struct s3_call *call, struct store_error *err)
{
    struct s3xml_error first;
    size_t nerrors;

    if (!s3_call_answered(call, 200))
        return s3_call_judge(s3, call, err);
    if (s3xml_parse_delete(call->answer.body, call->answer.body_len, &nerrors, &first))
        return s3error(err, -EBADMSG, STORE_RETRY,
                       "%s sent an answer to DELETE that makes no sense", s3->place.endpoint);
    return nerrors ? s3error_from_code(&s3->place, first.code, first.message, err) : 0;
}

/* -EOPNOTSUPP: they can only be deleted one by one. */
static int delete_batch(struct s3 *s3, const char *const *keys, size_t nkeys,
                        struct store_error *err)
{
    scope_free char *body = delete_document(s3, keys, nkeys);
    struct s3_call call = {.method = "POST", .op = S3ERROR_DELETE, .body = body};
    char md5[32];
    int r;

    if (!body)
        return s3error(err, -ENOMEM, STORE_RETRY, "out of memory");
    call.body_len = strlen(body);
    r = content_md5(body, call.body_len, md5);
    if (r)
        return r;
    s3_call_query(&call, "delete", "");
    s3_call_header(&call, "Content-MD5", md5);
    s3_call_header(&call, "Content-Type", "application/xml");
    r = s3_call_send(s3, &call, err);
    if (!r)
        r = judge_deleted(s3, &call, err);
    s3_call_end(&call);
    return r;
}

int s3_delete(void *self, const char *const *keys, size_t nkeys, struct store_error *err)
{
    struct s3 *s3 = self;
    int r = 0;

    for (size_t i = 0, n; i < nkeys && !r; i += n) {
        n = atomic_load(&s3->no_batch_delete) ? 1 : MIN(nkeys - i, BATCH_MAX);
        r = n == 1 ? delete_one(s3, keys[i], err) : delete_batch(s3, keys + i, n, err);
        if (r == -EOPNOTSUPP && n > 1) {
            atomic_store(&s3->no_batch_delete, true);
            r = 0;
            n = 0; /* the same keys again, one by one */
        }
    }
    return r;
}
