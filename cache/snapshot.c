#include "snapshot.h"

#include "../store/checkpoint.h"
#include "../store/msg.h"
#include "../store/scope.h"
#include "catchup.h"
#include "instant.h"
#include "scratch.h"

#include <string.h>
#include <time.h>

enum { PATIENCE_MS = 30000, CLAIM_TRIES = 64 };

static struct tm now(void)
{
    time_t at = (time_t)(clock_system.wall_ms() / 1000);
    struct tm tm;

    return *gmtime_r(&at, &tm);
}

static int load(struct store *store, const struct superblock *sb, const char *name, struct pin *ret)
{
    int r = pin_load(store, sb, name, ret, PATIENCE_MS);

    return r == -ENOENT ? msg_error(r, "%s@%s: there is no such snapshot", store_url(store), name)
                        : r;
}

/* ------------------------------------------------------------------ create */

/* -EEXIST, silently. */
static int create(struct log *log, const char *name)
{
    struct pin pin = {0};
    int r = format(pin.name, sizeof pin.name, "%s", name);

    struct tm tm = now();
    (void)strftime(pin.created, sizeof pin.created, "%Y-%m-%dT%H:%M:%SZ", &tm);
    return r == 0 ? instant_pin(log, &pin, PATIENCE_MS) : r;
}

int snapshot_create(struct store *store, const char *name)
{
    struct superblock sb;
    struct log *log;
    int r = superblock_load(store, &sb, PATIENCE_MS);

    if (r == 0 && (strncmp(name, "clone-", 6) == 0 || *name == '-'))
        r = msg_error(-EINVAL, "%s: names that begin with clone- or - are not for people", name);
    if (r == 0)
        r = log_new(store, &sb, &clock_system, &log);
    if (r < 0)
        return r;
    r = create(log, name);
    if (r == -EEXIST)
        msg_error(r, "%s@%s: there is a snapshot of that name already", store_url(store), name);
    log_free(log);
    return r;
}

int snapshot_holds_nothing(struct store *store, const struct pin *pin)
{
    msg_warn("%s@%s: was never finished, and holds nothing; delete it", store_url(store),
             pin->name);
    return 0;
}

/* ------------------------------------------------------------------ list */

struct object {
    uint64_t seq, bytes;
    unsigned holders; /* that need it */
    unsigned last;    /* of them */
};

struct held {
    struct log *log;
    struct object *objects; /* of the log, ascending */
    size_t n, room;
    unsigned holder; /* who is being looked at; 0 is the volume itself */
    struct pin *pins;
    size_t npins, pins_room;
};

static int add_object(void *ctx, const char *key, uint64_t size_bytes)
{
    struct held *h = ctx;
    struct object o = {.bytes = size_bytes};

    if (!log_parse_key(key, &o.seq))
        return 0;
    if (h->n == h->room) {
        size_t room = MAX(2 * h->room, (size_t)256);
        struct object *more = realloc(h->objects, room * sizeof *more);
        if (!more)
            return -ENOMEM;
        h->objects = more;
        h->room = room;
    }
    h->objects[h->n++] = o;
    return 0;
}

/* The first object whose number is not less. */
static size_t at(const struct held *h, uint64_t seq)
{
    size_t low = 0, high = h->n;

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (h->objects[mid].seq < seq)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static void needs(struct held *h, struct object *o)
{
    if (o->holders == 0 || o->last != h->holder)
        o->holders++;
    o->last = h->holder;
}

static int needs_entries(void *ctx, const struct entry *entries, size_t n)
{
    struct held *h = ctx;

    for (size_t i = 0; i < n; i++) {
        size_t found = entries[i].base == 0 ? at(h, entries[i].seq) : h->n;
        if (found < h->n && h->objects[found].seq == entries[i].seq)
            needs(h, &h->objects[found]);
    }
    return 0;
}

/* The map of a checkpoint, and the log after it up to `seq`. */
static int needs_instant(struct held *h, uint64_t root, uint64_t seq)
{
    struct log_position pos;
    int r = root ? checkpoint_load(h->log, root, needs_entries, h, PATIENCE_MS, &pos) : 0;

    for (size_t i = at(h, root + 1); i < h->n && h->objects[i].seq <= seq; i++)
        needs(h, &h->objects[i]);
    h->holder++;
    return r;
}

static int add_pin(void *ctx, const struct pin *pin)
{
    struct held *h = ctx;

    if (h->npins == h->pins_room) {
        size_t room = MAX(2 * h->pins_room, (size_t)32);
        struct pin *more = realloc(h->pins, room * sizeof *more);
        if (!more)
            return -ENOMEM;
        h->pins = more;
        h->pins_room = room;
    }
    h->pins[h->npins++] = *pin;
    return 0;
}

static uint64_t held_alone(const struct held *h, unsigned holder)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < h->n; i++)
        if (h->objects[i].holders == 1 && h->objects[i].last == holder)
            sum += h->objects[i].bytes;
    return sum;
}

