/* ListObjectsV2, as "Amazon S3 API reference: ListObjectsV2" has it. */
#include "api.h"

#include "../../store/scope.h"

#include <string.h>

enum { KEYS_MAX = 1000 };

struct lister {
    char prefix[OBJECT_KEY_MAX + 1], delimiter[16], after[OBJECT_KEY_MAX + 1];
    bool skip_below; /* `after` is a common prefix that was listed: skip all below it */
    bool encode;     /* encoding-type=url */
    int max, n;
    bool truncated;
    char last[OBJECT_KEY_MAX + 1]; /* key or common prefix listed last */
    bool last_common;
    FILE *contents, *commons;
};

static void print_key(const struct lister *l, FILE *xml, const char *key)
{
    char encoded[3 * OBJECT_KEY_MAX + 1];

    if (l->encode && sigv4_encode(key, 1, encoded, sizeof encoded) == 0)
        key = encoded;
    api_xml_escaped(xml, key);
}

static void print_object(const struct lister *l, const struct object *o)
{
    char modified[32];
    struct tm tm;

    strftime(modified, sizeof modified, "%Y-%m-%dT%H:%M:%S.000Z", gmtime_r(&o->mtime, &tm));
    fputs("<Contents><Key>", l->contents);
    print_key(l, l->contents, o->key);
    fprintf(l->contents,
            "</Key><LastModified>%s</LastModified><ETag>&quot;%s&quot;</ETag><Size>%zu</Size>"
            "<StorageClass>STANDARD</StorageClass></Contents>",
            modified, o->etag, o->len);
}

static bool list_one(void *ctx, const struct object *o)
{
    struct lister *l = ctx;
    const char *key = o->key, *end;
    size_t prefix_len = strlen(l->prefix), common_len = 0;

    if (strncmp(key, l->prefix, prefix_len) != 0)
        return strcmp(key, l->prefix) > 0; /* behind all that begin with it */
    if (strcmp(key, l->after) <= 0 ||
        (l->skip_below && strncmp(key, l->after, strlen(l->after)) == 0))
        return false;
    if (l->delimiter[0] && (end = strstr(key + prefix_len, l->delimiter)))
        common_len = (size_t)(end - key) + strlen(l->delimiter);
    if (l->last_common && common_len == strlen(l->last) && strncmp(key, l->last, common_len) == 0)
        return false;
    if (l->n >= l->max) {
        l->truncated = l->max > 0;
        return true;
    }
    l->n++;
    l->last_common = common_len;
    (void)snprintf(l->last, sizeof l->last, "%.*s", common_len ? (int)common_len : OBJECT_KEY_MAX,
                   key);
    if (!common_len) {
        print_object(l, o);
        return false;
    }
    fputs("<CommonPrefixes><Prefix>", l->commons);
    print_key(l, l->commons, l->last);
    fputs("</Prefix></CommonPrefixes>", l->commons);
    return false;
}

/* A continuation token is "k" or "p", for a common prefix, and the name in hex: nothing that a
 * client would understand by accident. */
static bool parse_token(const char *token, struct lister *l)
{
    size_t len = strlen(token + 1) / 2;

    if ((token[0] != 'k' && token[0] != 'p') || len > OBJECT_KEY_MAX || strlen(token) % 2 == 0)
        return false;
    for (size_t i = 0; i < len; i++) {
        unsigned c;
        if (sscanf(token + 1 + 2 * i, "%2x", &c) != 1)
            return false;
        l->after[i] = (char)c;
    }
    l->after[len] = 0;
    l->skip_below = token[0] == 'p';
    return true;
}

static const char *parse(const struct request *request, struct lister *l)
{
    char text[16], token[2 * OBJECT_KEY_MAX + 4];

    l->max = KEYS_MAX;
    if (!api_query(request, "list-type", text, sizeof text) || strcmp(text, "2") != 0)
        return "only list-type=2 is implemented";
    if (!api_query(request, "prefix", l->prefix, sizeof l->prefix))
        l->prefix[0] = 0;
    if (!api_query(request, "delimiter", l->delimiter, sizeof l->delimiter))
        l->delimiter[0] = 0;
    if (api_query(request, "continuation-token", token, sizeof token)) {
        if (!parse_token(token, l))
            return "The continuation token provided is incorrect";
    } else if (!api_query(request, "start-after", l->after, sizeof l->after)) {
        l->after[0] = 0;
    }
    if (api_query(request, "max-keys", text, sizeof text)) {
        char *end;
        long n = strtol(text, &end, 10);
        if (end == text || *end || n < 0)
            return "Provided max-keys not an integer or within integer range";
        l->max = (int)MIN(n, (long)KEYS_MAX);
    }
    l->encode = api_query(request, "encoding-type", text, sizeof text) && strcmp(text, "url") == 0;
    return NULL;
}

static void print_result(struct lister *l, const char *bucket, const char *contents,
                         const char *commons, struct answer *answer)
{
    size_t len;
    FILE *xml = api_xml(answer, &len);

    fprintf(xml,
            "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>%s</Name>"
            "<Prefix>",
            bucket);
    print_key(l, xml, l->prefix);
    fputs("</Prefix>", xml);
    if (l->delimiter[0]) {
        fputs("<Delimiter>", xml);
        print_key(l, xml, l->delimiter);
        fputs("</Delimiter>", xml);
    }
    if (l->encode)
        fputs("<EncodingType>url</EncodingType>", xml);
    fprintf(xml, "<MaxKeys>%d</MaxKeys><KeyCount>%d</KeyCount><IsTruncated>%s</IsTruncated>",
            l->max, l->n, l->truncated ? "true" : "false");
    if (l->truncated) {
        fprintf(xml, "<NextContinuationToken>%c", l->last_common ? 'p' : 'k');
        for (const char *p = l->last; *p; p++)
            fprintf(xml, "%02x", (unsigned char)*p);
        fputs("</NextContinuationToken>", xml);
    }
    fprintf(xml, "%s%s</ListBucketResult>", contents, commons);
    api_xml_end(answer, xml, &len);
}

void list_objects(const struct request *request, const char *bucket, struct answer *answer)
{
    struct lister l = {0};
    char *contents, *commons;
    size_t contents_len, commons_len;
    const char *why = parse(request, &l);

    if (why) {
        api_error(answer, 400, "InvalidArgument", why, bucket, "");
        return;
    }
    l.contents = open_memstream(&contents, &contents_len);
    l.commons = open_memstream(&commons, &commons_len);
    INVARIANT(l.contents && l.commons);
    objects_walk(bucket, strcmp(l.after, l.prefix) > 0 ? l.after : l.prefix, list_one, &l);
    INVARIANT(fclose(l.contents) == 0 && fclose(l.commons) == 0);
    print_result(&l, bucket, contents, commons, answer);
    free(contents);
    free(commons);
}
