#include "log.h"

#include "bytes.h"
#include "msg.h"
#include "scope.h"

#include <inttypes.h>
#include <time.h>

enum { AGAIN_MS = 5000 }; /* between tries after an error that should not have been */

struct log {
    struct store *store;
    struct superblock sb;
    const struct clock *clock;
    uint64_t epoch, claim; /* ours; set by the claim, constant then */
    uint8_t nonce[UUID_BYTES];
    uint64_t next; /* to be reserved; the committer's */

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t moved; /* acknowledged, fenced or stopped changed */
    uint64_t acknowledged;
    bool done[LOG_WINDOW + 1]; /* by seq modulo its size: stored, not acknowledged yet */
    bool fenced, stopped;
    bool goes_back; /* see log_go_back() */
    char fenced_by[320];
};

int log_new(struct store *store, const struct superblock *sb, const struct clock *clock,
            struct log **ret)
{
    struct log *log = calloc(1, sizeof *log);

    if (!log)
        return -ENOMEM;
    log->store = store;
    log->sb = *sb;
    log->clock = clock;
    pthread_mutex_init(&log->lock, NULL);
    clock_cond_init(&log->moved);
    *ret = log;
    return 0;
}

void log_free(struct log *log)
{
    if (!log)
        return;
    pthread_cond_destroy(&log->moved);
    pthread_mutex_destroy(&log->lock);
    free(log);
}

struct store *log_store(struct log *log)
{
    return log->store;
}

void log_go_back(struct log *log)
{
    log->goes_back = true;
}

bool log_goes_back(const struct log *log)
{
    return log->goes_back;
}

const struct superblock *log_superblock(struct log *log)
{
    return &log->sb;
}

void log_key(uint64_t seq, char ret_key[STORE_KEY_MAX])
{
    (void)snprintf(ret_key, STORE_KEY_MAX, "log/%016" PRIx64, seq);
}

bool log_parse_key(const char *key, uint64_t *ret_seq)
{
    char back[STORE_KEY_MAX];

    if (sscanf(key, "log/%16" SCNx64, ret_seq) != 1)
        return false;
    log_key(*ret_seq, back);
    return strcmp(key, back) == 0;
}

void log_describe(struct log *log, struct header *h)
{
    memcpy(h->uuid, log->sb.uuid, UUID_BYTES);
    memcpy(h->nonce, log->nonce, UUID_BYTES);
    h->epoch = log->epoch;
    h->claim = log->claim;
    h->wall_ms = (uint64_t)log->clock->wall_ms();
}

static unsigned put_flags(const struct log *log)
{
    return log->sb.conditional_put ? STORE_IF_ABSENT : 0;
}

static int describe_claim(const struct header *h, const char *body, char *buf, size_t size_bytes)
{
    time_t at = (time_t)(h->wall_ms / 1000);
    char when[32];
    struct tm tm;

    strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S UTC", gmtime_r(&at, &tm));
    uint32_t skip = h->flags & HEADER_ROLLBACK ? MIN(h->body_bytes, (uint32_t)LOG_TARGET_BYTES) : 0;
    return format(buf, size_bytes, "%.*s at %s (epoch %" PRIu64 ")",
                  (int)MIN(h->body_bytes - skip, 200u), body + skip, when, h->epoch);
}

/* What is at a number that we wanted: *ret_ours, or who put it there. -ENOENT: nothing. */
static int who_is_there(struct log *log, uint64_t seq, const uint8_t nonce[UUID_BYTES],
                        int64_t patience_ms, bool *ret_ours, struct header *ret_header, char *who,
                        size_t who_bytes)
{
    scope_free uint8_t *head = malloc(LOG_HEAD_BYTES);
    char key[STORE_KEY_MAX];
    const char *why;
    size_t len;
    int r;

    if (!head)
        return -ENOMEM;
    log_key(seq, key);
    r = store_get_head(log->store, key, head, LOG_HEAD_BYTES, &len, NULL, patience_ms);
    if (r < 0)
        return r;
    r = header_decode(head, len, log->sb.uuid, 0, seq, ret_header, &why);
    if (r < 0)
        return msg_error(r, "%s: %s: %s", store_url(log->store), key, why);
    *ret_ours = memcmp(ret_header->nonce, nonce, UUID_BYTES) == 0;
    if (ret_header->kind == HEADER_CLAIM)
        return describe_claim(ret_header, (char *)head + HEADER_BYTES, who, who_bytes);
    return format(who, who_bytes, "an attachment of epoch %" PRIu64, ret_header->epoch);
}

