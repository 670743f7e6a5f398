#include "lineage.h"
#include "bucket.h"
#include "disk.h"
#include "look.h"
#include "sched.h"
#include "watch.h"

#include "../../cache/snapshot.h"
#include "../../store/bytes.h"
#include "../../store/scope.h"

#include <inttypes.h>
#include <string.h>

enum { ERRANDS = 12 };
#define SECOND INT64_C(1000000)
#define DAY    (86400 * SECOND)

/* A pin that is, or was, in the bucket. */
struct kept {
    struct kept *next;
    struct sim_volume *volume;
    char name[PIN_NAME_MAX], of[PIN_NAME_MAX];
    uint64_t root, seq;
    bool good, gone;
    struct era *newest; /* when it was stored */
    const struct errand *by;
    bool blurred;
    uint32_t *content; /* NULL: nobody has looked yet */
    uint32_t sectors;
};

enum errand_kind { SNAPSHOT, ONLINE, ROLLBACK, DELETE, CLONE };
static const char *const kind_names[] = {"snapshot", "snapshot online", "rollback", "delete",
                                         "clone"};

struct errand {
    struct errand *next;
    enum errand_kind kind;
    struct sim_volume *volume;
    int machine;
    char name[PIN_NAME_MAX], before[PIN_NAME_MAX];
    struct kept *target; /* of a rollback, a deletion, a clone of a snapshot; NULL: none */
    struct era_mark *mark;
    bool blurred, over;
    unsigned lives_before;  /* so many were over when it began */
    unsigned requests_left; /* until it stops, perhaps to be killed; 0: it does not */
    bool dying, stopped;
    bool held; /* a deletion: a clone was made from it */
    int result;
    bool took_effect; /* a rollback: its claim is stored; a clone: its superblock is */
};

/* The instant before a rollback, until somebody has looked at it. */
struct fence {
    struct sim_volume *volume;
    struct era *era;
    uint64_t root, seq;
    bool pending;
};

static struct {
    struct host *hosts;
    int nhosts;
    struct kept *kept;
    struct errand *all;
    struct errand *running; /* not the online ones */
    struct kept *clone_of;  /* the pin of the clone that is there */
    struct fence fence;
    struct kept *rolled_back_to; /* a moment ago */
    unsigned errands, names;
    bool settled; /* nobody dies any more */
} lineage;

/* ------------------------------------------------------------------ looking */

static struct kept *find_kept(const struct sim_volume *v, const char *name)
{
    struct kept *k = lineage.kept;

    while (k && (k->volume != v || k->gone || strcmp(k->name, name) != 0))
        k = k->next;
    return k;
}

static void look_first(struct kept *k, uint32_t *found, uint32_t sectors)
{
    char why[256];

    k->content = found;
    k->sectors = sectors;
    counts_add(COUNT_LOOKS);
    if (k->blurred || k->by->blurred)
        counts_add(COUNT_BLURRED);
    else if (k->of[0] && strcmp(k->of, k->by->target->name) != 0)
        sim_fail("snapshot/%s is of %s, and not of %s", k->name, k->of, k->by->target->name);
    else if (k->of[0] && memcmp(found, k->by->target->content, SECTORS_MAX * sizeof *found) != 0)
        sim_fail("snapshot/%s is not what snapshot/%s is", k->name, k->of);
    else if (!k->of[0] && !era_since(k->newest, k->by->mark, found, sectors, why))
        sim_fail("snapshot/%s of volume %d was never the volume, or is too old: %s", k->name,
                 sim_number(k->volume), why);
}

/* What it holds, and that it is what it was. */
static void look_at(struct kept *k)
{
    uint32_t *found = malloc(SECTORS_MAX * sizeof *found), sectors = 0;
    int r;

    if (!k->good || k->gone)
        return free(found);
    r = look(sim_number(k->volume), k->root, k->seq, found, &sectors);
    if (k->gone) /* meanwhile */
        return free(found);
    if (r < 0)
        sim_fail("snapshot/%s of volume %d cannot be read: %s", k->name, sim_number(k->volume),
                 strerror(-r));
    if (!k->content)
        return look_first(k, found, sectors);
    counts_add(COUNT_AGAIN);
    if (sectors != k->sectors || memcmp(found, k->content, SECTORS_MAX * sizeof *found) != 0)
        sim_fail("snapshot/%s of volume %d is another one now", k->name, sim_number(k->volume));
    free(found);
}

