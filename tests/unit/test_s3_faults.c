/* The S3 store over the network, against the project's own server (tests/s3d), which misbehaves on
 * command: what arrives in the end, and in how many requests. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "../../store/msg.h"
#include "../../store/scope.h"
#include "../../store/store.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

enum { BIG = 100000, PATIENCE_MS = 30000 };

static char endpoint[64];
static pid_t server;
static struct store *store;
static unsigned char big[BIG], got[BIG];

/* ------------------------------------------------------------------ the server */

static void server_path(char *path)
{
    ssize_t n = readlink("/proc/self/exe", path, 4000);

    assert_true(n > 0);
    path[n] = 0;
    *strrchr(path, '/') = 0;
    strcpy(strrchr(path, '/'), "/s3d/s3d");
    if (access(path, X_OK) < 0)
        fail_msg("%s is not built: make tests", path);
}

static void start_server(const char *option, const char *value)
{
    char path[4096];
    int p[2];

    server_path(path);
    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    server = fork();
    if (server == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(p[1], 1);
        execl(path, path, "--bucket", "tests", option, value, NULL);
        _exit(127);
    }
    close(p[1]);
    ssize_t n = read(p[0], endpoint, sizeof endpoint - 1);
    assert_true(n > 0);
    endpoint[n - 1] = 0; /* in place of the newline */
    close(p[0]);
}

static void open_store(void)
{
    struct store_config config = {.endpoint = endpoint, .stall_timeout_ms = 500};

    assert_int_equal(store_open(&config, "s3://tests/a/vm1", &store), 0);
}

static int setup_with(const char *option, const char *value)
{
    start_server(option, value);
    open_store();
    for (size_t i = 0; i < sizeof big; i++)
        big[i] = (unsigned char)(i * 2654435761u >> 11);
    memset(got, 0, sizeof got);
    return 0;
}

static int setup(void **state)
{
    (void)state;
    return setup_with(NULL, NULL);
}

static int teardown(void **state)
{
    (void)state;
    store_free(store);
    kill(server, SIGTERM);
    int status;
    assert_int_equal(waitpid(server, &status, 0), server);
    assert_int_equal(status, 0); /* and no sanitizer has a word to say */
    return 0;
}

/* Sends a request to the control path; the answer's body is in `answer`. */
static char answer[65536];
static void control(const char *method, const char *what)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)atoi(strrchr(endpoint, ':') + 1)),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    scope_close int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    size_t len = 0;
    ssize_t n;

    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    dprintf(fd, "%s /_control%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", method, what);
    while ((n = read(fd, answer + len, sizeof answer - 1 - len)) > 0)
        len += (size_t)n;
    answer[len] = 0;
    if (strncmp(answer, "HTTP/1.1 200", 12) != 0)
        fail_msg("%s: %s", what, answer);
    const char *body = strstr(answer, "\r\n\r\n") + 4;
    memmove(answer, body, strlen(body) + 1);
}

static void fault(const char *rule)
{
    char what[256];

    control("POST", "/reset");
    assert_int_equal(format(what, sizeof what, "?%s", rule), 0);
    control("POST", what);
}

/* A number out of the server's counters. */
static long counted(const char *name)
{
    char line[32];

    control("GET", "/stats");
    assert_int_equal(format(line, sizeof line, "%s ", name), 0);
    const char *at = strstr(answer, line);
    assert_non_null(at);
    return atol(at + strlen(line));
}

/* The log, of each request "OP STATUS IN OUT;". */
static void expect_log(const char *want)
{
    char log[1024] = "", op[16];
    int status, n;
    unsigned long in, out;

    control("GET", "/log");
    for (const char *p = answer;
         sscanf(p, "%15s %*s %d %lu %lu%n", op, &status, &in, &out, &n) == 4;
         p = strchr(p + n, '\n') + 1)
        assert_int_equal(format(log + strlen(log), sizeof log - strlen(log), "%s %d %lu %lu;", op,
                                status, in, out),
                         0);
    assert_string_equal(log, want);
}

/* ------------------------------------------------------------------ calls */

static int to_got(void *ctx, const void *data, size_t len)
{
    size_t *at = ctx;

    if (len > sizeof got - *at)
        return -EOVERFLOW;
    memcpy(got + *at, data, len);
    *at += len;
    return 0;
}

static int put(const char *key, size_t len, unsigned flags)
{
    return store_put(store, key, big, len, flags, PATIENCE_MS);
}

static int get(const char *key, size_t len)
{
    size_t at = 0;
    int r = store_get(store, key, 0, len, to_got, &at, PATIENCE_MS);

    if (r == 0)
        assert_int_equal(at, len);
    return r;
}

static int count_key(void *ctx, const char *key, uint64_t size_bytes)
{
    (void)key, (void)size_bytes;
    ++*(int *)ctx;
    return 0;
}

