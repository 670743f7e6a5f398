#include "status.h"

#include "../store/scope.h"
#include "json.h"
#include "units.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

static const char *state_name(enum volume_state state)
{
    switch (state) {
    case VOLUME_OK:
        return "ok";
    case VOLUME_STORE_UNREACHABLE:
        return "store-unreachable";
    case VOLUME_FENCED:
        return "fenced";
    case VOLUME_DAMAGED:
        return "damaged";
    case VOLUME_FAILED:
        return "failed";
    case VOLUME_GONE:
        return "gone";
    }
    return "unknown";
}

static const char *state_meaning(enum volume_state state)
{
    switch (state) {
    case VOLUME_OK:
        return "";
    case VOLUME_STORE_UNREACHABLE:
        return ": trying again; nothing is lost";
    case VOLUME_FENCED:
        return ": another machine mounted the volume; writes and flushes fail";
    case VOLUME_DAMAGED:
        return ": the cache disk lost what was to be uploaded; writes and flushes fail";
    case VOLUME_FAILED:
        return ": the cache disk failed; writes and flushes fail";
    case VOLUME_GONE:
        return ": something of what it shows is deleted from the bucket; mount it again";
    }
    return "";
}

static double hit_ratio(const struct volume_status *v)
{
    double all = (double)v->hits + (double)v->misses;

    return all > 0 ? (double)v->hits / all : NAN;
}

static void put_requests(struct json *j, const struct store_stats *s)
{
    json_open(j, "requests");
    json_number(j, "get", s->get);
    json_number(j, "put", s->put);
    json_number(j, "head", s->head);
    json_number(j, "list", s->list);
    json_number(j, "delete", s->del);
    json_number(j, "failed", s->failed);
    json_number(j, "retried", s->retried);
    json_number(j, "hedged", s->hedged);
    json_close(j);
    json_number(j, "bytes_up", s->bytes_up);
    json_number(j, "bytes_down", s->bytes_down);
}

static void put_instant(struct json *j, const struct volume_status *v)
{
    json_bool(j, "read_only", v->read_only);
    if (!v->read_only)
        return;
    if (*v->snapshot)
        json_string(j, "snapshot", v->snapshot);
    else
        json_null(j, "snapshot");
    if (v->follow_ms)
        json_fraction(j, "follow_s", (double)v->follow_ms / 1000);
    else
        json_null(j, "follow_s");
    json_number(j, "instant_seq", v->instant_seq);
    json_number(j, "instant_age_s", (uint64_t)v->instant_age_s);
}

int status_json(const struct status *status, char *buf, size_t size_bytes)
{
    const struct volume_status *v = &status->volume;
    struct json j;

    json_begin(&j, buf, size_bytes);
    json_string(&j, "url", status->url);
    json_string(&j, "uuid", v->uuid);
    json_string(&j, "state", state_name(v->state));
    json_string(&j, "sync", v->sync == SYNC_CACHE ? "cache" : "bucket");
    json_number(&j, "epoch", v->epoch);
    json_number(&j, "pid", (uint64_t)status->pid);
    json_number(&j, "size_bytes", v->size_bytes);
    json_number(&j, "allocated_bytes", v->allocated_bytes);
    json_number(&j, "cached_bytes", v->cached_bytes);
    json_number(&j, "cache_limit_bytes", v->cache_limit_bytes);
    json_number(&j, "dirty_bytes", v->dirty_bytes);
    json_number(&j, "dirty_limit_bytes", v->dirty_limit_bytes);
    json_number(&j, "uploading_bytes", v->uploading_bytes);
    json_number(&j, "uploads_in_flight", v->uploads_in_flight);
    if (v->stored_bytes)
        json_number(&j, "stored_bytes", v->stored_bytes);
    else
        json_null(&j, "stored_bytes"); /* only a listing tells: status URL */
    json_number(&j, "live_bytes", v->stored_bytes ? v->live_bytes : v->allocated_bytes);
    json_number(&j, "moved_bytes", v->moved_bytes);
    json_number(&j, "hits", v->hits);
    json_number(&j, "misses", v->misses);
    json_fraction(&j, "hit_ratio", hit_ratio(v));
    json_number(&j, "cache_errors", v->cache_errors);
    put_requests(&j, &status->store);
    json_number(&j, "commits", v->commits);
    if (v->last_commit_age_s < 0)
        json_null(&j, "last_commit_age_s");
    else
        json_number(&j, "last_commit_age_s", (uint64_t)v->last_commit_age_s);
    json_number(&j, "log_seq", v->log_seq);
    json_number(&j, "checkpoint_seq", v->checkpoint_seq);
    json_bool(&j, "conditional_put", v->conditional_put);
    json_string(&j, "cache_dir", v->cache_dir);
    put_instant(&j, v);
    if (*status->last_error)
        json_string(&j, "last_error", status->last_error);
    else
        json_null(&j, "last_error");
    return json_end(&j);
}

/* printf that goes on where the last one ended. */
struct text {
    char *buf;
    size_t size_bytes, len;
    bool overflow;
};

