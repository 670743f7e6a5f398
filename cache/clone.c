/* Clones: a pin in each base, and then the superblock of the new volume. */
#include "snapshot.h"

#include "../store/msg.h"
#include "../store/scope.h"
#include "../store/url.h"
#include "bases.h"
#include "instant.h"

#include <string.h>

enum { PATIENCE_MS = 30000 };

/* ------------------------------------------------------------------ who depends on it */

/* One that cannot be read counts as there. */
int clone_needs_pin(struct store *store, const struct pin *pin)
{
    char text[NOTE_BYTES_MAX];
    struct store *clone;
    struct superblock sb;
    const char *why;
    size_t len;
    int r = store_open_beside(store, pin->clone_url, &clone);

    if (r < 0)
        return r;
    r = store_get_head(clone, "volume", text, sizeof text, &len, NULL, PATIENCE_MS);
    if (r == 0 && superblock_decode(text, len, &sb, &why) < 0)
        r = 1;
    else if (r == 0 && memcmp(sb.uuid, pin->clone_uuid, UUID_BYTES) == 0)
        r = superblock_load_any(clone, &sb, PATIENCE_MS) < 0 ? 1 : !sb.flattened;
    store_free(clone);
    return r == -ENOENT ? 0 : r;
}

struct dependents {
    struct store *store;
    const char *of;
    char names[700];
    unsigned n;
};

static int add_dependent(void *ctx, const struct pin *pin)
{
    struct dependents *d = ctx;

    if (!pin->clone_url[0] || (d->of && strcmp(pin->of, d->of) != 0))
        return 0;
    int r = clone_needs_pin(d->store, pin);
    size_t len = strlen(d->names);
    if (r > 0 &&
        format(d->names + len, sizeof d->names - len, "%s%s", d->n ? ", " : "", pin->clone_url) < 0)
        (void)snprintf(d->names + MIN(len, sizeof d->names - 6), 6, ", ...");
    d->n += r > 0;
    return MIN(r, 0);
}

int snapshot_refuse_clones(struct store *store, const struct superblock *sb, const char *of)
{
    struct dependents d = {.store = store, .of = of};
    int r = pin_each(store, sb, add_dependent, &d, PATIENCE_MS);

    if (r < 0 || d.n == 0)
        return r;
    return msg_error(-EBUSY, "%s%s%s: clones depend on it: %s; flatten or delete them first",
                     store_url(store), of ? "@" : "", of ? of : "", d.names);
}

int clone_unpin(struct store *store, const struct superblock *sb)
{
    char name[PIN_NAME_MAX];
    int r = 0;

    bases_pin_name(sb->uuid, name);
    for (unsigned i = 0; i < sb->nbases; i++) {
        struct store *base;
        int one = store_open_beside(store, sb->bases[i].url, &base);
        if (one == 0) {
            one = pin_delete(base, name, PATIENCE_MS);
            store_free(base);
        }
        r = r < 0 ? r : one;
    }
    return r;
}

int clone_refuse_name(struct store *store, const char *name)
{
    return strncmp(name, "clone-", 6) != 0
               ? 0
               : msg_error(-EINVAL, "%s@%s: only its clone can use it", store_url(store), name);
}

/* ------------------------------------------------------------------ making one */

struct cloning {
    struct store *from;
    struct superblock sb, of; /* of the clone; of what it is made from */
    struct pin pin;           /* as the clone's bases have it */
};

/* A copy of an existing pin: that one must still be there afterwards, else what it kept may have
 * been deleted before ours was seen. */
static int copy_pin(struct cloning *c, struct store *store, const struct superblock *sb,
                    const char *name, const char *of, bool *ret_there)
{
    struct pin pin, again;
    int r = pin_load(store, sb, name, &pin, PATIENCE_MS);

    *ret_there = r == 0;
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    memcpy(pin.name, c->pin.name, sizeof pin.name);
    memcpy(pin.created, c->pin.created, sizeof pin.created);
    memcpy(pin.clone_url, c->pin.clone_url, sizeof pin.clone_url);
    memcpy(pin.clone_uuid, c->pin.clone_uuid, UUID_BYTES);
    (void)snprintf(pin.of, sizeof pin.of, "%s", of);
    r = pin_store(store, sb, &pin, PATIENCE_MS);
    if (r == 0)
        r = pin_load(store, sb, name, &again, PATIENCE_MS);
    c->pin = pin;
    return r;
}

/* Each try has a name of its own, so that no request of one before can hurt when it comes late. */
static int name_clone(struct cloning *c)
{
    int r = superblock_name(&c->sb, &clock_system);

    bases_pin_name(c->sb.uuid, c->pin.name);
    memcpy(c->pin.created, c->sb.created, sizeof c->pin.created);
    memcpy(c->pin.clone_uuid, c->sb.uuid, UUID_BYTES);
    return r;
}

static int pin_present(struct cloning *c)
{
    struct log *log;
    int r = log_new(c->from, &c->of, &clock_system, &log), tries = 0;

    if (r < 0)
        return r;
    while ((r = instant_pin_tentative(log, &c->pin, PATIENCE_MS)) == -EAGAIN &&
           ++tries < INSTANT_TRIES) {
        r = name_clone(c);
        if (r < 0)
            break;
    }
    if (r == -EAGAIN)
        r = instant_no_end(log);
    log_free(log);
    return r;
}

