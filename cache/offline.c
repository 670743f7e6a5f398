/* The contract is in offline.h; volume_check() is in check.c. */
#include "offline.h"

#include "../store/msg.h"
#include "../store/scope.h"
#include "catchup.h"
#include "scratch.h"
#include "snapshot.h"

#include <string.h>

enum { PATIENCE_MS = 30000, DELETE_BATCH = 500 };

/* ------------------------------------------------------------------ info */

static int add_size(void *ctx, const char *key, uint64_t size_bytes)
{
    struct volume_info *info = ctx;
    char name[PIN_NAME_MAX];

    info->stored_bytes += size_bytes;
    info->snapshots +=
        pin_parse_key(key, name) && strncmp(name, "clone-", 6) != 0 && !pin_is_pending(name);
    return 0;
}

int volume_info(struct store *store, struct volume_info *ret)
{
    struct volume_info info = {0};
    struct scratch *scratch = NULL;
    struct superblock sb;
    struct catchup c;
    struct index_meta meta;
    int r = superblock_load(store, &sb, PATIENCE_MS);

    if (r < 0)
        return r;
    r = store_list(store, "", "", add_size, &info, PATIENCE_MS);
    if (r == 0)
        r = scratch_new(store, &sb, &scratch);
    if (r == 0)
        r = catchup(scratch->log, scratch->index, false, PATIENCE_MS, &c);
    if (r == 0)
        r = log_describe_claim(scratch->log, c.pos.claim, info.attached_by, sizeof info.attached_by,
                               PATIENCE_MS);
    if (r == -ENOENT)
        r = msg_error(-EAGAIN, "%s: changed while it was being read; try again", store_url(store));
    if (r == 0) {
        index_get_meta(scratch->index, &meta);
        uuid_format(sb.uuid, info.uuid);
        memcpy(info.created, sb.created, sizeof info.created);
        (void)snprintf(info.compression, sizeof info.compression, "%s",
                       sb.compress ? "zstd" : "none");
        info.size_bytes = c.pos.size_blocks * BLOCK_BYTES;
        info.allocated_bytes = meta.mapped_blocks * BLOCK_BYTES;
        info.epoch = c.pos.epoch;
        (void)snprintf(info.clone_of, sizeof info.clone_of, "%s",
                       superblock_needed_bases(&sb) ? sb.bases[0].url : "");
        info.log_seq = c.pos.seq;
        *ret = info;
    }
    scratch_free(scratch);
    return r;
}

/* ------------------------------------------------------------------ delete */

struct deleting {
    struct store *store;
    char keys[DELETE_BATCH][STORE_KEY_MAX];
    size_t n;
    uint64_t total;
};

static int delete_now(struct deleting *d)
{
    const char *keys[DELETE_BATCH];
    size_t n = d->n;

    for (size_t i = 0; i < n; i++)
        keys[i] = d->keys[i];
    d->n = 0;
    d->total += n;
    return n ? store_delete(d->store, keys, n, PATIENCE_MS) : 0;
}

/* Only what is ours: the prefix may hold other things. */
static int delete_key(void *ctx, const char *key, uint64_t size_bytes)
{
    static const char *const ours[] = {"log/", "map/", "part/", "snapshot/", "probe-", "flat-"};
    struct deleting *d = ctx;
    bool is_ours = false;

    (void)size_bytes;
    for (size_t i = 0; i < ARRAY_SIZE(ours); i++)
        is_ours = is_ours || strncmp(key, ours[i], strlen(ours[i])) == 0;
    if (!is_ours)
        return 0;
    int r = format(d->keys[d->n++], STORE_KEY_MAX, "%s", key);
    return r == 0 && d->n == DELETE_BATCH ? delete_now(d) : r;
}

/* All that is below the prefix but the superblock; -ENOENT: there was nothing. */
static int delete_objects(struct store *store)
{
    scope_free struct deleting *d = calloc(1, sizeof *d);

    if (!d)
        return -ENOMEM;
    d->store = store;
    int r = store_list(store, "", "", delete_key, d, PATIENCE_MS);
    if (r == 0)
        r = delete_now(d);
    return r == 0 && d->total == 0 ? -ENOENT : r;
}

int volume_delete(struct store *store)
{
    struct superblock sb;
    char head[1];
    size_t len;
    int r = store_get_head(store, "volume", head, sizeof head, &len, NULL, PATIENCE_MS);
    bool there = r == 0;
    bool known = there && superblock_load_any(store, &sb, PATIENCE_MS) == 0;

    if (r < 0 && r != -ENOENT)
        return r;
    r = known ? snapshot_refuse_clones(store, &sb, NULL) : 0;
    if (r == 0 && there) /* of a damaged one all the rest can be deleted as well */
        r = store_delete(store, (const char *const[]){"volume"}, 1, PATIENCE_MS);
    if (r == 0)
        r = delete_objects(store);
    if (r == -ENOENT) /* without a superblock either: superblock_load() says that there is none */
        r = there ? 0 : superblock_load(store, &sb, PATIENCE_MS);
    if (r == 0 && known && !sb.flattened) /* last: with a superblock its bases must be pinned */
        r = clone_unpin(store, &sb);
    return r;
}
