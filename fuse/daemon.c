#include "daemon.h"

#include "../store/msg.h"
#include "../store/scope.h"
#include "../store/thread.h"

#include <fcntl.h>
#include <malloc.h>
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
    /* Of threads that libraries start: libcurl's resolve names, in modules that the system has for
     * that. They touch what they need. */
    FOREIGN_STACK_BYTES = 2 << 20,
    HEAP_LARGEST_BYTES = 32 << 20, /* what is larger is mapped on its own, and not kept */
    HEAP_RESERVE_BYTES = 4 << 20,
    HEAP_KEEP_BYTES = 64 << 20, /* given back to the system only beyond this */
};

/* One heap, in one piece, for all but the largest: what has been freed stays for the next. */
static void prepare_heap(void)
{
#ifdef M_ARENA_MAX
    mallopt(M_ARENA_MAX, 1);
    mallopt(M_MMAP_THRESHOLD, HEAP_LARGEST_BYTES);
    mallopt(M_TRIM_THRESHOLD, HEAP_KEEP_BYTES);
    mallopt(M_TOP_PAD, 1 << 20);
#endif
}

/* The pages of all our stacks, and of some heap for later: when they are needed it might be our own
 * work that memory waits for. (A stack of a library's that has ended is kept for the next.) */
static void touch_memory(void)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    unsigned long from, to, inode;
    char line[512], mode[5];

    while (maps && fgets(line, sizeof line, maps))
        if (sscanf(line, "%lx-%lx %4s %*s %*s %lu", &from, &to, mode, &inode) == 4 &&
            strcmp(mode, "rw-p") == 0 && inode == 0 && !strstr(line, "[heap]") &&
            to - from != FOREIGN_STACK_BYTES &&
            madvise((void *)from, to - from, MADV_POPULATE_WRITE) < 0)
            msg_debug("memory at %lx: %s", from, strerror(errno));
    if (maps)
        fclose(maps);
    char *reserve = malloc(HEAP_RESERVE_BYTES);
    for (size_t i = 0; reserve && i < HEAP_RESERVE_BYTES; i += 4096)
        ((volatile char *)reserve)[i] = 1;
    free(reserve);
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
    thread_set_stack(STACK_BYTES);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, FOREIGN_STACK_BYTES);
    pthread_setattr_default_np(&attr);
    pthread_attr_destroy(&attr);
    prepare_heap();
}

void daemon_lock_memory(void)
{
    struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};

    touch_memory();
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
