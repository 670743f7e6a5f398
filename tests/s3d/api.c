#include "api.h"

#include "../../store/scope.h"

#include <string.h>
#include <strings.h>

/* ------------------------------------------------------------------ helpers */

bool api_query(const struct request *request, const char *name, char *buf, size_t size_bytes)
{
    size_t name_len = strlen(name);
    char part[2048];

    for (const char *p = request->query; *p; p += strcspn(p, "&"), p += *p == '&') {
        size_t len = strcspn(p, "&"), skip = name_len;
        if (len < name_len || strncmp(p, name, name_len) != 0 || !strchr("=&", p[name_len]))
            continue;
        skip += p[skip] == '=';
        return format(part, sizeof part, "%.*s", (int)(len - MIN(skip, len)), p + MIN(skip, len)) ==
                   0 &&
               sigv4_decode(part, buf, size_bytes) == 0;
    }
    return false;
}

static bool has_query(const struct request *request, const char *name)
{
    char value[2048];

    return api_query(request, name, value, sizeof value);
}

FILE *api_xml(struct answer *answer, size_t *len)
{
    FILE *xml = open_memstream(&answer->text, len);

    INVARIANT(xml);
    fputs("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n", xml);
    return xml;
}

void api_xml_end(struct answer *answer, FILE *xml, const size_t *len)
{
    INVARIANT(fclose(xml) == 0);
    answer->body = answer->text;
    answer->body_len = *len;
    answer_header(answer, "Content-Type: application/xml");
}

void api_xml_escaped(FILE *xml, const char *text)
{
    for (; *text; text++) {
        if (*text == '<')
            fputs("&lt;", xml);
        else if (*text == '>')
            fputs("&gt;", xml);
        else if (*text == '&')
            fputs("&amp;", xml);
        else if (*text == '"')
            fputs("&quot;", xml);
        else if ((unsigned char)*text < ' ')
            fprintf(xml, "&#%d;", *text);
        else
            fputc(*text, xml);
    }
}

void api_error(struct answer *answer, int status, const char *code, const char *message,
               const char *resource, const char *detail)
{
    size_t len;

    object_unref(answer->object);
    free(answer->text);
    memset(answer, 0, sizeof *answer);
    answer->status = status;
    FILE *xml = api_xml(answer, &len);
    fprintf(xml, "<Error><Code>%s</Code><Message>", code);
    api_xml_escaped(xml, message);
    fputs("</Message><Resource>/", xml);
    api_xml_escaped(xml, resource);
    fprintf(xml, "</Resource>%s</Error>", detail);
    api_xml_end(answer, xml, &len);
}

static bool copy(char *to, size_t size, const char *from, size_t len)
{
    return format(to, size, "%.*s", (int)len, from) == 0;
}

bool api_target(const struct api_config *config, const struct request *request, struct target *t)
{
    char path[BUCKET_NAME_MAX + OBJECT_KEY_MAX + 8], type[8];
    const char *host = request_header(request, "host"), *key = path + 1;
    size_t host_len = host ? strcspn(host, ":") : 0, domain_len = strlen(config->domain);

    memset(t, 0, sizeof *t);
    t->op = request->method;
    if (sigv4_decode(request->path, path, sizeof path) < 0)
        return false;
    if (host_len > domain_len + 1 && host[host_len - domain_len - 1] == '.' &&
        strncasecmp(host + host_len - domain_len, config->domain, domain_len) == 0) {
        if (!copy(t->bucket, sizeof t->bucket, host, host_len - domain_len - 1))
            return false;
    } else {
        size_t len = strcspn(key, "/");
        if (!copy(t->bucket, sizeof t->bucket, key, len))
            return false;
        key += len + (key[len] == '/');
    }
    if (!copy(t->key, sizeof t->key, key, strlen(key)))
        return false;
    char *name = t->name + sprintf(t->name, "%s/", t->bucket);
    strcpy(name, t->key);
    if (!*t->key && strcmp(t->op, "GET") == 0 &&
        api_query(request, "list-type", type, sizeof type)) {
        t->op = "LIST";
        if (!api_query(request, "prefix", name, OBJECT_KEY_MAX))
            *name = 0;
    }
    return true;
}

/* ------------------------------------------------------------------ buckets */

static void do_bucket(const struct api_config *config, const struct request *request,
                      const struct target *t, const char *partial_code, struct answer *answer)
{
    int r;

    answer->status = 200;
    if (strcmp(t->op, "PUT") == 0 && !*request->query) {
        r = strlen(t->bucket) < 3 ? -EINVAL : objects_make_bucket(t->bucket);
        if (r == -EEXIST)
            api_error(answer, 409, "BucketAlreadyOwnedByYou",
                      "Your previous request to create the named bucket succeeded and you already "
                      "own it.",
                      t->name, "");
        else if (r < 0)
            api_error(answer, 400, "InvalidBucketName", "The specified bucket is not valid.",
                      t->name, "");
        return;
    }
    if (!objects_has_bucket(t->bucket)) {
        api_error(answer, 404, "NoSuchBucket", "The specified bucket does not exist", t->name, "");
        return;
    }
    if (strcmp(t->op, "LIST") == 0) {
        list_objects(request, t->bucket, answer);
    } else if (strcmp(t->op, "POST") == 0 && has_query(request, "delete")) {
        batch_delete(request, t->bucket, partial_code, answer);
    } else if (strcmp(t->op, "HEAD") == 0) {
        answer_header(answer, "x-amz-bucket-region: %s", config->region);
    } else if (strcmp(t->op, "DELETE") == 0 && !*request->query) {
        answer->status = 204;
        if (objects_remove_bucket(t->bucket) < 0)
            api_error(answer, 409, "BucketNotEmpty", "The bucket you tried to delete is not empty.",
                      t->name, "");
    } else {
        api_error(answer, 501, "NotImplemented", "This server has no such operation", t->name, "");
    }
}