void lineage_look(void)
{
    for (struct kept *k = lineage.kept; k; k = k->next)
        look_at(k);
}

/* Whoever wrote before the rollback was told of no flush that is not in what was before. */
static void look_at_fence(void)
{
    uint32_t *found = malloc(SECTORS_MAX * sizeof *found), sectors = 0;
    struct fence f = lineage.fence;
    char why[256];

    lineage.fence.pending = false;
    if (f.pending && look(sim_number(f.volume), f.root, f.seq, found, &sectors) == 0) {
        counts_add(COUNT_FENCES);
        if (!era_instant(f.era, found, sectors, FLOOR_BUCKET, true, why))
            sim_fail("what was there before the rollback is not what was acknowledged: %s", why);
    } /* else some of it is deleted already */
    free(found);
}

/* ------------------------------------------------------------------ what happens in the bucket */

static bool is_blurred(const struct sim_volume *v)
{
    for (int i = 0; i < lineage.nhosts; i++)
        if (lineage.hosts[i].volume == v && life_unknown(&lineage.hosts[i]))
            return true;
    return false;
}

void lineage_blur(const struct sim_volume *v)
{
    for (struct errand *e = lineage.all; e; e = e->next)
        e->blurred = e->blurred || e->volume == v;
}

/* That of this machine; of several snapshots made online, the one of this name. */
static struct errand *errand_of(int machine, const char *name)
{
    struct errand *e = lineage.all;

    while (e && (e->machine != machine || (e->kind == ONLINE && strcmp(e->name, name) != 0)))
        e = e->next;
    return e;
}

static void note_pin(struct sim_volume *v, int machine, const char *name, const char *text)
{
    struct kept *k = NULL, **last = &lineage.kept;
    struct errand *e = errand_of(machine, name);

    if (pin_is_pending(name)) /* the bucket is watched for what it needs; no more is promised */
        return;
    k = calloc(1, sizeof *k);
    *k = (struct kept){.volume = v,
                       .root = watch_json_number(text, "root"),
                       .seq = watch_json_number(text, "seq"),
                       .good = watch_pin_is_good(sim_number(v), name),
                       .newest = v->newest,
                       .blurred = is_blurred(v),
                       .by = e};
    (void)snprintf(k->name, sizeof k->name, "%s", name);
    watch_json_text(text, "of", k->of, sizeof k->of);
    if (!e || e->volume != v)
        sim_fail("snapshot/%s: nobody makes one here", name);
    if (!k->good)
        counts_add(COUNT_BAD_PINS);
    while (*last)
        last = &(*last)->next;
    *last = k;
}

static uint64_t newest_root(int volume, uint64_t upto)
{
    const struct object *end = objects_end(volume);
    uint64_t root = 0;

    for (const struct object *o = objects_from(volume, "map/"); o < end; o++)
        if (objects_number(o, "map/") <= upto)
            root = MAX(root, objects_number(o, "map/"));
    return root;
}

/* From this moment on the volume is the snapshot: unless the claim came so late that what it was to
 * be in place of is deleted, and a checkpoint later than it is what everybody begins from. */
