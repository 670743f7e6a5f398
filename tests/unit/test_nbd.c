/* The NBD server's rules: what a request must be, and how the handshake goes. */
#include "../../contrib/nbd/negotiate.h"
#include "../../contrib/nbd/volumes.h"
#include "../../store/msg.h"
#include "../../store/scope.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <cmocka.h>

enum { SIZE = 1 << 20 };

/* ----------------------------------------------------------------------------- requests */

static const struct agreement simple = {.size = SIZE};
static const struct agreement all = {.size = SIZE, .structured = true, .allocation = true};
static const struct agreement read_only = {.size = SIZE, .read_only = true, .structured = true};

static uint32_t check(const struct agreement *agreement, uint16_t type, uint16_t flags,
                      uint64_t offset, uint32_t length)
{
    const struct request q = {.type = type, .flags = flags, .offset = offset, .length = length};
    const char *why = NULL;
    uint32_t error = request_check(&q, agreement, &why);

    assert_true(!error == !why);
    return error;
}

static void test_ranges(void **state)
{
    (void)state;
    for (uint16_t type = NBD_CMD_READ; type <= NBD_CMD_BLOCK_STATUS; type++) {
        uint32_t beyond =
            type == NBD_CMD_WRITE || type == NBD_CMD_WRITE_ZEROES ? NBD_ENOSPC : NBD_EINVAL;
        if (type == NBD_CMD_DISC || type == NBD_CMD_FLUSH)
            continue;
        assert_int_equal(check(&all, type, 0, 0, SIZE), 0);
        assert_int_equal(check(&all, type, 0, SIZE - 1, 1), 0);
        assert_int_equal(check(&all, type, 0, SIZE - 1, 2), beyond);
        assert_int_equal(check(&all, type, 0, SIZE, 1), beyond);
        assert_int_equal(check(&all, type, 0, UINT64_MAX, 1), beyond);
        assert_int_equal(check(&all, type, 0, UINT64_MAX - 511, 512), beyond);
        assert_int_equal(check(&all, type, 0, 0, UINT32_MAX), beyond);
    }
    assert_int_equal(check(&all, NBD_CMD_FLUSH, 0, 0, 0), 0);
    assert_int_equal(check(&all, NBD_CMD_FLUSH, 0, 1, 0), NBD_EINVAL);
    assert_int_equal(check(&all, NBD_CMD_FLUSH, 0, 0, 1), NBD_EINVAL);
    assert_int_equal(check(&all, NBD_CMD_BLOCK_STATUS, 0, 0, 0), NBD_EINVAL);
    assert_int_equal(check(&all, NBD_CMD_READ, 0, SIZE, 0), 0);
}

static void test_payloads(void **state)
{
    struct agreement big = all, plain = simple;
    uint32_t most = NBD_PAYLOAD_MAX;

    (void)state;
    big.size = plain.size = UINT64_C(1) << 40;
    assert_int_equal(check(&big, NBD_CMD_READ, 0, 0, most), 0);
    assert_int_equal(check(&big, NBD_CMD_READ, 0, 0, most + 1), NBD_EOVERFLOW);
    assert_int_equal(check(&plain, NBD_CMD_READ, 0, 0, most + 1), NBD_EINVAL);
    assert_int_equal(check(&big, NBD_CMD_WRITE, 0, 0, most), 0);
    assert_int_equal(check(&big, NBD_CMD_WRITE, 0, 0, most + 1), NBD_EINVAL);
    assert_int_equal(check(&big, NBD_CMD_CACHE, 0, 0, most + 1), NBD_EOVERFLOW);
    assert_int_equal(check(&big, NBD_CMD_TRIM, 0, 0, UINT32_MAX), 0);
    assert_int_equal(check(&big, NBD_CMD_WRITE_ZEROES, 0, 0, UINT32_MAX), 0);
    assert_int_equal(check(&big, NBD_CMD_BLOCK_STATUS, 0, 0, UINT32_MAX), 0);
    assert_int_equal(check(&big, NBD_CMD_READ, NBD_CMD_FLAG_DF, 0, 65536), 0);
    assert_int_equal(check(&big, NBD_CMD_READ, NBD_CMD_FLAG_DF, 0, most), NBD_EOVERFLOW);
}

