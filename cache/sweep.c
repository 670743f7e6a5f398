#include "sweep.h"

#include "../store/msg.h"
#include "../store/pin.h"
#include "../store/scope.h"
#include "tally.h"

#include <string.h>

enum { BATCH = 500, BATCHES = 64 };

struct pinned {
    char name[PIN_NAME_MAX];
    uint64_t root, seq;
};

/* What pins need of a checkpoint. It does not change, so it is read once. */
struct root {
    uint64_t seq;
    struct part_list list;
    struct index_range *needed; /* segments that its map is made of */
    size_t nneeded;
};

struct sweeper {
    struct log *log;
    struct index *index;
    struct root *roots; /* of pins, as far as they were read */
    size_t nroots, roots_room;
    bool known; /* the index has what these pins need */
    struct pinned *pins;
    size_t npins;
};

int sweeper_new(struct log *log, struct index *index, struct sweeper **ret)
{
    struct sweeper *s = calloc(1, sizeof *s);

    if (!s)
        return -ENOMEM;
    s->log = log;
    s->index = index;
    *ret = s;
    return 0;
}

static void free_root(struct root *root)
{
    free(root->list.parts);
    free(root->needed);
}

void sweeper_free(struct sweeper *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->nroots; i++)
        free_root(&s->roots[i]);
    free(s->roots);
    free(s->pins);
    free(s);
}

/* ------------------------------------------------------------------ ranges of numbers */

static int by_first(const void *a, const void *b)
{
    const struct index_range *x = a, *y = b;

    return x->first < y->first ? -1 : x->first > y->first;
}

/* Sorted, and what overlaps or touches is one. */
static size_t merge_ranges(struct index_range *ranges, size_t n)
{
    size_t kept = 0;

    qsort(ranges, n, sizeof *ranges, by_first);
    for (size_t i = 0; i < n; i++) {
        struct index_range *last = kept ? &ranges[kept - 1] : NULL;
        if (ranges[i].first > ranges[i].last) /* a pin as of its root itself */
            continue;
        if (last && ranges[i].first <= last->last + 1)
            last->last = MAX(last->last, ranges[i].last);
        else
            ranges[kept++] = ranges[i];
    }
    return kept;
}

/* Of the numbers in the tally. */
static int keep_ranges(struct tally *t, struct root *root)
{
    struct index_range *ranges = calloc(t->n + 1, sizeof *ranges), *less;

    if (!ranges)
        return -ENOMEM;
    for (size_t i = 0; i < t->n; i++)
        ranges[i] = (struct index_range){t->items[i].seq, t->items[i].seq};
    root->nneeded = merge_ranges(ranges, t->n);
    less = realloc(ranges, (root->nneeded + 1) * sizeof *ranges);
    root->needed = less ? less : ranges;
    return 0;
}

/* ------------------------------------------------------------------ pins */

struct listing {
    struct pinned *pins;
    size_t n, room;
};

static int add_pin(void *ctx, const struct pin *pin)
{
    struct listing *l = ctx;

    if (l->n == l->room) {
        size_t room = MAX(2 * l->room, (size_t)16);
        struct pinned *more = realloc(l->pins, room * sizeof *more);
        if (!more)
            return -ENOMEM;
        l->pins = more;
        l->room = room;
    }
    l->pins[l->n] = (struct pinned){.root = pin->root, .seq = pin->seq};
    memcpy(l->pins[l->n++].name, pin->name, sizeof pin->name);
    return 0;
}

static bool same_pins(const struct sweeper *s, const struct listing *l)
{
    bool same = s->known && s->npins == l->n;

    for (size_t i = 0; i < l->n && same; i++)
        same = s->pins[i].root == l->pins[i].root && s->pins[i].seq == l->pins[i].seq;
    return same;
}

static int note_segments(void *ctx, const struct entry *entries, size_t n)
{
    int r = 0;

    for (size_t i = 0; i < n && r == 0; i++)
        if (entries[i].base == 0)
            r = tally_add(ctx, (struct tally_item){.seq = entries[i].seq});
    return r;
}

/* Nobody deletes the root of a pin that was made; but of one that was never finished, or whose
 * request came late, it may be gone. To wait for that one would be for ever. */
static int without_root(struct sweeper *s, const struct pinned *pin, int64_t patience_ms)
{
    struct store *store = log_store(s->log);
    struct pin again;
    int r = pin_load(store, log_superblock(s->log), pin->name, &again, patience_ms);

    if (r == -ENOENT)
        return -EAGAIN; /* it went meanwhile */
    if (r == 0)
        msg_warn("%s@%s: its checkpoint is not there, so it cannot be used; delete it",
                 store_url(store), pin->name);
    return r;
}