static int look(struct held *h)
{
    uint64_t root;
    int r = pin_each(log_store(h->log), log_superblock(h->log), add_pin, h, PATIENCE_MS);

    if (r < 0 || h->npins == 0)
        return r;
    r = checkpoint_newest(h->log, &root, PATIENCE_MS);
    if (r == 0)
        r = store_list(log_store(h->log), "log/", "", add_object, h, PATIENCE_MS);
    if (r == 0)
        r = needs_instant(h, root, SEQ_MAX);
    for (size_t i = 0; i < h->npins && r == 0; i++) {
        r = needs_instant(h, h->pins[i].root, h->pins[i].seq);
        if (r == -ENOENT) /* was never finished, or went meanwhile: it holds nothing */
            r = 0;
    }
    return r == -ENOENT ? msg_error(-EAGAIN, "%s: changed while it was being read; try again",
                                    store_url(log_store(h->log)))
                        : r;
}

int snapshot_list(struct store *store, snapshot_fn *fn, void *ctx)
{
    struct held h = {0};
    struct superblock sb;
    int r = superblock_load(store, &sb, PATIENCE_MS);

    if (r == 0)
        r = log_new(store, &sb, &clock_system, &h.log);
    if (r == 0)
        r = look(&h);
    for (size_t i = 0; i < h.npins && r == 0; i++)
        r = fn(ctx, &h.pins[i], held_alone(&h, (unsigned)i + 1));
    log_free(h.log);
    free(h.objects);
    free(h.pins);
    return r;
}

/* ------------------------------------------------------------------ rollback */

static int ignore(void *ctx, const struct header *last, const struct entry *entries,
                  size_t nentries, const struct log_position *pos)
{
    (void)ctx, (void)last, (void)entries, (void)nentries, (void)pos;
    return 0;
}

/* The claim, behind the log's last whole commit: with it the volume is the snapshot's. */
static int claim(struct log *log, const struct pin *pin, struct log_position *ret)
{
    char host[64] = "unknown", who[128];
    uint8_t nonce[UUID_BYTES];
    uint64_t missing, again = 0;
    int r = random_bytes(nonce, sizeof nonce), tries = 0;

    (void)gethostname(host, sizeof host - 1);
    (void)snprintf(who, sizeof who, "a rollback on host %s, process %d", host, (int)getpid());
    if (r < 0)
        return r;
    do {
        struct instant in;
        r = instant_newest(log, PATIENCE_MS, &in);
        if (r == 0)
            r = log_replay(log, &in.pos, ignore, NULL, PATIENCE_MS, &missing);
        if (r == 0) {
            in.pos.size_blocks = pin->size_bytes / BLOCK_BYTES;
            r = log_claim_rollback(log, &in.pos, missing, nonce, who, pin->root, pin->seq,
                                   PATIENCE_MS);
        }
        if (r == 0)
            r = checkpoint_newest(log, &again, PATIENCE_MS);
        /* a newer one means that what looked missing may have been deleted */
        if (r == -ENOENT || (r == 0 && again > in.root))
            r = -EAGAIN;
        *ret = in.pos;
    } while (r == -EAGAIN && ++tries < CLAIM_TRIES);
    return r == -EAGAIN ? msg_error(-EBUSY, "%s: another machine is writing to it; unmount there",
                                    store_url(log_store(log)))
                        : r;
}

