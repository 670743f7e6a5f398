/* Snapshots and clones, without attaching to the volume. Errors are reported. */
#ifndef S3VOL_SNAPSHOT_H
#define S3VOL_SNAPSHOT_H

#include "../store/pin.h"
#include "volume.h"

/* Keeps the volume as of its last whole commit under `name`. Works while it is mounted anywhere. */
int snapshot_create(struct store *store, const char *name);

/* `alone_bytes`: of segments that only this one needs. */
typedef int snapshot_fn(void *ctx, const struct pin *pin, uint64_t alone_bytes);
int snapshot_list(struct store *store, snapshot_fn *fn, void *ctx);

/* Refused, with their names, while there are clones of it. A clone's pin can be deleted when the
 * clone is not there, or was flattened. */
int snapshot_delete(struct store *store, const char *name);

/* Takes the volume back to a snapshot; the present is kept as another one, *ret_before. Whoever
 * has it mounted is fenced. */
int snapshot_rollback(struct store *store, const char *name, char ret_before[PIN_NAME_MAX]);

/* Makes a volume at `to` that begins as `store`'s snapshot `name` ("": its last whole commit). */
int volume_clone(struct store *store, const char *name, struct store *to);
/* The same of its last whole commit, and nobody can attach before superblock_finish(). */
int volume_clone_unfinished(struct store *store, struct store *to);

struct fork_saved {
    uint64_t copied_bytes; /* that the new volume does not share with the other one */
    uint64_t lost_bytes;   /* what is not there any more, and is zeros in the new one */
};
struct fork_watch {
    void *ctx;
    void (*lost)(void *ctx, uint64_t offset, uint64_t len); /* bytes, in order */
    void (*progress)(void *ctx, const struct fork_saved *so_far);
};

/* Makes a volume at `to` that is what `store`'s volume was on this machine, when it was attached
 * here and somebody else attached: what only the cache in config->cache_dir has included. The cache
 * stays as it is. What the others have reclaimed since of what they replaced is told to the
 * watch, and makes it fail (-ENODATA), unless `force`. After an error there is no new volume; after
 * a crash one that nobody can attach. */
int volume_save_fork(struct store *store, const struct volume_config *config, struct store *to,
                     bool force, const struct fork_watch *watch, struct fork_saved *ret_saved);

/* 0 if nothing depends on the volume; else an error that names the clones. With `of` only those
 * that were made from that snapshot. */
int snapshot_refuse_clones(struct store *store, const struct superblock *sb, const char *of);

/* 1: the clone that holds this pin is there, and needs it. 0: it is not there (never came to be, or
 * was deleted), or was flattened. */
int clone_needs_pin(struct store *store, const struct pin *pin);
/* 0, with a message: of one that was never finished, what it needs is not there. */
int snapshot_holds_nothing(struct store *store, const struct pin *pin);
/* -EINVAL, with a message: the name is one of a clone's pin, which is for that one alone: with its
 * pins in further bases. */
int clone_refuse_name(struct store *store, const char *name);

/* What a clone that is gone, or was flattened, had in its bases. */
int clone_unpin(struct store *store, const struct superblock *sb);

#endif