/* The segments that the map of the pin's root is made of, and its parts. */
static int load_root(struct sweeper *s, const struct pinned *pin, int64_t patience_ms,
                     struct root *root)
{
    struct tally needed = {0};
    struct log_position pos;
    struct header h;
    int r = checkpoint_parts(s->log, pin->root, patience_ms, &h, &root->list);

    if (r == 0)
        r = checkpoint_load(s->log, pin->root, note_segments, &needed, patience_ms, &pos);
    if (r == -ENOENT)
        r = without_root(s, pin, patience_ms);
    if (r == 0) {
        tally_settle(&needed);
        r = keep_ranges(&needed, root);
    }
    free(needed.items);
    return r;
}

static bool has_root(const struct sweeper *s, uint64_t seq)
{
    for (size_t i = 0; i < s->nroots; i++)
        if (s->roots[i].seq == seq)
            return true;
    return false;
}

static int add_root(struct sweeper *s, const struct pinned *pin, int64_t patience_ms)
{
    struct root root = {.seq = pin->root};

    if (s->nroots == s->roots_room) {
        size_t room = MAX(2 * s->roots_room, (size_t)16);
        struct root *more = realloc(s->roots, room * sizeof *more);
        if (!more)
            return -ENOMEM;
        s->roots = more;
        s->roots_room = room;
    }
    int r = load_root(s, pin, patience_ms, &root);
    if (r < 0)
        free_root(&root);
    else
        s->roots[s->nroots++] = root;
    return r;
}

static bool is_pinned(const struct listing *l, uint64_t root)
{
    for (size_t i = 0; i < l->n; i++)
        if (l->pins[i].root == root)
            return true;
    return false;
}

static void forget_roots(struct sweeper *s, const struct listing *l)
{
    size_t n = 0;

    for (size_t i = 0; i < s->nroots; i++)
        if (is_pinned(l, s->roots[i].seq))
            s->roots[n++] = s->roots[i];
        else
            free_root(&s->roots[i]);
    s->nroots = n;
}

static int store_ranges(struct sweeper *s, const struct listing *l)
{
    size_t n = l->n;

    for (size_t i = 0; i < s->nroots; i++)
        n += s->roots[i].nneeded;
    scope_free struct index_range *ranges = calloc(n + 1, sizeof *ranges);
    if (!ranges)
        return -ENOMEM;
    n = 0;
    for (size_t i = 0; i < s->nroots; i++)
        for (size_t k = 0; k < s->roots[i].nneeded; k++)
            ranges[n++] = s->roots[i].needed[k];
    for (size_t i = 0; i < l->n; i++) /* and the log after the root */
        ranges[n++] = (struct index_range){l->pins[i].root + 1, l->pins[i].seq};
    return index_pin_segments(s->index, ranges, merge_ranges(ranges, n));
}

/* What fails is gone on with by the next call. */
static int learn_pins(struct sweeper *s, struct listing *l, int64_t patience_ms)
{
    int r = 0;

    s->known = false;
    forget_roots(s, l);
    for (size_t i = 0; i < l->n && r == 0; i++)
        if (l->pins[i].root && !has_root(s, l->pins[i].root))
            r = add_root(s, &l->pins[i], patience_ms);
    if (r == 0)
        r = store_ranges(s, l);
    if (r < 0)
        return r;
    free(s->pins);
    s->pins = take(l->pins);
    s->npins = l->n;
    s->known = true;
    return 0;
}

/* The index knows what the pins need that there are now. */
static int take_pins(struct sweeper *s, int64_t patience_ms)
{
    struct listing l = {0};
    int r = pin_each(log_store(s->log), log_superblock(s->log), add_pin, &l, patience_ms);

    if (r == 0 && !same_pins(s, &l))
        r = learn_pins(s, &l, patience_ms);
    free(l.pins);
    return r;
}

/* ------------------------------------------------------------------ deleting */

static int clean_checkpoints(struct sweeper *s, const struct sweep *what, int64_t patience_ms)
{
    size_t nlists = what->nlists + s->nroots;
    scope_free struct part_list *lists = calloc(nlists + 1, sizeof *lists);
    scope_free uint64_t *roots = calloc(s->nroots + 1, sizeof *roots);

    if (!lists || !roots)
        return -ENOMEM;
    memcpy(lists, what->lists, what->nlists * sizeof *lists);
    for (size_t i = 0; i < s->nroots; i++) {
        lists[what->nlists + i] = s->roots[i].list;
        roots[i] = s->roots[i].seq;
    }
    return checkpoint_clean(s->log, what->keep_root, roots, s->nroots, lists, nlists, patience_ms);
}

