/*
 * Threads and time of the simulation. The code under test keeps its threads and its pthread_…
 * calls; the linker's --wrap leads them to pthreads.c, which is made of these. All threads are
 * stacks within one (fiber.h): one runs at a time, and which one
 * goes on at a lock, a wait or a yield, when a wait is over, and how long a step takes, is decided
 * by the seed alone: a run can be repeated exactly.
 *
 * Every thread belongs to a machine. A machine can be stopped for a while, between any two steps,
 * and killed: its threads then never run again (their memory is lost until the process ends).
 * Machine 0 is the outside: the thread that called sched_start(), and what arrives over the
 * network.
 */
#ifndef SIM_SCHED_H
#define SIM_SCHED_H

#include "../../store/clock.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MACHINES_MAX = 1024, OUTSIDE = 0, SCHED_VALUES = 4 };

/* The caller becomes the first thread. */
void sched_start(uint64_t seed);

/* The one source of chance. chance(n, d): n times in d. */
uint64_t sim_random(void);
uint64_t sim_below(uint64_t n);
static inline bool sim_chance(unsigned n, unsigned d)
{
    return sim_below(d) < n;
}

/* Simulated microseconds since the start; the same as a clock, whose wall time differs by machine.
 */
int64_t sched_now_us(void);
extern const struct clock sim_clock;

int sched_machine(void); /* of the running thread */
int sched_new_machine(void);
bool sched_dead(int machine);
/* Its threads do not run until then. */
void sched_pause(int machine, int64_t until_us);
/* Its threads never run again. */
void sched_kill(int machine);

/* A thread of that machine; joined or not. */
struct task *sched_spawn(int machine, void *(*fn)(void *), void *arg);
bool sched_done(const struct task *task);
void *sched_join(struct task *task);
struct task *sched_self(void);
/* What pthread_getspecific() finds. */
void **sched_values(void);

/* A step: perhaps others run now. */
void sched_yield_now(void);
void sched_sleep_us(int64_t us);
/* Waits for sched_wake(on), or until a time (INT64_MAX: none); false: the time came. May return
 * early. */
bool sched_block(const void *on, int64_t until_us);
void sched_wake(const void *on);
/* One of them, by chance. */
void sched_wake_one(const void *on);

/* Calls fn(arg) when the time has come, from whichever thread; it must not block. */
void sched_at(int64_t us, void (*fn)(void *), void *arg);

/* What the run was, in one number: equal seeds give equal numbers. */
uint64_t sched_trace(void);
void sched_note(uint64_t what);

/* Ends the process with the reason: the simulation found something. */
_Noreturn void sim_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
