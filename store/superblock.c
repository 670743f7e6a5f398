#include "superblock.h"

#include "bytes.h"
#include "crc32c.h"
#include "entry.h"
#include "msg.h"
#include "scope.h"

#include <sqlite3.h>
#include <sys/random.h>
#include <time.h>

enum { TEXT_MAX = 1024, WINDOW = 1024 };

int random_bytes(void *buf, size_t len)
{
    return getrandom(buf, len, 0) == (ssize_t)len ? 0 : msg_error(-EIO, "getrandom: failed");
}

/* Before this byte there is a dash. */
static bool is_group(int i)
{
    return i == 4 || i == 6 || i == 8 || i == 10;
}

void uuid_format(const uint8_t u[UUID_BYTES], char ret[UUID_TEXT_BYTES])
{
    char *p = ret;

    for (int i = 0; i < UUID_BYTES; i++) {
        if (is_group(i))
            *p++ = '-';
        p += sprintf(p, "%02x", u[i]);
    }
}

static int uuid_parse(const char *text, uint8_t ret[UUID_BYTES])
{
    char back[UUID_TEXT_BYTES];

    if (strlen(text) != UUID_TEXT_BYTES - 1)
        return -EBADMSG;
    for (int i = 0, at = 0; i < UUID_BYTES; i++, at += 2) {
        unsigned byte;
        at += is_group(i);
        if (sscanf(text + at, "%2x", &byte) != 1)
            return -EBADMSG;
        ret[i] = (uint8_t)byte;
    }
    uuid_format(ret, back);
    return strcmp(text, back) == 0 ? 0 : -EBADMSG;
}

/* The last member is the checksum of all that stands before it. */
#define CRC_MEMBER ",\"crc32c\":\""
#define CRC_END    CRC_MEMBER "%08x\"}\n"