static int delete_segments(struct sweeper *s, const struct index_segment *dead, size_t n,
                           int64_t patience_ms)
{
    static const size_t key_bytes = STORE_KEY_MAX;
    scope_free char *text = malloc(BATCH * key_bytes);
    scope_free const char **keys = calloc(BATCH, sizeof *keys);
    scope_free uint64_t *seqs = calloc(BATCH, sizeof *seqs);

    if (!text || !keys || !seqs)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        log_key(dead[i].seq, text + i * key_bytes);
        keys[i] = text + i * key_bytes;
        seqs[i] = dead[i].seq;
    }
    int r = store_delete(log_store(s->log), keys, n, patience_ms);
    return r == 0 ? index_forget_segments(s->index, seqs, n) : r;
}

static int clean_segments(struct sweeper *s, uint64_t dead_seq, int64_t patience_ms, bool *ret_more)
{
    scope_free struct index_segment *dead = calloc(BATCH, sizeof *dead);
    size_t n = BATCH;
    int r = dead ? 0 : -ENOMEM;

    for (unsigned i = 0; i < BATCHES && n == BATCH && r == 0; i++) {
        r = index_dead(s->index, dead_seq, 0, dead, BATCH, &n);
        if (r == 0 && n > 0)
            r = delete_segments(s, dead, n, patience_ms);
    }
    *ret_more = n == BATCH;
    return r;
}

int sweep(struct sweeper *s, const struct sweep *what, int64_t patience_ms, bool *ret_more)
{
    *ret_more = false;
    int r = take_pins(s, patience_ms);
    if (r == 0)
        r = log_still_ours(s->log, patience_ms);
    if (r == 0 && what->keep_root)
        r = clean_checkpoints(s, what, patience_ms);
    if (r == 0)
        r = clean_segments(s, what->dead_seq, patience_ms, ret_more);
    return r;
}

/* ------------------------------------------------------------------ inventory */

struct inventory {
    struct log *log;
    struct index *index;
    uint64_t first_own, seq; /* the map is as of this number */
    int64_t patience_ms;
    struct index_found *found;
    size_t n, room;
};

static int add_found(struct inventory *inv, struct index_found found)
{
    if (inv->n == inv->room) {
        size_t room = MAX(2 * inv->room, (size_t)1024);
        struct index_found *more = realloc(inv->found, room * sizeof *more);
        if (!more)
            return -ENOMEM;
        inv->found = more;
        inv->room = room;
    }
    inv->found[inv->n++] = found;
    return 0;
}

static int add_object(void *ctx, const char *key, uint64_t size_bytes)
{
    struct inventory *inv = ctx;
    uint64_t seq;

    return log_parse_key(key, &seq) ? add_found(inv, (struct index_found){seq, size_bytes, 0}) : 0;
}

/* Claims are for ever, and only they know that they are. What cannot be read stays. */
static bool may_go(struct inventory *inv, const struct index_found *f)
{
    scope_free struct entry *entries = NULL;
    struct header h;

    if (f->seq > inv->seq && f->seq >= inv->first_own)
        return false; /* of a commit that is not indexed yet */
    return f->stored_bytes > HEADER_BYTES + LOG_WHO_BYTES_MAX ||
           (log_read(inv->log, f->seq, &h, &entries, inv->patience_ms) == 0 &&
            h.kind == HEADER_SEGMENT);
}

/* Each object is one that the map needs: its size; or one that may go some day; or none of our
 * business. */
static int sort_out(struct inventory *inv)
{
    size_t n = 0;

    for (size_t i = 0; i < inv->n; i++) {
        struct index_found *f = &inv->found[i];
        bool known;
        int r = index_knows_segment(inv->index, f->seq, &known);
        if (r < 0)
            return r;
        if (!known && !may_go(inv, f))
            continue;
        f->dead_seq = known ? 0 : MAX(f->seq, inv->seq);
        inv->found[n++] = *f;
    }
    inv->n = n;
    return 0;
}

int sweep_inventory(struct log *log, struct index *index, uint64_t first_own, int64_t patience_ms)
{
    struct inventory inv = {
        .log = log, .index = index, .first_own = first_own, .patience_ms = patience_ms};
    struct index_meta meta;
    int r;

    index_get_meta(index, &meta); /* before the listing: what comes later is not garbage */
    inv.seq = meta.pos.seq;
    r = store_list(log_store(log), "log/", "", add_object, &inv, patience_ms);
    if (r == 0)
        r = sort_out(&inv);
    if (r == 0)
        r = index_inventory(index, inv.found, inv.n);
    free(inv.found);
    return r;
}
