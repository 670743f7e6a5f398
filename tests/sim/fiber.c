#include "fiber.h"
#include "sched.h"

#include "../../store/scope.h"

#include <string.h>
#include <sys/mman.h>

#ifdef __SANITIZE_ADDRESS__
#define ASAN 1
#elif defined __has_feature
#if __has_feature(address_sanitizer)
#define ASAN 1
#endif
#endif
#ifdef ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

enum { STACK_BYTES = 1 << 20, GUARD_BYTES = 4096 };

#if defined __x86_64__ && !defined FIBER_UCONTEXT
#define SWITCH_STACKS 1 /* elsewhere by swapcontext(), which is two system calls slower */
#endif

/* What a switch keeps of whoever is not running. */
#ifdef SWITCH_STACKS
struct context {
    void *stack_pointer; /* the registers lie there */
};
#else
#include <ucontext.h>
struct context {
    ucontext_t u;
};
#endif

struct fiber {
    struct fiber *next; /* that is free */
    struct context context;
    uint8_t *stack; /* NULL: fiber_main()'s */
    void (*fn)(void *);
    void *arg;
    const void *asan_bottom; /* of the stack, as the sanitizer knows it */
    size_t asan_bytes;
    void *asan_fake_stack;
};

static struct fiber *running, *before /* who has just switched */, *unused;

/* ------------------------------------------------------------------ the sanitizer */

static void announce(struct fiber *to, bool ends)
{
#ifdef ASAN
    __sanitizer_start_switch_fiber(ends ? NULL : &running->asan_fake_stack, to->asan_bottom,
                                   to->asan_bytes);
#else
    (void)to, (void)ends;
#endif
}

static void arrived(void)
{
#ifdef ASAN
    const void *bottom;
    size_t bytes;
    __sanitizer_finish_switch_fiber(running->asan_fake_stack, &bottom, &bytes);
    before->asan_bottom = bottom;
    before->asan_bytes = bytes;
#endif
}

/* ------------------------------------------------------------------ the switch */

static void body(void)
{
    arrived();
    running->fn(running->arg);
    sim_fail("the end of a thread's stack");
}

#ifdef SWITCH_STACKS

/* Saves what a function must not change (System V ABI) on the stack and the stack pointer in
 * *save, and takes up the other. */
void sim_switch_stacks(void **save, void *other);
__asm__(".text\n"
        ".globl sim_switch_stacks\n"
        ".type sim_switch_stacks, @function\n"
        "sim_switch_stacks:\n"
        "    pushq %rbp\n"
        "    pushq %rbx\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbx\n"
        "    popq %rbp\n"
        "    ret\n"
        ".size sim_switch_stacks, . - sim_switch_stacks\n");

static void prepare(struct fiber *f)
{
    void **top = (void **)(f->stack + STACK_BYTES);

    memset(top - 8, 0, 8 * sizeof *top); /* six registers, where to go, where that returns to */
    top[-2] = (void *)body;
    f->context.stack_pointer = top - 8;
}

static void exchange(struct context *save, struct context *other)
{
    sim_switch_stacks(&save->stack_pointer, other->stack_pointer);
}

#else

static void prepare(struct fiber *f)
{
    (void)getcontext(&f->context.u);
    f->context.u.uc_stack.ss_sp = f->stack;
    f->context.u.uc_stack.ss_size = STACK_BYTES;
    makecontext(&f->context.u, body, 0);
}

static void exchange(struct context *save, struct context *other)
{
    (void)swapcontext(&save->u, &other->u);
}

#endif

/* ------------------------------------------------------------------ fibers */

struct fiber *fiber_main(void)
{
    running = calloc(1, sizeof *running);
    if (!running)
        abort();
    return running;
}

struct fiber *fiber_new(void (*fn)(void *), void *arg)
{
    struct fiber *f = unused;

    if (f) {
        unused = f->next;
#ifdef ASAN
        ASAN_UNPOISON_MEMORY_REGION(f->stack, STACK_BYTES); /* frames that were never left */
#endif
    } else {
        uint8_t *p = mmap(NULL, GUARD_BYTES + STACK_BYTES, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
        f = calloc(1, sizeof *f);
        if (!f || p == MAP_FAILED || mprotect(p, GUARD_BYTES, PROT_NONE) < 0) {
            sim_fail("no memory for a stack");
            abort();
        }
        f->stack = p + GUARD_BYTES;
        f->asan_bottom = f->stack;
        f->asan_bytes = STACK_BYTES;
    }
    f->fn = fn;
    f->arg = arg;
    f->asan_fake_stack = NULL;
    prepare(f);
    return f;
}

void fiber_switch(struct fiber *to)
{
    announce(to, false);
    before = running;
    running = to;
    exchange(&before->context, &to->context);
    arrived();
}

void fiber_end(struct fiber *to)
{
    fiber_free(running);
    announce(to, true);
    before = running;
    running = to;
    exchange(&before->context, &to->context);
    abort();
}

void fiber_free(struct fiber *f)
{
    f->next = unused;
    unused = f;
}
