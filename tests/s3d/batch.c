/* DeleteObjects: POST /BUCKET?delete. */
#include "api.h"

#include "../../store/scope.h"

#include <expat.h>
#include <openssl/evp.h>
#include <string.h>

enum { KEYS_MAX = 1000 };

struct batch {
    char path[64]; /* of open elements: "/Delete/Object/Key" */
    char text[OBJECT_KEY_MAX + 1];
    size_t text_len;
    char *keys[KEYS_MAX];
    size_t nkeys;
    bool quiet, bad;
};

static void on_start(void *ctx, const XML_Char *name, const XML_Char **attributes)
{
    struct batch *b = ctx;
    size_t len = strlen(b->path);

    (void)attributes;
    b->bad |= format(b->path + len, sizeof b->path - len, "/%s", name) < 0;
    b->text_len = 0;
}

static void on_text(void *ctx, const XML_Char *text, int len)
{
    struct batch *b = ctx;

    if ((size_t)len > OBJECT_KEY_MAX - b->text_len) {
        b->bad = true;
        return;
    }
    memcpy(b->text + b->text_len, text, (size_t)len);
    b->text_len += (size_t)len;
}

static void on_end(void *ctx, const XML_Char *name)
{
    struct batch *b = ctx;
    char *slash = strrchr(b->path, '/');

    (void)name;
    b->text[b->text_len] = 0;
    if (strcmp(b->path, "/Delete/Object/Key") == 0) {
        if (b->nkeys == KEYS_MAX)
            b->bad = true;
        else
            b->keys[b->nkeys++] = strdup(b->text);
    } else if (strcmp(b->path, "/Delete/Quiet") == 0) {
        b->quiet = strcmp(b->text, "true") == 0;
    }
    b->text_len = 0;
    if (slash)
        *slash = 0;
}

static bool parse(const struct request *request, struct batch *b)
{
    XML_Parser parser = XML_ParserCreate("UTF-8");

    INVARIANT(parser);
    XML_SetUserData(parser, b);
    XML_SetElementHandler(parser, on_start, on_end);
    XML_SetCharacterDataHandler(parser, on_text);
    bool ok = XML_Parse(parser, request->body, (int)request->body_len, true) == XML_STATUS_OK;
    XML_ParserFree(parser);
    return ok && !b->bad && b->nkeys;
}

/* S3 insists on one of these; the MD5 and the SHA-256 are compared. NULL, or the error's code. */
static const char *check_digest(const struct request *request)
{
    static const struct {
        const char *header, *digest; /* NULL: only has to be there */
    } kinds[] = {{"content-md5", "MD5"},
                 {"x-amz-checksum-sha256", "SHA256"},
                 {"x-amz-checksum-crc32", NULL},
                 {"x-amz-checksum-crc32c", NULL},
                 {"x-amz-checksum-sha1", "SHA1"}};
    unsigned char digest[EVP_MAX_MD_SIZE], base64[2 * EVP_MAX_MD_SIZE];
    const char *code = "InvalidRequest";

    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        const char *sent = request_header(request, kinds[i].header);
        size_t len;
        if (!sent)
            continue;
        code = NULL;
        if (!kinds[i].digest)
            continue;
        if (!EVP_Q_digest(NULL, kinds[i].digest, NULL, request->body, request->body_len, digest,
                          &len))
            return "InternalError";
        EVP_EncodeBlock(base64, digest, (int)len);
        if (strcmp((char *)base64, sent) != 0)
            return "BadDigest";
    }
    return code;
}

void batch_delete(const struct request *request, const char *bucket, const char *partial_code,
                  struct answer *answer)
{
    struct batch *b = calloc(1, sizeof *b);
    const char *code = check_digest(request);
    size_t len;

    INVARIANT(b);
    if (code) {
        api_error(answer, 400, code, "Content-MD5 or a checksum header is missing or wrong", bucket,
                  "");
    } else if (!parse(request, b)) {
        api_error(answer, 400, "MalformedXML",
                  "The XML you provided was not well-formed or did not validate against our "
                  "published schema",
                  bucket, "");
    } else {
        FILE *xml = api_xml(answer, &len);
        fputs("<DeleteResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">", xml);
        for (size_t i = 0; i < b->nkeys; i++) {
            bool refused =
                (partial_code && i + 1 == b->nkeys) || objects_delete(bucket, b->keys[i]) < 0;
            if (!refused && b->quiet)
                continue;
            fprintf(xml, "<%s><Key>", refused ? "Error" : "Deleted");
            api_xml_escaped(xml, b->keys[i]);
            fputs("</Key>", xml);
            if (refused)
                fprintf(xml, "<Code>%s</Code><Message>This one stays</Message>",
                        partial_code ? partial_code : "InternalError");
            fprintf(xml, "</%s>", refused ? "Error" : "Deleted");
        }
        fputs("</DeleteResult>", xml);
        api_xml_end(answer, xml, &len);
    }
    for (size_t i = 0; i < b->nkeys; i++)
        free(b->keys[i]);
    free(b);
}
