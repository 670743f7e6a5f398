/* Small helpers for every file: scope-exit attributes, checked formatting, arithmetic. */
#ifndef S3VOL_SCOPE_H
#define S3VOL_SCOPE_H

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)     ((a) < (b) ? (a) : (b))
#define MAX(a, b)     ((a) > (b) ? (a) : (b))

/* Rounds `n` to a multiple of the power of two `align`. */
#define ROUND_DOWN(n, align) ((n) & ~((align)-1))
#define ROUND_UP(n, align)   ROUND_DOWN((n) + ((align)-1), align)
#define DIV_UP(n, d)         (((n) + (d)-1) / (d))

/* An assertion about our own code: on in every build; never for what a disk or a peer sent. */
#define INVARIANT(cond)                                                                            \
    do {                                                                                           \
        if (!(cond))                                                                               \
            invariant_failed(#cond, __FILE__, __LINE__);                                           \
    } while (0)
_Noreturn void invariant_failed(const char *what, const char *file, int line);

/* scope_free char *p = malloc(…): freed when the scope is left. `return take(p)` passes it on. */
static inline void scope_free_(void *p)
{
    free(*(void **)p);
}
static inline void scope_close_(const int *fd)
{
    if (*fd >= 0)
        close(*fd);
}
static inline void scope_unlock_(pthread_mutex_t *const *m)
{
    pthread_mutex_unlock(*m);
}
static inline pthread_mutex_t *scope_lock_(pthread_mutex_t *m)
{
    pthread_mutex_lock(m);
    return m;
}
#define scope_free  __attribute__((cleanup(scope_free_)))
#define scope_close __attribute__((cleanup(scope_close_)))
/* scope_lock(&mutex): held until the scope is left. */
#define scope_lock(m)                                                                              \
    pthread_mutex_t *scope_guard_ __attribute__((cleanup(scope_unlock_), unused)) = scope_lock_(m)
#define take(p)                                                                                    \
    __extension__({                                                                                \
        __auto_type taken_ = (p);                                                                  \
        (p) = NULL;                                                                                \
        taken_;                                                                                    \
    })

/* snprintf that treats truncation as failure: 0, or -ENAMETOOLONG. */
int format(char *buf, size_t size_bytes, const char *fmt, ...)
    __attribute__((format(printf, 3, 4), warn_unused_result));
int vformat(char *buf, size_t size_bytes, const char *fmt, va_list ap)
    __attribute__((format(printf, 3, 0), warn_unused_result));

#endif
