#include "sched.h"

#include "../../store/scope.h"

#include <errno.h>
#include <inttypes.h>
#include <semaphore.h>
#include <string.h>

enum { TASKS_MAX = 1024, STEPS_MAX = 20000000, STACK_BYTES = 1 << 20 };

/* What --wrap leads here, and what it leads away from. */
int __real_pthread_create(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
int __real_pthread_join(pthread_t, void **);
int __wrap_pthread_create(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
int __wrap_pthread_join(pthread_t, void **);
int __wrap_pthread_mutex_init(pthread_mutex_t *, const pthread_mutexattr_t *);
int __wrap_pthread_mutex_destroy(pthread_mutex_t *);
int __wrap_pthread_mutex_lock(pthread_mutex_t *);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *);
int __wrap_pthread_cond_init(pthread_cond_t *, const pthread_condattr_t *);
int __wrap_pthread_cond_destroy(pthread_cond_t *);
int __wrap_pthread_cond_wait(pthread_cond_t *, pthread_mutex_t *);
int __wrap_pthread_cond_signal(pthread_cond_t *);
int __wrap_pthread_cond_broadcast(pthread_cond_t *);
ssize_t __wrap_getrandom(void *, size_t, unsigned);
pid_t __wrap_getpid(void);

enum task_state { READY, BLOCKED, DONE };

struct task {
    pthread_t thread;
    sem_t go;
    int machine;
    enum task_state state;
    const void *on;   /* what it is blocked on */
    int64_t until_us; /* then it is ready anyway */
    bool in_time;     /* it was woken, not timed out */
    void *(*fn)(void *);
    void *arg, *result;
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
    unsigned switches; /* one step in so many goes to another thread */
    struct task *tasks[TASKS_MAX], *running;
    int ntasks;
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

static bool release_and_block(pthread_mutex_t *lock, const void *on, int64_t until_us);

static bool wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t until_ms)
{
    int64_t until_us = until_ms > INT64_MAX / 1000 ? INT64_MAX : until_ms * 1000;

    bool in_time = release_and_block(lock, cond, until_us);
    __wrap_pthread_mutex_lock(lock);
    return in_time;
}

const struct clock sim_clock = {now_ms, wall_ms, wait_until};

void sched_at(int64_t us, void (*fn)(void *), void *arg)
{
    if (sim.nevents == sim.events_room) {
        sim.events_room = 2 * sim.events_room + 64;
        sim.events = realloc(sim.events, sim.events_room * sizeof *sim.events);
    }
    sim.events[sim.nevents++] = (struct event){us, fn, arg};
}

/* ------------------------------------------------------------------ who runs */

static bool may_run(const struct task *t)
{
    const struct sim_machine *m = &sim.machines[t->machine];

    return t->state == READY && !m->dead && m->paused_until_us <= sim.now_us;
}

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

static void fire_timers(void)
{
    for (int i = 0; i < sim.ntasks; i++) {
        struct task *t = sim.tasks[i];
        if (t->state == BLOCKED && t->until_us <= sim.now_us) {
            t->state = READY;
            t->in_time = false;
        }
    }
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
        if (m->dead || t->state == DONE)
            continue;
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
        if (t->state != DONE && !sim.machines[t->machine].dead)
            fprintf(stderr, "  thread %d of machine %d waits on %p\n", i, t->machine, t->on);
    }
    sim_fail("everybody waits, for ever");
}

static struct task *pick(void)
{
    struct task *ready[TASKS_MAX];

    if (++sim.steps > STEPS_MAX)
        sim_fail("no end after %d steps", STEPS_MAX);
    sim.now_us += (int64_t)sim_below(8);
    for (;;) {
        int n = 0;
        fire_events();
        fire_timers();
        for (int i = 0; i < sim.ntasks; i++)
            if (may_run(sim.tasks[i]))
                ready[n++] = sim.tasks[i];
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

    sched_note((uint64_t)sim.now_us * 31 + (uint64_t)next->machine);
    if (next == me)
        return;
    sim.running = next;
    sem_post(&next->go);
    if (me->state != DONE)
        while (sem_wait(&me->go) < 0)
            ;
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
    sim.machines[machine].dead = true;
    if (sim.running->machine == machine)
        give_way(sim.running);
}

static void *trampoline(void *arg)
{
    struct task *me = arg;

    while (sem_wait(&me->go) < 0)
        ;
    me->result = me->fn(me->arg);
    me->state = DONE;
    sched_wake(me);
    give_way(me);
    return me->result;
}

static struct task *new_task(int machine, void *(*fn)(void *), void *arg)
{
    struct task *t = calloc(1, sizeof *t);

