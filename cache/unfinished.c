#include "unfinished.h"

#include "../store/msg.h"
#include "../store/scope.h"
#include "../store/superblock.h"
#include "offline.h"

#include <fcntl.h>
#include <string.h>
#include <sys/file.h>

enum { PATIENCE_MS = 30000, PATH_BYTES = 300 };

/* Where it is cached. */
static int cache_of(const char *cache_dir, const struct superblock *sb, char ret_dir[PATH_BYTES])
{
    char uuid[UUID_TEXT_BYTES];

    uuid_format(sb->uuid, uuid);
    return format(ret_dir, PATH_BYTES, "%s/%s", cache_dir, uuid);
}

/* ------------------------------------------------------------------ filling */

static int attach_and_fill(struct store *store, const struct volume_config *config,
                           unfinished_fn *fill, void *ctx)
{
    struct volume_config cfg = *config;
    struct volume *v;
    int r;

    cfg.unfinished = true;
    cfg.sync = SYNC_BUCKET;
    cfg.gc = false;
    r = volume_open(store, &cfg, &v);
    if (r < 0)
        return r;
    r = fill(ctx, v);
    int closed = volume_close(v, r < 0);
    return r < 0 ? r : closed;
}

/* Is it still the one that `sb` was read from? Somebody may have deleted it meanwhile, and made
 * another one. */
static int expect_same(struct store *store, const struct superblock *sb)
{
    struct superblock now;
    int r = superblock_load_any(store, &now, PATIENCE_MS);

    if (r == 0 && memcmp(now.uuid, sb->uuid, UUID_BYTES) != 0)
        r = msg_error(-EBUSY, "%s: is another volume now, which somebody else made",
                      store_url(store));
    return r;
}

int unfinished_fill(struct store *store, const struct volume_config *config, bool keep_cache,
                    unfinished_fn *fill, void *ctx)
{
    struct superblock sb;
    struct store *own; /* it is stopped, if filling fails */
    char dir[PATH_BYTES];
    int r = superblock_load_any(store, &sb, PATIENCE_MS);

    if (r == 0)
        r = cache_of(config->cache_dir, &sb, dir);
    if (r == 0)
        r = store_open_beside(store, store_url(store), &own);
    if (r < 0) {
        (void)volume_delete(store);
        return r;
    }
    r = attach_and_fill(own, config, fill, ctx);
    store_free(own);
    int same = expect_same(store, &sb);
    if (r == 0)
        r = same;
    if (r == 0)
        r = superblock_finish(store, &sb, PATIENCE_MS);
    if (r < 0 && (same < 0 || volume_delete(store) < 0))
        return r; /* with what is cached, by which unfinished_clear() knows that it was ours */
    if (r < 0 || !keep_cache)
        volume_remove_dir(dir);
    return r;
}

/* ------------------------------------------------------------------ what was left */

/* Holds the lock of its directory, if nobody else does. */
static int lock_cache(const char *dir, int *ret_fd)
{
    char path[PATH_BYTES + 8];
    int r = format(path, sizeof path, "%s/lock", dir);

    if (r < 0)
        return r;
    scope_close int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
        return -EBUSY;
    *ret_fd = fd;
    fd = -1;
    return 0;
}

int unfinished_clear(struct store *store, const char *cache_dir)
{
    char head[1], dir[PATH_BYTES];
    scope_close int lock = -1;
    struct superblock sb;
    size_t len;
    int r = store_get_head(store, "volume", head, sizeof head, &len, NULL, PATIENCE_MS);

    if (r < 0)
        return r == -ENOENT ? 0 : r;
    r = superblock_load_any(store, &sb, PATIENCE_MS);
    if (r < 0 || !sb.unfinished)
        return r;
    r = cache_of(cache_dir, &sb, dir);
    if (r == 0 && lock_cache(dir, &lock) < 0)
        r = superblock_load(store, &sb, PATIENCE_MS); /* says what is to be done */
    else if (r == 0)
        r = volume_delete(store);
    if (r == 0 && lock >= 0)
        volume_remove_dir(dir);
    return r;
}