int log_describe_claim(struct log *log, uint64_t claim, char *buf, size_t size_bytes,
                       int64_t patience_ms)
{
    struct header there;
    bool ours;

    *buf = 0;
    return claim ? who_is_there(log, claim, log->nonce, patience_ms, &ours, &there, buf, size_bytes)
                 : 0;
}

/* Stores a claim of our nonce and epoch at `seq`, if that is free: the log goes on at `next`.
 * `ahead`: of the first number missing. `target`: LOG_TARGET_BYTES of a rollback, or NULL. */
static int put_claim(struct log *log, const struct log_position *pos, uint64_t seq, unsigned ahead,
                     uint64_t next, const char *who, const uint8_t *target, int64_t patience_ms)
{
    uint8_t buf[HEADER_BYTES + LOG_TARGET_BYTES + LOG_WHO_BYTES_MAX];
    uint32_t who_at = target ? LOG_TARGET_BYTES : 0;
    uint32_t who_bytes = (uint32_t)MIN(strlen(who), (size_t)LOG_WHO_BYTES_MAX);
    char key[STORE_KEY_MAX], by[320];
    struct header h = {
        .kind = HEADER_CLAIM,
        .flags = (target ? HEADER_ROLLBACK : 0) | (ahead ? HEADER_AHEAD : 0),
        .seq = seq,
        .size_blocks = pos->size_blocks,
        .first = ahead ? seq - ahead : pos->seq,
        .next = next,
        .body_bytes = who_at + who_bytes,
    };
    bool ours = true;
    int r;

    log->claim = seq;
    log_describe(log, &h);
    h.object_bytes = HEADER_BYTES + h.body_bytes;
    if (target)
        memcpy(buf + HEADER_BYTES, target, LOG_TARGET_BYTES);
    memcpy(buf + HEADER_BYTES + who_at, who, who_bytes);
    header_encode(&h, buf + HEADER_BYTES, buf);
    log_key(seq, key);
    r = store_put(log->store, key, buf, h.object_bytes, put_flags(log), patience_ms);
    if (r == -EEXIST) {
        struct header there;
        r = who_is_there(log, seq, log->nonce, patience_ms, &ours, &there, by, sizeof by);
        if (r == 0 && (ours ? !ahead && there.flags & HEADER_AHEAD : there.kind == HEADER_SEGMENT))
            r = -EAGAIN; /* of ours: one that comes late tells less than this one would */
        else if (r == 0 && !ours && !ahead) /* who stops the writer there is all the same */
            r = msg_error(-EBUSY, "%s: attached at this moment by %s; only one can, try again",
                          store_url(log->store), by);
    }
    return r;
}

static void begin_epoch(struct log *log, struct log_position *pos, uint64_t next)
{
    pos->seq = pos->claim = log->claim;
    pos->next = log->next = next;
    pos->epoch = log->epoch;
    memcpy(pos->nonce, log->nonce, UUID_BYTES);
    log->acknowledged = next - 1;
}

static int claim(struct log *log, struct log_position *pos, uint64_t missing,
                 const uint8_t claim_nonce[UUID_BYTES], const char *who, const uint8_t *target,
                 int64_t patience_ms)
{
    uint64_t next = missing + LOG_WINDOW + 1;

    log->epoch = pos->epoch + 1;
    memcpy(log->nonce, claim_nonce, UUID_BYTES);
    int r = put_claim(log, pos, missing, 0, next, who, target, patience_ms);
    if (r == 0)
        begin_epoch(log, pos, next);
    return r;
}

int log_fence(struct log *log, struct log_position *pos, const uint64_t *fences, size_t nfences,
              const char *who, int64_t patience_ms)
{
    uint64_t next = fences[nfences - 1] + LOG_WINDOW + 1;
    int r = random_bytes(log->nonce, UUID_BYTES);

    log->epoch = pos->epoch + 1;
    for (size_t i = 0; i < nfences && r == 0; i++)
        r = put_claim(log, pos, fences[i], 0, next, who, NULL, patience_ms);
    if (r == 0)
        begin_epoch(log, pos, next);
    return r;
}

