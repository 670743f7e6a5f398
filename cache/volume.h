/*
 * The volume: a disk of bytes, for every front end (FUSE today). Calls block and are safe from any
 * thread at once; results are 0 or a negative errno. Offsets and lengths are bytes of any
 * alignment; [offset, offset + len) must lie within the volume, else -EINVAL (a front end cuts
 * reads at the end itself).
 *
 * A buffer whose address, offset and length are multiples of 4 KiB goes to and from the cache disk
 * without being copied.
 */
#ifndef S3VOL_VOLUME_H
#define S3VOL_VOLUME_H

#include "../store/store.h"

struct volume;

#define VOLUME_BYTES_MIN (UINT64_C(1) << 20)

enum sync_mode {
    SYNC_BUCKET, /* a flush returns when everything is in the bucket */
    SYNC_CACHE,  /* … when it is on the local disk; the bucket follows */
};

struct volume_config {
    const char *cache_dir; /* parent; the volume's own directory in it is named by its uuid */
    uint64_t cache_bytes;  /* 0: a fifth of what is free there, between 256 MiB and 10 GiB */
    uint64_t dirty_bytes; /* writes wait when so much is not in the bucket yet; 0: half the cache */
    uint64_t readahead_bytes; /* largest window; 0: none */
    enum sync_mode sync;
    int64_t timeout_ms;   /* a flush or an uncached read fails with -ETIMEDOUT after this;
                             STORE_FOREVER: waits */
    int64_t writeback_ms; /* a write is on its way to the bucket after this time at most, or when
                             64 MiB wait for each 5 s of it */
    bool compress;        /* zstd, where it pays */
    bool gc;              /* reclaim space in the background */
    int64_t gc_grace_ms; /* what nothing needs any more is deleted after this time: readers of older
                            checkpoints may be at it */
    bool read_only;      /* takes nothing from any writer, and writes nothing to the bucket */
    const char *snapshot; /* read_only: the volume as this one keeps it; NULL: as it is now */
    bool fork;            /* read_only: the volume as this machine's cache has it, which has what
                             the bucket has not, before somebody else attached */
    bool unfinished;      /* what is attached is still being made, and by the caller */
    int64_t follow_ms;    /* read_only: looks for a newer instant so often; 0: never */
    bool discard_local;   /* throw away what only the cache has (a fork), instead of refusing */
    unsigned uploads;     /* segments uploaded at once */
    unsigned downloads;   /* ranged GETs at once */
    const struct clock *clock; /* NULL: clock_system */
};

/* The values that `s3vol mount` starts from. */
void volume_config_init(struct volume_config *config);

/* What `s3vol create` decides. */
struct volume_create {
    uint64_t size_bytes; /* a multiple of 4096, from 1 MiB to 8 EiB - 4096 */
    bool compress;
    bool unfinished; /* see unfinished.h */
};
int volume_create(struct store *store, const struct volume_create *what);

/* Attaches for writing: takes over from any older writer. Or, read_only, shows the volume as of one
 * instant, a commit or the snapshot's, and with follow_ms of later ones; each call of volume_read()
 * and volume_seek() is of one, and whatever would change the volume is -EROFS. Borrows `store`
 * until volume_close(). Fails with one line printed. */
int volume_open(struct store *store, const struct volume_config *config,
                struct volume **ret_volume);

/* Uploads everything that is dirty (volume_drain()), leaves the cache clean and warm, frees. With
 * `keep_local` it uploads nothing: what is dirty stays in the cache for the next mount. An error
 * says that something could not be saved; the volume is freed all the same. */
int volume_close(struct volume *volume, bool keep_local);

/* Gives saving up: every call that waits for the store, and every later one that would, ends soon
 * with -ECANCELED. What is dirty stays in the cache. Stops the store; volume_close() with
 * keep_local is to follow. */
void volume_stop(struct volume *volume);

/* Before a close that saves: volume_collect(), volume_defrag() and volume_flatten() end with
 * -ECANCELED before their next request, and what they have moved stays; nothing begins to move any
 * more. All else goes on. */
void volume_stop_moves(struct volume *volume);

uint64_t volume_size_bytes(const struct volume *volume);
/* Bytes that are not known to be zero: what st_blocks tells. */
uint64_t volume_allocated_bytes(struct volume *volume);

/* With `wait` false these return -EAGAIN, having done nothing, if they would have to wait for the
 * store, for space, or for another operation on the same blocks. */
int volume_read(struct volume *volume, void *buf, size_t len, uint64_t offset, bool wait);
int volume_write(struct volume *volume, const void *buf, size_t len, uint64_t offset, bool wait);