static int list(int *n)
{
    *n = 0;
    return store_list(store, "log/", "", count_key, n, PATIENCE_MS);
}

static int del(const char *key)
{
    return store_delete(store, &key, 1, PATIENCE_MS);
}

static struct store_stats stats(void)
{
    struct store_stats s;

    store_get_stats(store, &s);
    return s;
}

/* ------------------------------------------------------------------ tests */

static void test_errors_pass(void **state)
{
    static const char *const errors[] = {
        "status=500",          "status=503", "code=SlowDown",        "code=InternalError",
        "code=RequestTimeout", "status=429", "status=502&code=None", "code=ServiceUnavailable"};
    char rule[128];
    int n;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
        assert_int_equal(format(rule, sizeof rule, "%s&count=1", errors[i]), 0);
        fault(rule);
        assert_int_equal(put("log/1", BIG, 0), 0);
        assert_int_equal(counted("PUT"), 2);
        fault(rule);
        assert_int_equal(get("log/1", BIG), 0);
        assert_int_equal(counted("GET"), 2);
        assert_memory_equal(got, big, BIG);
        fault(rule);
        assert_int_equal(list(&n), 0);
        assert_int_equal(n, 1);
        assert_int_equal(counted("LIST"), 2);
        fault(rule);
        assert_int_equal(del("log/1"), 0);
        assert_int_equal(counted("requests"), 2);
        assert_int_equal(get("log/1", BIG), -ENOENT);
    }
    assert_int_equal(stats().failed, 4 * ARRAY_SIZE(errors));
    assert_int_equal(stats().retried, stats().failed);
}

static void test_cut_answers_resume(void **state)
{
    (void)state;
    assert_int_equal(put("log/1", BIG, 0), 0);
    fault("cut=1000&count=3");
    assert_int_equal(get("log/1", 10000), 0);
    assert_memory_equal(got, big, 10000);
    expect_log("GET 206 0 1000;GET 206 0 1000;GET 206 0 1000;GET 206 0 7000;");
    fault("cut=0&count=1");
    assert_int_equal(get("log/1", 10000), 0);
    expect_log("GET 206 0 0;GET 206 0 10000;");
}

static void test_cut_uploads_store_nothing(void **state)
{
    (void)state;
    fault("cut=1000&method=PUT&count=2");
    assert_int_equal(put("log/1", BIG, STORE_IF_ABSENT), 0);
    assert_int_equal(get("log/1", BIG), 0);
    assert_memory_equal(got, big, BIG);
    expect_log("PUT 0 1000 0;PUT 0 1000 0;PUT 200 100000 0;GET 206 0 100000;");
}

static void test_lost_answers(void **state)
{
    int n;

    (void)state;
    fault("lost=1&count=1");
    assert_int_equal(put("log/1", 10, STORE_IF_ABSENT), -EEXIST);
    expect_log("PUT 0 10 0;PUT 412 10 240;");
    fault("lost=1&count=1");
    assert_int_equal(put("log/1", 20, 0), 0);
    fault("lost=1&count=1");
    assert_int_equal(get("log/1", 20), 0);
    fault("lost=1&count=1");
    assert_int_equal(list(&n), 0);
    assert_int_equal(n, 1);
    fault("lost=1&count=1");
    assert_int_equal(del("log/1"), 0);
    assert_int_equal(counted("requests"), 2);
}

static void test_garbage(void **state)
{
    int n;

    (void)state;
    assert_int_equal(put("log/1", BIG, 0), 0);
    /* Bytes of the right number are for the layers above to judge. */
    fault("garbage=1&count=1");
    assert_int_equal(get("log/1", BIG), 0);
    assert_memory_not_equal(got, big, BIG);
    fault("flip=1&count=1");
    assert_int_equal(get("log/1", BIG), 0);
    assert_memory_not_equal(got, big, BIG);
    assert_int_equal(counted("GET"), 1);
    /* A list that cannot be parsed is none. */
    fault("garbage=1&count=2");
    assert_int_equal(list(&n), 0);
    assert_int_equal(n, 1);
    assert_int_equal(counted("LIST"), 3);
}

static void test_hanging_server(void **state)
{
    (void)state;
    assert_int_equal(put("log/1", 10, 0), 0);
    fault("hang=1&count=2");
    assert_int_equal(get("log/1", 10), 0); /* the stall timeout is half a second */
    assert_int_equal(counted("GET"), 3);
    fault("delay=300&count=1"); /* slow, not dead */
    assert_int_equal(get("log/1", 10), 0);
    assert_int_equal(counted("GET"), 1);
}

