/*
 * index.db: what must outlive the process, in SQLite. Five tables: `meta` (one row), `map` (a row
 * for each chunk that has blocks in the bucket: where they are), `cached` (a row for each chunk
 * whose slot may be trusted at the next start), `segments` (a row for each segment that the map
 * needs, or needed) and `pins` (what snapshots and clones need). Schema: cache/DESIGN.md.
 *
 * One connection writes, one reads the map, one the segments; each is used by one thread at a time,
 * behind a lock of its own that nothing else is taken under. Errors are reported here, once: -EIO
 * (damaged, or the disk failed), -ENOSPC, -ENOMEM.
 */
#ifndef S3VOL_INDEX_H
#define S3VOL_INDEX_H

#include "../store/log.h"
#include "places.h"

#include <stdbool.h>

struct index;

struct index_meta {
    struct log_position pos;           /* what `map` contains */
    uint64_t mapped_blocks;            /* in `map` */
    uint8_t own_nonce[UUID_BYTES];     /* of our newest claim that succeeded */
    uint8_t pending_nonce[UUID_BYTES]; /* of one that may have */
    uint64_t local_blocks;             /* the volume's size as last recorded here, which the bucket
                                          may not know yet; 0: never was */
    bool clean;       /* all of `cached` may be believed, not only its dirty blocks … */
    uint64_t life;    /* … if this is that of the sums (sums.h) */
    bool fresh;       /* never stored: a new file */
    bool inventoried; /* `segments` has every object of the log that may ever be deleted */
};

/* Opens `path`, made anew if it is missing. Every change is on the disk when its function returns.
 * -EBADMSG, with a message: it is damaged, or another volume's. */
int index_open(const char *path, const uint8_t uuid[UUID_BYTES], struct index **ret_index);
void index_close(struct index *ix);
/* Some call found that the file is not what was written; it is of no use any more. */
bool index_damaged(const struct index *ix);
/* Nothing in it needs to outlive this process: changes are not synced. */
int index_make_temporary(struct index *ix);
/* Changes are synced when others are that are made after `later` is false again: until then a power
 * cut may take the newest away. */
int index_sync_later(struct index *ix, bool later);

void index_get_meta(struct index *ix, struct index_meta *ret_meta);
/* Whether the newest claim there is of whoever has this index. Pure. */
bool index_is_ours(const struct index_meta *meta, const struct log_position *pos);
/* `pos` and mapped_blocks are not taken from here. */
int index_put_meta(struct index *ix, const struct index_meta *meta);

/* --- the map --- */

/* Takes in what a commit did, of `nsegments` segments (0: a claim), and that the map is now as of
 * `pos`: all or nothing. With `forget` cached rows lose the blocks that are not dirty and that it
 * changed (somebody else wrote them). */
int index_apply(struct index *ix, const struct entry *entries, size_t nentries, uint64_t nsegments,
                const struct log_position *pos, bool forget);

/* Replaces the whole map: begin, add in order of blocks, end. Cached rows of chunks that changed
 * are forgotten. Without `end` nothing happened; most of its work may be done before, by prepare,
 * and is not seen by anybody until `end`. */
int index_reload_begin(struct index *ix);
int index_reload_add(struct index *ix, const struct entry *entries, size_t nentries);
int index_reload_prepare(struct index *ix, const struct log_position *pos);
int index_reload_end(struct index *ix, const struct log_position *pos, bool ok);

/* The places of a chunk; n is 0 if it has none. */
int index_load(struct index *ix, uint64_t chunk, struct places *ret_places);
int index_mask(struct index *ix, uint64_t chunk, uint64_t *ret_mask);
/* The first chunks >= `chunk` and <= `last` that have places: up to `max` of them. */
struct index_hit {
    uint64_t chunk, mask;
};
int index_scan(struct index *ix, uint64_t chunk, uint64_t last, struct index_hit *ret_hits,
               size_t max, size_t *ret_n);

