#include "look.h"
#include "bucket.h"
#include "model.h"
#include "sched.h"

#include "../../cache/catchup.h"
#include "../../cache/scratch.h"
#include "../../store/frame.h"
#include "../../store/log.h"
#include "../../store/scope.h"

#include <string.h>

enum { BLOCK_SECTORS = BLOCK_BYTES / SECTOR_BYTES };

struct looking {
    int volume;
    struct superblock sb;
    struct framer *framer;
    uint8_t *buf; /* a frame */
    uint32_t *found;
};

static int read_entry(struct looking *l, const struct entry *e)
{
    int volume = e->base ? bucket_volume(l->sb.bases[e->base - 1].url) : l->volume;
    char key[STORE_KEY_MAX];
    const void *raw;

    log_key(e->seq, key);
    const struct object *o = objects_find(volume, key);
    if (!o || (uint64_t)e->offset + e->stored_bytes > o->len)
        return -ENOENT;
    int r = frame_unpack(l->framer, e, o->data + e->offset, l->buf, &raw);
    for (uint64_t i = 0; i < e->nblocks * BLOCK_SECTORS && r == 0; i++) {
        uint32_t at = (uint32_t)(e->block * BLOCK_SECTORS + i);
        l->found[at] = model_read_stamp(
            (const uint8_t *)raw + (size_t)e->skip * BLOCK_BYTES + i * SECTOR_BYTES, at);
        if (l->found[at] == UINT32_MAX)
            sim_fail("sector %u of %s has bytes that nobody wrote there", at, key);
    }
    return r;
}

static int read_places(void *ctx, const struct places *p)
{
    int r = 0;

    for (unsigned i = 0; i < p->n && r == 0; i++)
        r = read_entry(ctx, &p->e[i]);
    return r;
}

static int read_map(struct looking *l, struct scratch *s, uint64_t root, uint64_t seq,
                    uint32_t *ret_sectors)
{
    struct index_view *view;
    struct log_position pos;
    struct catchup c;
    int r = catchup_to(s->log, s->index, root, seq, 0, &c);

    if (r == 0)
        r = index_view_begin(s->index, &view, &pos);
    if (r < 0)
        return r;
    if (c.pos.size_blocks * BLOCK_SECTORS > SECTORS_MAX)
        sim_fail("a snapshot of %llu blocks", (unsigned long long)c.pos.size_blocks);
    r = index_view_each(view, 0, VOLUME_BLOCKS_MAX / CHUNK_BLOCKS, read_places, l);
    index_view_end(view);
    *ret_sectors = (uint32_t)(c.pos.size_blocks * BLOCK_SECTORS);
    return r;
}

int look(int volume, uint64_t root, uint64_t seq, uint32_t *found, uint32_t *ret_sectors)
{
    struct looking l = {.volume = volume, .found = found};
    struct store *store = bucket_look(volume);
    struct scratch *s = NULL;
    int r = superblock_load(store, &l.sb, 0);

    memset(found, 0, SECTORS_MAX * sizeof *found);
    l.buf = malloc((size_t)FRAME_BLOCKS * BLOCK_BYTES);
    if (framer_new(&l.framer) < 0)
        sim_fail("no memory");
    if (r == 0)
        r = scratch_new(store, &l.sb, &s);
    if (r == 0)
        r = read_map(&l, s, root, seq, ret_sectors);
    scratch_free(s);
    framer_free(l.framer);
    free(l.buf);
    store_free(store);
    return r;
}
