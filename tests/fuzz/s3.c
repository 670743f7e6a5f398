/*
 * What an S3 server may answer: status, headers, body, whole or cut. The operations are the real
 * ones (s3_get.c, s3_list.c, s3_delete.c, s3error.c); this file stands in for s3_call.c, and so for
 * the network.
 *
 * Input: operation, its arguments, status (2 bytes), how it ends, length of the headers (2 bytes),
 * the headers, one a line, and the body.
 */
#include "fuzz.h"

#include "../../store/s3_internal.h"

/* ------------------------------------------------------------------ the server */

static struct {
    int status;
    enum http_end end;
    size_t piece; /* how much of the body comes at once */
    const uint8_t *headers, *body;
    size_t headers_len, body_len;
    unsigned requests;
} server;

void s3_call_header(struct s3_call *call, const char *name, const char *value)
{
    (void)call, (void)name, (void)value;
}

void s3_call_query(struct s3_call *call, const char *name, const char *value)
{
    (void)call, (void)name, (void)value;
}

/* As http.c does it: the body of a 2xx goes to who wants it, piece by piece. */
static void give_body(const struct s3_call *call, struct http_answer *a)
{
    if (!call->on_body || a->status / 100 != 2) {
        a->body = memcpy(malloc(server.body_len + 1), server.body, server.body_len);
        a->body[a->body_len = server.body_len] = 0;
        return;
    }
    for (size_t at = 0, n; at < server.body_len; at += n) {
        n = MIN(server.piece, server.body_len - at);
        scope_free uint8_t *piece = scope_copy(server.body + at, n);
        if (call->on_body(call->ctx, a, piece, n) != 0) {
            a->end = HTTP_ENOUGH;
            return;
        }
    }
}

int s3_call_send(struct s3 *s3, struct s3_call *call, struct store_error *err)
{
    struct http_answer *a = &call->answer;
    const uint8_t *line = server.headers, *end = line + server.headers_len;

    (void)s3, (void)err;
    INVARIANT(++server.requests < 1000);
    *a = (struct http_answer){.end = server.end};
    http_answer_begin(a, server.end >= HTTP_NO_ANSWER && server.end != HTTP_ENOUGH ? 0
                                                                                   : server.status);
    for (; line < end;) {
        const uint8_t *next = memchr(line, '\n', (size_t)(end - line));
        next = next ? next + 1 : end;
        scope_free char *copy = scope_copy(line, (size_t)(next - line));
        http_answer_header(a, copy, (size_t)(next - line));
        line = next;
    }
    INVARIANT(a->content_length >= -1);
    if (a->status)
        give_body(call, a);
    return 0;
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
    return s3error_from_answer(&s3->place, call->op, &call->answer, 1700000000, err);
}

/* ------------------------------------------------------------------ the operations */

/* "right or an error": nothing else is told to whoever asked. */
static void assert_told(int r, const struct store_error *err)
{
    INVARIANT(r <= 0 && r >= -4095);
    INVARIANT(memchr(err->text, 0, sizeof err->text));
    INVARIANT(r == 0 || r == -ENOENT || r == -EEXIST || *err->text);
}

static int count(void *ctx, const void *data, size_t len)
{
    uint64_t *received = ctx;

    (void)data;
    INVARIANT(len > 0);
    *received += len;
    return 0;
}

static void get(struct s3 *s3, struct input *in)
{
    uint64_t offset = take_number(in, 2), len = 1 + take_number(in, 2), size = 0, received = 0;
    struct store_error err = {0};
    int r = s3_get(s3, "log/0000000000000001", offset, len, count, &received, &size, &err);

    assert_told(r, &err);
    INVARIANT(received <= len);
    if (r == 0 && size > 0)
        INVARIANT(received == MIN(len, size - MIN(size, offset)));
}

static void list(struct s3 *s3, struct input *in)
{
    bool dirs = take_number(in, 1) & 1, after = take_number(in, 1) & 1;
    const char *start_after = !after ? "" : dirs ? "b" : "log/0000000000000002";
    struct store_error err = {0};
    struct store_page page;
    int r = s3_list(s3, dirs ? "" : "log/", start_after, dirs, &page, &err);

    assert_told(r, &err);
    for (size_t i = 0; i < page.nitems; i++) {
        const char *key = page.items[i].key;
        INVARIANT(*key && memchr(key, 0, STORE_KEY_MAX));
        INVARIANT(dirs || strcmp(key, i ? page.items[i - 1].key : start_after) > 0);
    }
    INVARIANT(r < 0 || !page.more || page.nitems > 0);
    free(page.items);
}

static void delete (struct s3 *s3, struct input *in)
{
    static const char *const keys[] = {"log/0000000000000001", "map/0000000000000001", "x"};
    struct store_error err = {0};

    assert_told(s3_delete(s3, keys, 1 + take_number(in, 1) % 3, &err), &err);
}

static void judge(struct s3 *s3, struct input *in)
{
    struct s3_call call = {.op = take_number(in, 1) % (S3ERROR_DELETE + 1)};
    struct store_error err = {0};

    INVARIANT(s3_call_send(s3, &call, &err) == 0);
    if (!call.answer.body)
        call.answer.body = calloc(1, 1);
    int r = s3_call_judge(s3, &call, &err);
    INVARIANT(r < 0);
    INVARIANT(r != -ENOENT || call.op == S3ERROR_GET || call.op == S3ERROR_DELETE);
    INVARIANT(r != -EEXIST || call.op == S3ERROR_PUT_IF_ABSENT);
    assert_told(r, &err);
    s3_call_end(&call);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const operations[])(struct s3 *, struct input *) = {get, list, delete, judge};
    static const enum http_end ends[] = {HTTP_ANSWERED, HTTP_ANSWERED, HTTP_CUT, HTTP_STALLED,
                                         HTTP_NO_ANSWER};
    struct input in = {data, size}, arguments;
    struct s3 s3 = {.bucket = "bucket", .region = "us-east-1", .prefix = "vm1/"};

    s3.place =
        (struct s3error_place){s3.bucket, "http://s3.example.com", s3.region, "the test", 10000};
    unsigned operation = take_number(&in, 1) % ARRAY_SIZE(operations);
    arguments = (struct input){in.at, MIN(in.left, (size_t)4)};
    take_number(&in, 4);
    server.status = (int)take_number(&in, 2);
    server.end = ends[take_number(&in, 1) % ARRAY_SIZE(ends)];
    server.piece = 1 + take_number(&in, 1) * 16;
    server.headers_len = take_length(&in);
    server.headers = in.at;
    server.body = in.at + server.headers_len;
    server.body_len = in.left - server.headers_len;
    server.requests = 0;
    operations[operation](&s3, &arguments);
    return 0;
}
