#include "volume_internal.h"

#include "../store/msg.h"
#include "../store/scope.h"
#include "../store/thread.h"

#include <string.h>
#include <sys/statvfs.h>

enum { HOUSE_THREADS = 4, RECORD_TRIES = 5, FULL_TRIES = 50, FULL_WAIT_MS = 100 };

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

#ifndef SMALL_LIMITS
#define CACHE_LEAST (4 * MIB)
#else
#define CACHE_LEAST MIB
#endif

enum { CONDS = 8 };

static pthread_cond_t *cond_of(struct volume *v, unsigned i)
{
    pthread_cond_t *const all[CONDS] = {&v->commit_moved, &v->seal_wanted, &v->index_wanted,
                                        &v->house_wanted, &v->pack_wanted, &v->more_wanted,
                                        &v->upload_moved, &v->fetch_wanted};
    return all[i];
}

/* ------------------------------------------------------------------ configuration */

void volume_config_init(struct volume_config *cfg)
{
    *cfg = (struct volume_config){
        .cache_dir = "/var/cache/s3vol",
        .readahead_bytes = 64 * MIB,
        .sync = SYNC_BUCKET,
        .timeout_ms = STORE_FOREVER,
        .writeback_ms = WRITEBACK_MS,
        .compress = true,
        .gc = true,
        .gc_grace_ms = 300000,
        .uploads = 3,
        .downloads = 16,
    };
}

int volume_create(struct store *store, const struct volume_create *what)
{
    struct superblock sb = {
        .size_bytes = what->size_bytes, .compress = what->compress, .unfinished = what->unfinished};
    int r;

    if (what->size_bytes % BLOCK_BYTES || what->size_bytes < VOLUME_BYTES_MIN ||
        what->size_bytes / BLOCK_BYTES >= VOLUME_BLOCKS_MAX)
        return msg_error(-EINVAL,
                         "%s: the size must be a multiple of 4096, from 1M to less than 8E",
                         store_url(store));
    r = superblock_create(store, &sb, &clock_system, ATTACH_PATIENCE_MS);
    if (r == 0 && !sb.conditional_put)
        msg_warn("%s: this store has no conditional PUT: nothing will keep two machines from "
                 "mounting the volume for writing at once",
                 store_url(store));
    return r;
}

int volume_complete_config(struct volume *v)
{
    struct volume_config *cfg = &v->cfg;
    struct statvfs fs;

    if (cfg->cache_bytes == 0) {
        uint64_t free_bytes = statvfs(v->dir, &fs) == 0 ? (uint64_t)fs.f_bavail * fs.f_frsize : GIB;
        cfg->cache_bytes = MIN(MAX(free_bytes / 5, 256 * MIB), 10 * GIB);
    }
    if (cfg->cache_bytes < CACHE_LEAST)
        return msg_error(-EINVAL, "--cache-size: must be 4M at least");
    if (cfg->dirty_bytes == 0)
        cfg->dirty_bytes = cfg->cache_bytes / 2;
    cfg->compress = cfg->compress && v->sb.compress;
    if (cfg->dirty_bytes > cfg->cache_bytes)
        return msg_error(-EINVAL, "--dirty-limit: must not be larger than --cache-size");
    v->readahead.max_bytes = MIN(cfg->readahead_bytes, cfg->cache_bytes / 8);
    return 0;
}

/* ------------------------------------------------------------------ opening */

static int start_thread(struct volume *v, void *(*main)(void *))
{
    int r = thread_start(&v->threads[v->nthreads], main, v);

    if (r == 0)
        v->nthreads++;
    return r;
}

static int start_writers(struct volume *v)
{
    int r = 0;

    for (unsigned i = 0; i < v->cfg.uploads + 1 && r == 0; i++) /* one packs meanwhile */
        r = start_thread(v, volume_uploader);
    if (r == 0)
        r = start_thread(v, volume_checkpointer);
    if (r == 0)
        r = start_thread(v, volume_reclaimer);
    if (r == 0)
        r = start_thread(v, volume_indexer);
    if (r == 0)
        r = start_thread(v, volume_committer);
    return r;
}

static int start_threads(struct volume *v)
{
    int r = 0;

    v->threads = calloc(HOUSE_THREADS + v->cfg.uploads + 1 + v->cfg.downloads, sizeof *v->threads);
    if (!v->threads)
        return -ENOMEM;
    for (unsigned i = 0; i < v->cfg.downloads && r == 0; i++)
        r = start_thread(v, volume_downloader);
    if (r == 0 && !v->cfg.read_only)
        r = start_writers(v);
    if (r == 0 && v->cfg.follow_ms)
        r = start_thread(v, volume_follower);
    return r < 0 ? msg_error(r, "cannot start threads: %s", strerror(-r)) : 0;
}

