/*
 * What the files of the volume share: its state, and the story of each operation's steps. Threads,
 * locks and invariants: cache/DESIGN.md.
 *
 * `lock` below always means volume.chunks.lock.
 */
#ifndef S3VOL_VOLUME_INTERNAL_H
#define S3VOL_VOLUME_INTERNAL_H

#include "../store/checkpoint.h"
#include "../store/frame.h"
#include "../store/log.h"
#include "bases.h"
#include "chunks.h"
#include "index.h"
#include "readahead.h"
#include "volume.h"

#include <stdatomic.h>

enum {
    WRITEBACK_MS = 5000,      /* the default of writeback_ms */
    COMMITS_MAX = 8,          /* sealed and not indexed */
    DIRTY_CHUNKS_MAX = 65536, /* bounds what a commit needs of memory */
    UNIT_BYTES = 1024 * 1024, /* a write is atomic up to this size; FUSE sends no larger ones */
    UNIT_CHUNKS = UNIT_BYTES / CHUNK_BYTES + 1,
    TIDY_SLOTS = 64, /* given back and not punched yet */
    ATTACH_PATIENCE_MS = 6000,
    DAMAGE_TRIES = 3,                 /* for blocks that come back damaged from the cache disk */
    DOWNLOAD_BYTES = 4 * 1024 * 1024, /* one GET at most */
    DOWNLOAD_GAP = 64 * 1024,         /* fetched and thrown away, rather than asking twice */
};

/* One chunk of a commit. From the seal until it is packed, chunk->sealed points here. */
struct sealed_chunk {
    struct chunk *chunk;
    uint64_t all, zero; /* its blocks in this commit; those of them that are zero */
    uint64_t mask;      /* those with bytes that are not packed yet */
    uint64_t saved;     /* of these, the ones that were copied to `save_slot` before a write */
    uint32_t slot, save_slot;
};

struct segment {
    size_t first_entry;
    unsigned nentries;
    size_t first_chunk; /* index into commit.order */
};

struct commit {
    struct commit *next;
    uint64_t number;
    uint64_t size_blocks;
    uint64_t cost;      /* blocks to upload, as chunk_dirty_cost() counts */
    uint64_t first_seq; /* of its segments */
    struct sealed_chunk *chunks;
    uint32_t *order; /* of the chunks by number */
    size_t nchunks;
    struct segment *segments;
    unsigned nsegments;
    bool planned;                   /* the fields above are complete */
    bool beyond;                    /* moves that cannot be any more: the volume has shrunk */
    unsigned taken, packed, stored; /* segments */
    struct entry *entries;
    size_t nentries;
};

struct volume {
    struct store *store;
    struct superblock sb;
    struct volume_config cfg;
    const struct clock *clock;
    struct bases bases;
    struct log *log;
    struct index *index;
    bool index_damaged; /* so much that it could not be opened */
    struct slots *slots;
    char dir[256];
    int lock_fd;

    struct chunks chunks; /* and the lock, which guards all that follows */

    uint64_t size_blocks;   /* as front ends see it */
    uint64_t commit_blocks; /* as commits say: larger while the tail is being emptied (resize.c) */
    bool size_changed;      /* commit_blocks, since the last seal */
    bool shrinking;
    enum volume_state state;
    bool stopping;
    atomic_bool moves_stopped; /* set once, with the lock; looked at without it, too */
    uint64_t hits, misses;
    uint64_t cache_errors; /* blocks that were not in a slot as they were written to it */
    struct readahead readahead;

    /* the instant (commit.c) */
    uint64_t entering_bytes; /* of writes that were let in under the dirty limit, not dirty yet */
    unsigned writers;        /* in the middle of a write */
    bool sealing;            /* no new write may begin */

