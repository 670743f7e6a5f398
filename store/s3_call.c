#include "s3_internal.h"

#include "scope.h"

#include <string.h>

enum {
    PATH_SIZE = 3 * S3_KEY_SIZE + 1024, /* encoded */
    QUERY_SIZE = 6 * S3_KEY_SIZE + 256, /* encoded, with prefix and start-after */
};

static int make_path(const struct s3 *s3, const char *key, char *buf, size_t size_bytes)
{
    char path[S3_KEY_SIZE + sizeof s3->endpoint.path];
    int r;

    if (key)
        r = format(path, sizeof path, "%s/%s%s", s3->endpoint.path, s3->prefix, key);
    else
        r = format(path, sizeof path, "%s", *s3->endpoint.path ? s3->endpoint.path : "/");
    return r ? r : sigv4_encode_path(path, buf, size_bytes);
}

void s3_call_header(struct s3_call *call, const char *name, const char *value)
{
    INVARIANT(call->nheaders < ARRAY_SIZE(call->headers));
    call->headers[call->nheaders++] = (struct sigv4_pair){name, value};
}

void s3_call_query(struct s3_call *call, const char *name, const char *value)
{
    INVARIANT(call->nquery < ARRAY_SIZE(call->query));
    call->query[call->nquery++] = (struct sigv4_pair){name, value};
}

/* What a request is signed with, and its headers. */
struct envelope {
    struct credentials keys;
    char path[PATH_SIZE], query[QUERY_SIZE], url[PATH_SIZE + QUERY_SIZE + 640];
    char hash[SIGV4_HEX_SIZE], date[SIGV4_DATE_SIZE];
    char authorization[2048];
    struct sigv4_pair headers[8];
    size_t nheaders;
    char text[12288]; /* "Name: value", one after the other */
    const char *lines[9];
};

static int sign(const struct s3 *s3, const struct s3_call *call, struct envelope *e)
{
    struct sigv4_request request = {call->method, e->path, e->query, e->headers, 0, NULL, e->hash};
    struct sigv4_scope scope = {e->keys.access_key, e->keys.secret, e->date, s3->region, "s3"};

    e->headers[e->nheaders++] = (struct sigv4_pair){"Host", s3->endpoint.host};
    e->headers[e->nheaders++] = (struct sigv4_pair){"x-amz-content-sha256", e->hash};
    e->headers[e->nheaders++] = (struct sigv4_pair){"x-amz-date", e->date};
    if (*e->keys.token)
        e->headers[e->nheaders++] = (struct sigv4_pair){"x-amz-security-token", e->keys.token};
    for (size_t i = 0; i < call->nheaders; i++)
        e->headers[e->nheaders++] = call->headers[i];
    request.nheaders = e->nheaders;
    return sigv4_authorization(&request, &scope, e->authorization, sizeof e->authorization);
}

/* The headers as libcurl takes them. */
static int write_headers(struct envelope *e)
{
    size_t used = 0;

    e->headers[e->nheaders++] = (struct sigv4_pair){"Authorization", e->authorization};
    for (size_t i = 0; i < e->nheaders; i++) {
        int r = format(e->text + used, sizeof e->text - used, "%s: %s", e->headers[i].name,
                       e->headers[i].value);
        if (r)
            return r;
        e->lines[i] = e->text + used;
        used += strlen(e->text + used) + 1;
    }
    return 0;
}

static int seal(struct s3 *s3, struct s3_call *call, struct envelope *e)
{
    int r;

    if ((r = make_path(s3, call->key, e->path, sizeof e->path)) ||
        (r = sigv4_encode_query(call->query, call->nquery, e->query, sizeof e->query)) ||
        (r = format(e->url, sizeof e->url, "%s%s%s%s", s3->endpoint.origin, e->path,
                    call->nquery ? "?" : "", e->query)) ||
        (r = sigv4_date((time_t)call->wall_s, e->date)) ||
        (r = sigv4_sha256_hex(call->body ? call->body : "", call->body_len, e->hash)) ||
        (r = sign(s3, call, e)))
        return r;
    return write_headers(e);
}

int s3_call_send(struct s3 *s3, struct s3_call *call, struct store_error *err)
{
    scope_free struct envelope *e = calloc(1, sizeof *e); /* stacks are small */
    int r = e ? 0 : -ENOMEM;

    call->wall_s = s3->clock->wall_ms() / 1000;
    if (!r) {
        credentials_get(s3->credentials, &e->keys);
        r = seal(s3, call, e);
    }
    if (!r)
        http_do(s3->http,
                &(struct http_request){call->method, e->url, e->lines, e->nheaders, call->body,
                                       call->body_len, call->op == S3ERROR_GET, call->on_body,
                                       call->ctx},
                &call->answer);
    err->hedged = !r && call->answer.hedged;
    if (e)
        credentials_wipe(&e->keys);
    return r ? s3error(err, r, STORE_FINAL, "the request to %s cannot be signed: %s",
                       s3->place.endpoint, strerror(-r))
             : 0;
}

void s3_call_end(struct s3_call *call)
{
    http_answer_free(&call->answer);
}

bool s3_call_answered(const struct s3_call *call, int status)
{
    return call->answer.end == HTTP_ANSWERED && call->answer.status == status;
}

int s3_call_judge(struct s3 *s3, const struct s3_call *call, struct store_error *err)
{
    int r = s3error_from_answer(&s3->place, call->op, &call->answer, call->wall_s, err);

    if (r == -EACCES)
        credentials_refused(s3->credentials);
    return r;
}
