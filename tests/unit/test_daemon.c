/* What daemon_prepare() makes of the threads: ours have small stacks, libcurl's have room for what
 * resolves names. */
#include "../../fuse/daemon.h"
#include "../../store/store.h"
#include "../../store/thread.h"
#include "../../store/url.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "scripted_server.h"

#include <dlfcn.h>
#include <netdb.h>
#include <stdatomic.h>

enum { GREED_BYTES = 500 << 10 };

static size_t stack_bytes(void)
{
    pthread_attr_t attr;
    size_t size;

    pthread_getattr_np(pthread_self(), &attr);
    pthread_attr_getstacksize(&attr, &size);
    pthread_attr_destroy(&attr);
    return size;
}

static atomic_size_t resolver_bytes; /* stack of who resolved a name last */

static void __attribute__((noinline)) be_greedy(void)
{
    volatile char greed[GREED_BYTES];

    for (size_t i = 0; i < GREED_BYTES; i += 4096)
        greed[i] = 1;
    (void)greed[0];
}

/* In place of the C library's, as libcurl calls it: a module that wants much, and finds every name
 * here. */
int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
                struct addrinfo **ret)
{
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);

    (void)name;
    resolver_bytes = stack_bytes();
    if (resolver_bytes < 2 * GREED_BYTES)
        return EAI_MEMORY;
    be_greedy();
    *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
    return real("127.0.0.1", service, hints, ret);
}

static void *note_stack(void *arg)
{
    *(size_t *)arg = stack_bytes();
    return NULL;
}

static void test_our_stacks_are_small(void **state)
{
    size_t ours = 0, theirs = 0;
    pthread_t thread;

    (void)state;
    assert_int_equal(thread_start(&thread, note_stack, &ours), 0);
    pthread_join(thread, NULL);
    assert_int_equal(pthread_create(&thread, NULL, note_stack, &theirs), 0);
    pthread_join(thread, NULL);
    assert_in_range(ours, 64 << 10, 1 << 20);
    assert_true(theirs > ours);
}

static void test_a_name_is_resolved(void **state)
{
    const struct answer script[] = {{.text = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"}};
    struct store_config config = {.connections = 1};
    struct store *store;
    struct server server;
    char endpoint[64];

    (void)state;
    start(&server, script, 1);
    assert_int_equal(
        format(endpoint, sizeof endpoint, "http://s3.test%s", strrchr(server.endpoint, ':')), 0);
    config.endpoint = endpoint;
    setenv("AWS_ACCESS_KEY_ID", "AKID", 1);
    setenv("AWS_SECRET_ACCESS_KEY", "SECRET", 1);
    assert_int_equal(store_open(&config, "s3://bucket/vm1", &store), 0);
    assert_int_equal(store_put(store, "log/1", "x", 1, 0, 0), 0);
    wait_for_requests(&server, 1);
    assert_non_null(strstr(server.request, "Host: s3.test:"));
    store_free(store);
    finish(&server);
    assert_true(resolver_bytes >= 2 * GREED_BYTES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_our_stacks_are_small),
        cmocka_unit_test(test_a_name_is_resolved),
    };

    daemon_prepare();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