int log_claim(struct log *log, struct log_position *pos, uint64_t missing,
              const uint8_t claim_nonce[UUID_BYTES], const char *who, int64_t patience_ms)
{
    return claim(log, pos, missing, claim_nonce, who, NULL, patience_ms);
}

int log_claim_ahead(struct log *log, const struct log_position *pos, uint64_t missing,
                    unsigned ahead, const uint8_t claim_nonce[UUID_BYTES], const char *who,
                    int64_t patience_ms)
{
    uint64_t seq = missing + ahead;

    log->epoch = pos->epoch + 1;
    memcpy(log->nonce, claim_nonce, UUID_BYTES);
    return put_claim(log, pos, seq, ahead, seq + LOG_WINDOW + 1, who, NULL, patience_ms);
}

int log_claim_rollback(struct log *log, struct log_position *pos, uint64_t missing,
                       const uint8_t claim_nonce[UUID_BYTES], const char *who, uint64_t root,
                       uint64_t seq, int64_t patience_ms)
{
    uint8_t target[LOG_TARGET_BYTES];

    put_le64(target, root);
    put_le64(target + 8, seq);
    return claim(log, pos, missing, claim_nonce, who, target, patience_ms);
}

uint64_t log_reserve(struct log *log, unsigned n)
{
    uint64_t first = log->next;

    log->next += n;
    return first;
}

/* 0 when `seq` may go up: a claimer counts on nothing of ours being beyond the window. */
static int wait_for_window(struct log *log, uint64_t seq)
{
    scope_lock(&log->lock);
    while (!log->fenced && !log->stopped && seq > log->acknowledged + LOG_WINDOW)
        pthread_cond_wait(&log->moved, &log->lock);
    return log->fenced ? -ESTALE : log->stopped ? -ECANCELED : 0;
}

static void mark_done(struct log *log, uint64_t seq)
{
    scope_lock(&log->lock);
    log->done[seq % ARRAY_SIZE(log->done)] = true;
    while (log->done[(log->acknowledged + 1) % ARRAY_SIZE(log->done)]) {
        log->acknowledged++;
        log->done[log->acknowledged % ARRAY_SIZE(log->done)] = false;
    }
    pthread_cond_broadcast(&log->moved);
}

static int mark_fenced(struct log *log, const char *what, const char *by)
{
    scope_lock(&log->lock);
    if (!log->fenced) {
        log->fenced = true;
        (void)snprintf(log->fenced_by, sizeof log->fenced_by, "%s%s", what, by);
        msg_error(0, "%s: fenced: the volume was %s; writes and flushes here fail now, unmount",
                  store_url(log->store), log->fenced_by);
    }
    pthread_cond_broadcast(&log->moved);
    return -ESTALE;
}

void log_stop(struct log *log)
{
    scope_lock(&log->lock);
    log->stopped = true;
    pthread_cond_broadcast(&log->moved);
}

bool log_fenced(struct log *log, char *buf, size_t size_bytes)
{
    scope_lock(&log->lock);
    if (log->fenced)
        (void)snprintf(buf, size_bytes, "%s", log->fenced_by);
    return log->fenced;
}

uint64_t log_first_own(const struct log *log)
{
    return log->claim + LOG_WINDOW + 1;
}

uint64_t log_epoch(const struct log *log)
{
    return log->epoch;
}

uint64_t log_acknowledged(struct log *log)
{
    scope_lock(&log->lock);
    return log->acknowledged;
}

int log_still_named(struct log *log, int64_t patience_ms)
{
    int r = superblock_is_still(log->store, &log->sb, patience_ms);

    if (r == -ENOENT)
        return mark_fenced(log, "deleted", "");
    return r == -EEXIST ? mark_fenced(log, "deleted, and another one made under its name", "") : r;
}

