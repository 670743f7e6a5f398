#include "superblock.h"

#include "bytes.h"
#include "entry.h"
#include "msg.h"
#include "note.h"
#include "scope.h"

#include <sys/random.h>
#include <time.h>

enum { WINDOW = 1024 };

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

int uuid_parse(const char *text, uint8_t ret[UUID_BYTES])
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

/* "null", or the array of them. */
static int encode_bases(const struct superblock *sb, char *buf, size_t size_bytes)
{
    char url[2 * BASE_URL_MAX], uuid[UUID_TEXT_BYTES];
    size_t len = 0;
    int r = format(buf, size_bytes, "null");

    for (unsigned i = 0; i < sb->nbases && r == 0; i++) {
        const struct base *b = &sb->bases[i];
        uuid_format(b->uuid, uuid);
        r = note_quote(b->url, url, sizeof url);
        if (r == 0)
            r = format(buf + len, size_bytes - len,
                       "%s{\"url\":%s,\"uuid\":\"%s\",\"root\":%llu,\"seq\":%llu}%s",
                       i == 0 ? "[" : ",", url, uuid, (unsigned long long)b->root,
                       (unsigned long long)b->seq, i + 1 == sb->nbases ? "]" : "");
        len = strlen(buf);
    }
    return r;
}

int superblock_encode(const struct superblock *sb, char *buf, size_t size_bytes, size_t *ret_len)
{
    scope_free char *bases = malloc(NOTE_BYTES_MAX);
    char uuid[UUID_TEXT_BYTES];
    int r = bases ? encode_bases(sb, bases, NOTE_BYTES_MAX) : -ENOMEM;

    uuid_format(sb->uuid, uuid);
    if (r == 0)
        r = format(
            buf, size_bytes,
            "{\"s3vol\":%d,\"uuid\":\"%s\",\"size_bytes\":%llu,\"block_bytes\":%d,"
            "\"chunk_blocks\":%d,\"window\":%d,\"compression\":\"%s\","
            "\"encryption\":\"none\",\"base\":%s,\"conditional_put\":%s,\"created\":\"%s\"%s",
            FORMAT_VERSION, uuid, (unsigned long long)sb->size_bytes, BLOCK_BYTES, CHUNK_BLOCKS,
            WINDOW, sb->compress ? "zstd" : "none", bases, sb->conditional_put ? "true" : "false",
            sb->created, sb->unfinished ? ",\"unfinished\":true" : "");
    return r == 0 ? note_seal(buf, size_bytes, ret_len) : r;
}

/* One row for each base, or one row whose base is NULL. */
static const char MEMBERS[] =
    "SELECT j->>'$.s3vol', j->>'$.uuid', j->>'$.size_bytes', j->>'$.block_bytes',"
    " j->>'$.chunk_blocks', j->>'$.window', j->>'$.compression', j->>'$.encryption',"
    " j->>'$.conditional_put', j->>'$.created', j->>'$.unfinished', json_type(j, '$.base'),"
    " o->>'$.url', o->>'$.uuid', o->>'$.root', o->>'$.seq' FROM (SELECT j, iif(b.type = 'object', "
    "b.value, NULL) AS o"
    "  FROM (SELECT ?1 AS j) LEFT JOIN json_each(j, '$.base') b)";
enum { AT_BASE_TYPE = 11, AT_BASE = 12 };

static bool has_control(const char *text)
{
    while ((unsigned char)*text >= ' ')
        text++;
    return *text;
}

static int read_base(sqlite3_stmt *q, struct superblock *sb)
{
    const char *url = (const char *)sqlite3_column_text(q, AT_BASE);
    const char *uuid = (const char *)sqlite3_column_text(q, AT_BASE + 1);
    struct base *b = &sb->bases[sb->nbases];

    if (sb->nbases == BASES_MAX || !url || !*url || has_control(url) || !uuid ||
        uuid_parse(uuid, b->uuid) < 0 || format(b->url, sizeof b->url, "%s", url) < 0)
        return -EBADMSG;
    b->root = (uint64_t)sqlite3_column_int64(q, AT_BASE + 2);
    b->seq = (uint64_t)sqlite3_column_int64(q, AT_BASE + 3);
    if (b->seq > SEQ_MAX || b->root > b->seq)
        return -EBADMSG;
    sb->nbases++;
    return 0;
}