static int pin_source(struct cloning *c, const char *name)
{
    struct base *base = &c->sb.bases[0];
    bool there = true;
    int r = format(base->url, sizeof base->url, "%s", store_url(c->from));

    if (r < 0)
        return r;
    if (pin_is_pending(name))
        return msg_error(-EINVAL, "%s@%s: is of a snapshot that was not finished",
                         store_url(c->from), name);
    if (*name) {
        r = copy_pin(c, c->from, &c->of, name, name, &there);
        if (r == -ENOENT || (r == 0 && !there))
            return msg_error(-ENOENT, "%s@%s: there is no such snapshot", store_url(c->from), name);
    } else {
        r = pin_present(c);
    }
    if (r < 0)
        return r;
    c->sb.size_bytes = c->pin.size_bytes;
    memcpy(base->uuid, c->of.uuid, UUID_BYTES);
    base->root = c->pin.root;
    base->seq = c->pin.seq;
    return 0;
}

static int pin_bases(struct cloning *c)
{
    char name[PIN_NAME_MAX];
    int r = 0;

    bases_pin_name(c->of.uuid, name);
    for (unsigned i = 0; i + 1 < c->sb.nbases && r == 0; i++) {
        struct superblock there = {.conditional_put = c->of.conditional_put};
        struct store *base;
        bool found;
        c->sb.bases[i + 1] = c->of.bases[i];
        memcpy(there.uuid, c->of.bases[i].uuid, UUID_BYTES);
        r = store_open_beside(c->from, c->of.bases[i].url, &base);
        if (r < 0)
            return r;
        r = copy_pin(c, base, &there, name, "", &found);
        store_free(base);
        if (r == 0 && !found)
            r = -ENOENT;
    }
    if (r == -ENOENT) /* or it was flattened at this moment */
        return msg_error(-EAGAIN,
                         "%s: its snapshot/%s is not there, in what it is a clone of; try again, "
                         "and see `s3vol check`",
                         store_url(c->from), name);
    return r;
}

/* Who took the clone for one that never came to be may have deleted a pin before the superblock was
 * there. */
static int check_pins(struct cloning *c)
{
    int r = 0;

    for (unsigned i = 0; i < c->sb.nbases && r == 0; i++) {
        struct superblock there = {0};
        struct store *base;
        struct pin pin;
        memcpy(there.uuid, c->sb.bases[i].uuid, UUID_BYTES);
        r = store_open_beside(c->from, c->sb.bases[i].url, &base);
        if (r < 0)
            return r;
        r = pin_load(base, &there, c->pin.name, &pin, PATIENCE_MS);
        store_free(base);
    }
    return r;
}

/* Bases whose URL is not known yet have nothing of ours. */
static void unpin_what_was(struct cloning *c)
{
    while (c->sb.nbases > 0 && !c->sb.bases[c->sb.nbases - 1].url[0])
        c->sb.nbases--;
    (void)clone_unpin(c->from, &c->sb);
}

/* Whether what the one store can do, the other can. */
static bool alike(const char *a, const char *b)
{
    size_t len = strncmp(a, "s3://", 5) == 0 ? 5 + strcspn(a + 5, "/") : 0;

    return len ? strncmp(a, b, len) == 0 && (b[len] == '/' || !b[len]) : a[0] == '/' && b[0] == '/';
}

/* The superblock, once all that it needs is pinned. */
static int make(struct cloning *c, struct store *to, bool *ret_stored)
{
    bool probe = !alike(store_url(c->from), store_url(to));
    int r = superblock_store(to, &c->sb, probe, PATIENCE_MS);

    *ret_stored = r != -EEXIST; /* with any other error it may have been */
    if (r == 0)
        r = check_pins(c);
    if (r != -ENOENT)
        return r;
    r = store_delete(to, (const char *const[]){"volume"}, 1, PATIENCE_MS);
    *ret_stored = r < 0;
    return msg_error(-EAGAIN, "%s: somebody deleted its snapshot/%s at this moment; try again",
                     store_url(to), c->pin.name);
}

static int prepare(struct cloning *c, struct store *to)
{
    unsigned inherited;
    int r = superblock_load(c->from, &c->of, PATIENCE_MS);

    if (r < 0)
        return r;
    inherited = superblock_needed_bases(&c->of);
    if (inherited == BASES_MAX)
        return msg_error(-EMLINK,
                         "%s: is a clone of a clone, %d deep, and no clone can be deeper; flatten "
                         "it first",
                         store_url(c->from), BASES_MAX);
    r = superblock_expect_none(to, PATIENCE_MS);
    c->sb.compress = c->of.compress;
    c->sb.conditional_put = c->of.conditional_put;
    c->sb.nbases = inherited + 1;
    if (r == 0)
        r = format(c->pin.clone_url, sizeof c->pin.clone_url, "%s", store_url(to));
    return r == 0 ? name_clone(c) : r;
}

static int make_clone(struct store *store, const char *name, struct store *to, bool unfinished)
{
    struct cloning c = {.from = store, .sb.unfinished = unfinished};
    bool stored = false;
    int r = clone_refuse_name(store, name);

    if (r == 0)
        r = prepare(&c, to);
    if (r < 0)
        return r;
    r = pin_source(&c, name);
    if (r == 0)
        r = pin_bases(&c);
    if (r == 0)
        r = make(&c, to, &stored);
    if (r < 0 && !stored) { /* never to be */
        unpin_what_was(&c);
    } else if (r < 0) {
        msg_warn("%s: if it did not come to be, `s3vol snapshot delete %s@%s` gives back what it "
                 "holds there",
                 store_url(to), store_url(store), c.pin.name);
    }
    return r;
}

int volume_clone(struct store *store, const char *name, struct store *to)
{
    return make_clone(store, name, to, false);
}

int volume_clone_unfinished(struct store *store, struct store *to)
{
    return make_clone(store, "", to, true);
}