/* Tells all threads, and all who wait. */
static void tell_to_stop(struct volume *v)
{
    scope_lock(&v->chunks.lock);
    v->stopping = true;
    volume_wake_all(v);
}

static void stop_stores(struct volume *v)
{
    store_stop(v->store);
    bases_stop(&v->bases);
    log_stop(v->log);
}

void volume_stop(struct volume *v)
{
    stop_stores(v);
    tell_to_stop(v);
}

void volume_stop_moves(struct volume *v)
{
    scope_lock(&v->chunks.lock);
    atomic_store(&v->moves_stopped, true);
    volume_wake_all(v);
}

/* All threads are told; the first `keep` that were started are not waited for. */
static void stop_threads(struct volume *v, unsigned keep)
{
    tell_to_stop(v);
    while (v->nthreads > keep)
        pthread_join(v->threads[--v->nthreads], NULL);
    while (v->oldest) { /* not in the bucket, or not in the index: the next mount's business */
        struct commit *c = v->oldest;
        v->oldest = c->next;
        volume_free_commit(c);
    }
}

static void free_volume(struct volume *v)
{
    checkpointer_free(v->checkpointer);
    log_free(v->log);
    bases_close(&v->bases);
    slots_close(v->slots);
    index_close(v->index);
    free(v->threads);
    free(v->unrecorded);
    chunks_destroy(&v->chunks);
    for (unsigned i = 0; i < CONDS; i++)
        pthread_cond_destroy(cond_of(v, i));
    if (v->lock_fd >= 0)
        close(v->lock_fd); /* and with it the lock on the directory */
    free(v);
}

static int open_all(struct volume *v)
{
    int r = v->cfg.read_only ? volume_attach_view(v) : volume_attach(v);

    if (r == 0 && v->cfg.read_only)
        return start_threads(v);
    if (r == 0) {
        v->unrecorded_room = MAX(v->chunks.max_chunks, v->chunks.nchunks) + UNIT_CHUNKS;
        v->unrecorded =
            malloc(v->unrecorded_room * sizeof(struct chunk *)); /* mostly not touched */
        r = v->unrecorded ? start_threads(v) : -ENOMEM;
    }
    return r;
}

static int open_once(struct store *store, const struct volume_config *config, struct volume **ret)
{
    struct volume *v = calloc(1, sizeof *v);
    int r;

    if (!v)
        return -ENOMEM;
    v->store = store;
    v->cfg = *config;
    v->clock = config->clock ? config->clock : &clock_system;
    v->lock_fd = -1;
    for (unsigned i = 0; i < CONDS; i++)
        clock_cond_init(cond_of(v, i));
    r = open_all(v);
    if (r < 0) {
        if (v->threads)
            stop_threads(v, 0);
        free_volume(v);
        return r;
    }
    *ret = v;
    return 0;
}

int volume_open(struct store *store, const struct volume_config *config, struct volume **ret)
{
    int r = open_once(store, config, ret);

    return r == -EAGAIN ? open_once(store, config, ret) : r;
}

/* Records; on a full disk, what is clean makes room. */
static int with_room(struct volume *v, int (*record)(struct volume *v))
{
    int r = record(v);

    for (unsigned full = 0; r == -ENOSPC && full < RECORD_TRIES; full++) {
        r = volume_use_less(v, full);
        if (r == 0)
            r = record(v);
    }
    return r;
}

/* As with_room(), whatever the state is. *ret_evicted: room was made. */
static int at_the_end(struct volume *v, int (*save)(struct volume *v), bool *ret_evicted)
{
    int r = save(v);

    *ret_evicted = r == -ENOSPC;
    for (unsigned full = 0; r == -ENOSPC && full < RECORD_TRIES; full++)
        if (volume_use_less(v, full) != -ENOSPC)
            r = save(v);
    return r;
}

static int save_sums(struct volume *v)
{
    return slots_save_sums(v->slots);
}