static void test_server_away(void **state)
{
    (void)state;
    assert_int_equal(put("log/1", 10, 0), 0);
    control("POST", "?down=1");
    assert_int_equal(store_put(store, "log/2", big, 10, 0, 700), -ETIMEDOUT);
    assert_false(stats().reachable);
    control("POST", "?up=1");
    assert_int_equal(get("log/1", 10), 0);
    assert_int_equal(get("log/2", 10), -ENOENT);
    assert_true(stats().reachable);
}

static void test_refusals_are_final(void **state)
{
    (void)state;
    fault("refuse=1");
    assert_int_equal(put("log/1", 10, 0), -EACCES);
    assert_int_equal(counted("PUT"), 1);
    fault("code=ExpiredToken");
    assert_int_equal(put("log/1", 10, 0), -EACCES);
    assert_int_equal(counted("PUT"), 1);
    fault("status=501&conditional=1");
    assert_true(put("log/1", 10, STORE_IF_ABSENT) < 0);
    assert_int_equal(counted("PUT"), 1);
    assert_int_equal(put("log/1", 10, 0), 0);
}

/* S3 answers 200 to a batch delete although some of it failed. */
static void test_partial_delete(void **state)
{
    const char *keys[] = {"log/1", "log/2", "log/3"};
    int n;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
        assert_int_equal(put(keys[i], 10, 0), 0);
    fault("partial=1&count=1");
    assert_int_equal(store_delete(store, keys, 3, PATIENCE_MS), 0);
    assert_int_equal(counted("POST"), 2);
    assert_int_equal(list(&n), 0);
    assert_int_equal(n, 0);
    assert_int_equal(put("log/1", 10, 0), 0);
    assert_int_equal(put("log/2", 10, 0), 0);
    fault("partial=1&code=AccessDenied");
    assert_int_equal(store_delete(store, keys, 2, PATIENCE_MS), -EACCES);
    assert_int_equal(counted("POST"), 1);
}

enum { NTHREADS = 8, NOPS = 40 };

static int check_body(void *ctx, const void *data, size_t len)
{
    const unsigned char **want = ctx;

    if (memcmp(*want, data, len) != 0)
        return -EILSEQ;
    *want += len;
    return 0;
}

static void *hammer(void *ctx)
{
    intptr_t thread = (intptr_t)ctx, bad = 0;

    for (int i = 0; i < NOPS; i++) {
        size_t len = (size_t)(i * 977 % 20000 + 1);
        const unsigned char *from = big + thread * 1000 + i, *want = from;
        char key[32];
        const char *keys[] = {key};
        assert_int_equal(format(key, sizeof key, "log/%d-%d", (int)thread, i), 0);
        bad += store_put(store, key, from, len, 0, PATIENCE_MS) != 0;
        bad += store_get(store, key, 0, len, check_body, &want, PATIENCE_MS) != 0;
        bad += want != from + len;
        if (i % 2)
            bad += store_delete(store, keys, 1, PATIENCE_MS) != 0;
    }
    return (void *)bad;
}

static void test_storm(void **state)
{
    pthread_t t[NTHREADS];
    void *bad;
    int n;

    (void)state;
    control("POST", "?status=503&p=0.05&seed=1");
    control("POST", "?status=500&p=0.05&seed=2");
    control("POST", "?cut=700&p=0.1&seed=3");
    control("POST", "?lost=1&p=0.05&seed=4");
    for (intptr_t i = 0; i < NTHREADS; i++)
        assert_int_equal(pthread_create(&t[i], NULL, hammer, (void *)i), 0);
    for (int i = 0; i < NTHREADS; i++) {
        pthread_join(t[i], &bad);
        assert_null(bad);
    }
    assert_int_equal(list(&n), 0);
    assert_int_equal(n, NTHREADS * NOPS / 2);
    assert_true(counted("faults") > 50);
}

static int setup_weak(void **state)
{
    (void)state;
    return setup_with("--no-conditional-put", NULL);
}

static void test_no_conditional_put(void **state)
{
    (void)state;
    assert_int_equal(put("log/1", 10, STORE_IF_ABSENT), 0);
    assert_int_equal(put("log/1", 20, STORE_IF_ABSENT), 0);
    assert_int_equal(get("log/1", 20), 0);
}

static int setup_skewed(void **state)
{
    (void)state;
    return setup_with("--clock-ahead", "3600");
}

static void test_clock_skew(void **state)
{
    char said[512];

    (void)state;
    assert_int_equal(put("log/1", 10, 0), -EACCES);
    msg_last_error(said, sizeof said);
    assert_non_null(strstr(said, "clock"));
    assert_int_equal(counted("PUT"), 1);
}

#define S3D_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

/* ------------------------------------------------------------------ asking twice */