/* The range reads as zeros afterwards and occupies nothing. */
int volume_discard(struct volume *volume, uint64_t offset, uint64_t len);

/* Everything written before is durable as `sync` says. With `wait` false it returns -EAGAIN if it
 * would have to wait for the store, or for space. */
int volume_flush(struct volume *volume, bool wait);
/* Everything written before is in the bucket, whatever `sync` says. */
int volume_drain(struct volume *volume);

/* Whether volume_close() with keep_local will find room, and a disk that writes, for what is dirty:
 * it is on the disk, and the index has taken rows as large as those that will vouch for it. In
 * cache mode they do already. */
int volume_can_keep(struct volume *volume);

/* Reclaims all the space that it pays to reclaim, and gives readers no grace time. With progress in
 * volume_get_status(). */
int volume_collect(struct volume *volume);

/* Makes reading [offset, offset + len) in order take few requests, online. */
struct volume_defrag {
    uint64_t bytes;                   /* that are not zero there */
    uint64_t gets_before, gets_after; /* that reading them takes */
};
int volume_defrag(struct volume *volume, uint64_t offset, uint64_t len,
                  struct volume_defrag *ret_defrag);

/* Copies what a clone has in its bases into its own log, and ends its dependence on them, online;
 * of what is no clone there is nothing to do. With progress in volume_get_status(). -EROFS: a
 * read-only mount. -EBUSY, with a message: a snapshot of it needs them. -EIO: some blocks cannot be
 * read there. Whatever ends it, the volume is as it was, and what was copied is. */
int volume_flatten(struct volume *volume);

/* Grows the volume; shrinking is refused with -EINVAL. Durable with the next flush. -EBUSY: it is
 * being shrunk. */
int volume_resize(struct volume *volume, uint64_t size_bytes);
/* Makes the volume smaller, VOLUME_BYTES_MIN at least; what is beyond is discarded. In the bucket
 * when it returns; after a crash meanwhile the size is either one. -ENOTEMPTY, silently: there is
 * data beyond, and not `discard_data`; nothing has changed then. -EBUSY: it is being shrunk. After
 * other errors the size is as before, but the tail may be discarded. */
int volume_shrink(struct volume *volume, uint64_t size_bytes, bool discard_data);

/* As lseek: the first offset >= `offset` that is in data (or in a hole; the end counts as one).
 * -ENXIO if there is none, or `offset` is at or beyond the end. */
int volume_seek(struct volume *volume, uint64_t offset, bool data, uint64_t *ret_offset);

enum volume_state {
    VOLUME_OK,
    VOLUME_STORE_UNREACHABLE, /* the newest request went unanswered; retrying */
    VOLUME_FENCED,            /* another machine attached: every write and flush is EIO */
    VOLUME_DAMAGED,           /* the cache disk lost what was to be uploaded: the same */
    VOLUME_FAILED,            /* the cache disk failed: the same */
    VOLUME_GONE, /* read-only: something of the instant that it shows is deleted from the bucket */
};

struct volume_status {
    char uuid[37];
    enum volume_state state;
    enum sync_mode sync;
    uint64_t epoch;
    uint64_t size_bytes, allocated_bytes;
    uint64_t cached_bytes, cache_limit_bytes;
    uint64_t dirty_bytes; /* not in the bucket yet, those being uploaded included */
    uint64_t dirty_limit_bytes;
    uint64_t uploading_bytes;
    unsigned uploads_in_flight;
    uint64_t hits, misses;  /* blocks read from the cache, and fetched for a reader */
    uint64_t cache_errors;  /* blocks that came back damaged from the cache disk */
    uint64_t stored_bytes;  /* of the log; 0 if that is not known yet */
    uint64_t live_bytes;    /* … that something needs, about */
    uint64_t moved_bytes;   /* stored by reclaiming since the mount */
    uint64_t flatten_bytes; /* that volume_flatten() has to copy yet; 0: it is not under way */
    uint64_t commits;
    int64_t last_commit_age_s; /* -1: none since the mount */
    uint64_t log_seq;          /* the last segment that is durable in order */
    uint64_t checkpoint_seq;
    bool conditional_put;
    char cache_dir[256];
    bool read_only;
    char snapshot[101];    /* "": none */
    int64_t follow_ms;     /* 0: does not */
    uint64_t instant_seq;  /* read_only: the number of the log that it shows the volume as of */
    int64_t instant_age_s; /* read_only: since when there may be a newer one; of a snapshot: since
                              it was made */
};
void volume_get_status(struct volume *volume, struct volume_status *ret_status);

#endif