static void line(struct text *t, const char *label, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void line(struct text *t, const char *label, const char *fmt, ...)
{
    char rest[1600];
    va_list ap;

    va_start(ap, fmt);
    int r = vformat(rest, sizeof rest, fmt, ap);
    va_end(ap);
    if (r == 0 && !t->overflow)
        r = format(t->buf + t->len, t->size_bytes - t->len, "%-14s%s\n", label, rest);
    if (r < 0 || t->overflow)
        t->overflow = true;
    else
        t->len += strlen(t->buf + t->len);
}

static void put_cache(struct text *t, const struct volume_status *v)
{
    char a[UNITS_TEXT_MAX], b[UNITS_TEXT_MAX], c[UNITS_TEXT_MAX], ratio[32] = "not read yet";

    if (!isnan(hit_ratio(v)))
        INVARIANT(format(ratio, sizeof ratio, "hit ratio %.1f%%", 100 * hit_ratio(v)) == 0);
    line(t, "cache", "%s of %s, %s, in %s", units_format_size(v->cached_bytes, a),
         units_format_size(v->cache_limit_bytes, b), ratio, v->cache_dir);
    if (v->cache_errors > 0)
        line(t, "cache errors",
             "%" PRIu64 " blocks came back damaged from the cache disk; see the log",
             v->cache_errors);
    if (v->read_only)
        return;
    line(t, "not uploaded", "%s (writes wait at %s), %s in %u uploads now",
         units_format_size(v->dirty_bytes, a), units_format_size(v->dirty_limit_bytes, b),
         units_format_size(v->uploading_bytes, c), v->uploads_in_flight);
}

static void put_view(struct text *t, const struct volume_status *v)
{
    char age[UNITS_TEXT_MAX], follow[UNITS_TEXT_MAX];

    units_format_duration(v->instant_age_s * 1000, age);
    if (*v->snapshot)
        line(t, "read-only", "the snapshot %s (log number %" PRIu64 "), made %s ago", v->snapshot,
             v->instant_seq, age);
    else if (v->follow_ms)
        line(t, "read-only",
             "follows every %s; as of log number %" PRIu64 ", which was the newest %s ago",
             units_format_duration(v->follow_ms, follow), v->instant_seq, age);
    else
        line(t, "read-only", "as of log number %" PRIu64 ", which was the newest %s ago",
             v->instant_seq, age);
}

int status_text(const struct status *status, char *buf, size_t size_bytes)
{
    const struct volume_status *v = &status->volume;
    const struct store_stats *s = &status->store;
    struct text t = {.buf = buf, .size_bytes = size_bytes};
    char a[UNITS_TEXT_MAX], b[UNITS_TEXT_MAX];

    line(&t, "volume", "%s", status->url);
    line(&t, "uuid", "%s, epoch %" PRIu64, v->uuid, v->epoch);
    line(&t, "state", "%s%s", state_name(v->state), state_meaning(v->state));
    line(&t, "size", "%s, %s of it in use", units_format_size(v->size_bytes, a),
         units_format_size(v->allocated_bytes, b));
    if (v->read_only)
        put_view(&t, v);
    else
        line(&t, "flushes", "return when data is %s",
             v->sync == SYNC_CACHE ? "on the local disk" : "in the bucket");
    put_cache(&t, v);
    line(&t, "requests",
         "%" PRIu64 " get, %" PRIu64 " put, %" PRIu64 " head, %" PRIu64 " list, %" PRIu64
         " delete; %" PRIu64 " failed, %" PRIu64 " retried, %" PRIu64 " hedged",
         s->get, s->put, s->head, s->list, s->del, s->failed, s->retried, s->hedged);
    line(&t, "transferred", "%s up, %s down", units_format_size(s->bytes_up, a),
         units_format_size(s->bytes_down, b));
    if (v->read_only)
        ;
    else if (v->last_commit_age_s < 0)
        line(&t, "last commit", "none since the mount");
    else
        line(&t, "last commit", "%s ago, %" PRIu64 " since the mount",
             units_format_duration(v->last_commit_age_s * 1000, a), v->commits);
    line(&t, "last error", "%s", *status->last_error ? status->last_error : "none");
    line(&t, "daemon", "process %ld", (long)status->pid);
    if (!v->conditional_put && !v->read_only)
        line(&t, "beware", "this store cannot refuse a second writer: never mount it twice");
    return t.overflow ? -ENOSPC : 0;
}

int status_info_json(const char *url, const struct volume_info *info, char *buf, size_t size_bytes)
{
    struct json j;

    json_begin(&j, buf, size_bytes);
    json_string(&j, "url", url);
    json_string(&j, "uuid", info->uuid);
    json_number(&j, "epoch", info->epoch);
    json_number(&j, "size_bytes", info->size_bytes);
    json_number(&j, "allocated_bytes", info->allocated_bytes);
    json_number(&j, "stored_bytes", info->stored_bytes);
    json_number(&j, "live_bytes", info->allocated_bytes);
    json_number(&j, "log_seq", info->log_seq);
    json_string(&j, "created", info->created);
    json_string(&j, "attached_by", info->attached_by);
    json_string(&j, "compression", info->compression);
    json_number(&j, "snapshots", info->snapshots);
    if (*info->clone_of)
        json_string(&j, "clone_of", info->clone_of);
    else
        json_null(&j, "clone_of");
    return json_end(&j);
}

int status_info_text(const char *url, const struct volume_info *info, char *buf, size_t size_bytes)
{
    struct text t = {.buf = buf, .size_bytes = size_bytes};
    char a[UNITS_TEXT_MAX], b[UNITS_TEXT_MAX];

    line(&t, "volume", "%s", url);
    line(&t, "uuid", "%s", info->uuid);
    line(&t, "created", "%s", info->created);
    line(&t, "size", "%s, %s of it in use", units_format_size(info->size_bytes, a),
         units_format_size(info->allocated_bytes, b));
    line(&t, "stored", "%s, compression %s", units_format_size(info->stored_bytes, a),
         info->compression);
    line(&t, "log", "%" PRIu64 " objects so far, epoch %" PRIu64, info->log_seq, info->epoch);
    line(&t, "snapshots", "%" PRIu64, info->snapshots);
    if (*info->clone_of)
        line(&t, "clone of", "%s", info->clone_of);
    line(&t, "last writer", "%s", *info->attached_by ? info->attached_by : "nobody yet");
    return t.overflow ? -ENOSPC : 0;
}