    /* commits, oldest first: stored ones at the front, then at most one that is being packed */
    pthread_cond_t commit_moved; /* any of these moved; of the next ones each is for one kind of
                                    thread only, or every commit would wake them all */
    pthread_cond_t seal_wanted;  /* the committer: all that should_seal() and may_move() look at */
    pthread_cond_t index_wanted; /* the indexer: `durable`, `record_wanted` */
    pthread_cond_t house_wanted; /* checkpointer, reclaimer: what is asked of them, `indexed` */
    unsigned house_idle;         /* of these: that have seen all that is in the index */
    pthread_cond_t pack_wanted;  /* uploaders: a segment of `packing` is not taken */
    pthread_cond_t more_wanted;  /* … that have no memory yet: more than those who have can do */
    unsigned uploaders;          /* that began */
    unsigned uploaders_ready;    /* that have their memory, and wait for a segment */
    pthread_cond_t upload_moved; /* any of the next three */
    uint64_t segments_taken;     /* to be packed, so far: each one's turn to be uploaded */
    uint64_t uploads_begun;      /* of these, in order */
    unsigned uploads_in_flight;
    struct commit *oldest, *newest, *packing;
    unsigned ncommits;
    uint64_t sealed, durable, indexed; /* numbers of commits */
    uint64_t sealed_data;              /* the last one that is not of moves */
    uint64_t sealed_blocks;            /* the volume's size in it */
    struct commit *moving;             /* of moves: waits for its number */
    uint64_t wanted;                   /* a flush waits for this one */
    unsigned pressed;                  /* writers and readers that wait for room */
    int64_t dirty_since_ms;            /* the oldest dirt's time; meaningless if there is none */
    uint64_t uploading_cost;
    int64_t last_commit_ms;    /* 0: none */
    uint64_t index_generation; /* counts index_apply() */

    /* fetches (fetch.c) */
    pthread_cond_t fetch_wanted;
    struct download *downloads_first, *downloads_last;
    unsigned downloading; /* threads that are at one */

    /* records (record.c) */
    uint64_t changes, recorded;          /* writes so far; those of them that the index knows */
    bool recording, marked;              /* a thread is at it; the file "unsynced" exists */
    bool record_wanted;                  /* rows call blocks dirty that are not any more */
    size_t nrecorded_dirty;              /* chunks */
    struct chunk **unrecorded;           /* pinned */
    size_t nunrecorded, unrecorded_room; /* there is room for every chunk */

    /* reclaiming (checkpointer.c, reclaim.c) */
    uint64_t own_checkpoints; /* stored since the mount */
    bool checkpoint_wanted;   /* though little was written */
    uint64_t sweeps_asked, sweeps_made;
    int sweep_result;
    uint64_t collects_asked, collects_made;
    int collect_result;
    uint64_t roots_asked, roots_made;
    int root_result;
    uint64_t moved_bytes;    /* stored by reclaiming since the mount */
    uint64_t flatten_blocks; /* that are to be copied from bases yet */

    struct checkpointer *checkpointer;
    uint64_t checkpoint_seq; /* of the newest one */

    /* a view (view.c, follow.c, switch.c) */
    struct log_position at; /* the instant that is shown */
    uint64_t instant;       /* counts the changes of that */
    bool switching;         /* it is about to change: what began before begins again */
    unsigned holding;       /* who keeps it from that */
    uint64_t missing;       /* the first number that was not in the log */
    int64_t newest_ms;      /* then there was no newer instant; of a snapshot: its time of day */
    uint64_t looks_asked, looks_made;
    bool gone; /* something of the instant is not in the bucket any more */

    pthread_t *threads;
    unsigned nthreads;
};

/* --- volume.c --- */
/* -EROFS if nothing may be written at all. */
int volume_check_writable(const struct volume *v);
/* -EIO if writes and flushes fail for good. Lock held. */
int volume_check_state(const struct volume *v);
/* `state` or `stopping` changed: all threads look, and all who wait. Lock held. */
void volume_wake_all(struct volume *v);
/* Takes the volume down (VOLUME_FENCED, VOLUME_DAMAGED or VOLUME_FAILED). Lock held. */
void volume_fail(struct volume *v, enum volume_state state);
int volume_check_range(struct volume *v, uint64_t offset, uint64_t len);
/* The cache disk refused more: evicts and waits a little. 0: try again; `tries` counts. No lock. */
int volume_use_less(struct volume *v, unsigned tries);
/* Fills in what the user left open, once the cache directory is there; checks the rest. */
int volume_complete_config(struct volume *v);

/* --- read.c --- */
/* The chunk, pinned; *ret_chunk is NULL if it is not in memory, nothing of it is mapped, and not
 * `create`. Lock held, released for a moment if it must be looked up. */
