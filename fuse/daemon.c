#include "daemon.h"

#include "../store/msg.h"
#include "../store/scope.h"

#include <fcntl.h>
#include <limits.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>

/* Linux 5.6, not in every libc's headers. */
#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif
#ifndef MCL_ONFAULT
#define MCL_ONFAULT 4
#endif
#ifndef MADV_POPULATE_WRITE /* Linux 5.14 */
#define MADV_POPULATE_WRITE 23
#endif

enum {
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__) /* they need more of it */
    STACK_BYTES = 1 << 20,
#else
    STACK_BYTES = 64 << 10,
#endif
    PAGE = 4096,
    HEAP_LARGEST_BYTES = 32 << 20, /* what is larger is mapped on its own, and not kept */
    HEAP_SPAN_BYTES = 256 << 20,   /* addresses only: within it no growth asks the system */
    HEAP_WRITES_BYTES = 16 << 20,  /* touched at first: what waiting writes may take (image.c) */
    HEAP_RESERVE_BYTES = 8 << 20,  /* always touched beyond what was ever used */
    TEND_REQUESTS = 64,
};

/* One heap, in one piece, for all but the largest: what has been freed stays for the next. */
static void prepare_heap(void)
{
#ifdef M_ARENA_MAX
    mallopt(M_ARENA_MAX, 1);
    mallopt(M_MMAP_THRESHOLD, HEAP_LARGEST_BYTES);
    mallopt(M_TRIM_THRESHOLD, INT_MAX);
    mallopt(M_TOP_PAD, HEAP_SPAN_BYTES);
#endif
}

/* ---------------------------------------------------------------------------- memory ahead */

static struct {
    pthread_mutex_t lock; /* guards `wanted` */
    pthread_cond_t changed;
    bool wanted;
    atomic_uint requests;
    char *touched; /* the heap below this is resident; the thread's own once it runs */
} ahead = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

/* Touches the heap up to so many bytes beyond what was ever used. Its pages may be handed out at
 * the same time: so the bytes are written as they are. */
static void touch_heap(size_t bytes)
{
#if defined(M_ARENA_MAX) && !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
    char *end = sbrk(0), *to;
    size_t unused = mallinfo2().keepcost;

    to = end - unused + MIN(unused, bytes);
    for (; ahead.touched && ahead.touched < to; ahead.touched += PAGE)
        __atomic_fetch_or(ahead.touched, 0, __ATOMIC_RELAXED);
#else
    (void)bytes;
#endif
}

/* The only thread that waits when the heap grows: nobody waits for it. */
static void *run_ahead(void *arg)
{
    (void)arg;
    for (;;) {
        pthread_mutex_lock(&ahead.lock);
        while (!ahead.wanted)
            pthread_cond_wait(&ahead.changed, &ahead.lock);
        ahead.wanted = false;
        pthread_mutex_unlock(&ahead.lock);
        touch_heap(HEAP_RESERVE_BYTES);
    }
    return NULL;
}

void daemon_tend_memory(void)
{
    if (atomic_fetch_add_explicit(&ahead.requests, 1, memory_order_relaxed) % TEND_REQUESTS)
        return;
    scope_lock(&ahead.lock);
    ahead.wanted = true;
    pthread_cond_signal(&ahead.changed);
}

/* The pages of all stacks, and heap for later: when they are needed it might be our own work that
 * memory waits for. */
static void touch_memory(void)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    unsigned long from, to, inode;
    char line[512], mode[5];

    while (maps && fgets(line, sizeof line, maps)) {
        if (sscanf(line, "%lx-%lx %4s %*s %*s %lu", &from, &to, mode, &inode) != 4 ||
            strcmp(mode, "rw-p") != 0 || inode != 0)
            continue;
        if (strstr(line, "[heap]"))
            ahead.touched = ahead.touched ? ahead.touched : (char *)from;
        else if (madvise((void *)from, to - from, MADV_POPULATE_WRITE) < 0)
            msg_debug("memory at %lx: %s", from, strerror(errno));
    }
    if (maps)
        fclose(maps);
    touch_heap(HEAP_WRITES_BYTES + HEAP_RESERVE_BYTES);
}

void daemon_prepare(void)
{
    pthread_attr_t attr;
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    if (fd < 0 || write(fd, "-500", 4) < 0)
        msg_debug("oom_score_adj: %s", strerror(errno));
    if (fd >= 0)
        close(fd);
    /* Threads inherit this. */
    if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) < 0)
        msg_debug("PR_SET_IO_FLUSHER: %s", strerror(errno));
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    pthread_setattr_default_np(&attr);
    pthread_attr_destroy(&attr);
    prepare_heap();
}

void daemon_lock_memory(void)
{
    struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
    pthread_t thread;

    touch_memory();
    if (pthread_create(&thread, NULL, run_ahead, NULL) == 0)
        pthread_detach(thread); /* it has nothing that must be ended */
    if (geteuid() == 0)
        (void)setrlimit(RLIMIT_MEMLOCK, &all);
    /* On fault: without it each library's every page would be brought in. */
    if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) < 0)
        msg_debug("mlockall: %s", strerror(errno));
}

void daemon_background(void)
{
    setsid();
    if (chdir("/") < 0)
        msg_debug("/: %s", strerror(errno));
    msg_set_sink(MSG_SYSLOG);
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    for (int std = 0; std <= 2; std++)
        dup2(fd, std);
    if (fd > 2)
        close(fd);
}
