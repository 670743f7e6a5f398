/*
 * Stacks that take turns within one thread. A switch is some twenty instructions and no system
 * call. The sanitizers are told of each.
 */
#ifndef SIM_FIBER_H
#define SIM_FIBER_H

struct fiber;

/* The caller's own. */
struct fiber *fiber_main(void);
/* Will run fn(arg), which must not return, but call fiber_end(). */
struct fiber *fiber_new(void (*fn)(void *), void *arg);
/* The running one goes on when another switches back to it. */
void fiber_switch(struct fiber *to);
/* The running one never does: its stack is free for the next. */
_Noreturn void fiber_end(struct fiber *to);
/* One that is not running never goes on. */
void fiber_free(struct fiber *f);

#endif
