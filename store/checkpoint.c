#include "checkpoint.h"

#include "bytes.h"
#include "msg.h"
#include "pipeline.h"
#include "scope.h"

#include <inttypes.h>
#include <zstd.h>

enum {
#ifndef SMALL_LIMITS
    PART_ENTRIES = 16384,
#else
    PART_ENTRIES = 64, /* the least: a chunk's fit into one part */
#endif
    PART_RAW_BYTES = PART_ENTRIES * ENTRY_BYTES,
    PART_ROW_BYTES = 32, /* in the root */
    PARTS_MAX = 1 << 20,
};

static void map_key(uint64_t seq, char key[STORE_KEY_MAX])
{
    (void)snprintf(key, STORE_KEY_MAX, "map/%016" PRIx64, seq);
}

static void part_key(uint64_t seq, uint32_t index, char key[STORE_KEY_MAX])
{
    (void)snprintf(key, STORE_KEY_MAX, "part/%016" PRIx64 ".%08" PRIx32, seq, index);
}

static void part_encode(const struct part *part, uint8_t *p)
{
    put_le64(p, part->first_chunk);
    put_le64(p + 8, part->seq);
    put_le32(p + 16, part->index);
    put_le32(p + 20, part->nentries);
    put_le32(p + 24, part->object_bytes);
    put_le32(p + 28, part->crc);
}

static int part_decode(const uint8_t *p, struct part *part)
{
    *part = (struct part){get_le64(p),      get_le64(p + 8),  get_le32(p + 16),
                          get_le32(p + 20), get_le32(p + 24), get_le32(p + 28)};
    return part->first_chunk < VOLUME_BLOCKS_MAX / CHUNK_BLOCKS && part->nentries > 0 &&
                   part->nentries <= PART_ENTRIES
               ? 0
               : -EBADMSG;
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
    uint8_t raw[PART_RAW_BYTES];
    uint8_t packed[HEADER_BYTES + ZSTD_COMPRESSBOUND(PART_RAW_BYTES)];
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
    char key[STORE_KEY_MAX];
    size_t n;
    int r;

    if (part->nentries == 0)
        return 0;
    n = ZSTD_compress(cp->packed + HEADER_BYTES, sizeof cp->packed - HEADER_BYTES, cp->raw,
                      (size_t)part->nentries * ENTRY_BYTES, 1);
    if (ZSTD_isError(n))
        return -ENOMEM;
    h.first = cp->stored;
    h.nentries = part->nentries;
    h.body_bytes = (uint32_t)n;
    h.object_bytes = HEADER_BYTES + h.body_bytes;
    header_encode(&h, cp->packed + HEADER_BYTES, cp->packed);
    part_key(h.seq, cp->stored, key);
    r = store_put(log_store(cp->log), key, cp->packed, h.object_bytes, 0, cp->patience_ms);
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
    scope_free uint8_t *buf = NULL;
    char key[STORE_KEY_MAX];
    int r = store_part(cp);

    if (r < 0)
        return r;
    h.first = cp->pos.seq;
    h.next = cp->pos.next;
    h.nentries = (uint32_t)cp->list.nparts;
    h.body_bytes = h.nentries * PART_ROW_BYTES;
    h.object_bytes = HEADER_BYTES + h.body_bytes;
    buf = malloc(h.object_bytes);
    if (!buf)
        return -ENOMEM;
    for (size_t i = 0; i < cp->list.nparts; i++)
        part_encode(&cp->list.parts[i], buf + HEADER_BYTES + i * PART_ROW_BYTES);
    header_encode(&h, buf + HEADER_BYTES, buf);
    map_key(h.seq, key);
    r = store_put(log_store(cp->log), key, buf, h.object_bytes, 0, cp->patience_ms);
    if (r < 0)
        return r;
    *ret_bytes = cp->bytes + h.object_bytes;
    *ret_list = cp->list;
    cp->list = (struct part_list){0};
    return 0;
}

/* ------------------------------------------------------------------ cleaning */

enum { CLEAN_BATCH = 256 };

struct clean {
    struct log *log;
    uint64_t keep_seq, newest_seq;
    const struct part_list *lists;
    size_t nlists;
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
    return sscanf(key, "map/%16" SCNx64, &seq) == 1 && seq < c->keep_seq ? clean_one(c, key) : 0;
}

static bool is_listed(const struct clean *c, uint64_t seq, uint32_t index)
{
    for (size_t l = 0; l < c->nlists; l++)
        for (size_t i = 0; i < c->lists[l].nparts; i++)
            if (c->lists[l].parts[i].seq == seq && c->lists[l].parts[i].index == index)
                return true;
    return false;
}

static int clean_part(void *ctx, const char *key, uint64_t size_bytes)
{
    struct clean *c = ctx;
    uint64_t seq;
    uint32_t index;

    (void)size_bytes;
    return sscanf(key, "part/%16" SCNx64 ".%8" SCNx32, &seq, &index) == 2 && seq <= c->newest_seq &&
                   !is_listed(c, seq, index)
               ? clean_one(c, key)
               : 0;
}

int checkpoint_clean(struct log *log, uint64_t keep_seq, const struct part_list *lists,
                     size_t nlists, int64_t patience_ms)
{
    scope_free struct clean *c = calloc(1, sizeof *c);
    int r;

    if (!c)
        return -ENOMEM;
    c->log = log;
    c->keep_seq = keep_seq;
    c->newest_seq = keep_seq;
    c->lists = lists;
    c->nlists = nlists;
    c->patience_ms = patience_ms;
    r = store_list(log_store(log), "map/", "", clean_root, c, patience_ms);
    if (r == 0) /* roots before their parts: a root that is listed is whole */
        r = clean_now(c);
    if (r == 0)
        r = store_list(log_store(log), "part/", "", clean_part, c, patience_ms);
    return r == 0 ? clean_now(c) : r;
}