static void test_flags(void **state)
{
    static const struct {
        uint16_t type, flags;
    } known[] = {
        {NBD_CMD_READ, NBD_CMD_FLAG_DF},
        {NBD_CMD_WRITE, 0},
        {NBD_CMD_TRIM, 0},
        {NBD_CMD_CACHE, 0},
        {NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO},
        {NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_REQ_ONE},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(known); i++)
        for (unsigned bit = 0; bit < 16; bit++) {
            uint16_t flag = (uint16_t)(1U << bit);
            bool ok = flag == NBD_CMD_FLAG_FUA || flag & known[i].flags;
            assert_int_equal(check(&all, known[i].type, flag, 0, 512), ok ? 0 : NBD_EINVAL);
        }
    assert_int_equal(check(&simple, NBD_CMD_READ, NBD_CMD_FLAG_DF, 0, 512), NBD_EINVAL);
    assert_int_equal(check(&simple, NBD_CMD_BLOCK_STATUS, 0, 0, 512), NBD_EINVAL);
    for (unsigned type = NBD_CMD_BLOCK_STATUS + 1; type <= UINT16_MAX; type++)
        assert_int_equal(check(&all, (uint16_t)type, 0, 0, 512), NBD_EINVAL);
}

static void test_read_only(void **state)
{
    (void)state;
    assert_int_equal(check(&read_only, NBD_CMD_WRITE, 0, 0, 512), NBD_EPERM);
    assert_int_equal(check(&read_only, NBD_CMD_WRITE, 0, SIZE, 512), NBD_EPERM);
    assert_int_equal(check(&read_only, NBD_CMD_TRIM, 0, 0, 512), NBD_EPERM);
    assert_int_equal(check(&read_only, NBD_CMD_WRITE_ZEROES, 0, 0, 512), NBD_EPERM);
    assert_int_equal(check(&read_only, NBD_CMD_READ, 0, 0, 512), 0);
    assert_int_equal(check(&read_only, NBD_CMD_FLUSH, 0, 0, 0), 0);
    uint16_t flags = request_transmission_flags(&read_only);
    assert_true(flags & NBD_FLAG_READ_ONLY);
    assert_false(flags & (NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES));
    assert_false(request_transmission_flags(&simple) & NBD_FLAG_SEND_DF);
}

/* ----------------------------------------------------------------------------- handshakes */

/* What the client says is written in advance; what the server said is read afterwards. */
struct talk {
    int client, server;
    struct stream stream;
    struct exports *exports;
    struct negotiate_config config;
    struct session session;
    atomic_bool stopping;
    char dir[32], path[64];
};

static unsigned tls_starts;

static int start_tls(struct tls *tls, struct stream *stream)
{
    (void)tls;
    (void)stream;
    tls_starts++;
    return 0;
}

static int begin(void **state)
{
    static struct talk t;
    int fds[2];

    msg_set_sink(MSG_NONE);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    t = (struct talk){.client = fds[0], .server = fds[1], .dir = "/tmp/nbd-XXXXXX"};
    assert_non_null(mkdtemp(t.dir));
    assert_int_equal(format(t.path, sizeof t.path, "%s/image", t.dir), 0);
    FILE *f = fopen(t.path, "w");
    assert_non_null(f);
    assert_int_equal(ftruncate(fileno(f), SIZE), 0);
    fclose(f);
    assert_int_equal(exports_new(false, NULL, &t.exports), 0);
    for (const char *name = "ab"; *name; name++) {
        char word[80];
        assert_int_equal(format(word, sizeof word, "%c=%s", *name, t.path), 0);
        assert_int_equal(exports_add(t.exports, word), 0);
    }
    t.config = (struct negotiate_config){t.exports, NULL, start_tls, &t.stopping};
    tls_starts = 0;
    stream_init(&t.stream, t.server, t.server);
    t.stream.patience_ms = 100;
    *state = &t;
    return 0;
}

static int end(void **state)
{
    struct talk *t = *state;

    if (t->session.export)
        exports_release(t->exports, t->session.export);
    exports_free(t->exports);
    close(t->client);
    close(t->server);
    unlink(t->path);
    rmdir(t->dir);
    return 0;
}

static void say(struct talk *t, const void *buf, size_t len)
{
    assert_int_equal(write(t->client, buf, len), (ssize_t)len);
}

static void say_flags(struct talk *t, uint32_t flags)
{
    unsigned char buf[4];

    put_be32(buf, flags);
    say(t, buf, sizeof buf);
}

static void say_option(struct talk *t, uint32_t option, const void *data, size_t len)
{
    unsigned char head[NBD_OPTION_BYTES];

    put_be32(put_be32(put_be64(head, NBD_OPTION_MAGIC), option), (uint32_t)len);
    say(t, head, sizeof head);
    say(t, data, len);
}

/* GO or INFO: a name of one letter, no information requests. */
static void say_go(struct talk *t, uint32_t option, char name)
{
    unsigned char data[7] = {0, 0, 0, 1, (unsigned char)name, 0, 0};

    say_option(t, option, data, sizeof data);
}