/* ------------------------------------------------------------------ objects */

/* "bytes=A-B", "bytes=A-", "bytes=-N": 1 for a range, 0 for none that counts, -ERANGE. */
static int parse_range(const char *text, uint64_t size, uint64_t *first, uint64_t *len)
{
    unsigned long long a = 0, b = UINT64_MAX;
    char *end;

    if (!text || strncmp(text, "bytes=", 6) != 0 || strchr(text, ','))
        return 0;
    text += 6;
    if (*text == '-') {
        b = strtoull(text + 1, &end, 10);
        if (end == text + 1 || *end)
            return 0;
        if (!b)
            return -ERANGE;
        a = b < size ? size - b : 0;
        b = UINT64_MAX;
    } else {
        a = strtoull(text, &end, 10);
        if (end == text || *end != '-')
            return 0;
        if (end[1]) {
            b = strtoull(end + 1, &end, 10);
            if (*end || b < a)
                return 0;
        }
    }
    if (a >= size)
        return -ERANGE;
    *first = a;
    *len = MIN(b, size - 1) - a + 1;
    return 1;
}

static void get_object(const struct request *request, const struct target *t, struct answer *answer)
{
    const char *range = request_header(request, "range");
    struct object *object = answer->object = objects_get(t->bucket, t->key);
    char detail[128], modified[64];
    uint64_t first = 0, len;
    struct tm tm;

    if (!object) {
        api_error(answer, 404, "NoSuchKey", "The specified key does not exist.", t->name, "");
        return;
    }
    len = object->len;
    int r = parse_range(range, object->len, &first, &len);
    if (r < 0) {
        (void)snprintf(detail, sizeof detail, "<ActualObjectSize>%zu</ActualObjectSize>",
                       object->len);
        api_error(answer, 416, "InvalidRange", "The requested range is not satisfiable", t->name,
                  detail);
        return;
    }
    answer->status = r ? 206 : 200;
    answer->body = strcmp(t->op, "HEAD") == 0 ? NULL : object->data + first;
    answer->body_len = len;
    if (r)
        answer_header(answer, "Content-Range: bytes %llu-%llu/%zu", (unsigned long long)first,
                      (unsigned long long)(first + len - 1), object->len);
    strftime(modified, sizeof modified, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&object->mtime, &tm));
    answer_header(answer, "Last-Modified: %s", modified);
    answer_header(answer, "ETag: \"%s\"", object->etag);
    answer_header(answer, "Accept-Ranges: bytes");
    answer_header(answer, "Content-Type: binary/octet-stream");
}

static void put_object(const struct api_config *config, struct request *request,
                       const struct target *t, const char *hash, struct answer *answer)
{
    const char *if_none = request_header(request, "if-none-match");

    if (request_header(request, "x-amz-copy-source") || request_header(request, "if-match") ||
        (if_none && config->conditional_put && strcmp(if_none, "*") != 0)) {
        api_error(answer, 501, "NotImplemented",
                  "A header you provided implies functionality that is not implemented", t->name,
                  "");
        return;
    }
    if (!request_header(request, "content-length")) {
        api_error(answer, 411, "MissingContentLength",
                  "You must provide the Content-Length HTTP header.", t->name, "");
        return;
    }
    /* The object gets the buffer that the body came in. */
    int r = objects_put(t->bucket, t->key, take(request->body), request->body_len, hash,
                        if_none && config->conditional_put);
    if (r == -ENOENT) {
        api_error(answer, 404, "NoSuchBucket", "The specified bucket does not exist", t->name, "");
    } else if (r == -EEXIST) {
        api_error(answer, 412, "PreconditionFailed",
                  "At least one of the pre-conditions you specified did not hold", t->name,
                  "<Condition>If-None-Match</Condition>");
    } else if (r < 0) {
        api_error(answer, 500, "InternalError", strerror(-r), t->name, "");
    } else {
        answer->status = 200;
        answer_header(answer, "ETag: \"%.32s\"", hash);
    }
}

void api_do(const struct api_config *config, struct request *request, const struct target *t,
            const char *hash, const char *partial_code, struct answer *answer)
{
    if (!*t->bucket) {
        api_error(answer, 501, "NotImplemented", "This server does not list buckets", "", "");
    } else if (!*t->key) {
        do_bucket(config, request, t, partial_code, answer);
    } else if (*request->query) {
        api_error(answer, 501, "NotImplemented", "This server has no such operation", t->name, "");
    } else if (!objects_has_bucket(t->bucket)) {
        api_error(answer, 404, "NoSuchBucket", "The specified bucket does not exist", t->name, "");
    } else if (strcmp(t->op, "GET") == 0 || strcmp(t->op, "HEAD") == 0) {
        get_object(request, t, answer);
    } else if (strcmp(t->op, "PUT") == 0) {
        put_object(config, request, t, hash, answer);
    } else if (strcmp(t->op, "DELETE") == 0) {
        answer->status = 204;
        if (objects_delete(t->bucket, t->key) < 0)
            api_error(answer, 500, "InternalError", "The object cannot be deleted", t->name, "");
    } else {
        api_error(answer, 501, "NotImplemented", "This server has no such operation", t->name, "");
    }
}
