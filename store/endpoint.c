#include "endpoint.h"

#include "msg.h"
#include "scope.h"

#include <string.h>
#include <strings.h>

static const char lower_and_digits[] = "abcdefghijklmnopqrstuvwxyz0123456789";
static const char name_chars[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-";

static bool ends_with(const char *text, size_t len, const char *end)
{
    size_t n = strlen(end);

    return len >= n && strncasecmp(text + len - n, end, n) == 0;
}

static bool is_amazon(const char *host, size_t len)
{
    const char *port = memchr(host, ':', len);

    len = port ? (size_t)(port - host) : len;
    return ends_with(host, len, ".amazonaws.com") || ends_with(host, len, ".amazonaws.com.cn");
}

/* May this name be one label of a host name? */
static bool is_label(const char *bucket)
{
    size_t len = strlen(bucket);

    return len >= 3 && len <= 63 && strspn(bucket, lower_and_digits) > 0 &&
           strchr(lower_and_digits, bucket[len - 1]) && strspn(bucket, name_chars) == len &&
           strpbrk(bucket, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == NULL;
}

/* "https://host:port/path" without slashes at its end; 0 if it makes no sense. */
static size_t scheme_len(const char *given)
{
    size_t n = strncasecmp(given, "http://", 7) == 0    ? 7
               : strncasecmp(given, "https://", 8) == 0 ? 8
                                                        : 0;

    if (!n || !given[n] || given[n] == '/' || given[n] == ':')
        return 0;
    for (const char *p = given; *p; p++)
        if ((unsigned char)*p <= ' ' || (unsigned char)*p >= 127 || strchr("@?#%\"<>\\^`{|}", *p))
            return 0;
    return n;
}

static int fill(const char *text, const char *bucket, enum addressing addressing,
                struct endpoint *ret)
{
    size_t scheme = scheme_len(text);
    const char *host = text + scheme;
    size_t host_len = strcspn(host, "/");
    const char *path = host + host_len;
    bool virtual = addressing == ADDRESSING_VIRTUAL ||
                   (addressing == ADDRESSING_AUTO && is_amazon(host, host_len) && is_label(bucket));
    int r = format(ret->host, sizeof ret->host, "%s%s%.*s", virtual ? bucket : "",
                   virtual ? "." : "", (int)host_len, host);

    if (!r)
        r = format(ret->origin, sizeof ret->origin, "%.*s%s", (int)scheme, text, ret->host);
    if (!r)
        r = format(ret->path, sizeof ret->path, "%s%s%s", path, virtual ? "" : "/",
                   virtual ? "" : bucket);
    return r ? msg_error(r, "the endpoint %s is too long", text) : 0;
}

int endpoint_resolve(const char *given, const char *region, const char *bucket,
                     enum addressing addressing, struct endpoint *ret_endpoint)
{
    struct endpoint e = {0};
    size_t len;
    int r;

    if (!*region || strspn(region, name_chars) != strlen(region))
        return msg_error(-EINVAL, "'%s' is no region: it is a name such as us-east-1", region);
    if (addressing == ADDRESSING_VIRTUAL && strspn(bucket, name_chars) == 0)
        return msg_error(-EINVAL, "bucket '%s' cannot be part of a host name", bucket);
    if (*given)
        r = format(e.text, sizeof e.text, "%s", given);
    else
        r = format(e.text, sizeof e.text, "https://s3.%s.amazonaws.com%s", region,
                   strncmp(region, "cn-", 3) == 0 ? ".cn" : "");
    if (r)
        return msg_error(r, "the endpoint is longer than %zu characters", sizeof e.text - 1);
    for (len = strlen(e.text); len && e.text[len - 1] == '/'; len--)
        e.text[len - 1] = '\0';
    if (!scheme_len(e.text))
        return msg_error(-EINVAL,
                         "'%s' is no endpoint: it is a URL such as https://s3.example.com or "
                         "http://127.0.0.1:9000",
                         given);
    r = fill(e.text, bucket, addressing, &e);
    if (!r)
        *ret_endpoint = e;
    return r;
}