static void say_context(struct talk *t, char name, const char *query)
{
    unsigned char data[64], *p = put_be32(data, 1);

    *p++ = (unsigned char)name;
    p = put_be32(put_be32(p, 1), (uint32_t)strlen(query));
    memcpy(p, query, strlen(query));
    say_option(t, NBD_OPT_SET_META_CONTEXT, data, (size_t)(p - data) + strlen(query));
}

static void hear_greeting(struct talk *t)
{
    unsigned char greeting[NBD_GREETING_BYTES];

    assert_int_equal(recv(t->client, greeting, sizeof greeting, MSG_WAITALL), sizeof greeting);
    assert_true(get_be64(greeting) == NBD_INIT_MAGIC);
}

/* The type of the next reply, whose data is passed over. */
static uint32_t hear(struct talk *t)
{
    unsigned char head[NBD_OPTION_REPLY_BYTES], data[256];

    assert_int_equal(recv(t->client, head, sizeof head, MSG_DONTWAIT), sizeof head);
    uint32_t len = get_be32(head + 16);
    assert_true(get_be64(head) == NBD_REPLY_MAGIC && len <= sizeof data);
    assert_int_equal(len ? recv(t->client, data, len, MSG_DONTWAIT) : 0, len);
    return get_be32(head + 12);
}