int superblock_encode(const struct superblock *sb, char *buf, size_t size_bytes, size_t *ret_len)
{
    char uuid[UUID_TEXT_BYTES];
    int r;

    uuid_format(sb->uuid, uuid);
    r = format(
        buf, size_bytes,
        "{\"s3vol\":%d,\"uuid\":\"%s\",\"size_bytes\":%llu,\"block_bytes\":%d,\"chunk_blocks\":%d,"
        "\"window\":%d,\"compression\":\"%s\",\"encryption\":\"none\",\"base\":null,"
        "\"conditional_put\":%s,\"created\":\"%s\"",
        FORMAT_VERSION, uuid, (unsigned long long)sb->size_bytes, BLOCK_BYTES, CHUNK_BLOCKS, WINDOW,
        sb->compress ? "zstd" : "none", sb->conditional_put ? "true" : "false", sb->created);
    if (r < 0)
        return r;
    size_t len = strlen(buf);
    r = format(buf + len, size_bytes - len, CRC_END, crc32c(0, buf, len));
    if (r < 0)
        return r;
    *ret_len = strlen(buf);
    return 0;
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

/* SQLite reads the JSON: a parser that is fuzzed around the clock, and is linked anyway. */
static int read_members(sqlite3 *db, const char *text, struct superblock *sb, const char **ret_why)
{
    static const char SQL[] =
        "SELECT json_extract(j,'$.s3vol'), json_extract(j,'$.uuid'), "
        "json_extract(j,'$.size_bytes'),"
        " json_extract(j,'$.block_bytes'), json_extract(j,'$.chunk_blocks'), "
        "json_extract(j,'$.window'),"
        " json_extract(j,'$.compression'), json_extract(j,'$.encryption'), "
        "json_extract(j,'$.base'),"
        " json_extract(j,'$.conditional_put'), json_extract(j,'$.created') FROM (SELECT ?1 AS j)";
    sqlite3_stmt *q = NULL;
    int r = -EBADMSG;

    *ret_why = "damaged: not the JSON of a superblock";
    if (sqlite3_prepare_v2(db, SQL, -1, &q, NULL) != SQLITE_OK ||
        sqlite3_bind_text(q, 1, text, -1, SQLITE_STATIC) != SQLITE_OK ||
        sqlite3_step(q) != SQLITE_ROW)
        goto out;
    const char *uuid = (const char *)sqlite3_column_text(q, 1);
    const char *compression = (const char *)sqlite3_column_text(q, 6);
    const char *encryption = (const char *)sqlite3_column_text(q, 7);
    const char *created = (const char *)sqlite3_column_text(q, 10);
    if (!uuid || !compression || !encryption || !created)
        goto out;
    if (sqlite3_column_int(q, 0) != FORMAT_VERSION || strcmp(encryption, "none") != 0 ||
        sqlite3_column_type(q, 8) != SQLITE_NULL) {
        *ret_why = "of a format that this s3vol does not know: upgrade it";
        r = -EPROTONOSUPPORT;
        goto out;
    }
    sb->size_bytes = (uint64_t)sqlite3_column_int64(q, 2);
    sb->compress = strcmp(compression, "zstd") == 0;
    sb->conditional_put = sqlite3_column_int(q, 9) != 0;
    if (uuid_parse(uuid, sb->uuid) < 0 ||
        format(sb->created, sizeof sb->created, "%s", created) < 0 ||
        sqlite3_column_int(q, 3) != BLOCK_BYTES || sqlite3_column_int(q, 4) != CHUNK_BLOCKS ||
        sqlite3_column_int(q, 5) != WINDOW || sb->size_bytes == 0 || sb->size_bytes % BLOCK_BYTES ||
        sb->size_bytes / BLOCK_BYTES >= VOLUME_BLOCKS_MAX)
        goto out;
    r = 0;
out:
    sqlite3_finalize(q);
    return r;
}

int superblock_decode(const char *data, size_t len, struct superblock *ret, const char **ret_why)
{
    struct superblock sb = {0};
    char text[TEXT_MAX];
    sqlite3 *db = NULL;
    int r;

    *ret_why = "damaged: its checksum does not match";
    if (len >= sizeof text || memchr(data, 0, len))
        return -EBADMSG;
    memcpy(text, data, len);
    text[len] = 0;
    if (sqlite3_open(":memory:", &db) != SQLITE_OK) {
        sqlite3_close(db);
        return -ENOMEM;
    }
    r = read_members(db, text, &sb, ret_why);
    sqlite3_close(db);
    /* a version from the future may keep its checksum elsewhere: say that first */
    if (r == 0 && !crc_matches(text)) {
        *ret_why = "damaged: its checksum does not match";
        r = -EBADMSG;
    }
    if (r == 0)
        *ret = sb;
    return r;
}

/* Does the store refuse to put what is there already? */
static int probe_conditional_put(struct store *store, int64_t patience_ms, bool *ret_conditional)
{
    uint8_t nonce[8];
    char key[STORE_KEY_MAX];
    int r = random_bytes(nonce, sizeof nonce);

    if (r == 0)
        r = format(key, sizeof key, "probe-%016llx", (unsigned long long)get_le64(nonce));
    if (r == 0)
        r = store_put(store, key, "1", 1, STORE_IF_ABSENT, patience_ms);
    if (r == -EOPNOTSUPP) { /* it says so: nothing was stored */
        *ret_conditional = false;
        return 0;
    }
    if (r < 0 && r != -EEXIST) /* a lost answer to a first try that worked */
        return r;
    r = store_put(store, key, "2", 1, STORE_IF_ABSENT, patience_ms);
    if (r < 0 && r != -EEXIST)
        return r;
    *ret_conditional = r == -EEXIST;
    return store_delete(store, (const char *const[]){key}, 1, patience_ms);
}

int superblock_create(struct store *store, struct superblock *sb, const struct clock *clock,
                      int64_t patience_ms)
{
    char text[TEXT_MAX];
    size_t len;
    uint64_t size;
    time_t now = clock->wall_ms() / 1000;
    struct tm tm;
    int r;

    r = store_get_head(store, "volume", text, sizeof text, &len, &size, patience_ms);
    if (r == 0)
        return msg_error(-EEXIST,
                         "%s: there is a volume already; choose another name, or delete it first",
                         store_url(store));
    if (r != -ENOENT)
        return r;
    r = probe_conditional_put(store, patience_ms, &sb->conditional_put);
    if (r == 0)
        r = random_bytes(sb->uuid, sizeof sb->uuid);
    if (r < 0)
        return r;
    sb->uuid[6] = (uint8_t)((sb->uuid[6] & 15) | 64);  /* RFC 4122, version 4 … */
    sb->uuid[8] = (uint8_t)((sb->uuid[8] & 63) | 128); /* … and variant */
    strftime(sb->created, sizeof sb->created, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
    r = superblock_encode(sb, text, sizeof text, &len);
    if (r < 0)
        return r;
    r = store_put(store, "volume", text, len, sb->conditional_put ? STORE_IF_ABSENT : 0,
                  patience_ms);
    if (r == -EEXIST) { /* perhaps our own lost first try */
        struct superblock there;
        r = superblock_load(store, &there, patience_ms);
        if (r == 0 && memcmp(there.uuid, sb->uuid, UUID_BYTES) != 0)
            r = msg_error(-EEXIST, "%s: somebody else created a volume here at this moment",
                          store_url(store));
    }
    return r;
}

int superblock_load(struct store *store, struct superblock *ret_sb, int64_t patience_ms)
{
    char text[TEXT_MAX];
    const char *why;
    size_t len;
    int r = store_get_head(store, "volume", text, sizeof text, &len, NULL, patience_ms);

    if (r == -ENOENT)
        return msg_error(r, "%s: no volume is here; see `s3vol create`, or check the name",
                         store_url(store));
    if (r < 0)
        return r;
    r = superblock_decode(text, len, ret_sb, &why);
    if (r < 0)
        return msg_error(r, "%s: superblock (object \"volume\"): %s", store_url(store), why);
    return 0;
}