static void note_rollback(struct sim_volume *v, int machine, uint64_t seq, const uint8_t *claim)
{
    struct errand *e = errand_of(machine, "");
    uint64_t first = get_le64(claim + 72);

    if (!e || e->kind != ROLLBACK || e->volume != v)
        sim_fail("machine %d claims volume %d, to roll it back", machine, sim_number(v));
    if (get_le64(claim + 128) != e->target->root || get_le64(claim + 136) != e->target->seq)
        sim_fail("a rollback to another instant than that of snapshot/%s", e->target->name);
    if (seq <= newest_root(sim_number(v), UINT64_MAX))
        return;
    e->took_effect = true;
    if (e->over || sched_dead(machine))
        counts_add(COUNT_LATE);
    run_say("volume %d is rolled back to %s", sim_number(v), e->target->name);
    era_fence(v->newest);
    lineage.fence = (struct fence){.volume = v,
                                   .era = v->newest,
                                   .root = newest_root(sim_number(v), first),
                                   .seq = first,
                                   .pending = !is_blurred(v)};
    v->newest =
        era_new(v->newest, -1, get_le64(claim + 48), e->target->content, e->target->sectors);
    v->newest->sure = true;
}

static void note_clone(int machine, const char *text)
{
    char uuid[64], name[PIN_NAME_MAX];
    struct errand *e = errand_of(machine, "");

    watch_json_text(text, "uuid", uuid, sizeof uuid);
    (void)snprintf(name, sizeof name, "clone-%s", uuid);
    lineage.clone_of = find_kept(&sim_volumes[THE_VOLUME], name);
    if (!e || e->kind != CLONE || !lineage.clone_of || lineage.clone_of->by != e)
        sim_fail("a clone is stored that nobody makes, or without its pin");
    e->took_effect = true;
    if (e->over || sched_dead(machine))
        counts_add(COUNT_LATE);
}

/* What it came for is there, in part: now is the time to die. */
static void tempt(int machine, bool decisive)
{
    struct errand *e = lineage.running;

    if (e && e->machine == machine && !lineage.settled && sim_chance(1, decisive ? 3 : 16))
        e->requests_left = 1 + (unsigned)sim_below(4);
}

static void on_change(int volume, int machine, const char *key, const uint8_t *data)
{
    struct sim_volume *v = &sim_volumes[volume];

    tempt(machine, key[0] == 'l' || key[0] == 'v'); /* a claim, or a superblock */

    if (strncmp(key, "snapshot/", 9) == 0 && data) {
        note_pin(v, machine, key + 9, (const char *)data);
    } else if (strncmp(key, "snapshot/", 9) == 0) {
        struct kept *k = find_kept(v, key + 9);
        if (k)
            k->gone = true;
    } else if (strncmp(key, "log/", 4) == 0 && data && get_le16(data + 10) == HEADER_CLAIM &&
               get_le32(data + 12) & HEADER_ROLLBACK) {
        note_rollback(v, machine, strtoull(key + 4, NULL, 16), data);
    } else if (volume == THE_CLONE && strcmp(key, "volume") == 0) {
        note_clone(machine, (const char *)data);
    }
}

/* ------------------------------------------------------------------ an errand */

static int carry_out(struct errand *e, struct store *store)
{
    struct store *to;
    int r;

    switch (e->kind) {
    case SNAPSHOT:
    case ONLINE:
        return snapshot_create(store, e->name);
    case ROLLBACK:
        return snapshot_rollback(store, e->target->name, e->before);
    case DELETE:
        return snapshot_delete(store, e->target->name);
    default:
        to = bucket_store(THE_CLONE);
        r = volume_clone(store, e->target ? e->target->name : "", to);
        store_free(to);
        return r;
    }
}

static void *errand_main(void *arg)
{
    struct errand *e = arg;
    struct store *store = bucket_store(sim_number(e->volume));

    e->result = carry_out(e, store);
    e->over = true;
    store_free(store);
    return NULL;
}

static void on_request(void)
{
    struct errand *e = lineage.running;

    if (!e || e->machine != sched_machine() || e->requests_left == 0 || --e->requests_left > 0)
        return;
    e->dying = sim_chance(2, 3);
    e->stopped = !e->dying;
    counts_add(e->dying ? COUNT_DIED : COUNT_STOPPED);
    run_say("%s: stops", kind_names[e->kind]);
    sched_pause(e->machine, sched_now_us() + (e->dying ? DAY : (int64_t)sim_below(DAY)));
}

static unsigned living(const struct sim_volume *v)
{
    unsigned n = 0;

    for (int i = 0; i < lineage.nhosts; i++)
        n += lineage.hosts[i].volume == v && lineage.hosts[i].life;
    return n;
}

