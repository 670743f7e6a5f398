#include "checkpoint.h"

#include "msg.h"
#include "pipeline.h"
#include "scope.h"

#include <inttypes.h>
#include <string.h>

/* A root of more bytes would make no sense. */
enum { ROOT_BYTES_MAX = HEADER_BYTES + (32 << 20) };

void checkpoint_key(uint64_t seq, char key[STORE_KEY_MAX])
{
    (void)snprintf(key, STORE_KEY_MAX, "map/%016" PRIx64, seq);
}

bool checkpoint_parse_key(const char *key, uint64_t *ret_seq)
{
    char back[STORE_KEY_MAX];

    if (sscanf(key, "map/%16" SCNx64, ret_seq) != 1)
        return false;
    checkpoint_key(*ret_seq, back);
    return strcmp(key, back) == 0;
}

/* ------------------------------------------------------------------ writing */

struct checkpoint {
    struct log *log;
    struct log_position pos;
    int64_t patience_ms;
    struct part_list list;
    size_t room;
    uint32_t stored;     /* parts of our own so far */
    uint64_t bytes;      /* stored so far */
    struct part current; /* being filled; nentries 0: none */
    uint8_t raw[PART_ENTRIES * ENTRY_BYTES];
};

int checkpoint_new(struct log *log, const struct log_position *pos, int64_t patience_ms,
                   struct checkpoint **ret)
{
    struct checkpoint *cp = calloc(1, sizeof *cp);

    if (!cp)
        return -ENOMEM;
    cp->log = log;
    cp->pos = *pos;
    cp->patience_ms = patience_ms;
    *ret = cp;
    return 0;
}

void checkpoint_free(struct checkpoint *cp)
{
    if (!cp)
        return;
    free(cp->list.parts);
    free(cp);
}

static int list_part(struct checkpoint *cp, const struct part *part)
{
    if (cp->list.nparts == cp->room) {
        size_t room = MAX(2 * cp->room, (size_t)64);
        struct part *more = realloc(cp->list.parts, room * sizeof *more);
        if (!more)
            return -ENOMEM;
        cp->list.parts = more;
        cp->room = room;
    }
    cp->list.parts[cp->list.nparts++] = *part;
    return 0;
}

static struct header describe(struct checkpoint *cp, enum header_kind kind)
{
    struct header h = {.kind = kind, .seq = cp->pos.seq, .size_blocks = cp->pos.size_blocks};

    log_describe(cp->log, &h);
    return h;
}

static int store_part(struct checkpoint *cp)
{
    struct part *part = &cp->current;
    struct header h = describe(cp, HEADER_PART);
    scope_free uint8_t *object = NULL;
    char key[STORE_KEY_MAX];
    int r;

    if (part->nentries == 0)
        return 0;
    h.first = cp->stored;
    r = part_encode(&h, cp->raw, part->nentries, &object);
    if (r < 0)
        return r;
    part_key(h.seq, cp->stored, key);
    r = store_put(log_store(cp->log), key, object, h.object_bytes, 0, cp->patience_ms);
    if (r < 0)
        return r;
    part->seq = h.seq;
    part->index = cp->stored++;
    part->object_bytes = h.object_bytes;
    part->crc = h.body_crc;
    cp->bytes += h.object_bytes;
    r = list_part(cp, part);
    part->nentries = 0;
    return r;
}

int checkpoint_add(struct checkpoint *cp, const struct entry *entries, unsigned n)
{
    int r = 0;

    if (cp->current.nentries + n > PART_ENTRIES)
        r = store_part(cp);
    if (r < 0 || n == 0)
        return r;
    if (cp->current.nentries == 0)
        cp->current.first_chunk = entries[0].block / CHUNK_BLOCKS;
    for (unsigned i = 0; i < n; i++)
        entry_encode(&entries[i], cp->raw + (size_t)cp->current.nentries++ * ENTRY_BYTES);
    return 0;
}

int checkpoint_reuse(struct checkpoint *cp, const struct part *part)
{
    int r = store_part(cp);

    return r < 0 ? r : list_part(cp, part);
}

int checkpoint_finish(struct checkpoint *cp, struct part_list *ret_list, uint64_t *ret_bytes)
{
    struct header h = describe(cp, HEADER_CHECKPOINT);
    scope_free uint8_t *object = NULL;
    char key[STORE_KEY_MAX];
    int r = store_part(cp);

    if (r < 0)
        return r;
    h.first = cp->pos.seq;
    h.next = cp->pos.next;
    r = part_list_encode(&h, &cp->list, &object);
    if (r < 0)
        return r;
    checkpoint_key(h.seq, key);
    r = store_put(log_store(cp->log), key, object, h.object_bytes, 0, cp->patience_ms);
    if (r < 0)
        return r;
    *ret_bytes = cp->bytes + h.object_bytes;
    *ret_list = cp->list;
    cp->list = (struct part_list){0};
    return 0;
}

