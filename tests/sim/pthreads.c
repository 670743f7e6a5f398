#include "pthreads.h"
#include "sched.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>

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
int __wrap_gethostname(char *name, size_t size_bytes);
char *__wrap_mkdtemp(char *);
int __wrap_pthread_key_create(pthread_key_t *, void (*)(void *));
int __wrap_pthread_setspecific(pthread_key_t, const void *);
void *__wrap_pthread_getspecific(pthread_key_t);

/* Laid over the memory of a pthread_mutex_t; all zeros are an unlocked one. */
struct sim_mutex {
    struct task *owner;
};
_Static_assert(sizeof(struct sim_mutex) <= sizeof(pthread_mutex_t), "");

int __wrap_pthread_create(pthread_t *ret, const pthread_attr_t *attr, void *(*fn)(void *),
                          void *arg)
{
    (void)attr;
    *ret = (pthread_t)sched_spawn(sched_machine(), fn, arg);
    return 0;
}

int __wrap_pthread_join(pthread_t thread, void **ret)
{
    void *result = sched_join((struct task *)thread);

    if (ret)
        *ret = result;
    return 0;
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
    if (s->owner == sched_self())
        sim_fail("a mutex is locked twice by one thread");
    while (s->owner)
        sched_block(s, INT64_MAX);
    s->owner = sched_self();
    errno = saved;
    return 0;
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t *m)
{
    struct sim_mutex *s = (struct sim_mutex *)m;
    int saved = errno;

    if (s->owner != sched_self())
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
bool pthreads_wait(pthread_cond_t *c, pthread_mutex_t *m, int64_t until_us)
{
    struct sim_mutex *s = (struct sim_mutex *)m;

    if (s->owner != sched_self())
        sim_fail("a wait without its mutex");
    s->owner = NULL;
    sched_wake(s);
    bool in_time = sched_block(c, until_us);
    __wrap_pthread_mutex_lock(m);
    return in_time;
}

int __wrap_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m)
{
    (void)pthreads_wait(c, m, INT64_MAX);
    return 0;
}

int __wrap_pthread_cond_broadcast(pthread_cond_t *c)
{
    sched_wake(c);
    return 0;
}

int __wrap_pthread_cond_signal(pthread_cond_t *c)
{
    sched_wake_one(c);
    return 0;
}

/* ------------------------------------------------------------------ what each thread has of its
 * own
 */

static struct {
    void (*destroy[SCHED_VALUES])(void *);
    unsigned n;
} keys;

int __wrap_pthread_key_create(pthread_key_t *ret, void (*destroy)(void *))
{
    if (keys.n == SCHED_VALUES)
        sim_fail("too many keys");
    keys.destroy[keys.n] = destroy;
    *ret = keys.n++;
    return 0;
}

int __wrap_pthread_setspecific(pthread_key_t key, const void *value)
{
    sched_values()[key] = (void *)value;
    return 0;
}

void *__wrap_pthread_getspecific(pthread_key_t key)
{
    return sched_values()[key];
}

void pthreads_end(void *values[])
{
    for (unsigned i = 0; i < keys.n; i++)
        if (values[i] && keys.destroy[i])
            keys.destroy[i](values[i]);
}

/* ------------------------------------------------------------------ and of the process */

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

/* Claims name the host: a longer name would be another run. */
int __wrap_gethostname(char *name, size_t size_bytes)
{
    (void)snprintf(name, size_bytes, "ab");
    return 0;
}

/* Directories are there when they are used (disk.h); only a name is missing. */
char *__wrap_mkdtemp(char *name)
{
    static unsigned made;
    unsigned n = ++made;

    for (size_t len = strlen(name), i = 1; i <= 6; i++, n /= 10)
        name[len - i] = (char)('0' + n % 10);
    return name;
}
