#include "s3xml.h"

#include "scope.h"

#include <expat.h>
#include <string.h>

enum {
    DEPTH_MAX = 8,
    PATH_MAX_BYTES = 160,
    TEXT_MAX = 4096, /* more than the longest key (1024), escaped or not */
};

/* What the three kinds of document have in common: where we are, and the text of the element that
 * began last. */
struct reader {
    XML_Parser parser;
    const char *root; /* the document we expect */
    char path[PATH_MAX_BYTES];
    unsigned depth;
    char text[TEXT_MAX + 1];
    size_t text_len;
    bool cut; /* the text was longer */
    int result;
    /* An element has ended; path and text are its own. */
    int (*leaf)(struct reader *reader, void *ctx);
    void *ctx;
};

static void fail(struct reader *reader, int err)
{
    if (!reader->result)
        reader->result = err;
    XML_StopParser(reader->parser, XML_FALSE);
}

static void on_start(void *ctx, const XML_Char *name, const XML_Char **attributes)
{
    struct reader *reader = ctx;
    size_t len = strlen(reader->path);

    (void)attributes;
    if (reader->result)
        return;
    if (reader->depth == 0 && strcmp(name, reader->root) != 0)
        fail(reader, -EBADMSG);
    else if (reader->depth == DEPTH_MAX ||
             format(reader->path + len, sizeof reader->path - len, "/%s", name))
        fail(reader, -EBADMSG);
    reader->depth++;
    reader->text_len = 0;
    reader->cut = false;
}

static void on_text(void *ctx, const XML_Char *text, int len)
{
    struct reader *reader = ctx;
    size_t n = MIN((size_t)len, TEXT_MAX - reader->text_len);

    memcpy(reader->text + reader->text_len, text, n);
    reader->text_len += n;
    reader->cut |= n < (size_t)len;
}

static void on_end(void *ctx, const XML_Char *name)
{
    struct reader *reader = ctx;
    int r;

    (void)name;
    if (reader->result) /* expat still ends an empty element that it was stopped in */
        return;
    reader->text[reader->text_len] = '\0';
    r = reader->leaf(reader, reader->ctx);
    if (r)
        fail(reader, r);
    reader->depth--;
    *strrchr(reader->path, '/') = '\0';
    reader->text_len = 0;
    reader->cut = false;
}

static void on_doctype(void *ctx, const XML_Char *name, const XML_Char *system_id,
                       const XML_Char *public_id, int internal)
{
    (void)name, (void)system_id, (void)public_id, (void)internal;
    fail(ctx, -EBADMSG);
}

static int parse(const void *xml, size_t len, const char *root,
                 int (*leaf)(struct reader *reader, void *ctx), void *ctx)
{
    struct reader *reader = calloc(1, sizeof *reader);
    int r;

    if (!reader || !(reader->parser = XML_ParserCreate(NULL))) {
        free(reader);
        return -ENOMEM;
    }
    reader->root = root;
    reader->leaf = leaf;
    reader->ctx = ctx;
    XML_SetUserData(reader->parser, reader);
    XML_SetElementHandler(reader->parser, on_start, on_end);
    XML_SetCharacterDataHandler(reader->parser, on_text);
    XML_SetStartDoctypeDeclHandler(reader->parser, on_doctype);
    if (len > INT32_MAX || XML_Parse(reader->parser, xml, (int)len, XML_TRUE) != XML_STATUS_OK)
        r = reader->result ? reader->result : -EBADMSG;
    else
        r = reader->result;
    if (!reader->result && XML_GetErrorCode(reader->parser) == XML_ERROR_NO_MEMORY)
        r = -ENOMEM;
    XML_ParserFree(reader->parser);
    free(reader);
    return r;
}

/* ------------------------------------------------------------------ <Error> */

static void copy_cut(char *to, size_t size_bytes, const char *from)
{
    (void)snprintf(to, size_bytes, "%s", from);
}

/* Notes the text if `name` is a field of an error; the first of each counts. */
static void error_field(struct s3xml_error *error, const char *name, const char *text)
{
    struct {
        const char *name;
        char *to;
        size_t size;
    } const fields[] = {
        {"Code", error->code, sizeof error->code},
        {"Message", error->message, sizeof error->message},
        {"Region", error->region, sizeof error->region},
        {"Endpoint", error->endpoint, sizeof error->endpoint},
        {"ServerTime", error->server_time, sizeof error->server_time},
    };

    for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
        if (strcmp(name, fields[i].name) == 0 && !*fields[i].to)
            copy_cut(fields[i].to, fields[i].size, text);
}

