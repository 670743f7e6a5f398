#include "url.h"

#include "msg.h"
#include "scope.h"

#include <stdarg.h>
#include <string.h>

/* Room for "snapshot/" in front, within a key. */
enum { SNAPSHOT_NAME_MAX = 100 };

static int bad(const char *text, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int bad(const char *text, const char *fmt, ...)
{
    char why[256];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    return msg_error(-EINVAL, "%.200s: %s", text, why);
}

static bool starts(const char *text, const char *with)
{
    return strncasecmp(text, with, strlen(with)) == 0;
}

bool url_is_snapshot_name(const char *name)
{
    static const char valid[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";

    return *name && *name != '.' && !name[strspn(name, valid)] && strlen(name) <= SNAPSHOT_NAME_MAX;
}

/* Splits "…@name" off the last component of `rest`, in place. */
static int split_snapshot(const char *text, char *rest, struct url *url)
{
    size_t len = strlen(rest);

    /* a path's "." at its end goes as well: what is before it is the last component then */
    while (len && (rest[len - 1] == '/' ||
                   (!url->s3 && len > 1 && rest[len - 1] == '.' && rest[len - 2] == '/')))
        rest[--len] = 0;
    char *slash = strrchr(rest, '/'), *at = strrchr(slash ? slash : rest, '@');
    if (!at)
        return 0;
    const char *name = at + 1;
    if (!url_is_snapshot_name(name))
        return bad(text,
                   "no snapshot can have the name after '@': use up to %d letters, digits, "
                   "'.', '_' and '-'",
                   SNAPSHOT_NAME_MAX);
    if (at == (slash ? slash + 1 : rest))
        return bad(text, "there is no volume name before '@'");
    INVARIANT(format(url->snapshot, sizeof url->snapshot, "%s", name) == 0);
    *at = 0;
    return 0;
}

/* Appends the components of `rest` to `path`, each after a '/'. */
static int join(const char *text, const char *rest, bool s3, char *path)
{
    size_t at = strlen(path);

    while (*(rest += strspn(rest, "/"))) {
        size_t len = strcspn(rest, "/");
        bool dot = len == 1 && rest[0] == '.';

        if (s3 && (dot || (len == 2 && memcmp(rest, "..", 2) == 0)))
            return bad(text, "a key in S3 has no '.' or '..'; write the prefix out");
        if (!dot) {
            if (at + 1 + len >= URL_PART_MAX)
                return bad(text, "the path is longer than %d bytes", URL_PART_MAX - 1);
            path[at++] = '/';
            memcpy(path + at, rest, len);
            path[at += len] = 0;
        }
        rest += len;
    }
    return 0;
}

static int parse_bucket(const char *text, const char *name, size_t len, struct url *url)
{
    static const char alnum[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    char bucket[sizeof url->bucket];

    if (!len)
        return bad(text, "the bucket's name is missing: write s3://BUCKET/NAME");
    /* Perhaps s3://KEY:SECRET@… or a host: nothing of it is repeated. */
    if (memchr(name, ':', len) || memchr(name, '@', len))
        return msg_error(-EINVAL,
                         "an S3 URL is s3://BUCKET/NAME: keys come from the environment or "
                         "the config files, a server from --endpoint");
    if (len < 3 || format(bucket, sizeof bucket, "%.*s", (int)len, name) < 0)
        return bad(text, "a bucket's name has 3 to 63 characters");
    if (bucket[strspn(bucket, "abcdefghijklmnopqrstuvwxyz0123456789.-")] ||
        !strchr(alnum, bucket[0]) || !strchr(alnum, bucket[len - 1]) || strstr(bucket, ".."))
        return bad(text,
                   "no bucket can be called \"%s\": names are lower-case letters, digits, '-' and "
                   "'.', and begin and end with a letter or digit",
                   bucket);
    memcpy(url->bucket, bucket, len + 1);
    return 0;
}

static int parse_s3(const char *text, char *rest, struct url *url)
{
    char path[URL_PART_MAX] = "";
    size_t bucket_len = strcspn(rest, "/");

    /* Before the snapshot is split off, so that "user:secret@bucket" is seen whole. */
    if (memchr(rest, ':', bucket_len))
        return parse_bucket(text, rest, bucket_len, url);
    int r = split_snapshot(text, rest, url);
    if (r < 0)
        return r;
    bucket_len = strcspn(rest, "/");
    r = parse_bucket(text, rest, bucket_len, url);
    if (r < 0)
        return r;
    r = join(text, rest + bucket_len, true, path);
    if (r < 0)
        return r;
    memcpy(url->path, path + (path[0] == '/'), strlen(path + (path[0] == '/')) + 1);
    if (format(url->text, sizeof url->text, "s3://%s%s", url->bucket, path) < 0)
        return bad(text, "the URL is longer than %d bytes", URL_PART_MAX - 1);
    return 0;
}

static int parse_dir(const char *text, char *rest, struct url *url)
{
    char cwd[URL_PART_MAX];
    bool relative = rest[0] != '/';
    int r = split_snapshot(text, rest, url);

    if (r < 0)
        return r;
    if (relative) {
        if (!getcwd(cwd, sizeof cwd))
            return bad(text, "the working directory is not known (%s); give the whole path",
                       strerror(errno));
        r = join(text, cwd, false, url->path);
        if (r < 0)
            return r;
    }
    r = join(text, rest, false, url->path);
    if (r < 0)
        return r;
    if (!url->path[0])
        strcpy(url->path, "/");
    strcpy(url->text, url->path);
    return 0;
}

int url_parse(const char *text, struct url *ret_url)
{
    struct url url = {0};
    char rest[URL_PART_MAX];
    int r;

    if (!*text)
        return msg_error(-EINVAL, "the volume's URL is empty: write s3://BUCKET/NAME or a path");
    if (strlen(text) >= sizeof rest)
        return bad(text, "the URL is longer than %d bytes", URL_PART_MAX - 1);
    for (const char *p = text; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            return bad(text, "there is a control character in it");
    if (starts(text, "http:") || starts(text, "https:"))
        return msg_error(-EINVAL,
                         "a web address is no volume: use s3://BUCKET/NAME, and --endpoint "
                         "for the server");
    url.s3 = starts(text, "s3:");
    if (url.s3 && strncmp(text + 3, "//", 2) != 0)
        return bad(text, "not a volume's URL: write s3://BUCKET/NAME");
    bool file = starts(text, "file:");
    if (file && strncmp(text + 5, "///", 3) != 0)
        return bad(text, "not a volume's URL: write file:///DIR/NAME");
    if (!url.s3 && !file && text[strspn(text, "/")] && strstr(text, "://") &&
        !memchr(text, '/', (size_t)(strstr(text, "://") - text)))
        return bad(text, "unknown kind of URL: use s3://BUCKET/NAME, file:///DIR/NAME or a path");
    strcpy(rest, text + (url.s3 ? 5 : file ? 7 : 0));
    r = url.s3 ? parse_s3(text, rest, &url) : parse_dir(text, rest, &url);
    if (r == 0)
        *ret_url = url;
    return r;
}
