/*
 * volume_check(): every object of the volume is read and every checksum in it compared; then every
 * place in the map must be in an object that is there. A line for each thing that is wrong: which
 * object, what is the matter, which blocks.
 */
#include "check_internal.h"
#include "offline.h"

#include "../store/msg.h"
#include "../store/scope.h"
#include "catchup.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

static void print_wrong(struct check *c, const char *text)
{
    (void)fprintf(c->report, "%s\n", text);
    c->errors++;
}

static void hold_back(struct check *c, char *text)
{
    if (c->nheld == c->held_room) {
        size_t room = MAX(2 * c->held_room, (size_t)64);
        struct held_line *more = realloc(c->held, room * sizeof *more);
        c->no_memory = c->no_memory || !more;
        if (!more) {
            free(text);
            return;
        }
        c->held = more;
        c->held_room = room;
    }
    c->held[c->nheld++] = (struct held_line){c->held_at, text};
}

void check_wrong(struct check *c, const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;

    va_start(ap, fmt);
    if (vasprintf(&text, fmt, ap) < 0)
        text = NULL;
    va_end(ap);
    if (text && c->held_at) {
        hold_back(c, text);
        return;
    }
    c->no_memory = c->no_memory || !text;
    if (text)
        print_wrong(c, text);
    free(text);
}

void check_print_held(struct check *c)
{
    for (size_t i = 0; i < c->nheld; i++) {
        print_wrong(c, c->held[i].text);
        free(c->held[i].text);
    }
    c->nheld = 0;
}

void check_drop_held(struct check *c, uint64_t after)
{
    while (c->nheld > 0 && c->held[c->nheld - 1].seq > after)
        free(c->held[--c->nheld].text);
}

void check_wrong_blocks(struct check *c, unsigned base, uint64_t seq, const char *why,
                        uint64_t block, uint64_t end, const char *note)
{
    check_wrong(c, "%s%slog/%016" PRIx64 ": %s: blocks %" PRIu64 " to %" PRIu64 "%s",
                base ? c->sb.bases[base - 1].url : "", base ? ": " : "", seq, why, block, end - 1,
                note);
}

/* ------------------------------------------------------------------ what there is */

static int add_seq(void *ctx, const char *key, uint64_t size_bytes)
{
    struct check *c = ctx;
    uint64_t seq;

    (void)size_bytes;
    if (!log_parse_key(key, &seq))
        return 0;
    if (c->nseqs == c->seqs_room) {
        size_t room = MAX(2 * c->seqs_room, (size_t)1024);
        uint64_t *more = realloc(c->seqs, room * sizeof *more);
        if (!more)
            return -ENOMEM;
        c->seqs = more;
        c->seqs_room = room;
    }
    c->seqs[c->nseqs++] = seq;
    return 0;
}

bool check_is_there(const struct check *c, uint64_t seq)
{
    size_t low = 0, high = c->nseqs;

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (c->seqs[mid] < seq)
            low = mid + 1;
        else
            high = mid;
    }
    return low < c->nseqs && c->seqs[low] == seq;
}

