/*
 * Volumes that take long to make: until such a one is finished its superblock says so, and nobody
 * but its maker can attach it. Errors are reported.
 */
#ifndef S3VOL_UNFINISHED_H
#define S3VOL_UNFINISHED_H

#include "volume.h"

/* Writes what the volume is to be. */
typedef int unfinished_fn(void *ctx, struct volume *volume);

/* Attaches to the volume, which its maker has just stored as unfinished, lets `fill` write it,
 * brings everything to the bucket with a checkpoint, and finishes it. Without `keep_cache` nothing
 * of it stays in config->cache_dir. After an error it is deleted; if that fails as well, or nobody
 * is left to do it, it stays unfinished. */
int unfinished_fill(struct store *store, const struct volume_config *config, bool keep_cache,
                    unfinished_fn *fill, void *ctx);

/* Deletes an unfinished volume whose maker ended on this machine, with this cache directory: the
 * lock there tells. -EBUSY: it may be alive, or elsewhere. 0 as well if there is no volume, or a
 * finished one. */
int unfinished_clear(struct store *store, const char *cache_dir);

#endif