int volume_obtain(struct volume *v, uint64_t number, bool create, struct chunk **ret_chunk);
/* Waits for commits to make room; false: it is not worth waiting. Lock held. */
int volume_wait_for_room(struct volume *v);
/* Runs what fits of the chunk's blocks into `buf`, for mask bits that are valid: bytes from the
 * slot or zeros. [offset, offset + len) is within the chunk. -EBADMSG: the blocks *ret_bad are not
 * as they were written, for volume_damaged(). No lock; the caller holds an op. */
int volume_copy_out(struct volume *v, uint32_t slot, uint64_t zero, uint32_t offset, size_t len,
                    uint8_t *buf, uint64_t *ret_bad);

/* --- damage.c --- */
/* Blocks of the chunk's slot, held by the caller's op, were read, and are not as they were written.
 * -EBADMSG: the bucket has them; they are not valid any more, so fetch them and try again. -EIO:
 * nobody has them. Says so. Lock held. */
int volume_damaged(struct volume *v, struct chunk *c, uint64_t bad);
/* The same for blocks that a commit needs, in either slot: -EIO, and VOLUME_DAMAGED. */
int volume_damaged_in_commit(struct volume *v, const struct chunk *c, uint64_t bad);
/* 0: another try is worth it; `tries` counts. */
int volume_try_again(const struct volume *v, unsigned tries);

/* --- write.c --- */
/* A write of zeros. */
int volume_zero_range(struct volume *v, size_t len, uint64_t offset);
/* Makes the chunk's blocks of `mask` zero; nothing is fetched. */
int volume_zero_blocks(struct volume *v, uint64_t number, uint64_t mask);

/* --- discard.c, seek.c: for resize.c, of what may be beyond size_blocks --- */
int volume_discard_blocks(struct volume *v, uint64_t first, uint64_t end);
int volume_seek_below(struct volume *v, uint64_t offset, uint64_t size, bool data,
                      uint64_t *ret_offset);

/* --- fetch.c --- */
/* Fetches what is missing of [offset, offset + len) and waits for it; begins to fetch what is
 * missing up to `ahead_end` as well. */
int volume_fetch(struct volume *v, uint64_t offset, uint64_t len, uint64_t ahead_end);
/* The same without waiting for any of it. */
void volume_prefetch(struct volume *v, uint64_t offset, uint64_t end);
void *volume_downloader(void *volume);
/* How long a reader waits for the store, refused or not. */
static inline int64_t volume_patience_ms(const struct volume *v)
{
    return v->cfg.timeout_ms < STORE_INSIST ? v->cfg.timeout_ms | STORE_INSIST : STORE_FOREVER;
}

/* --- commit.c --- */
void *volume_committer(void *volume);
void *volume_indexer(void *volume);
void volume_free_commit(struct commit *commit);
/* Waits until the commit that holds everything written before is in the bucket. */
int volume_wait_durable(struct volume *v);
/* The number of the last commit that holds everything written before, wanted soon. Lock held. */
uint64_t volume_want_commit(struct volume *v);
/* Everything written so far is in the bucket. Lock held. */
bool volume_is_durable(const struct volume *v);
/* So much is dirty that a commit is sealed. Lock held. */
bool volume_dirty_enough(const struct volume *v);
/* Before `mask` of the chunk's slot is overwritten: leaves a commit that needs the old bytes a
 * copy. -EBUSY: no slot for it now, and waiting with the blocks held could be for ever. The caller
 * holds a write op on them. No lock. */
int volume_preserve(struct volume *v, struct chunk *c, uint64_t mask);

/* Stores a commit of moves, of one segment: `entries` (malloc'ed, taken over) and `buf` as
 * log_append() wants it. Returns when it is in the index; results as mover_commit(). */
int volume_append_moves(struct volume *v, struct entry *entries, unsigned nentries, void *buf,
                        size_t len);

/* --- upload.c --- */
/* The commit's one segment, or its next one, is in the log. Lock held. */
void volume_stored(struct volume *v, struct commit *commit);
void *volume_uploader(void *volume);

/* --- view.c --- */
/* As volume_attach(), of a volume that is only read. */
int volume_attach_view(struct volume *v);
/* What a block needs is not in the bucket: says so, once. -EIO. No lock. */
int volume_gone(struct volume *v, const char *url, uint64_t seq);

