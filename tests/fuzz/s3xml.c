/* S3's XML: input is a document, read as each of the three that we know. */
#include "fuzz.h"

#include "../../store/s3xml.h"

enum { KEYS_MAX = 64, KEY_SIZE = 4097 };

struct keys {
    size_t n;
    char key[KEYS_MAX][KEY_SIZE];
    uint64_t size[KEYS_MAX];
};

static int add(void *ctx, const char *key, uint64_t size_bytes, bool is_prefix)
{
    struct keys *keys = ctx;

    INVARIANT(strlen(key) < KEY_SIZE && (is_prefix || *key));
    INVARIANT(!is_prefix || size_bytes == 0);
    if (is_prefix || keys->n == KEYS_MAX)
        return 0;
    strcpy(keys->key[keys->n], key);
    keys->size[keys->n++] = size_bytes;
    return 0;
}

/* The same keys written by us, and read again. */
static void write_and_read(const struct keys *keys)
{
    static char text[1 << 20];
    static struct keys back;
    bool more;

    strcpy(text, "<ListBucketResult><IsTruncated>true</IsTruncated>");
    for (size_t i = 0; i < keys->n; i++) {
        size_t at = strlen(text);
        if (strlen(keys->key[i]) > 1024)
            return;
        strcpy(text + at, "<Contents><Key>");
        if (s3xml_escape(keys->key[i], text, sizeof text) < 0)
            return; /* a control character */
        at = strlen(text);
        (void)snprintf(text + at, sizeof text - at, "</Key><Size>%llu</Size></Contents>",
                       (unsigned long long)keys->size[i]);
    }
    strcat(text, "</ListBucketResult>");
    back.n = 0;
    INVARIANT(s3xml_parse_list(text, strlen(text), add, &back, &more) == 0 && more);
    INVARIANT(back.n == keys->n);
    for (size_t i = 0; i < keys->n; i++)
        INVARIANT(strcmp(back.key[i], keys->key[i]) == 0 && back.size[i] == keys->size[i]);
}

static void assert_terminated(const struct s3xml_error *e)
{
    INVARIANT(memchr(e->code, 0, sizeof e->code) && memchr(e->message, 0, sizeof e->message) &&
              memchr(e->region, 0, sizeof e->region) &&
              memchr(e->endpoint, 0, sizeof e->endpoint) &&
              memchr(e->server_time, 0, sizeof e->server_time));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct keys keys;
    scope_free char *xml = scope_copy(data, size);
    struct s3xml_error error;
    size_t nerrors;
    bool more;
    int list, one, deleted;

    keys.n = 0;
    list = s3xml_parse_list(xml, size, add, &keys, &more);
    one = s3xml_parse_error(xml, size, &error);
    if (one == 0) {
        INVARIANT(*error.code);
        assert_terminated(&error);
    }
    deleted = s3xml_parse_delete(xml, size, &nerrors, &error);
    if (deleted == 0 && nerrors > 0)
        assert_terminated(&error);
    INVARIANT((list == 0) + (one == 0) + (deleted == 0) <= 1);
    INVARIANT((list == 0 || list == -EBADMSG) && (one == 0 || one == -EBADMSG) &&
              (deleted == 0 || deleted == -EBADMSG));
    if (list == 0 && keys.n < KEYS_MAX)
        write_and_read(&keys);
    return 0;
}