/* With patience for a busy machine, and having learnt what is usual. */
static int setup_patient(void **state)
{
    struct store_config config = {.endpoint = endpoint, .stall_timeout_ms = 3000};

    setup(state);
    store_free(store);
    assert_int_equal(store_open(&config, "s3://tests/a/vm1", &store), 0);
    assert_int_equal(put("log/1", BIG, 0), 0);
    for (int i = 0; i < 100; i++)
        assert_int_equal(get("log/1", BIG), 0);
    memset(got, 0, sizeof got);
    return 0;
}

/* Soon: of a request that hangs the server knows when its client is gone. */
static void expect_gets(long n)
{
    for (int i = 0; i < 1000 && counted("GET") < n; i++)
        poll(NULL, 0, 10);
    assert_in_range(counted("GET"), n, n + 1); /* a busy machine may be slow by itself, too */
}

static void test_a_slow_answer_is_not_waited_for(void **state)
{
    struct store_stats before = stats();

    (void)state;
    fault("method=GET&count=1&hang=1");
    assert_int_equal(get("log/1", BIG), 0);
    assert_memory_equal(got, big, BIG);
    assert_int_equal(stats().hedged, before.hedged + 1);
    assert_int_equal(stats().get, before.get + 2);
    assert_int_equal(stats().retried, before.retried);
    expect_gets(2);
    fault("method=GET&count=1&hang=1");
    assert_int_equal(get("log/none", 1), -ENOENT); /* that is an answer, too */
    assert_int_equal(stats().failed, before.failed);
}

/* The second request is refused, or lost: the first one is waited for. */
static void test_a_hedge_that_fails(void **state)
{
    static const char *const rules[] = {"?method=GET&count=1&status=503",
                                        "?method=GET&count=1&lost=1"};
    struct store_stats before = stats();

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
        fault("method=GET&count=1&delay=2000");
        control("POST", rules[i]);
        memset(got, 0, sizeof got);
        assert_int_equal(get("log/1", BIG), 0);
        assert_memory_equal(got, big, BIG);
        assert_int_equal(stats().hedged, before.hedged + i + 1);
    }
    assert_int_equal(stats().failed, before.failed);
}

/* Both are refused, or hang: as if there had been one. */
static void test_both_fail(void **state)
{
    static const char *const rules[] = {"method=GET&count=2&delay=1000&status=503",
                                        "method=GET&count=2&hang=1"};
    struct store_stats before = stats();

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
        fault(rules[i]);
        memset(got, 0, sizeof got);
        assert_int_equal(get("log/1", BIG), 0);
        assert_memory_equal(got, big, BIG);
        assert_int_equal(stats().failed, before.failed + i + 1);
        expect_gets(3);
    }
}

/* The first is refused late, the second not at all. */
static void test_refused_after_the_hedge(void **state)
{
    struct store_stats before = stats();

    (void)state;
    fault("method=GET&count=1&delay=1000&status=503");
    control("POST", "?method=GET&count=1&delay=2000");
    assert_int_equal(get("log/1", BIG), 0);
    assert_memory_equal(got, big, BIG);
    assert_int_equal(stats().failed, before.failed);
    expect_gets(2);
}

/* A store that is slow as a whole is not asked twice as much. */
static void test_hedges_are_few(void **state)
{
    uint64_t before = stats().hedged;

    (void)state;
    fault("method=GET&delay=300&p=0.3&seed=1");
    for (int i = 0; i < 39; i++)
        assert_int_equal(get("log/1", BIG), 0);
    assert_in_range(stats().hedged - before, 1, 4 + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        S3D_TEST(test_errors_pass),
        S3D_TEST(test_cut_answers_resume),
        S3D_TEST(test_cut_uploads_store_nothing),
        S3D_TEST(test_lost_answers),
        S3D_TEST(test_garbage),
        S3D_TEST(test_hanging_server),
        S3D_TEST(test_server_away),
        S3D_TEST(test_refusals_are_final),
        S3D_TEST(test_partial_delete),
        S3D_TEST(test_storm),
        cmocka_unit_test_setup_teardown(test_a_slow_answer_is_not_waited_for, setup_patient,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_hedge_that_fails, setup_patient, teardown),
        cmocka_unit_test_setup_teardown(test_both_fail, setup_patient, teardown),
        cmocka_unit_test_setup_teardown(test_refused_after_the_hedge, setup_patient, teardown),
        cmocka_unit_test_setup_teardown(test_hedges_are_few, setup_patient, teardown),
        cmocka_unit_test_setup_teardown(test_no_conditional_put, setup_weak, teardown),
        cmocka_unit_test_setup_teardown(test_clock_skew, setup_skewed, teardown),
    };

    setenv("AWS_ACCESS_KEY_ID", "test", 1);
    setenv("AWS_SECRET_ACCESS_KEY", "testsecret", 1);
    setenv("AWS_REGION", "us-east-1", 1);
    unsetenv("AWS_SESSION_TOKEN");
    msg_set_sink(MSG_NONE);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