/* --- follow.c --- */
void *volume_follower(void *volume);

/* --- switch.c --- */
/* Something that takes all it gives from one instant: begin, work, and again as long as `end` says
 * so; it may change *r, what the work came to. Without `wait` it does not wait, but is -EAGAIN. */
struct instant_use {
    uint64_t instant;
    unsigned tries, looks;
    bool wait, holding;
};
int volume_instant_begin(struct volume *v, struct instant_use *use);
bool volume_instant_end(struct volume *v, struct instant_use *use, int *r);

/* To an instant that is `n` entries later, of whole commits, the last of which ends at `pos`. */
int volume_switch_by(struct volume *v, const struct entry *entries, size_t n,
                     const struct log_position *pos);
/* To one with a whole new map: `begin` when that is about to take effect, and `map` when it has, or
 * (`r`) has not; `old` is the map before. The result is `r`, or an error. */
void volume_switch_begin(struct volume *v);
int volume_switch_map(struct volume *v, struct index_view *old, const struct log_position *pos,
                      int r);

/* --- record.c --- */
/* A write happened; lock held. */
void volume_note_change(struct volume *v, struct chunk *c);
/* Its row may call blocks dirty that are not any more; lock held. */
void volume_correct_row(struct volume *v, struct chunk *c);
/* Chunks that are clean by now, and of which the index has no row, need no record. Lock held. */
void volume_forget_changes(struct volume *v);
/* The index knows of everything written before, and its bytes are on the disk. */
int volume_record(struct volume *v);
/* In bucket mode: rows as large as those that the end of a mount stores for what is dirty, which
 * vouch for nothing; and its bytes are on the disk. */
int volume_rehearse(struct volume *v);
/* Rows for all chunks in memory, with their sums; nothing runs any more. */
int volume_record_all(struct volume *v);
/* The file "unsynced": the cache may have, as of this epoch and durably, what the bucket has not;
 * the epoch that it says (0: none), which sets `marked`; it has nothing. */
int volume_mark_unsynced(struct volume *v);
int volume_read_mark(struct volume *v, uint64_t *ret_epoch);
int volume_unmark_unsynced(struct volume *v);

/* --- checkpointer.c: locks of its own, taken without `lock` --- */
int checkpointer_new(struct volume *v, uint64_t segments_since, struct checkpointer **ret);
void checkpointer_free(struct checkpointer *cp);
void *volume_checkpointer(void *volume);
/* index_apply() of a commit, and what it changed is noted. */
int checkpointer_apply(struct volume *v, const struct commit *commit,
                       const struct log_position *pos);
/* A checkpoint as of now, and a sweep that gives readers no time; returns when both are done. */
int checkpointer_sweep(struct volume *v);
/* A checkpoint as of now, or later, is stored: its number. */
int checkpointer_root(struct volume *v, uint64_t *ret_seq);
/* Before a clean end: writes one if the next attachment would have much to read. */
int checkpointer_close(struct volume *v);

/* --- reclaim.c --- */
void *volume_reclaimer(void *volume);

/* --- directory.c: the cache directory --- */
/* Makes, opens and locks the one of this name. -EBUSY, silently: it is in use. */
int volume_open_dir(struct volume *v, const char *name);
/* The one of who writes the volume on this machine. -EBUSY, with a message. */
int volume_open_own_dir(struct volume *v);
bool volume_has_file(struct volume *v, const char *name);
/* All that is cached is forgotten. Nothing of it is open. */
int volume_remove_cache(struct volume *v);
int volume_open_index(struct volume *v);
int volume_open_slots(struct volume *v);
/* The files are there after a power cut, too, before "unsynced" can say that they must be. */
int volume_sync_dir(struct volume *v);
/* The rows that are believed become chunks; size and map are known. */
int volume_adopt_cached(struct volume *v);

/* --- attach.c --- */
/* -EAGAIN: the index was damaged, and is gone; begin anew, with an empty cache. */
int volume_attach(struct volume *v);
/* What the cache has is believed as far as it may be: after an unclean end only dirty blocks. */
struct dirt {
    uint64_t chunks, blocks;
};
int volume_trust(struct volume *v, struct dirt *ret_dirt);

#endif