static int error_leaf(struct reader *reader, void *ctx)
{
    if (reader->depth == 2)
        error_field(ctx, strrchr(reader->path, '/') + 1, reader->text);
    return 0;
}

int s3xml_parse_error(const void *xml, size_t len, struct s3xml_error *ret_error)
{
    struct s3xml_error error = {0};
    int r = parse(xml, len, "Error", error_leaf, &error);

    if (!r && !*error.code)
        r = -EBADMSG;
    if (!r)
        *ret_error = error;
    return r;
}

/* ------------------------------------------------------------------ <ListBucketResult> */

struct list {
    s3xml_item *item;
    void *ctx;
    char key[TEXT_MAX + 1];
    uint64_t size_bytes;
    bool has_key, has_size, has_more, more;
};

static int parse_size(const char *text, uint64_t *ret_size)
{
    char *end;

    if (*text < '0' || *text > '9')
        return -EBADMSG;
    errno = 0;
    *ret_size = strtoull(text, &end, 10);
    return errno || *end ? -EBADMSG : 0;
}

static int list_leaf(struct reader *reader, void *ctx)
{
    struct list *list = ctx;
    const char *name = reader->path + strlen("/ListBucketResult");

    if (strcmp(name, "/Contents/Key") == 0) {
        if (reader->cut || list->has_key || !*reader->text)
            return -EBADMSG;
        copy_cut(list->key, sizeof list->key, reader->text);
        list->has_key = true;
    } else if (strcmp(name, "/Contents/Size") == 0) {
        list->has_size = true;
        return parse_size(reader->text, &list->size_bytes);
    } else if (strcmp(name, "/Contents") == 0) {
        if (!list->has_key || !list->has_size)
            return -EBADMSG;
        list->has_key = list->has_size = false;
        return list->item(list->ctx, list->key, list->size_bytes, false);
    } else if (strcmp(name, "/CommonPrefixes/Prefix") == 0) {
        return reader->cut ? -EBADMSG : list->item(list->ctx, reader->text, 0, true);
    } else if (strcmp(name, "/IsTruncated") == 0) {
        list->has_more = true;
        list->more = strcmp(reader->text, "true") == 0;
        return list->more || strcmp(reader->text, "false") == 0 ? 0 : -EBADMSG;
    }
    return 0;
}

int s3xml_parse_list(const void *xml, size_t len, s3xml_item *item, void *ctx, bool *ret_more)
{
    struct list *list = calloc(1, sizeof *list);
    int r;

    if (!list)
        return -ENOMEM;
    list->item = item;
    list->ctx = ctx;
    r = parse(xml, len, "ListBucketResult", list_leaf, list);
    if (!r && !list->has_more)
        r = -EBADMSG; /* taking a part for the whole would be the worst mistake */
    if (!r)
        *ret_more = list->more;
    free(list);
    return r;
}

/* ------------------------------------------------------------------ <DeleteResult>, <Delete> */

struct deleted {
    size_t nerrors;
    struct s3xml_error first, now;
};

static int delete_leaf(struct reader *reader, void *ctx)
{
    static const char error[] = "/DeleteResult/Error";
    struct deleted *deleted = ctx;

    if (strncmp(reader->path, error, sizeof error - 1) != 0)
        return 0;
    if (reader->path[sizeof error - 1] == '/') {
        error_field(&deleted->now, reader->path + sizeof error, reader->text);
    } else if (reader->path[sizeof error - 1] == '\0') {
        if (strcmp(deleted->now.code, "NoSuchKey") != 0 && deleted->nerrors++ == 0)
            deleted->first = deleted->now;
        deleted->now = (struct s3xml_error){0};
    }
    return 0;
}

int s3xml_parse_delete(const void *xml, size_t len, size_t *ret_nerrors,
                       struct s3xml_error *ret_first)
{
    struct deleted deleted = {0};
    int r = parse(xml, len, "DeleteResult", delete_leaf, &deleted);

    if (r)
        return r;
    *ret_nerrors = deleted.nerrors;
    *ret_first = deleted.first;
    return 0;
}

int s3xml_escape(const char *text, char *buf, size_t size_bytes)
{
    size_t len = strlen(buf);

    for (; *text; text++) {
        const char one[2] = {*text, '\0'};
        const char *out = *text == '&'   ? "&amp;"
                          : *text == '<' ? "&lt;"
                          : *text == '>' ? "&gt;"
                          : *text == '"' ? "&quot;"
                                         : one;
        int r =
            (unsigned char)*text < ' ' ? -EINVAL : format(buf + len, size_bytes - len, "%s", out);

        if (r)
            return r;
        len += strlen(out);
    }
    return 0;
}
