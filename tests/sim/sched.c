#include "sched.h"
#include "fiber.h"
#include "pthreads.h"

#include "../../store/scope.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum { TASKS_MAX = 1024, STEPS_MAX = 20000000 };

enum task_state { READY, BLOCKED, DONE };

struct task {
    int number, machine;
    struct fiber *fiber;
    enum task_state state;
    const void *on;   /* what it is blocked on */
    int64_t until_us; /* then it is ready anyway */
    bool in_time;     /* it was woken, not timed out */
    void *(*fn)(void *);
    void *arg, *result;
    void *values[SCHED_VALUES];
};

struct event {
    int64_t us;
    void (*fn)(void *);
    void *arg;
};

struct sim_machine {
    bool dead;
    int64_t paused_until_us;
    int64_t wall_skew_ms;
};

static struct {
    uint64_t random, trace, steps;
    int64_t now_us;
    unsigned switches;             /* one step in so many goes to another thread */
    struct task *tasks[TASKS_MAX]; /* that may run some day, in the order of their creation */
    struct task *running;
    int ntasks, tasks_made;
    struct sim_machine machines[MACHINES_MAX];
    int nmachines;
    struct event *events;
    size_t nevents, events_room;
} sim;

/* ------------------------------------------------------------------ chance and time */

uint64_t sim_random(void)
{
    uint64_t x = sim.random += 0x9e3779b97f4a7c15; /* splitmix64: prng.di.unimi.it/splitmix64.c */

    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
}

uint64_t sim_below(uint64_t n)
{
    return sim_random() % n;
}

void sched_note(uint64_t what)
{
    sim.trace = (sim.trace ^ what) * 0x100000001b3;
}

uint64_t sched_trace(void)
{
    return sim.trace;
}

int64_t sched_now_us(void)
{
    return sim.now_us;
}

static int64_t now_ms(void)
{
    return sim.now_us / 1000;
}

static int64_t wall_ms(void)
{
    return 1700000000000 + now_ms() + sim.machines[sched_machine()].wall_skew_ms;
}

static bool wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t until_ms)
{
    return pthreads_wait(cond, lock, until_ms > INT64_MAX / 1000 ? INT64_MAX : until_ms * 1000);
}

const struct clock sim_clock = {now_ms, wall_ms, wait_until};
extern const struct clock __wrap_clock_system; /* who is given none has that of the simulation */
const struct clock __wrap_clock_system = {now_ms, wall_ms, wait_until};

void sched_at(int64_t us, void (*fn)(void *), void *arg)
{
    if (sim.nevents == sim.events_room) {
        sim.events_room = 2 * sim.events_room + 64;
        sim.events = realloc(sim.events, sim.events_room * sizeof *sim.events);
    }
    sim.events[sim.nevents++] = (struct event){us, fn, arg};
}

/* ------------------------------------------------------------------ who runs */

static void fire_events(void)
{
    for (size_t i = 0; i < sim.nevents;) {
        struct event e = sim.events[i];
        if (e.us > sim.now_us) {
            i++;
            continue;
        }
        sim.events[i] = sim.events[--sim.nevents];
        e.fn(e.arg);
    }
}

/* Those who can run now. */
static int find_ready(struct task *ready[TASKS_MAX])
{
    int n = 0;

    for (int i = 0; i < sim.ntasks; i++) {
        struct task *t = sim.tasks[i];
        if (t->state == BLOCKED && t->until_us <= sim.now_us) {
            t->state = READY;
            t->in_time = false;
        }
        if (t->state == READY && sim.machines[t->machine].paused_until_us <= sim.now_us)
            ready[n++] = t;
    }
    return n;
}

/* When something happens by itself; INT64_MAX: never. */
static int64_t next_time(void)
{
    int64_t next = INT64_MAX;

    for (size_t i = 0; i < sim.nevents; i++)
        next = MIN(next, sim.events[i].us);
    for (int i = 0; i < sim.ntasks; i++) {
        const struct task *t = sim.tasks[i];
        const struct sim_machine *m = &sim.machines[t->machine];
        int64_t us = t->state == READY ? m->paused_until_us : t->until_us;
        if (us != INT64_MAX)
            next = MIN(next, MAX(us, m->paused_until_us));
    }
    return next;
}

static _Noreturn void deadlock(void)
{
    for (int i = 0; i < sim.ntasks; i++) {
        const struct task *t = sim.tasks[i];
        fprintf(stderr, "  thread %d of machine %d waits on %p\n", t->number, t->machine, t->on);
    }
    sim_fail("everybody waits, for ever");
}

static struct task *pick(void)
{
    static struct task *ready[TASKS_MAX];