/* A view of the map at one instant, undisturbed by changes: begin, each, end. One at a time. */
struct index_view;
int index_view_begin(struct index *ix, struct index_view **ret_view, struct log_position *ret_pos);
/* As index_load(). */
int index_view_load(struct index_view *view, uint64_t chunk, struct places *ret_places);
/* Rows with first <= chunk < end, in order; a negative return of `fn` ends it. */
typedef int index_view_fn(void *ctx, const struct places *places);
int index_view_each(struct index_view *view, uint64_t first, uint64_t end, index_view_fn *fn,
                    void *ctx);
void index_view_end(struct index_view *view);

/* --- the segments of the volume's own log --- */

struct index_segment {
    uint64_t seq;
    uint64_t stored_bytes; /* of the object; a little less than that as long as nobody asked */
    uint64_t live_blocks;  /* that the map has in it */
    uint64_t live_bytes;   /* of their frames and entries, in proportion */
};
struct index_space {
    uint64_t stored_bytes, live_bytes; /* of all */
    uint64_t dead_bytes;       /* of segments that nothing needs, as long as they are there */
    uint64_t fresh_dead_bytes; /* … that the map as of `root_seq` needed */
    uint64_t pinned_stored_bytes, pinned_live_bytes; /* of those that a snapshot or clone needs */
};
int index_space(struct index *ix, uint64_t root_seq, struct index_space *ret_space);
/* Segments up to number `upto` that the map needs, and no pin, of which less than `live_most` (0 to
 * 1) lives, the deadest first. */
int index_victims(struct index *ix, double live_most, uint64_t upto,
                  struct index_segment *ret_segments, size_t max, size_t *ret_n);
/* Segments that the map as of `dead_seq` did not need, nor a pin, with numbers beyond `after`,
 * ascending. */
int index_dead(struct index *ix, uint64_t dead_seq, uint64_t after,
               struct index_segment *ret_segments, size_t max, size_t *ret_n);
int index_knows_segment(struct index *ix, uint64_t seq, bool *ret_known);
/* They are not there any more. */
int index_forget_segments(struct index *ix, const uint64_t *seqs, size_t n);
/* These are what snapshots and clones need, and no others: of the segments that are known, and of
 * those that will be. Ascending, and no two overlap. */
struct index_range {
    uint64_t first, last;
};
int index_pin_segments(struct index *ix, const struct index_range *ranges, size_t n);
/* What a listing found: sizes of segments that the map needs (dead_seq 0); and objects that it does
 * not need, nor did as of `dead_seq`. The inventory is complete with this. */
struct index_found {
    uint64_t seq, stored_bytes, dead_seq;
};
int index_inventory(struct index *ix, const struct index_found *found, size_t n);

/* --- the cached chunks --- */

struct index_cached {
    uint64_t chunk;
    uint64_t valid, zero, dirty; /* all 0: forget the chunk */
    uint32_t slot;
    const uint32_t *sums; /* of its CHUNK_BLOCKS blocks in the slot, 0: not known; NULL: none is.
                             Given by index_each_cached() until `fn` returns */
    uint64_t mapped;      /* given by index_each_cached(): its blocks that have a place */
};

/* Stores the rows and local_blocks: all or nothing. With `only` all other rows are forgotten. */
int index_record(struct index *ix, const struct index_cached *rows, size_t nrows,
                 uint64_t size_blocks, bool only);
/* Forgets all that is not dirty, or all. */
int index_forget(struct index *ix, bool dirty_too);
/* The sums of rows that have dirty blocks: before these are written again without a new row. */
int index_forget_sums(struct index *ix);
typedef int index_cached_fn(void *ctx, const struct index_cached *row);
int index_each_cached(struct index *ix, index_cached_fn *fn, void *ctx);
/* How many chunks have dirty blocks, and how many blocks these are. */
int index_count_dirty(struct index *ix, uint64_t *ret_chunks, uint64_t *ret_blocks);

#endif