static int read_members(void *ctx, sqlite3_stmt *q, const char **ret_why)
{
    struct superblock *sb = ctx;
    const char *uuid = (const char *)sqlite3_column_text(q, 1);
    const char *compression = (const char *)sqlite3_column_text(q, 6);
    const char *encryption = (const char *)sqlite3_column_text(q, 7);
    const char *created = (const char *)sqlite3_column_text(q, 9);
    const char *base = (const char *)sqlite3_column_text(q, AT_BASE_TYPE);

    *ret_why = "damaged: not the JSON of a superblock";
    if (!uuid || !compression || !encryption || !created)
        return -EBADMSG;
    bool has_bases = base && strcmp(base, "array") == 0;
    if (sqlite3_column_int(q, 0) != FORMAT_VERSION || strcmp(encryption, "none") != 0 || !base ||
        (!has_bases && strcmp(base, "null") != 0)) {
        *ret_why = "of a format that this s3vol does not know: upgrade it";
        return -EPROTONOSUPPORT;
    }
    sb->size_bytes = (uint64_t)sqlite3_column_int64(q, 2);
    sb->compress = strcmp(compression, "zstd") == 0;
    sb->conditional_put = sqlite3_column_int(q, 8) != 0;
    sb->unfinished = sqlite3_column_int(q, 10) != 0;
    if (uuid_parse(uuid, sb->uuid) < 0 ||
        format(sb->created, sizeof sb->created, "%s", created) < 0 ||
        sqlite3_column_int(q, 3) != BLOCK_BYTES || sqlite3_column_int(q, 4) != CHUNK_BLOCKS ||
        sqlite3_column_int(q, 5) != WINDOW || sb->size_bytes == 0 || sb->size_bytes % BLOCK_BYTES ||
        sb->size_bytes / BLOCK_BYTES >= VOLUME_BLOCKS_MAX)
        return -EBADMSG;
    return has_bases ? read_base(q, sb) : 0;
}