static int add_places(void *ctx, const struct places *p)
{
    return checkpoint_add(ctx, p->e, p->n);
}

/* So that an attachment need not read the old instant again, and the snapshot may go. */
static int store_root(struct scratch *s, const struct log_position *pos)
{
    struct part_list parts = {0};
    struct checkpoint *cp = NULL;
    struct index_view *view;
    struct log_position there;
    uint64_t bytes;
    int r = index_view_begin(s->index, &view, &there);

    if (r < 0)
        return r;
    r = checkpoint_new(s->log, pos, PATIENCE_MS, &cp);
    if (r == 0)
        r = index_view_each(view, 0, VOLUME_BLOCKS_MAX / CHUNK_BLOCKS, add_places, cp);
    if (r == 0)
        r = checkpoint_finish(cp, &parts, &bytes);
    checkpoint_free(cp);
    index_view_end(view);
    free(parts.parts);
    return r;
}

/* Another one of the same second has its name already. */
static int keep_present(struct log *log, char name[PIN_NAME_MAX])
{
    struct tm tm = now();
    size_t len = strftime(name, PIN_NAME_MAX, "before-rollback-%Y%m%d-%H%M%S", &tm);
    int r = create(log, name);

    for (int i = 2; r == -EEXIST && i < 100; i++) {
        (void)snprintf(name + len, PIN_NAME_MAX - len, "-%d", i);
        r = create(log, name);
    }
    return r == -EEXIST ? msg_error(r, "%s@%s: there is a snapshot of that name already",
                                    store_url(log_store(log)), name)
                        : r;
}

int snapshot_rollback(struct store *store, const char *name, char before[PIN_NAME_MAX])
{
    struct scratch *s = NULL;
    struct superblock sb;
    struct log_position pos;
    struct catchup c;
    struct pin pin;
    int r = clone_refuse_name(store, name);

    if (r == 0 && pin_is_pending(name))
        r = msg_error(-EINVAL, "%s@%s: is of a snapshot that was not finished", store_url(store),
                      name);
    if (r == 0)
        r = superblock_load(store, &sb, PATIENCE_MS);
    if (r == 0)
        r = load(store, &sb, name, &pin);
    if (r == 0)
        r = scratch_new(store, &sb, &s);
    if (r == 0) /* also to see that it can be read */
        r = catchup_to(s->log, s->index, pin.root, pin.seq, PATIENCE_MS, &c);
    if (r == -ENOENT && s)
        r = msg_error(-EIO,
                      "%s@%s: its checkpoint, or the log behind it, is missing; see `s3vol check`",
                      store_url(store), name);
    if (r == 0)
        r = keep_present(s->log, before);
    if (r == 0)
        r = claim(s->log, &pin, &pos);
    if (r == 0 && store_root(s, &pos) < 0)
        msg_warn("%s: rolled back, but no checkpoint could be stored: the next mount does it",
                 store_url(store));
    scratch_free(s);
    return r;
}

/* ------------------------------------------------------------------ delete */

struct pending {
    struct log *log;
    const struct pin *pin; /* that is to be deleted */
    bool found;
};

static int find_rollback(void *ctx, const struct header *last, const struct entry *entries,
                         size_t nentries, const struct log_position *pos)
{
    struct pending *p = ctx;

    (void)entries, (void)nentries, (void)pos;
    if (last->kind == HEADER_CLAIM && last->flags & HEADER_ROLLBACK &&
        last->rollback_root == p->pin->root && last->rollback_seq == p->pin->seq)
        p->found = true;
    return 0;
}

/* Is there a rollback to the pin between the checkpoint `root` and what `by` keeps (NULL: the log's
 * end)? */
