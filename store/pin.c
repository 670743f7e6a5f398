#include "pin.h"

#include "msg.h"
#include "scope.h"
#include "url.h"

#include <string.h>

static const char PREFIX[] = "snapshot/";
enum { LIST_TRIES = 16 };

void pin_key(const char *name, char key[STORE_KEY_MAX])
{
    (void)snprintf(key, STORE_KEY_MAX, "%s%.*s", PREFIX, PIN_NAME_MAX - 1, name);
}

bool pin_parse_key(const char *key, char name[PIN_NAME_MAX])
{
    size_t len = strlen(PREFIX);

    return strncmp(key, PREFIX, len) == 0 && url_is_snapshot_name(key + len) &&
           format(name, PIN_NAME_MAX, "%s", key + len) == 0;
}

bool pin_is_pending(const char *name)
{
    return strncmp(name, PIN_PENDING, strlen(PIN_PENDING)) == 0;
}

/* ------------------------------------------------------------------ the text */

int pin_encode(const struct pin *pin, char *buf, size_t size_bytes, size_t *ret_len)
{
    char uuid[UUID_TEXT_BYTES], clone_uuid[UUID_TEXT_BYTES];
    char created[2 * sizeof pin->created + 2], url[2 * BASE_URL_MAX + 2];
    int r = note_quote(pin->created, created, sizeof created);

    uuid_format(pin->uuid, uuid);
    uuid_format(pin->clone_uuid, clone_uuid);
    if (r == 0)
        r = note_quote(pin->clone_url, url, sizeof url);
    if (r == 0)
        r = format(buf, size_bytes,
                   "{\"s3vol\":%d,\"name\":\"%s\",\"uuid\":\"%s\",\"root\":%llu,\"seq\":%llu,"
                   "\"next\":%llu,\"size_bytes\":%llu,\"epoch\":%llu,\"created\":%s",
                   FORMAT_VERSION, pin->name, uuid, (unsigned long long)pin->root,
                   (unsigned long long)pin->seq, (unsigned long long)pin->next,
                   (unsigned long long)pin->size_bytes, (unsigned long long)pin->epoch, created);
    size_t len = r == 0 ? strlen(buf) : 0;
    if (r == 0 && pin->clone_url[0])
        r = format(buf + len, size_bytes - len, ",\"clone\":%s,\"clone_uuid\":\"%s\",\"of\":\"%s\"",
                   url, clone_uuid, pin->of);
    return r == 0 ? note_seal(buf, size_bytes, ret_len) : r;
}

static const char MEMBERS[] =
    "SELECT j->>'$.s3vol', j->>'$.name', j->>'$.uuid', j->>'$.created', j->>'$.root',"
    " j->>'$.seq', j->>'$.next', j->>'$.size_bytes', j->>'$.epoch', j->>'$.clone',"
    " j->>'$.clone_uuid', j->>'$.of' FROM (SELECT ?1 AS j)";
enum { AT_NUMBERS = 4, AT_CLONE = 9 };

static const char NO_PIN[] = "damaged: not the JSON of a snapshot";

static bool has_control(const char *text)
{
    while ((unsigned char)*text >= ' ')
        text++;
    return *text;
}

/* What a clone's has. */
static int read_clone(sqlite3_stmt *q, struct pin *pin)
{
    const char *url = (const char *)sqlite3_column_text(q, AT_CLONE);
    const char *uuid = (const char *)sqlite3_column_text(q, AT_CLONE + 1);
    const char *of = (const char *)sqlite3_column_text(q, AT_CLONE + 2);

    if (!url)
        return uuid || of ? -EBADMSG : 0;
    if (!*url || has_control(url) || !uuid || uuid_parse(uuid, pin->clone_uuid) < 0 || !of ||
        (*of && !url_is_snapshot_name(of)) ||
        format(pin->clone_url, sizeof pin->clone_url, "%s", url) < 0 ||
        format(pin->of, sizeof pin->of, "%s", of) < 0)
        return -EBADMSG;
    return 0;
}

static bool makes_sense(const struct pin *pin)
{
    return pin->size_bytes > 0 && pin->size_bytes % BLOCK_BYTES == 0 &&
           pin->size_bytes / BLOCK_BYTES < VOLUME_BLOCKS_MAX && pin->root <= pin->seq &&
           pin->seq < pin->next && pin->next <= SEQ_MAX && pin->epoch <= SEQ_MAX;
}

static int read_members(void *ctx, sqlite3_stmt *q, const char **ret_why)
{
    struct pin *pin = ctx;
    const char *name = (const char *)sqlite3_column_text(q, 1);
    const char *uuid = (const char *)sqlite3_column_text(q, 2);
    const char *created = (const char *)sqlite3_column_text(q, 3);
    uint64_t *const numbers[] = {&pin->root, &pin->seq, &pin->next, &pin->size_bytes, &pin->epoch};

    *ret_why = NO_PIN;
    if (!name || !uuid || !created)
        return -EBADMSG;
    if (sqlite3_column_int(q, 0) != FORMAT_VERSION) {
        *ret_why = "of a format that this s3vol does not know: upgrade it";
        return -EPROTONOSUPPORT;
    }
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
        if (sqlite3_column_type(q, AT_NUMBERS + (int)i) != SQLITE_INTEGER)
            return -EBADMSG;
        *numbers[i] = (uint64_t)sqlite3_column_int64(q, AT_NUMBERS + (int)i);
    }
    if (!url_is_snapshot_name(name) || format(pin->name, sizeof pin->name, "%s", name) < 0 ||
        uuid_parse(uuid, pin->uuid) < 0 || has_control(created) ||
        format(pin->created, sizeof pin->created, "%s", created) < 0 || !makes_sense(pin))
        return -EBADMSG;
    return read_clone(q, pin);
}