int superblock_decode(const char *data, size_t len, struct superblock *ret, const char **ret_why)
{
    struct superblock sb = {0};
    int r = note_read(data, len, MEMBERS, read_members, &sb, ret_why);

    if (r == 0 && sb.size_bytes == 0) { /* there was no row */
        *ret_why = "damaged: not the JSON of a superblock";
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

int superblock_expect_none(struct store *store, int64_t patience_ms)
{
    char head[1];
    size_t len;
    int r = store_get_head(store, "volume", head, sizeof head, &len, NULL, patience_ms);

    if (r == 0)
        return msg_error(-EEXIST,
                         "%s: there is a volume already; choose another name, or delete it first",
                         store_url(store));
    return r == -ENOENT ? 0 : r;
}

int superblock_name(struct superblock *sb, const struct clock *clock)
{
    time_t now = clock->wall_ms() / 1000;
    struct tm tm;
    int r = random_bytes(sb->uuid, sizeof sb->uuid);

    sb->uuid[6] = (uint8_t)((sb->uuid[6] & 15) | 64);  /* RFC 4122, version 4 … */
    sb->uuid[8] = (uint8_t)((sb->uuid[8] & 63) | 128); /* … and variant */
    strftime(sb->created, sizeof sb->created, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
    return r;
}

int superblock_store(struct store *store, struct superblock *sb, bool probe, int64_t patience_ms)
{
    char text[NOTE_BYTES_MAX];
    size_t len;
    int r = probe ? probe_conditional_put(store, patience_ms, &sb->conditional_put) : 0;

    if (r == 0)
        r = superblock_encode(sb, text, sizeof text, &len);
    if (r < 0)
        return r;
    r = store_put(store, "volume", text, len, sb->conditional_put ? STORE_IF_ABSENT : 0,
                  patience_ms);
    if (r == -EEXIST) { /* perhaps our own lost first try */
        struct superblock there;
        r = superblock_load_any(store, &there, patience_ms);
        if (r == 0 && memcmp(there.uuid, sb->uuid, UUID_BYTES) != 0)
            r = msg_error(-EEXIST, "%s: somebody else created a volume here at this moment",
                          store_url(store));
    }
    return r;
}

int superblock_finish(struct store *store, struct superblock *sb, int64_t patience_ms)
{
    char text[NOTE_BYTES_MAX];
    size_t len;

    sb->unfinished = false;
    int r = superblock_encode(sb, text, sizeof text, &len);
    return r == 0 ? store_put(store, "volume", text, len, 0, patience_ms) : r;
}

int superblock_create(struct store *store, struct superblock *sb, const struct clock *clock,
                      int64_t patience_ms)
{
    int r = superblock_expect_none(store, patience_ms);

    if (r == 0)
        r = superblock_name(sb, clock);
    return r == 0 ? superblock_store(store, sb, true, patience_ms) : r;
}

/* ------------------------------------------------------------------ flattened */

/* It bears the uuid: were another volume here by now, it would say nothing of that. */
static void flat_key(const struct superblock *sb, char key[STORE_KEY_MAX])
{
    char uuid[UUID_TEXT_BYTES];

    uuid_format(sb->uuid, uuid);
    (void)snprintf(key, STORE_KEY_MAX, "flat-%s", uuid);
}

int superblock_flatten(struct store *store, const struct superblock *sb, int64_t patience_ms)
{
    char key[STORE_KEY_MAX], uuid[UUID_TEXT_BYTES], text[NOTE_BYTES_MAX];
    size_t len;

    flat_key(sb, key);
    uuid_format(sb->uuid, uuid);
    int r = format(text, sizeof text, "{\"s3vol\":%d,\"uuid\":\"%s\",\"flattened\":true",
                   FORMAT_VERSION, uuid);
    if (r == 0)
        r = note_seal(text, sizeof text, &len);
    return r == 0 ? store_put(store, key, text, len, 0, patience_ms) : r;
}

/* That it is there says everything. */
static int look_for_flat(struct store *store, struct superblock *sb, int64_t patience_ms)
{
    char key[STORE_KEY_MAX], head[1];
    size_t len;

    flat_key(sb, key);
    int r = store_get_head(store, key, head, sizeof head, &len, NULL, patience_ms);
    sb->flattened = r == 0;
    return r == -ENOENT ? 0 : r;
}

int superblock_is_still(struct store *store, const struct superblock *sb, int64_t patience_ms)
{
    char text[NOTE_BYTES_MAX];
    struct superblock now;
    const char *why;
    size_t len;
    int r = store_get_head(store, "volume", text, sizeof text, &len, NULL, patience_ms);

    if (r == 0 && superblock_decode(text, len, &now, &why) == 0 &&
        memcmp(now.uuid, sb->uuid, UUID_BYTES) != 0)
        return -EEXIST;
    return r;
}

int superblock_load_any(struct store *store, struct superblock *ret_sb, int64_t patience_ms)
{
    char text[NOTE_BYTES_MAX];
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
    return ret_sb->nbases ? look_for_flat(store, ret_sb, patience_ms) : 0;
}

int superblock_load(struct store *store, struct superblock *ret_sb, int64_t patience_ms)
{
    int r = superblock_load_any(store, ret_sb, patience_ms);

    if (r == 0 && ret_sb->unfinished)
        return msg_error(-EBUSY,
                         "%s: unfinished: `s3vol import` or `clone --local` is making it; or that "
                         "was interrupted: `s3vol delete` it then, and begin again",
                         store_url(store));
    return r;
}