    if (++sim.steps > STEPS_MAX)
        sim_fail("no end after %d steps", STEPS_MAX);
    sim.now_us += (int64_t)sim_below(8);
    for (;;) {
        fire_events();
        int n = find_ready(ready);
        if (n > 0)
            return ready[sim_below((uint64_t)n)];
        int64_t next = next_time();
        if (next == INT64_MAX)
            deadlock();
        sim.now_us = MAX(sim.now_us, next);
    }
}

/* Goes on with another thread, or the same; returns when it is this one's turn again. */
static void give_way(struct task *me)
{
    struct task *next = pick();
    int saved = errno;

    sched_note((uint64_t)sim.now_us * 31 + (uint64_t)next->machine);
    if (next == me)
        return;
    sim.running = next;
    if (me->state == DONE || sim.machines[me->machine].dead)
        fiber_end(next->fiber);
    fiber_switch(next->fiber);
    errno = saved;
}

void sched_yield_now(void)
{
    if (sim_below(sim.switches) == 0)
        give_way(sim.running);
}

bool sched_block(const void *on, int64_t until_us)
{
    struct task *me = sim.running;

    me->state = BLOCKED;
    me->on = on;
    me->until_us = until_us;
    me->in_time = true;
    if (on && sim_chance(1, 100)) /* as POSIX allows: for no reason */
        me->state = READY;
    give_way(me);
    return me->in_time;
}

void sched_sleep_us(int64_t us)
{
    sched_block(NULL, sim.now_us + us);
}

void sched_wake(const void *on)
{
    for (int i = 0; i < sim.ntasks; i++)
        if (sim.tasks[i]->state == BLOCKED && sim.tasks[i]->on == on)
            sim.tasks[i]->state = READY;
}

void sched_wake_one(const void *on)
{
    static struct task *waiting[TASKS_MAX];
    int n = 0;

    for (int i = 0; i < sim.ntasks; i++)
        if (sim.tasks[i]->state == BLOCKED && sim.tasks[i]->on == on)
            waiting[n++] = sim.tasks[i];
    if (n > 0)
        waiting[sim_below((uint64_t)n)]->state = READY;
}

/* ------------------------------------------------------------------ machines and threads */

int sched_machine(void)
{
    return sim.running->machine;
}

int sched_new_machine(void)
{
    if (sim.nmachines == MACHINES_MAX)
        sim_fail("too many machines");
    sim.machines[sim.nmachines] =
        (struct sim_machine){.wall_skew_ms = (int64_t)sim_below(86400000) - 43200000};
    return sim.nmachines++;
}

bool sched_dead(int machine)
{
    return sim.machines[machine].dead;
}

void sched_pause(int machine, int64_t until_us)
{
    sim.machines[machine].paused_until_us = until_us;
    if (sim.running->machine == machine)
        give_way(sim.running);
}

void sched_kill(int machine)
{
    int kept = 0;

    sim.machines[machine].dead = true;
    for (int i = 0; i < sim.ntasks; i++) {
        struct task *t = sim.tasks[i];
        if (t->machine != machine)
            sim.tasks[kept++] = t;
        else if (t != sim.running)
            fiber_free(t->fiber);
    }
    sim.ntasks = kept;
    if (sim.running->machine == machine)
        give_way(sim.running);
}

static void remove_task(const struct task *t)
{
    int i = 0;

    while (sim.tasks[i] != t)
        i++;
    sim.ntasks--;
    for (; i < sim.ntasks; i++)
        sim.tasks[i] = sim.tasks[i + 1];
}

static void run_task(void *arg)
{
    struct task *me = arg;

    me->result = me->fn(me->arg);
    pthreads_end(me->values);
    me->state = DONE;
    remove_task(me);
    sched_wake(me);
    give_way(me);
}

static struct task *new_task(int machine)
{
    struct task *t = calloc(1, sizeof *t);

    if (!t)
        abort();
    if (sim.ntasks == TASKS_MAX)
        sim_fail("too many threads");
    *t = (struct task){.number = sim.tasks_made++, .machine = machine, .until_us = INT64_MAX};
    sim.tasks[sim.ntasks++] = t;
    return t;
}

struct task *sched_spawn(int machine, void *(*fn)(void *), void *arg)
{
    struct task *t = new_task(machine);

    t->fn = fn;
    t->arg = arg;
    t->fiber = fiber_new(run_task, t);
    return t;
}

struct task *sched_self(void)
{
    return sim.running;
}

void **sched_values(void)
{
    return sim.running->values;
}

bool sched_done(const struct task *t)
{
    return t->state == DONE;
}

void *sched_join(struct task *t)
{
    while (t->state != DONE)
        sched_block(t, INT64_MAX);
    return t->result;
}

void sched_start(uint64_t seed)
{
    sim.random = seed;
    sim.random = sim_random(); /* or one seed would draw what the next one does, a step later */
    sim.switches = 1 + (unsigned)sim_below(12);
    (void)sched_new_machine();
    sim.running = new_task(OUTSIDE);
    sim.running->fiber = fiber_main();
}