/* The first bad object whose number is not less. */
static size_t bad_at(const struct check *c, unsigned base, uint64_t seq)
{
    size_t low = 0, high = c->nbad;

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        const struct bad_object *bad = &c->bad[mid];
        if (bad->base < base || (bad->base == base && bad->seq < seq))
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

struct bad_object *check_find_bad(const struct check *c, unsigned base, uint64_t seq)
{
    size_t at = bad_at(c, base, seq);

    return at < c->nbad && c->bad[at].base == base && c->bad[at].seq == seq ? &c->bad[at] : NULL;
}

int check_note_frame(struct check *c, unsigned base, const struct entry *e, bool told)
{
    struct bad_frame *more = realloc(c->frames_bad, (c->nframes + 1) * sizeof *more);

    if (!more)
        return -ENOMEM;
    c->frames_bad = more;
    c->frames_bad[c->nframes++] = (struct bad_frame){base, e->seq, e->offset, *e, told};
    return 0;
}

struct bad_object *check_note_bad(struct check *c, unsigned base, uint64_t seq, const char *why)
{
    struct bad_object *bad = check_find_bad(c, base, seq);
    size_t at = bad_at(c, base, seq);

    if (bad)
        return bad;
    if (c->nbad == c->bad_room) {
        size_t room = MAX(2 * c->bad_room, (size_t)64);
        struct bad_object *more = realloc(c->bad, room * sizeof *more);
        if (!more)
            return NULL;
        c->bad = more;
        c->bad_room = room;
    }
    bad = &c->bad[at];
    memmove(bad + 1, bad, (c->nbad - at) * sizeof *bad);
    c->nbad++;
    *bad = (struct bad_object){.base = base, .seq = seq, .why = why};
    return bad;
}

/* ------------------------------------------------------------------ the map */

/* As an attachment makes it. If its checkpoint cannot be read, the log may still have everything.
 * What was read until something failed is in the map. */
static int make_map(struct check *c)
{
    struct index *ix = c->scratch->index;
    struct index_meta meta;
    struct catchup up = {0};
    int r = -ENOENT;

    for (int tries = 0; r == -ENOENT && tries < 3; tries++) /* something was deleted meanwhile */
        r = catchup(c->scratch->log, ix, false, CHECK_PATIENCE_MS, &up);
    c->checkpoint = up.checkpoint;
    c->whole = r == 0;
    if (r < 0 && !check_is_damage(r) && r != -ENOENT)
        return r;
    index_get_meta(ix, &meta);
    if (r < 0)
        check_wrong(c, "the map cannot be read to the log's end: it cannot be mounted as it is");
    if (r < 0 && meta.pos.seq == 0 && c->checkpoint > 0)
        (void)catchup_from_start(c->scratch->log, ix, CHECK_PATIENCE_MS);
    index_get_meta(ix, &meta);
    c->map = meta.pos;
    return 0;
}

static int check_all(struct check *c)
{
    int r = scratch_new(c->store, &c->sb, &c->scratch);

    if (r == 0)
        r = make_map(c);
    /* after the map: somebody may be writing, and all that it names must be in the list */
    if (r == 0)
        r = store_list(c->store, "log/", "", add_seq, c, CHECK_PATIENCE_MS);
    if (r == 0)
        r = check_load_pins(c);
    if (r == 0)
        r = check_checkpoints(c);
    if (r == 0)
        r = check_find_needs(c);
    if (r == 0)
        r = check_log(c);
    if (r == 0)
        r = check_bases(c);
    if (r == 0)
        r = check_map(c);
    if (r == 0)
        r = check_tell_pins(c);
    if (r == 0)
        check_tell_rest(c);
    return r == 0 && c->no_memory ? -ENOMEM : r;
}

/* ------------------------------------------------------------------ the superblock */

/* 1: there is none, but there are objects of a volume. */
static int look_for_superblock(struct check *c)
{
    char head[1];
    size_t len;
    int r = store_get_head(c->store, "volume", head, sizeof head, &len, NULL, CHECK_PATIENCE_MS);

    if (r != -ENOENT)
        return MIN(r, 0);
    r = store_list(c->store, "log/", "", add_seq, c, CHECK_PATIENCE_MS);
    return r < 0 ? r : c->nseqs > 0;
}

static int check_superblock(struct check *c, bool *ret_good)
{
    int r = look_for_superblock(c);

    *ret_good = false;
    if (r > 0)
        check_wrong(c, "volume: the superblock is missing, of a volume with %zu objects in its log",
                    c->nseqs);
    if (r != 0)
        return MIN(r, 0);
    r = superblock_load(c->store, &c->sb, CHECK_PATIENCE_MS);
    if (r == -EBADMSG || r == -EPROTONOSUPPORT) {
        check_wrong(c, "volume: the superblock is damaged");
        return 0;
    }
    *ret_good = r == 0;
    return r;
}

/* Errors while somebody reclaims space may be none: what was missing may have been let go. */
static int check_again(struct check *c)
{
    uint64_t newest;
    int r = checkpoint_newest(c->scratch->log, &newest, CHECK_PATIENCE_MS);

    if (r < 0 || newest <= c->checkpoint)
        return r;
    return msg_error(-EAGAIN,
                     "%s: space was reclaimed while it was being checked; check it again, or "
                     "unmount it first",
                     store_url(c->store));
}

int volume_check(struct store *store, FILE *report, uint64_t *ret_errors)
{
    struct check c = {.store = store, .report = report};
    bool good;
    int r = check_superblock(&c, &good);

    if (r == 0 && good) {
        r = check_all(&c);
        if (r == 0 && c.errors > 0)
            r = check_again(&c);
        if (r == 0 && c.objects > 0 && c.strangers == c.objects)
            check_wrong(&c, "volume: the superblock is of another volume than everything else");
        if (r == 0)
            (void)fprintf(report,
                          "%" PRIu64 " objects of the log (%" PRIu64 " left over), %" PRIu64
                          " frames: %" PRIu64 " errors\n",
                          c.objects, c.left_over, c.frames, c.errors);
    }
    if (r == 0)
        *ret_errors = c.errors;
    scratch_free(c.scratch);
    free(c.seqs);
    free(c.bad);
    check_free_pins(&c);
    check_drop_held(&c, 0);
    free(c.held);
    return r;
}