/* The next mount believes what it finds. Nothing runs any more. */
static int leave_clean(struct volume *v)
{
    struct index_meta meta;
    bool evicted;
    int r = at_the_end(v, volume_record_all, &evicted); /* what is only here comes first */
    int sums = at_the_end(v, save_sums, &evicted);

    if (sums == 0 && evicted) { /* chunks that have rows; which do not count before `clean` */
        sums = volume_record_all(v);
        sums = sums == 0 ? save_sums(v) : sums;
    }
    if (sums < 0)
        msg_warn("%s: sums: %s: the next mount starts with what is not in the bucket only", v->dir,
                 strerror(-sums));
    index_get_meta(v->index, &meta);
    meta.clean = sums == 0;
    meta.life = slots_life(v->slots);
    meta.inventoried &= v->state == VOLUME_OK; /* fenced, we leave in the log what nobody knows */
    return r == 0 ? index_put_meta(v->index, &meta) : r;
}

/* `saved`: everything is in the bucket. */
static int leave(struct volume *v, bool saved)
{
    if (v->state == VOLUME_FAILED)
        return -EIO;
    if (!saved || !index_damaged(v->index))
        return leave_clean(v);
    msg_warn("%s: index.db is damaged: the next mount starts with an empty cache", v->dir);
    index_close(v->index);
    v->index = NULL;
    return volume_remove_cache(v);
}

/* Nothing can be lost: what was said is all there is to say. */
static int close_view(struct volume *v)
{
    stop_stores(v); /* also what is read ahead */
    stop_threads(v, 0);
    (void)leave(v, !v->cfg.fork);
    free_volume(v);
    return 0;
}

int volume_close(struct volume *v, bool keep_local)
{
    int r = 0, clean;

    if (v->cfg.read_only)
        return close_view(v);

    if (!keep_local)
        r = volume_drain(v);
    if (keep_local || r < 0)
        stop_stores(v);
    stop_threads(v, v->cfg.downloads);
    if (r == 0 && !keep_local)
        (void)checkpointer_close(v); /* said already; nothing is lost without it */
    pthread_mutex_lock(&v->chunks.lock);
    bool reading_ahead = v->downloading > 0; /* for nobody any more, and perhaps for ever */
    pthread_mutex_unlock(&v->chunks.lock);
    if (reading_ahead)
        stop_stores(v);
    stop_threads(v, 0);
    clean = leave(v, r == 0 && !keep_local);
    free_volume(v);
    return r < 0 ? r : clean;
}

/* ------------------------------------------------------------------ state */

int volume_check_writable(const struct volume *v)
{
    return v->cfg.read_only ? -EROFS : 0;
}

int volume_check_state(const struct volume *v)
{
    return v->state == VOLUME_OK ? 0 : -EIO;
}

void volume_wake_all(struct volume *v)
{
    chunks_changed(&v->chunks);
    for (unsigned i = 0; i < CONDS; i++)
        pthread_cond_broadcast(cond_of(v, i));
}

void volume_fail(struct volume *v, enum volume_state state)
{
    if (v->state == VOLUME_OK || state == VOLUME_FAILED) /* then nothing here may be believed */
        v->state = state;
    volume_wake_all(v);
}

int volume_use_less(struct volume *v, unsigned tries)
{
    struct chunks *t = &v->chunks;

    scope_lock(&t->lock);
    chunks_disk_full(t);
    (void)chunks_make_room(t, UNIT_BYTES / BLOCK_BYTES);
    chunks_tidy(t, 0);
    if (tries >= FULL_TRIES)
        return msg_error(
            -ENOSPC, "%s: the cache disk is full, and evicting does not help: make room", v->dir);
    (void)volume_want_commit(v); /* what is clean can be evicted */
    if (tries > 0)               /* somebody else fills it: give the commits, and him, a moment */
        chunks_wait_until(t, v->clock->now_ms() + FULL_WAIT_MS);
    return volume_check_state(v);
}

int volume_check_range(struct volume *v, uint64_t offset, uint64_t len)
{
    uint64_t size = volume_size_bytes(v);

    return offset > size || len > size - offset ? -EINVAL : 0;
}

uint64_t volume_size_bytes(const struct volume *volume)
{
    struct volume *v = (struct volume *)(uintptr_t)volume; /* the lock is not part of its value */

    scope_lock(&v->chunks.lock);
    return v->size_blocks * BLOCK_BYTES;
}

uint64_t volume_allocated_bytes(struct volume *v)
{
    scope_lock(&v->chunks.lock);
    return v->chunks.allocated_blocks * BLOCK_BYTES;
}

int volume_drain(struct volume *v)
{
    if (v->cfg.read_only)
        return 0;
    int r = volume_wait_durable(v);

    /* its rows still call blocks dirty, and must not bring older bytes back after a power cut */
    return r == 0 && v->cfg.sync == SYNC_CACHE ? with_room(v, volume_record) : r;
}

