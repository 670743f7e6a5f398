/* URLs and endpoints: input is a letter and a text; 'u': a volume's URL; else an endpoint. */
#include "fuzz.h"

#include "../../store/endpoint.h"
#include "../../store/url.h"

/* A URL in its normal form means the same. */
static void look_at_url(const char *text)
{
    struct url url, again;
    char normal[2 * URL_PART_MAX];
    int r = url_parse(text, &url);

    INVARIANT(r == 0 || r == -EINVAL);
    if (r < 0)
        return;
    INVARIANT(url.s3 == (url.bucket[0] != 0) && strlen(url.text) < URL_PART_MAX);
    INVARIANT(url.s3 ? url.path[0] != '/' : url.path[0] == '/');
    INVARIANT(!strstr(url.path, "//") && !strpbrk(url.text, "\n\r\x7f"));
    INVARIANT(!url.s3 || strstr(url.text, url.path));
    INVARIANT(!strchr(url.snapshot, '/'));
    (void)snprintf(normal, sizeof normal, "%s%s%s", url.text, *url.snapshot ? "@" : "",
                   url.snapshot);
    if (strlen(normal) >= URL_PART_MAX || strcmp(url.path, "/") == 0)
        return; /* too long to be given, or ".@x" in the root directory */
    INVARIANT(url_parse(normal, &again) == 0);
    INVARIANT(strcmp(url.text, again.text) == 0 && strcmp(url.path, again.path) == 0);
    INVARIANT(strcmp(url.bucket, again.bucket) == 0 && strcmp(url.snapshot, again.snapshot) == 0);
}

static void look_at_endpoint(const char *text, enum addressing addressing, const char *region)
{
    struct endpoint e;
    int r = endpoint_resolve(text, region, "my-bucket", addressing, &e);

    INVARIANT(r == 0 || r == -EINVAL || r == -ENAMETOOLONG);
    if (r < 0)
        return;
    INVARIANT(*e.host && !strpbrk(e.host, "/@ \r\n") && !strpbrk(e.origin, "@ \r\n"));
    INVARIANT(strncasecmp(e.origin, "http", 4) == 0 && strstr(e.origin, e.host));
    INVARIANT(!*e.path || e.path[0] == '/');
    INVARIANT(!strpbrk(e.path, "?#% \r\n") && (!*e.path || e.path[strlen(e.path) - 1] != '/'));
    bool in_host = strncmp(e.host, "my-bucket.", 10) == 0, in_path = strstr(e.path, "/my-bucket");
    INVARIANT(addressing == ADDRESSING_PATH ? in_path : in_host || in_path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool ready;
    scope_free char *text = NULL;

    if (!ready) { /* relative paths become absolute: the same ones everywhere */
        INVARIANT(chdir("/") == 0);
        msg_set_sink(MSG_NONE);
        ready = true;
    }
    if (size == 0)
        return 0;
    text = malloc(size);
    memcpy(text, data + 1, size - 1);
    text[size - 1] = 0;
    if (data[0] == 'u')
        look_at_url(text);
    else
        look_at_endpoint(text, data[0] % 3, data[0] & 64 ? "us-east-1" : "cn-north-1");
    if (data[0] == 'r')
        look_at_endpoint("", ADDRESSING_AUTO, text);
    return 0;
}