static void test_go(void **state)
{
    struct talk *t = *state;

    say_flags(t, 3);
    say_go(t, NBD_OPT_INFO, 'x');
    say_go(t, NBD_OPT_INFO, 'a');
    say_option(t, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
    say_context(t, 'b', "base:");
    say_context(t, 'b', "x-unknown:thing");
    say_context(t, 'b', NBD_BASE_ALLOCATION);
    say_go(t, NBD_OPT_GO, 'b');
    assert_int_equal(negotiate(&t->config, &t->stream, &t->session), 0);
    assert_true(t->session.agreement.structured && t->session.agreement.allocation);
    assert_true(t->session.agreement.size == SIZE);
    hear_greeting(t);
    assert_int_equal(hear(t), NBD_REP_ERR_UNKNOWN);
    assert_int_equal(hear(t), NBD_REP_INFO);
    assert_int_equal(hear(t), NBD_REP_ACK);
    assert_int_equal(hear(t), NBD_REP_ACK);
    assert_int_equal(hear(t), NBD_REP_ACK);
    assert_int_equal(hear(t), NBD_REP_ACK);
    assert_int_equal(hear(t), NBD_REP_META_CONTEXT);
    assert_int_equal(hear(t), NBD_REP_ACK);
    assert_int_equal(hear(t), NBD_REP_INFO);
    assert_int_equal(hear(t), NBD_REP_ACK);
}

/* A context that was chosen for one export is none of another, nor after a choice that failed. */
static void test_context_of_another(void **state)
{
    struct talk *t = *state;

    say_flags(t, 3);
    say_option(t, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
    say_context(t, 'a', NBD_BASE_ALLOCATION);
    say_go(t, NBD_OPT_GO, 'b');
    assert_int_equal(negotiate(&t->config, &t->stream, &t->session), 0);
    assert_false(t->session.agreement.allocation);
}

static void test_context_that_failed(void **state)
{
    struct talk *t = *state;

    say_flags(t, 3);
    say_option(t, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
    say_context(t, 'a', NBD_BASE_ALLOCATION);
    say_context(t, 'a', "nonsense");
    say_go(t, NBD_OPT_GO, 'a');
    assert_int_equal(negotiate(&t->config, &t->stream, &t->session), 0);
    assert_false(t->session.agreement.allocation);
}

/* What was sent behind STARTTLS without waiting for the answer is not taken for encrypted. */
static void test_nothing_slips_into_tls(void **state)
{
    struct talk *t = *state;

    t->config.tls = (struct tls *)t;
    say_flags(t, 3);
    say_option(t, NBD_OPT_STARTTLS, NULL, 0);
    say_go(t, NBD_OPT_GO, 'a');
    assert_int_equal(negotiate(&t->config, &t->stream, &t->session), -EPROTO);
    assert_int_equal(tls_starts, 0);
}

static void test_tls_is_demanded(void **state)
{
    struct talk *t = *state;

    t->config.tls = (struct tls *)t;
    say_flags(t, 3);
    say_option(t, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
    say_option(t, NBD_OPT_LIST, NULL, 0);
    say_option(t, 4711, NULL, 0);
    say_go(t, NBD_OPT_GO, 'a');
    say_option(t, NBD_OPT_EXPORT_NAME, "a", 1);
    assert_int_equal(negotiate(&t->config, &t->stream, &t->session), -EPROTO);
    hear_greeting(t);
    for (int i = 0; i < 4; i++)
        assert_int_equal(hear(t), NBD_REP_ERR_TLS_REQD);
}

static void test_shutting_down(void **state)
{
    struct talk *t = *state;

    t->stopping = true;
    say_flags(t, 3);
    say_go(t, NBD_OPT_GO, 'a');
    say_option(t, NBD_OPT_ABORT, "why", 3);
    assert_int_equal(negotiate(&t->config, &t->stream, &t->session), -ECONNABORTED);
    hear_greeting(t);
    assert_int_equal(hear(t), NBD_REP_ERR_SHUTDOWN);
    assert_int_equal(hear(t), NBD_REP_ACK);
}

/* A client that falls silent, or never stops talking. */
static void test_patience(void **state)
{
    struct talk *t = *state;

    say_flags(t, 3);
    say(t, "IHAVEO", 6);
    assert_int_equal(negotiate(&t->config, &t->stream, &t->session), -ETIMEDOUT);
}

static void *take_answers(void *arg)
{
    const struct talk *t = arg;
    char buf[4096];

    while (read(t->client, buf, sizeof buf) > 0)
        ;
    return NULL;
}

static void test_too_many_options(void **state)
{
    struct talk *t = *state;
    static unsigned char options[(NEGOTIATE_OPTIONS_MAX + 5) * NBD_OPTION_BYTES];
    pthread_t thread;

    say_flags(t, 3);
    for (unsigned char *p = options; p < options + sizeof options; p += NBD_OPTION_BYTES)
        put_be32(put_be64(p, NBD_OPTION_MAGIC), NBD_OPT_STRUCTURED_REPLY);
    say(t, options, sizeof options);
    t->stream.patience_ms = 60000;
    assert_int_equal(pthread_create(&thread, NULL, take_answers, t), 0);
    assert_int_equal(negotiate(&t->config, &t->stream, &t->session), -EPROTO);
    shutdown(t->server, SHUT_RDWR);
    pthread_join(thread, NULL);
}

static void test_volume_names(void **state)
{
    static const char *const good[] = {"a", "vm1", "vm-1.example_2", "9"};
    static const char *const bad[] = {"",    ".",   "..",  ".a",   "-a",
                                      "a/b", "a b", "a\n", "../a", "\xc3\xa4"};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(good); i++)
        assert_true(volumes_check_name(good[i]));
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_false(volumes_check_name(bad[i]));
}

#define TALK(test) cmocka_unit_test_setup_teardown(test, begin, end)

/* ----------------------------------------------------------------------------- extents */

static void expect_extent(struct image *image, uint64_t offset, uint64_t want_len, bool want_hole)
{
    uint64_t len = 0;
    bool hole = !want_hole;

    image_extent(image, offset, image_size(image), &len, &hole);
    assert_int_equal(hole, want_hole);
    assert_int_equal(len, want_len);
}

/* Data is looked for once, which shows where others make a hole in it; one of our own is told. */
static void test_data_is_remembered(void **state)
{
    enum { MIB = 1 << 20 };
    const char *tmp = getenv("T") ? getenv("T") : "/tmp";
    static char data[MIB];
    char path[256];
    struct image *image;

    (void)state;
    memset(data, 'x', sizeof data);
    assert_int_equal(format(path, sizeof path, "%s/test_nbd.XXXXXX", tmp), 0);
    scope_close int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 8 * MIB), 0);
    for (int i = 2; i < 6; i++)
        assert_int_equal(pwrite(fd, data, MIB, (off_t)i * MIB), MIB);
    assert_int_equal(image_open(path, false, &image), 0);
    expect_extent(image, 0, 2 * MIB, true);
    expect_extent(image, 2 * MIB, 4 * MIB, false);
    assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 3 * MIB, 4096), 0);
    expect_extent(image, 2 * MIB, 4 * MIB, false);
    expect_extent(image, 3 * MIB, 3 * MIB, false);
    assert_int_equal(image_trim(image, 5 * MIB, MIB, false), 0);
    expect_extent(image, 5 * MIB, 3 * MIB, true);
    expect_extent(image, 4 * MIB, MIB, false);
    assert_int_equal(image_zero(image, 0, 5 * MIB, 0), 0);
    expect_extent(image, 0, 8 * MIB, true);
    image_close(image);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_payloads),
        cmocka_unit_test(test_flags),
        cmocka_unit_test(test_read_only),
        TALK(test_go),
        TALK(test_context_of_another),
        TALK(test_context_that_failed),
        TALK(test_nothing_slips_into_tls),
        TALK(test_tls_is_demanded),
        TALK(test_shutting_down),
        TALK(test_patience),
        TALK(test_too_many_options),
        cmocka_unit_test(test_volume_names),
        cmocka_unit_test(test_data_is_remembered),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