int pin_decode(const char *text, size_t len, struct pin *ret, const char **ret_why)
{
    struct pin pin = {0};
    int r = note_read(text, len, MEMBERS, read_members, &pin, ret_why);

    if (r == 0)
        *ret = pin;
    return r;
}

/* ------------------------------------------------------------------ in a store */

int pin_load(struct store *store, const struct superblock *sb, const char *name, struct pin *ret,
             int64_t patience_ms)
{
    char key[STORE_KEY_MAX], text[NOTE_BYTES_MAX];
    const char *why = "damaged: it is another volume's, or another snapshot's";
    struct pin pin;
    size_t len;

    pin_key(name, key);
    int r = store_get_head(store, key, text, sizeof text, &len, NULL, patience_ms);
    if (r < 0)
        return r;
    r = pin_decode(text, len, &pin, &why);
    if (r == 0 && (strcmp(pin.name, name) != 0 || memcmp(pin.uuid, sb->uuid, UUID_BYTES) != 0))
        r = -EBADMSG;
    if (r == -EBADMSG || r == -EPROTONOSUPPORT)
        return msg_error(r, "%s: %s: %s", store_url(store), key, why);
    if (r == 0)
        *ret = pin;
    return r;
}

struct names {
    char (*names)[PIN_NAME_MAX];
    size_t n, room;
};

static int add_name(void *ctx, const char *key, uint64_t size_bytes)
{
    struct names *l = ctx;

    (void)size_bytes;
    if (l->n == l->room) {
        size_t room = MAX(2 * l->room, (size_t)64);
        char(*more)[PIN_NAME_MAX] = realloc(l->names, room * sizeof *more);
        if (!more)
            return -ENOMEM;
        l->names = more;
        l->room = room;
    }
    l->n += pin_parse_key(key, l->names[l->n]);
    return 0;
}

/* Lists, and reads what is being made, which comes first. -EAGAIN: one of it became a snapshot,
 * perhaps after the listing had passed that one's name. */
static int list_pending(struct store *store, const struct superblock *sb, struct names *l,
                        struct pin **ret_pending, size_t *ret_n, int64_t patience_ms)
{
    scope_free struct pin *pending = NULL;
    size_t n = 0;

    l->n = 0;
    int r = store_list(store, PREFIX, "", add_name, l, patience_ms);
    while (r == 0 && n < l->n && pin_is_pending(l->names[n])) {
        struct pin *more = realloc(pending, (n + 1) * sizeof *more);
        if (!more)
            return -ENOMEM;
        pending = more;
        r = pin_load(store, sb, l->names[n], &pending[n], patience_ms);
        n++;
    }
    if (r < 0)
        return r == -ENOENT ? -EAGAIN : r;
    *ret_pending = take(pending);
    *ret_n = n;
    return 0;
}

int pin_each(struct store *store, const struct superblock *sb, pin_fn *fn, void *ctx,
             int64_t patience_ms)
{
    scope_free struct pin *pending = NULL;
    struct names l = {0};
    size_t npending = 0;
    int r = -EAGAIN;

    for (int tries = 0; r == -EAGAIN && tries < LIST_TRIES; tries++)
        r = list_pending(store, sb, &l, &pending, &npending, patience_ms);
    if (r == -EAGAIN)
        msg_error(r, "%s: its snapshots change all the time; try again", store_url(store));
    for (size_t i = 0; i < npending && r == 0; i++)
        r = fn(ctx, &pending[i]);
    for (size_t i = npending; i < l.n && r == 0; i++) {
        struct pin pin;
        r = pin_load(store, sb, l.names[i], &pin, patience_ms);
        r = r == 0 ? fn(ctx, &pin) : r == -ENOENT ? 0 : r;
    }
    free(l.names);
    return r;
}

int pin_store(struct store *store, const struct superblock *sb, const struct pin *pin,
              int64_t patience_ms)
{
    char key[STORE_KEY_MAX], text[NOTE_BYTES_MAX], there[NOTE_BYTES_MAX];
    size_t len, there_len;
    int r = pin_encode(pin, text, sizeof text, &len);

    if (r < 0)
        return r;
    pin_key(pin->name, key);
    if (!sb->conditional_put) {
        r = store_get_head(store, key, there, sizeof there, &there_len, NULL, patience_ms);
        if (r != -ENOENT)
            return r < 0 ? r : -EEXIST;
    }
    r = store_put(store, key, text, len, sb->conditional_put ? STORE_IF_ABSENT : 0, patience_ms);
    if (r != -EEXIST)
        return r;
    r = store_get_head(store, key, there, sizeof there, &there_len, NULL, patience_ms);
    if (r < 0)
        return r == -ENOENT ? -EEXIST : r; /* it was, a moment ago */
    return there_len == len && memcmp(there, text, len) == 0 ? 0 : -EEXIST;
}

int pin_delete(struct store *store, const char *name, int64_t patience_ms)
{
    char key[STORE_KEY_MAX];

    pin_key(name, key);
    return store_delete(store, (const char *const[]){key}, 1, patience_ms);
}