/* ------------------------------------------------------------------ cleaning */

enum { CLEAN_BATCH = 256 };

/* As its key says it. */
struct part_name {
    uint64_t seq;
    uint32_t index;
};

struct clean {
    struct log *log;
    uint64_t keep_seq;
    const uint64_t *pinned;
    size_t npinned;
    struct part_name *listed; /* sorted */
    size_t nlisted;
    int64_t patience_ms;
    char keys[CLEAN_BATCH][STORE_KEY_MAX];
    size_t nkeys;
};

static int clean_now(struct clean *c)
{
    const char *keys[CLEAN_BATCH];

    for (size_t i = 0; i < c->nkeys; i++)
        keys[i] = c->keys[i];
    size_t n = c->nkeys;
    c->nkeys = 0;
    return n ? store_delete(log_store(c->log), keys, n, c->patience_ms) : 0;
}

static int clean_one(struct clean *c, const char *key)
{
    int r = format(c->keys[c->nkeys++], STORE_KEY_MAX, "%s", key);

    return r == 0 && c->nkeys == CLEAN_BATCH ? clean_now(c) : r;
}

static int clean_root(void *ctx, const char *key, uint64_t size_bytes)
{
    struct clean *c = ctx;
    uint64_t seq;

    (void)size_bytes;
    if (!checkpoint_parse_key(key, &seq) || seq >= c->keep_seq)
        return 0;
    for (size_t i = 0; i < c->npinned; i++)
        if (c->pinned[i] == seq)
            return 0;
    return clean_one(c, key);
}