    if (!t)
        abort();
    if (sim.ntasks == TASKS_MAX)
        sim_fail("too many threads");
    *t = (struct task){.machine = machine, .fn = fn, .arg = arg, .until_us = INT64_MAX};
    sem_init(&t->go, 0, 0);
    sim.tasks[sim.ntasks++] = t;
    return t;
}

struct task *sched_spawn(int machine, void *(*fn)(void *), void *arg)
{
    struct task *t = new_task(machine, fn, arg);
    pthread_attr_t attr;

    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    if (__real_pthread_create(&t->thread, &attr, trampoline, t))
        sim_fail("cannot start a thread");
    pthread_attr_destroy(&attr);
    return t;
}

bool sched_done(const struct task *t)
{
    return t->state == DONE;
}

void sched_join(struct task *t)
{
    while (t->state != DONE)
        sched_block(t, INT64_MAX);
    __real_pthread_join(t->thread, NULL);
}

void sched_start(uint64_t seed)
{
    sim.random = seed;
    sim.random = sim_random(); /* or one seed would draw what the next one does, a step later */
    sim.switches = 1 + (unsigned)sim_below(12);
    (void)sched_new_machine();
    sim.running = new_task(OUTSIDE, NULL, NULL);
}

/* ------------------------------------------------------------------ in place of libpthread's */

/* Laid over the memory of a pthread_mutex_t; all zeros are an unlocked one. */
struct sim_mutex {
    struct task *owner;
};
_Static_assert(sizeof(struct sim_mutex) <= sizeof(pthread_mutex_t), "");

int __wrap_pthread_create(pthread_t *ret, const pthread_attr_t *attr, void *(*fn)(void *),
                          void *arg)
{
    (void)attr;
    struct task *t = sched_spawn(sched_machine(), fn, arg);
    *ret = t->thread;
    return 0;
}

int __wrap_pthread_join(pthread_t thread, void **ret)
{
    for (int i = 0; i < sim.ntasks; i++)
        if (sim.tasks[i]->fn && pthread_equal(sim.tasks[i]->thread, thread)) {
            while (sim.tasks[i]->state != DONE)
                sched_block(sim.tasks[i], INT64_MAX);
            sim.tasks[i]->fn = NULL; /* the number may be used again */
        }
    return __real_pthread_join(thread, ret);
}

int __wrap_pthread_mutex_init(pthread_mutex_t *m, const pthread_mutexattr_t *attr)
{
    (void)attr;
    memset(m, 0, sizeof *m);
    return 0;
}

int __wrap_pthread_mutex_destroy(pthread_mutex_t *m)
{
    if (((struct sim_mutex *)m)->owner)
        sim_fail("a locked mutex is destroyed");
    return 0;
}

int __wrap_pthread_mutex_lock(pthread_mutex_t *m)
{
    struct sim_mutex *s = (struct sim_mutex *)m;
    int saved = errno;

    sched_yield_now();
    if (s->owner == sim.running)
        sim_fail("a mutex is locked twice by one thread");
    while (s->owner)
        sched_block(s, INT64_MAX);
    s->owner = sim.running;
    errno = saved;
    return 0;
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t *m)
{
    struct sim_mutex *s = (struct sim_mutex *)m;
    int saved = errno;

    if (s->owner != sim.running)
        sim_fail("a mutex is unlocked by somebody else");
    s->owner = NULL;
    sched_wake(s);
    sched_yield_now();
    errno = saved;
    return 0;
}

int __wrap_pthread_cond_init(pthread_cond_t *c, const pthread_condattr_t *attr)
{
    (void)c, (void)attr;
    return 0;
}

int __wrap_pthread_cond_destroy(pthread_cond_t *c)
{
    (void)c;
    return 0;
}

/* Unlocking and beginning to wait are one step. */
static bool release_and_block(pthread_mutex_t *m, const void *on, int64_t until_us)
{
    struct sim_mutex *s = (struct sim_mutex *)m;

    if (s->owner != sim.running)
        sim_fail("a wait without its mutex");
    s->owner = NULL;
    sched_wake(s);
    return sched_block(on, until_us);
}

int __wrap_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m)
{
    (void)release_and_block(m, c, INT64_MAX);
    return __wrap_pthread_mutex_lock(m);
}

int __wrap_pthread_cond_broadcast(pthread_cond_t *c)
{
    sched_wake(c);
    return 0;
}

int __wrap_pthread_cond_signal(pthread_cond_t *c)
{
    struct task *waiting[TASKS_MAX];
    int n = 0;

    for (int i = 0; i < sim.ntasks; i++)
        if (sim.tasks[i]->state == BLOCKED && sim.tasks[i]->on == c)
            waiting[n++] = sim.tasks[i];
    if (n > 0)
        waiting[sim_below((uint64_t)n)]->state = READY;
    return 0;
}

ssize_t __wrap_getrandom(void *buf, size_t len, unsigned flags)
{
    (void)flags;
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)buf)[i] = (uint8_t)sim_random();
    return (ssize_t)len;
}

pid_t __wrap_getpid(void)
{
    return 1000 + sched_machine();
}