static struct errand *new_errand(enum errand_kind kind, struct sim_volume *v, int machine)
{
    struct errand *e = calloc(1, sizeof *e);

    *e = (struct errand){.next = lineage.all,
                         .kind = kind,
                         .volume = v,
                         .machine = machine,
                         .mark = era_mark(v->newest),
                         .blurred = is_blurred(v),
                         .lives_before = v->lives - living(v)};
    (void)snprintf(e->name, sizeof e->name, "s%u", ++lineage.names);
    lineage.all = e;
    return e;
}

/* Between being stored, and that being known. */
static bool was_deleted(const struct errand *e, const char *name)
{
    for (const struct errand *d = lineage.all; d; d = d->next)
        if (d->kind == DELETE && d->target->by == e && d->target->gone &&
            strcmp(d->target->name, name) == 0)
            return true;
    return false;
}

static void expect_made(const struct errand *e, const char *name)
{
    struct kept *k = find_kept(e->volume, name);

    if (was_deleted(e, name))
        return;
    if (!k || k->by != e || !watch_pin_is_good(sim_number(e->volume), name))
        sim_fail("snapshot/%s was made, and %s", name,
                 k ? "what it needs may be deleted" : "is not there");
    look_at(k);
}

/* Somebody was told that it is done. */
static void judge_done(struct errand *e)
{
    static const enum count count[] = {COUNT_SNAPSHOTS, COUNT_ONLINE, COUNT_ROLLBACKS,
                                       COUNT_DELETED, COUNT_CLONES};

    counts_add(count[e->kind]);
    if (e->kind == SNAPSHOT || e->kind == ONLINE)
        expect_made(e, e->name);
    if (e->kind == ROLLBACK) {
        expect_made(e, e->before);
        lineage.rolled_back_to = e->target;
    }
    if (e->kind == DELETE && (!e->target->gone || e->held))
        sim_fail("snapshot/%s was deleted, and %s", e->target->name,
                 e->held ? "there is a clone of it" : "is there");
    if ((e->kind == ROLLBACK || e->kind == CLONE) && !e->took_effect)
        sim_fail("a %s was done, and nothing is to be seen of it", kind_names[e->kind]);
}

/* It failed: was there reason for it? */
static void judge_failure(const struct errand *e)
{
    bool clone_there = e->kind == CLONE && lineage.clone_of && lineage.clone_of->by != e;

    counts_add(COUNT_REFUSED);
    if ((!run.calm || e->stopped) && e->result == -ETIMEDOUT)
        return;
    if (e->kind == ONLINE && (e->result == -ECANCELED || e->result == -ETIMEDOUT))
        return;
    /* that one may have died since */
    bool beside_a_life = e->volume->lives > e->lives_before;
    if (e->result == -EBUSY && (e->kind == DELETE || beside_a_life))
        return;
    if (e->result == -EAGAIN && beside_a_life)
        return;
    if (e->result == -EEXIST && clone_there)
        return;
    if (e->target && e->target->gone)
        return;
    sim_fail("%s %s: %s, without a reason", kind_names[e->kind],
             e->target ? e->target->name : e->name, strerror(-e->result));
}

static void judge(struct errand *e)
{
    run_say("%s %s of volume %d: %s", kind_names[e->kind], e->target ? e->target->name : e->name,
            sim_number(e->volume), strerror(-e->result));
    if (e->result == 0)
        judge_done(e);
    else
        judge_failure(e);
}

int lineage_snapshot(struct life *l)
{
    struct errand *e = new_errand(ONLINE, l->host->volume, l->machine);

    e->result = snapshot_create(l->store, e->name);
    e->over = true;
    judge(e);
    return 0;
}

/* ------------------------------------------------------------------ which, and when */

/* `any`: or what a clone needs. */
static struct kept *choose_kept(const struct sim_volume *v, bool any)
{
    struct kept *chosen = NULL;
    unsigned n = 0;

