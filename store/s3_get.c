#include "s3_internal.h"

#include "scope.h"

#include <string.h>

/* A body on its way to the caller's sink. */
struct download {
    struct s3 *s3;
    struct store_error *err;
    uint64_t offset, len; /* asked for */
    store_sink *sink;
    void *ctx;
    bool begun;        /* the headers were looked at */
    uint64_t size;     /* of the object; 0: not told */
    uint64_t expected; /* bytes for the sink */
    uint64_t received; /* … that it got */
    int result;        /* why the transfer was ended by us */
};

static int parse_number(const char **text, uint64_t *ret_number)
{
    char *end;

    if (**text < '0' || **text > '9')
        return -EBADMSG;
    errno = 0;
    *ret_number = strtoull(*text, &end, 10);
    *text = end;
    return errno ? -EBADMSG : 0;
}

/* "bytes 0-9/1000", or "bytes * /1000" (first > last) in a 416; size 0 for a total of '*'. */
static int parse_content_range(const char *text, uint64_t *ret_first, uint64_t *ret_last,
                               uint64_t *ret_size)
{
    if (strncmp(text, "bytes ", 6) != 0)
        return -EBADMSG;
    text += 6;
    *ret_first = 1;
    *ret_last = *ret_size = 0;
    if (*text == '*')
        text++;
    else if (parse_number(&text, ret_first) || *text++ != '-' || parse_number(&text, ret_last))
        return -EBADMSG;
    if (*text++ != '/')
        return -EBADMSG;
    if (strcmp(text, "*") == 0)
        return 0;
    return parse_number(&text, ret_size) || *text ? -EBADMSG : 0;
}

static int wrong_range(const struct download *d, const struct http_answer *answer)
{
    return s3error(d->err, -EIO, STORE_RETRY, "%s answered with another range ('%s') than asked",
                   d->s3->place.endpoint, answer->content_range);
}

/* Looks at the headers of a 2xx answer: how many bytes, from where. */
static int begin_download(struct download *d, const struct http_answer *answer)
{
    uint64_t first, last;

    d->begun = true;
    if (answer->status == 206) {
        if (parse_content_range(answer->content_range, &first, &last, &d->size) ||
            first != d->offset || last < first || (d->size && last >= d->size))
            return wrong_range(d, answer);
        d->expected = MIN(d->len, last - first + 1); /* s3rver takes "0-0" for "0-" */
        if (d->size && d->expected < MIN(d->len, d->size - MIN(d->size, d->offset)))
            return wrong_range(d, answer);
        return 0;
    }
    if (answer->status != 200)
        return s3error(d->err, -EIO, STORE_RETRY, "%s answered %d to a GET", d->s3->place.endpoint,
                       answer->status);
    if (d->offset)
        return s3error(d->err, -EOPNOTSUPP, STORE_FINAL,
                       "%s does not serve parts of objects (Range)", d->s3->place.endpoint);
    d->expected = d->len;
    if (answer->content_length >= 0) {
        d->size = (uint64_t)answer->content_length;
        d->expected = MIN(d->len, d->size);
    }
    return 0;
}

static int on_download(void *ctx, const struct http_answer *answer, const void *data, size_t len)
{
    struct download *d = ctx;
    size_t n;

    if (!d->begun)
        d->result = begin_download(d, answer);
    if (d->result)
        return 1;
    n = (size_t)MIN(len, d->expected - d->received);
    if (n && (d->result = d->sink(d->ctx, data, n)) < 0) {
        s3error(d->err, d->result, STORE_FINAL, "the receiver of the data gave up");
        return 1;
    }
    d->result = 0;
    d->received += n;
    return n < len; /* more than asked for: enough */
}

/* 416: nothing at `offset`. */
static int past_the_end(struct download *d, const struct http_answer *answer)
{
    uint64_t first, last, size = 0;

    if (*answer->content_range && parse_content_range(answer->content_range, &first, &last, &size))
        return wrong_range(d, answer);
    if (size > d->offset)
        return wrong_range(d, answer);
    d->size = size;
    return 0;
}

static int end_download(struct download *d, const struct s3_call *call)
{
    const struct http_answer *answer = &call->answer;
    bool good = answer->end == HTTP_ANSWERED && answer->status / 100 == 2;

    if (d->result)
        return d->result;
    if (s3_call_answered(call, 416))
        return past_the_end(d, answer);
    if (good && !d->begun) { /* a body of no bytes */
        int r = begin_download(d, answer);
        if (r)
            return r;
    }
    if (!good && answer->end != HTTP_ENOUGH)
        return s3_call_judge(d->s3, call, d->err);
    if (answer->status == 200 && answer->content_length < 0 && good)
        d->size = d->expected = d->received; /* its end was its length */
    if (d->received != d->expected)
        return s3error(d->err, -EIO, STORE_RETRY, "%s sent %llu bytes where it announced %llu",
                       d->s3->place.endpoint, (unsigned long long)d->received,
                       (unsigned long long)d->expected);
    return 0;
}

int s3_get(void *self, const char *key, uint64_t offset, uint64_t len, store_sink *sink, void *ctx,
           uint64_t *ret_size, struct store_error *err)
{
    struct s3 *s3 = self;
    struct download d = {.s3 = s3, .err = err, .offset = offset, .sink = sink, .ctx = ctx};
    struct s3_call call = {
        .method = "GET", .key = key, .op = S3ERROR_GET, .on_body = on_download, .ctx = &d};
    char range[64];
    int r;

    INVARIANT(len > 0);
    /* Some servers compute with signed or floating-point numbers; beyond them: to the end. */
    d.len = MIN(len, UINT64_MAX - offset);
    if (offset + d.len - 1 < (uint64_t)1 << 53)
        r = format(range, sizeof range, "bytes=%llu-%llu", (unsigned long long)offset,
                   (unsigned long long)(offset + d.len - 1));
    else
        r = format(range, sizeof range, "bytes=%llu-", (unsigned long long)offset);
    INVARIANT(!r);
    s3_call_header(&call, "Range", range);
    r = s3_call_send(s3, &call, err);
    if (!r)
        r = end_download(&d, &call);
    if (!r)
        *ret_size = d.size;
    s3_call_end(&call);
    return r;
}