/* In cache mode, where the cache disk is all that is waited for. */
static int flush_locally(struct volume *v, bool wait)
{
    pthread_mutex_lock(&v->chunks.lock);
    int r = volume_check_state(v);
    pthread_mutex_unlock(&v->chunks.lock);
    if (r == 0 && wait)
        return with_room(v, volume_record);
    if (r == 0)
        r = volume_record(v);
    return r == -ENOSPC ? -EAGAIN : r;
}

int volume_can_keep(struct volume *v)
{
    if (v->cfg.read_only)
        return 0;
    pthread_mutex_lock(&v->chunks.lock);
    int r = volume_check_state(v);
    pthread_mutex_unlock(&v->chunks.lock);
    return r < 0 ? r : with_room(v, v->cfg.sync == SYNC_CACHE ? volume_record : volume_rehearse);
}

/* In bucket mode. */
static int flush_nothing(struct volume *v)
{
    scope_lock(&v->chunks.lock);
    int r = volume_check_state(v);
    return r == 0 && !volume_is_durable(v) ? -EAGAIN : r;
}

int volume_flush(struct volume *v, bool wait)
{
    if (v->cfg.read_only)
        return 0;
    if (v->cfg.sync == SYNC_CACHE)
        return flush_locally(v, wait);
    return wait ? volume_wait_durable(v) : flush_nothing(v);
}

static void get_space(struct volume *v, struct volume_status *st)
{
    struct index_space space;
    struct index_meta meta;

    index_get_meta(v->index, &meta);
    if (v->cfg.read_only || !meta.inventoried || index_space(v->index, 0, &space) < 0)
        return;
    st->stored_bytes = space.stored_bytes;
    st->live_bytes = space.live_bytes;
}

/* Lock held. */
static void get_instant(struct volume *v, struct volume_status *st)
{
    const struct clock *c = v->clock;
    int64_t now = v->cfg.snapshot ? c->wall_ms() : c->now_ms();

    if (!v->cfg.read_only)
        return;
    st->read_only = true;
    (void)snprintf(st->snapshot, sizeof st->snapshot, "%s", v->cfg.snapshot ? v->cfg.snapshot : "");
    st->follow_ms = v->cfg.follow_ms;
    st->log_seq = st->instant_seq = v->at.seq;
    st->epoch = v->at.epoch;
    st->instant_age_s = MAX((now - v->newest_ms) / 1000, INT64_C(0));
    if (v->gone && st->state == VOLUME_OK)
        st->state = VOLUME_GONE;
}

void volume_get_status(struct volume *v, struct volume_status *st)
{
    struct store_stats stats;

    store_get_stats(v->store, &stats);
    *st = (struct volume_status){.conditional_put = v->sb.conditional_put};
    uuid_format(v->sb.uuid, st->uuid);
    (void)snprintf(st->cache_dir, sizeof st->cache_dir, "%s", v->dir);
    st->log_seq = log_acknowledged(v->log);
    get_space(v, st);
    st->epoch = log_epoch(v->log);
    scope_lock(&v->chunks.lock);
    bool reachable = stats.reachable && bases_reachable(&v->bases);
    st->state = v->state == VOLUME_OK && !reachable ? VOLUME_STORE_UNREACHABLE : v->state;
    st->sync = v->cfg.sync;
    st->moved_bytes = v->moved_bytes;
    st->flatten_bytes = v->flatten_blocks * BLOCK_BYTES;
    st->size_bytes = v->size_blocks * BLOCK_BYTES;
    st->allocated_bytes = v->chunks.allocated_blocks * BLOCK_BYTES;
    st->cached_bytes = v->chunks.used_blocks * BLOCK_BYTES;
    st->cache_limit_bytes = v->chunks.max_blocks / 15 * 16 * BLOCK_BYTES;
    st->dirty_bytes = (v->chunks.dirty_cost + v->uploading_cost) * BLOCK_BYTES;
    st->dirty_limit_bytes = v->cfg.dirty_bytes;
    st->uploading_bytes = v->uploading_cost * BLOCK_BYTES;
    st->uploads_in_flight = v->uploads_in_flight;
    st->hits = v->hits;
    st->misses = v->misses;
    st->cache_errors = v->cache_errors;
    st->commits = v->durable;
    st->last_commit_age_s =
        v->last_commit_ms ? (v->clock->now_ms() - v->last_commit_ms) / 1000 : -1;
    st->checkpoint_seq = v->checkpoint_seq;
    get_instant(v, st);
}
