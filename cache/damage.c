/*
 * Blocks that the cache disk gives back other than they were written. What the bucket has is
 * dropped and fetched again. What nobody has is lost, and never uploaded: a reader gets an error,
 * and the commit that needs it ends all commits, since a bucket without that block never was the
 * volume.
 */
#include "volume_internal.h"

#include "../store/msg.h"
#include "../store/scope.h"

#include <inttypes.h>

/* One line for each run of blocks. */
static void say(const struct volume *v, const struct chunk *c, uint64_t mask, const char *what)
{
    while (mask) {
        unsigned n, first = mask_run(mask, &n);
        uint64_t begin = (c->number * CHUNK_BLOCKS + first) * BLOCK_BYTES;
        msg_error(0,
                  "%s/slots: chunk %" PRIu64 ", blocks %u to %u (bytes %" PRIu64 " to %" PRIu64
                  " of the volume): damaged on the cache disk%s",
                  v->dir, c->number, first, first + n - 1, begin, begin + n * BLOCK_BYTES - 1,
                  what);
        mask &= ~mask_range(first, n);
    }
}

int volume_damaged(struct volume *v, struct chunk *c, uint64_t bad)
{
    uint64_t needed = c->sealed ? c->sealed->mask & ~c->sealed->saved : 0;
    uint64_t lost = bad & (c->dirty | needed);
    uint64_t moving = bad & c->unindexed & ~lost;
    /* unless another reader was faster, or a view went on to where there is nothing */
    uint64_t gone = bad & c->valid & ~c->zero & ~lost & ~moving;

    v->cache_errors += mask_count(lost | moving | gone);
    say(v, c, lost,
        v->state == VOLUME_OK ? " before they were uploaded: lost until they are written again"
                              : " before they were uploaded: lost");
    say(v, c, moving, " while they are uploaded: they can be read again when that is done");
    say(v, c, gone, ": fetching them from the bucket again");
    chunk_set(&v->chunks, c, c->valid & ~gone, c->zero, c->dirty);
    c->damaged = 1;
    if (gone && v->cfg.sync == SYNC_CACHE) /* else its row has sums that should stay */
        volume_correct_row(v, c);
    return lost | moving ? -EIO : -EBADMSG;
}

int volume_damaged_in_commit(struct volume *v, const struct chunk *c, uint64_t bad)
{
    v->cache_errors += mask_count(bad);
    say(v, c, bad,
        " before they were uploaded: lost. Nothing more is uploaded: save what can be read, "
        "unmount, and mount with --discard-local to go on from what the bucket has");
    volume_fail(v, VOLUME_DAMAGED);
    return -EIO;
}

int volume_try_again(const struct volume *v, unsigned tries)
{
    return tries < DAMAGE_TRIES
               ? 0
               : msg_error(-EIO, "%s/slots: does not keep what is written to it; replace the disk",
                           v->dir);
}
