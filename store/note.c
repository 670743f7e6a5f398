#include "note.h"

#include "crc32c.h"
#include "scope.h"

#include <string.h>

int note_quote(const char *text, char *ret, size_t size_bytes)
{
    char *out = ret, *end = ret + size_bytes;

    if (size_bytes < 3)
        return -ENAMETOOLONG;
    *out++ = '"';
    for (; *text; text++) {
        if ((unsigned char)*text < ' ')
            return -EINVAL;
        if (end - out < 4)
            return -ENAMETOOLONG;
        if (*text == '"' || *text == '\\')
            *out++ = '\\';
        *out++ = *text;
    }
    *out++ = '"';
    *out = 0;
    return 0;
}

#define CRC_MEMBER ",\"crc32c\":\""
#define CRC_END    CRC_MEMBER "%08x\"}\n"

int note_seal(char *buf, size_t size_bytes, size_t *ret_len)
{
    size_t len = strlen(buf);
    int r = format(buf + len, size_bytes - len, CRC_END, crc32c(0, buf, len));

    if (r == 0)
        *ret_len = strlen(buf);
    return r;
}

/* Nothing may follow it. */
static bool crc_matches(const char *text)
{
    char end[sizeof CRC_MEMBER + 16];
    const char *at = NULL;

    for (const char *p = text; (p = strstr(p, CRC_MEMBER)) != NULL; p++)
        at = p;
    return at && format(end, sizeof end, CRC_END, crc32c(0, text, (size_t)(at - text))) == 0 &&
           strcmp(at, end) == 0;
}

static int read_rows(sqlite3 *db, const char *text, const char *sql, note_row_fn *row, void *ctx,
                     const char **ret_why)
{
    sqlite3_stmt *q = NULL;
    int r = 0, step = SQLITE_ERROR;

    if (sqlite3_prepare_v2(db, sql, -1, &q, NULL) == SQLITE_OK &&
        sqlite3_bind_text(q, 1, text, -1, SQLITE_STATIC) == SQLITE_OK)
        while ((step = sqlite3_step(q)) == SQLITE_ROW && r == 0)
            r = row(ctx, q, ret_why);
    if (r == 0 && step != SQLITE_DONE) {
        *ret_why = "damaged: not the JSON that it should be";
        r = -EBADMSG;
    }
    sqlite3_finalize(q);
    return r;
}

int note_read(const void *data, size_t len, const char *sql, note_row_fn *row, void *ctx,
              const char **ret_why)
{
    char text[NOTE_BYTES_MAX];
    sqlite3 *db = NULL;
    int r = -ENOMEM;

    *ret_why = "damaged: its checksum does not match";
    if (len >= NOTE_BYTES_MAX || memchr(data, 0, len))
        return -EBADMSG;
    memcpy(text, data, len);
    text[len] = 0;
    if (sqlite3_open(":memory:", &db) == SQLITE_OK)
        r = read_rows(db, text, sql, row, ctx, ret_why);
    sqlite3_close(db);
    if (r == 0 && !crc_matches(text)) {
        *ret_why = "damaged: its checksum does not match";
        r = -EBADMSG;
    }
    return r;
}