static int by_name(const void *a, const void *b)
{
    const struct part_name *x = a, *y = b;

    if (x->seq != y->seq)
        return x->seq < y->seq ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

/* There can be thousands, in lists that have most of them in common. */
static int sort_listed(struct clean *c, const struct part_list *lists, size_t nlists)
{
    size_t n = 0;

    for (size_t l = 0; l < nlists; l++)
        n += lists[l].nparts;
    c->listed = calloc(n + 1, sizeof *c->listed);
    if (!c->listed)
        return -ENOMEM;
    for (size_t l = 0; l < nlists; l++)
        for (size_t i = 0; i < lists[l].nparts; i++)
            c->listed[c->nlisted++] =
                (struct part_name){lists[l].parts[i].seq, lists[l].parts[i].index};
    qsort(c->listed, c->nlisted, sizeof *c->listed, by_name);
    return 0;
}

static bool is_listed(const struct clean *c, uint64_t seq, uint32_t index)
{
    struct part_name name = {seq, index};

    return bsearch(&name, c->listed, c->nlisted, sizeof name, by_name) != NULL;
}

static int clean_part(void *ctx, const char *key, uint64_t size_bytes)
{
    struct clean *c = ctx;
    uint64_t seq;
    uint32_t index;

    (void)size_bytes;
    return part_parse_key(key, &seq, &index) && seq <= c->keep_seq && !is_listed(c, seq, index)
               ? clean_one(c, key)
               : 0;
}

int checkpoint_clean(struct log *log, uint64_t keep_seq, const uint64_t *pinned, size_t npinned,
                     const struct part_list *lists, size_t nlists, int64_t patience_ms)
{
    scope_free struct clean *c = calloc(1, sizeof *c);
    int r;

    if (!c)
        return -ENOMEM;
    c->log = log;
    c->keep_seq = keep_seq;
    c->pinned = pinned;
    c->npinned = npinned;
    c->patience_ms = patience_ms;
    r = sort_listed(c, lists, nlists);
    if (r == 0)
        r = store_list(log_store(log), "map/", "", clean_root, c, patience_ms);
    if (r == 0) /* roots before their parts: a root that is listed is whole */
        r = clean_now(c);
    if (r == 0)
        r = store_list(log_store(log), "part/", "", clean_part, c, patience_ms);
    if (r == 0)
        r = clean_now(c);
    free(c->listed);
    return r;
}

/* ------------------------------------------------------------------ reading */

static int newest(void *ctx, const char *key, uint64_t size_bytes)
{
    uint64_t *seq = ctx, n;

    (void)size_bytes;
    if (checkpoint_parse_key(key, &n))
        *seq = n;
    return 0;
}

int checkpoint_newest(struct log *log, uint64_t *ret_seq, int64_t patience_ms)
{
    *ret_seq = 0;
    return store_list(log_store(log), "map/", "", newest, ret_seq, patience_ms);
}

static int report(struct log *log, const char *key, int err, const char *why)
{
    return msg_error(err, "%s: %s: %s; see `s3vol check`", store_url(log_store(log)), key, why);
}

/* A whole object of at most `max` bytes; the caller frees it. -ENOENT silently. */
static int read_object(struct log *log, const char *key, size_t max, int64_t patience_ms,
                       uint8_t **ret_data, size_t *ret_len)
{
    scope_free uint8_t *buf = malloc(max);
    uint64_t size;
    int r;

    if (!buf)
        return -ENOMEM;
    r = store_get_head(log_store(log), key, buf, max, ret_len, &size, patience_ms);
    if (r < 0)
        return r;
    if (size > *ret_len)
        return report(log, key, -EBADMSG, "damaged: longer than it should be");
    *ret_data = take(buf);
    return 0;
}

struct loading {
    struct log *log;
    struct part_list list;
    int64_t patience_ms;
    checkpoint_add_fn *add;
    void *ctx;
};

struct loaded_part {
    int error;
    struct entry entries[PART_ENTRIES];
};

static void *part_make(void *ctx, size_t i)
{
    struct loading *l = ctx;
    const struct part *part = &l->list.parts[i];
    struct loaded_part *loaded = malloc(sizeof *loaded);
    scope_free uint8_t *data = NULL;
    char key[STORE_KEY_MAX];
    const char *why;
    size_t len;

    if (!loaded)
        return NULL;
    part_key(part->seq, part->index, key);
    loaded->error = read_object(l->log, key, part->object_bytes, l->patience_ms, &data, &len);
    if (loaded->error == 0) {
        loaded->error =
            part_decode(log_superblock(l->log), &l->list, i, data, len, loaded->entries, &why);
        if (loaded->error == -EBADMSG || loaded->error == -EPROTONOSUPPORT)
            report(l->log, key, loaded->error, why);
    }
    return loaded;
}

static int part_use(void *ctx, size_t i, void *item)
{
    struct loading *l = ctx;
    struct loaded_part *loaded = item;

    return loaded->error ? loaded->error
                         : l->add(l->ctx, loaded->entries, l->list.parts[i].nentries);
}

static const struct pipeline_ops part_items = {part_make, part_use, free};

int checkpoint_parts(struct log *log, uint64_t seq, int64_t patience_ms, struct header *ret_header,
                     struct part_list *ret_list)
{
    scope_free uint8_t *data = NULL;
    char key[STORE_KEY_MAX];
    const char *why;
    size_t len;
    int r;

    checkpoint_key(seq, key);
    r = read_object(log, key, ROOT_BYTES_MAX, patience_ms, &data, &len);
    if (r < 0)
        return r;
    r = part_list_decode(log_superblock(log), seq, data, len, ret_header, ret_list, &why);
    if (r == -EBADMSG || r == -EPROTONOSUPPORT)
        report(log, key, r, why);
    return r;
}

int checkpoint_expect_parts(struct log *log, uint64_t seq, int64_t patience_ms)
{
    struct part_list list = {0};
    char root[STORE_KEY_MAX], key[STORE_KEY_MAX];
    struct header h;
    uint8_t byte;
    size_t len;
    int r = checkpoint_parts(log, seq, patience_ms, &h, &list);

    checkpoint_key(seq, root);
    for (size_t i = 0; i < list.nparts && r == 0; i++) {
        part_key(list.parts[i].seq, list.parts[i].index, key);
        r = store_get_head(log_store(log), key, &byte, 1, &len, NULL, patience_ms);
        if (r == -ENOENT) { /* of a root that is there even now */
            r = store_get_head(log_store(log), root, &byte, 1, &len, NULL, patience_ms);
            r = r == 0 ? report(log, key, -EBADMSG, "is missing") : r;
        }
    }
    free(list.parts);
    return r;
}

int checkpoint_load(struct log *log, uint64_t seq, checkpoint_add_fn *add, void *ctx,
                    int64_t patience_ms, struct log_position *ret_pos)
{
    struct loading l = {.log = log, .patience_ms = patience_ms, .add = add, .ctx = ctx};
    struct header h;
    int r = checkpoint_parts(log, seq, patience_ms, &h, &l.list);

    if (r == 0)
        r = pipeline_run(l.list.nparts, &part_items, &l);
    free(l.list.parts);
    if (r < 0)
        return r;
    *ret_pos = (struct log_position){.seq = seq,
                                     .next = h.next,
                                     .size_blocks = h.size_blocks,
                                     .epoch = h.epoch,
                                     .claim = h.claim};
    memcpy(ret_pos->nonce, h.nonce, UUID_BYTES);
    return 0;
}