static int put_segment(struct log *log, uint64_t seq, const void *buf, size_t len)
{
    char key[STORE_KEY_MAX], by[320];
    int r;

    log_key(seq, key);
    r = store_put(log->store, key, buf, len, put_flags(log), STORE_FOREVER);
    if (r == -EEXIST) {
        struct header there;
        bool ours;
        r = who_is_there(log, seq, log->nonce, STORE_FOREVER, &ours, &there, by, sizeof by);
        if (r == 0 && !ours)
            r = mark_fenced(log, "attached by ", by);
        else if (r == -EPROTONOSUPPORT)
            r = mark_fenced(log, "attached by ", "a newer version of s3vol");
        else if (r == -EBADMSG) { /* damaged, or another volume's */
            int named = log_still_named(log, STORE_FOREVER);
            r = named < 0 ? named : r;
        }
    }
    return r;
}

/* A claim takes the first number that is missing, or one at most a window ahead of it. Those that
 * are acknowledged are ours; one that is free now has no claim; so if there were a claim, it would
 * have to be where our own segment is. */
struct ahead {
    uint64_t last; /* no claim that fences us is beyond it */
    uint64_t seqs[LOG_WINDOW + 1];
    unsigned n;
};

static int add_ahead(void *ctx, const char *key, uint64_t size_bytes)
{
    struct ahead *a = ctx;
    uint64_t seq;

    (void)size_bytes;
    if (!log_parse_key(key, &seq))
        return 0;
    if (seq > a->last)
        return -ERANGE;
    a->seqs[a->n++] = seq;
    return 0;
}

/* A claim that fences us took the first number missing then, or one behind it, which we have not
 * acknowledged, and it is never deleted. It need not be the next number: that one may have been
 * ours, under way, and deleted since by who claimed behind it. */
int log_still_ours(struct log *log, int64_t patience_ms)
{
    scope_free struct ahead *a = calloc(1, sizeof *a);
    uint64_t acknowledged = log_acknowledged(log);
    char after[STORE_KEY_MAX], by[320];
    struct header there;
    bool ours = true;

    if (!a)
        return -ENOMEM;
    a->last = acknowledged + LOG_WINDOW + 1;
    log_key(acknowledged, after);
    int r = log_still_named(log, patience_ms);
    if (r == 0)
        r = store_list(log->store, "log/", after, add_ahead, a, patience_ms);
    if (r == -ERANGE)
        r = 0;
    for (unsigned i = 0; i < a->n && r == 0 && ours; i++) {
        r = who_is_there(log, a->seqs[i], log->nonce, patience_ms, &ours, &there, by, sizeof by);
        if (r == -ENOENT) /* no claim, then */
            r = 0;
    }
    return r == 0 && !ours ? mark_fenced(log, "attached by ", by) : r;
}

/* Only being fenced or stopped ends the tries. */
static void pause_before_retry(struct log *log)
{
    int64_t until = log->clock->now_ms() + AGAIN_MS;

    scope_lock(&log->lock);
    while (!log->fenced && !log->stopped && log->clock->wait_until(&log->moved, &log->lock, until))
        ;
}

int log_append(struct log *log, uint64_t seq, uint64_t first, uint64_t last, uint64_t size_blocks,
               const struct entry *entries, unsigned nentries, void *buf, size_t len)
{
    uint8_t *table = (uint8_t *)buf + HEADER_BYTES;
    struct header h = {
        .kind = HEADER_SEGMENT,
        .flags = seq == last ? HEADER_LAST : 0,
        .seq = seq,
        .size_blocks = size_blocks,
        .first = first,
        .nentries = nentries,
        .body_bytes = nentries * ENTRY_BYTES,
        .object_bytes = (uint32_t)len,
    };
    int r;

    for (unsigned i = 0; i < nentries; i++)
        entry_encode(&entries[i], table + (size_t)i * ENTRY_BYTES);
    log_describe(log, &h);
    h.next = log_acknowledged(log) + 1;
    header_encode(&h, table, buf);
    r = wait_for_window(log, seq);
    while (r == 0 && (r = put_segment(log, seq, buf, len)) < 0 && r != -ESTALE && r != -ECANCELED) {
        pause_before_retry(log);
        r = wait_for_window(log, seq);
    }
    if (r == 0)
        mark_done(log, seq);
    else if (r == -ECANCELED)
        log_stop(log);
    return r;
}