/* ------------------------------------------------------------------ reading */

static int newest(void *ctx, const char *key, uint64_t size_bytes)
{
    uint64_t *seq = ctx, n;

    (void)size_bytes;
    if (sscanf(key, "map/%16" SCNx64, &n) == 1)
        *seq = n;
    return 0;
}

int checkpoint_newest(struct log *log, uint64_t *ret_seq, int64_t patience_ms)
{
    *ret_seq = 0;
    return store_list(log_store(log), "map/", "", newest, ret_seq, patience_ms);
}

/* The whole object: header in *ret_header, body malloc'ed. -ENOENT silently. */
static int read_object(struct log *log, const char *key, enum header_kind kind, uint64_t seq,
                       size_t max, int64_t patience_ms, struct header *ret_header,
                       uint8_t **ret_data)
{
    scope_free uint8_t *buf = malloc(max);
    const char *why;
    size_t len;
    int r;

    if (!buf)
        return -ENOMEM;
    r = store_get_head(log_store(log), key, buf, max, &len, NULL, patience_ms);
    if (r < 0)
        return r;
    r = header_decode(buf, len, log_superblock(log)->uuid, kind, seq, ret_header, &why);
    if (r < 0)
        return msg_error(r, "%s: %s: %s; see `s3vol check`", store_url(log_store(log)), key, why);
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
    size_t nentries;
    struct entry entries[PART_ENTRIES];
};

static int unpack_part(const struct header *h, const struct part *part, const uint8_t *body,
                       uint64_t end_chunk, struct loaded_part *ret)
{
    scope_free uint8_t *raw = malloc(PART_RAW_BYTES);
    uint64_t at = part->first_chunk * CHUNK_BLOCKS;

    if (!raw)
        return -ENOMEM;
    if (h->body_crc != part->crc || h->first != part->index || h->nentries != part->nentries ||
        ZSTD_decompress(raw, PART_RAW_BYTES, body, h->body_bytes) !=
            (size_t)part->nentries * ENTRY_BYTES)
        return -EBADMSG;
    for (uint32_t i = 0; i < part->nentries; i++) {
        struct entry *e = &ret->entries[i];
        if (entry_decode(raw + (size_t)i * ENTRY_BYTES, e) < 0 || e->kind != ENTRY_DATA ||
            e->block < at || e->block / CHUNK_BLOCKS >= end_chunk)
            return -EBADMSG;
        at = e->block + e->nblocks;
    }
    ret->nentries = part->nentries;
    return 0;
}

static void *part_make(void *ctx, size_t i)
{
    struct loading *l = ctx;
    const struct part *part = &l->list.parts[i];
    struct loaded_part *loaded = malloc(sizeof *loaded);
    scope_free uint8_t *data = NULL;
    char key[STORE_KEY_MAX];
    struct header h;

    if (!loaded)
        return NULL;
    part_key(part->seq, part->index, key);
    loaded->error = read_object(l->log, key, HEADER_PART, part->seq, part->object_bytes,
                                l->patience_ms, &h, &data);
    if (loaded->error == 0) {
        loaded->error = unpack_part(&h, part, data + HEADER_BYTES,
                                    i + 1 < l->list.nparts ? part[1].first_chunk
                                                           : VOLUME_BLOCKS_MAX / CHUNK_BLOCKS,
                                    loaded);
        if (loaded->error == -EBADMSG)
            msg_error(0, "%s: %s: damaged, or not the part that its checkpoint lists",
                      store_url(log_store(l->log)), key);
    }
    return loaded;
}

static int part_use(void *ctx, size_t i, void *item)
{
    struct loading *l = ctx;
    struct loaded_part *loaded = item;

    (void)i;
    return loaded->error ? loaded->error : l->add(l->ctx, loaded->entries, loaded->nentries);
}

static const struct pipeline_ops part_items = {part_make, part_use, free};

static int decode_parts(const struct header *h, const uint8_t *body, struct part_list *list)
{
    if (h->nentries > PARTS_MAX || h->body_bytes != h->nentries * PART_ROW_BYTES)
        return -EBADMSG;
    list->parts = calloc(MAX(h->nentries, 1u), sizeof *list->parts);
    if (!list->parts)
        return -ENOMEM;
    list->nparts = h->nentries;
    for (size_t i = 0; i < list->nparts; i++)
        if (part_decode(body + i * PART_ROW_BYTES, &list->parts[i]) < 0 ||
            list->parts[i].object_bytes > HEADER_BYTES + ZSTD_COMPRESSBOUND(PART_RAW_BYTES) ||
            (i > 0 && list->parts[i].first_chunk <= list->parts[i - 1].first_chunk))
            return -EBADMSG;
    return 0;
}

int checkpoint_load(struct log *log, uint64_t seq, checkpoint_add_fn *add, void *ctx,
                    int64_t patience_ms, struct log_position *ret_pos)
{
    struct loading l = {.log = log, .patience_ms = patience_ms, .add = add, .ctx = ctx};
    scope_free uint8_t *data = NULL;
    char key[STORE_KEY_MAX];
    struct header h;
    int r;

    map_key(seq, key);
    r = read_object(log, key, HEADER_CHECKPOINT, seq,
                    HEADER_BYTES + (size_t)PARTS_MAX * PART_ROW_BYTES, patience_ms, &h, &data);
    if (r < 0)
        return r;
    r = decode_parts(&h, data + HEADER_BYTES, &l.list);
    if (r == -EBADMSG)
        msg_error(r, "%s: %s: damaged: its parts make no sense; see `s3vol check`",
                  store_url(log_store(log)), key);
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