    for (struct kept *k = lineage.kept; k; k = k->next)
        if (k->volume == v && k->good && !k->gone && (any || strncmp(k->name, "clone-", 6) != 0) &&
            sim_below(++n) == 0)
            chosen = k;
    return chosen;
}

static void start_errand(void)
{
    bool clone_there = sim_volumes[THE_CLONE].newest;
    struct sim_volume *v = &sim_volumes[clone_there && sim_chance(1, 3) ? THE_CLONE : THE_VOLUME];
    struct kept *target = choose_kept(v, false);
    uint64_t what = sim_below(100);
    enum errand_kind kind = SNAPSHOT;

    if (what < 20 && !lineage.clone_of && v == &sim_volumes[THE_VOLUME])
        kind = CLONE;
    else if (what < 65 && target)
        kind = ROLLBACK;
    else if (what < 75 && target)
        kind = DELETE;
    struct kept *used = lineage.rolled_back_to;
    if (used && !used->gone && sim_chance(1, 2)) { /* it is of no use any more */
        kind = DELETE;
        target = used;
        v = used->volume;
    }
    lineage.rolled_back_to = NULL;
    if (kind == SNAPSHOT || (kind == CLONE && sim_chance(1, 2)))
        target = NULL;
    if (target && !target->content)
        look_at(target);
    struct errand *e = new_errand(kind, v, sched_new_machine());
    e->target = target;
    if (sim_chance(1, 3))
        e->requests_left = 1 + (unsigned)sim_below(sim_chance(1, 2) ? 12 : 40);
    e->held = target && lineage.clone_of && strcmp(lineage.clone_of->of, target->name) == 0 &&
              v == &sim_volumes[THE_VOLUME];
    run_say("%s %s of volume %d begins", kind_names[kind], target ? target->name : e->name,
            sim_number(v));
    lineage.running = e;
    lineage.errands++;
    (void)sched_spawn(e->machine, errand_main, e);
}

static void bury(struct errand *e)
{
    run_say("%s: kill -9", kind_names[e->kind]);
    sched_kill(e->machine);
    bucket_forget_process(e->machine);
    disk_forget_process(e->machine);
    if (e->took_effect)
        counts_add(COUNT_DIED_EFFECT);
    lineage.running = NULL;
}

/* The clone is a volume from now on. */
static void meet_clone(void)
{
    struct sim_volume *clone = &sim_volumes[THE_CLONE];
    struct kept *k = lineage.clone_of;

    if (!k || clone->newest)
        return;
    look_at(k);
    clone->newest = era_new(NULL, -1, 0, k->content, k->sectors);
    clone->newest->sure = true;
}

static void collect(void)
{
    struct errand *e = lineage.running;

    if (lineage.fence.pending)
        look_at_fence();
    if (e && e->over) {
        lineage.running = NULL;
        judge(e);
    }
    meet_clone();
}

void lineage_step(void)
{
    collect();
    if (lineage.running && lineage.running->dying)
        bury(lineage.running);
    else if (!lineage.running && lineage.errands < ERRANDS && sim_chance(1, 2))
        start_errand();
    struct kept *k = sim_chance(1, 8) ? choose_kept(&sim_volumes[THE_VOLUME], true) : NULL;
    if (k)
        look_at(k);
}

void lineage_settle(void)
{
    int64_t until = sched_now_us() + 3 * DAY;

    lineage.settled = true;
    if (lineage.running)
        lineage.running->requests_left = 0;
    if (lineage.running && lineage.running->dying)
        bury(lineage.running);
    while (lineage.running && !lineage.running->over && sched_now_us() < until)
        sched_sleep_us(SECOND);
    if (lineage.running && !lineage.running->over)
        sim_fail("a %s does not come to an end", kind_names[lineage.running->kind]);
    collect();
}

void lineage_start(struct host *hosts, int nhosts)
{
    lineage.hosts = hosts;
    lineage.nhosts = nhosts;
    bucket_on_change = on_change;
    bucket_on_request = on_request;
    (void)setenv("TMPDIR", "/sim/tmp", 1);
    if (run.lineage)
        counts_add(COUNT_RUNS);
}