static int look_between(struct pending *p, uint64_t root, const struct pin *by)
{
    struct log_position pos = {.next = 1};
    struct part_list parts = {0};
    struct header h = {0};
    uint64_t missing;
    int r = root ? checkpoint_parts(p->log, root, PATIENCE_MS, &h, &parts) : 0;

    free(parts.parts);
    if (r == 0 && root)
        pos = (struct log_position){.seq = root, .next = h.next, .epoch = h.epoch};
    if (r < 0 || (by && (by->seq <= pos.seq || by->epoch == pos.epoch))) /* no claim in between */
        return r;
    return by ? log_replay_to(p->log, &pos, by->seq, find_rollback, p, PATIENCE_MS)
              : log_replay(p->log, &pos, find_rollback, p, PATIENCE_MS, &missing);
}

static int look_at_pin(void *ctx, const struct pin *other)
{
    struct pending *p = ctx;

    if (strcmp(other->name, p->pin->name) == 0 || p->found)
        return 0;
    int r = look_between(p, other->root, other);
    if (r < 0)
        p->found = false; /* by what could be read of it */
    if (r == 0 && p->found)
        return msg_error(-EBUSY,
                         "%s@%s: %s was made when the volume had just been rolled back to it, and "
                         "needs it; delete that first",
                         store_url(log_store(p->log)), p->pin->name, other->name);
    if (r == -ENOENT && pin_is_pending(other->name))
        return snapshot_holds_nothing(log_store(p->log), other);
    return r == -ENOENT ? 0 : r; /* went meanwhile */
}

/* A rollback to it that no checkpoint has yet still reads it; and so does what was pinned between
 * the two. */
static int refuse_pending(struct store *store, const struct superblock *sb, const struct pin *pin)
{
    struct pending p = {.pin = pin};
    uint64_t root;
    int r = log_new(store, sb, &clock_system, &p.log);

    if (r < 0)
        return r;
    r = checkpoint_newest(p.log, &root, PATIENCE_MS);
    if (r == 0)
        r = look_between(&p, root, NULL);
    if (r == -ENOENT)
        r = msg_error(-EAGAIN, "%s: changed while it was being read; try again", store_url(store));
    if (r == 0 && p.found)
        r = msg_error(-EBUSY,
                      "%s@%s: the volume was rolled back to it, and has no checkpoint since; mount "
                      "it, and `s3vol gc` makes one",
                      store_url(store), pin->name);
    if (r == 0)
        r = pin_each(store, sb, look_at_pin, &p, PATIENCE_MS);
    log_free(p.log);
    return r;
}

static int refuse_own_clone(struct store *store, const struct pin *pin)
{
    int r = *pin->clone_url ? clone_needs_pin(store, pin) : 0;

    return r > 0 ? msg_error(-EBUSY, "%s@%s: is held by the clone %s; flatten or delete that first",
                             store_url(store), pin->name, pin->clone_url)
                 : r;
}

/* A clone's pin is deleted since there is no clone. If it came to be at this moment, it finds that
 * the pin is not there any more (volume_clone()), unless it looked just before: then it gets its
 * pin back. */
static int delete_clones(struct store *store, const struct superblock *sb, const struct pin *pin)
{
    int r = pin_delete(store, pin->name, PATIENCE_MS);

    if (r == 0)
        r = refuse_own_clone(store, pin);
    if (r == -EBUSY && pin_store(store, sb, pin, PATIENCE_MS) < 0)
        msg_error(r, "%s: snapshot/%s is lost, and with it what %s needs of it: see `s3vol check`",
                  store_url(store), pin->name, pin->clone_url);
    return r;
}

int snapshot_delete(struct store *store, const char *name)
{
    struct superblock sb;
    struct pin pin = {0};
    int r = superblock_load(store, &sb, PATIENCE_MS);

    if (r == 0)
        r = load(store, &sb, name, &pin);
    if (r == 0)
        r = refuse_own_clone(store, &pin);
    if (r == 0 && *pin.clone_url)
        return delete_clones(store, &sb, &pin);
    if (r == 0)
        r = snapshot_refuse_clones(store, &sb, name);
    if (r == 0)
        r = refuse_pending(store, &sb, &pin);
    return r == 0 ? pin_delete(store, name, PATIENCE_MS) : r;
}
