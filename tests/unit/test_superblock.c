/* The superblock: its text, what is refused, and the probe for conditional PUT. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "mem_store.h"

#include "../../store/crc32c.h"
#include "../../store/entry.h"
#include "../../store/superblock.h"

#include <ctype.h>

static struct mem mem;
static struct store *store;
static const char *why;

static const struct superblock sample = {
    .uuid = {0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0x4d, 0xef, 0x81, 0x23, 0x45, 0x67, 0x89, 0xab,
             0xcd, 0xef},
    .size_bytes = UINT64_C(1) << 40,
    .compress = true,
    .conditional_put = true,
    .created = "2024-05-06T07:08:09Z",
};

static int setup(void **state)
{
    (void)state;
    msg_set_sink(MSG_NONE);
    mem_init(&mem);
    store = mem_store(&mem, &mem_clock);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    store_free(store);
    mem_destroy(&mem);
    return 0;
}

static void assert_same(const struct superblock *a, const struct superblock *b)
{
    assert_memory_equal(a->uuid, b->uuid, UUID_BYTES);
    assert_int_equal(a->size_bytes, b->size_bytes);
    assert_int_equal(a->compress, b->compress);
    assert_int_equal(a->conditional_put, b->conditional_put);
    assert_string_equal(a->created, b->created);
}

/* ------------------------------------------------------------------ the text */

#define GOLDEN                                                                                     \
    "{\"s3vol\":1,\"uuid\":\"01234567-89ab-4def-8123-456789abcdef\",\"size_bytes\":1099511627776," \
    "\"block_bytes\":4096,\"chunk_blocks\":64,\"window\":1024,\"compression\":\"zstd\","           \
    "\"encryption\":\"none\",\"base\":null,\"conditional_put\":true,"                              \
    "\"created\":\"2024-05-06T07:08:09Z\""

/* `members` with the checksum that belongs to them. */
static size_t with_crc(const char *members, char *buf, size_t size_bytes)
{
    return (size_t)snprintf(buf, size_bytes, "%s,\"crc32c\":\"%08x\"}\n", members,
                            crc32c(0, members, strlen(members)));
}

static void test_golden_text(void **state)
{
    char want[NOTE_BYTES_MAX], got[NOTE_BYTES_MAX];
    struct superblock sb;
    size_t len;

    (void)state;
    with_crc(GOLDEN, want, sizeof want);
    assert_int_equal(superblock_encode(&sample, got, sizeof got, &len), 0);
    assert_string_equal(got, want);
    assert_int_equal(len, strlen(want));
    assert_int_equal(superblock_decode(want, len, &sb, &why), 0);
    assert_same(&sb, &sample);
}

static void test_round_trips(void **state)
{
    static const uint64_t sizes[] = {4096, UINT64_C(1) << 20, (UINT64_C(1) << 63) - 4096};
    char text[NOTE_BYTES_MAX];
    size_t len;

    (void)state;
    for (unsigned i = 0; i < 12; i++) {
        struct superblock sb = sample, back;
        sb.compress = i & 1;
        sb.conditional_put = i & 2;
        sb.size_bytes = sizes[i / 4];
        assert_int_equal(superblock_encode(&sb, text, sizeof text, &len), 0);
        assert_int_equal(superblock_decode(text, len, &back, &why), 0);
        assert_same(&sb, &back);
    }
    assert_int_equal(superblock_encode(&sample, text, sizeof text, &len), 0);
    assert_int_equal(superblock_encode(&sample, text, 100, &len), -ENAMETOOLONG);
    assert_int_equal(superblock_encode(&sample, text, len, &len), -ENAMETOOLONG);
}

static void test_every_flipped_bit_is_noticed(void **state)
{
    struct superblock sb;
    char text[NOTE_BYTES_MAX];
    size_t len;

    (void)state;
    assert_int_equal(superblock_encode(&sample, text, sizeof text, &len), 0);
    for (size_t bit = 0; bit < len * 8; bit++) {
        text[bit / 8] = (char)(text[bit / 8] ^ 1 << bit % 8);
        int r = superblock_decode(text, len, &sb, &why);
        assert_true(r == -EBADMSG || r == -EPROTONOSUPPORT);
        text[bit / 8] = (char)(text[bit / 8] ^ 1 << bit % 8);
    }
}

static void test_truncated_and_garbage(void **state)
{
    char text[NOTE_BYTES_MAX + 1];
    struct superblock sb;
    size_t len;

    (void)state;
    assert_int_equal(superblock_encode(&sample, text, sizeof text, &len), 0);
    for (size_t n = 0; n < len; n++)
        assert_int_equal(superblock_decode(text, n, &sb, &why), -EBADMSG);
    memset(text + len, ' ', sizeof text - len);
    assert_int_equal(superblock_decode(text, len + 1, &sb, &why), -EBADMSG);
    assert_int_equal(superblock_decode(text, sizeof text, &sb, &why), -EBADMSG); /* too long */
    memset(text, 0, 100);
    assert_int_equal(superblock_decode(text, 100, &sb, &why), -EBADMSG);
    assert_int_equal(superblock_decode("<html>", 6, &sb, &why), -EBADMSG);
    assert_int_equal(superblock_decode("{}", 2, &sb, &why), -EBADMSG);
    assert_int_equal(superblock_decode("[1]", 3, &sb, &why), -EBADMSG);
}

/* The text with `from` replaced by `to`, under a good checksum. */
static int decode_with(const char *from, const char *to, struct superblock *ret)
{
    char members[1024], text[1100];
    const char *at = strstr(GOLDEN, from);

    assert_non_null(at);
    snprintf(members, sizeof members, "%.*s%s%s", (int)(at - GOLDEN), GOLDEN, to,
             at + strlen(from));
    return superblock_decode(text, with_crc(members, text, sizeof text), ret, &why);
}

#define FUTURE                                                                                     \
    "{\"s3vol\":2,\"uuid\":\"?\",\"compression\":\"?\",\"encryption\":\"?\",\"created\":\"?\"}"

static void test_what_this_version_does_not_know(void **state)
{
    struct superblock sb;

    (void)state;
    assert_int_equal(decode_with("\"s3vol\":1", "\"s3vol\":2", &sb), -EPROTONOSUPPORT);
    assert_non_null(strstr(why, "upgrade"));
    assert_int_equal(decode_with("\"encryption\":\"none\"", "\"encryption\":\"aes\"", &sb),
                     -EPROTONOSUPPORT);
    assert_int_equal(decode_with("\"base\":null", "\"base\":\"s3://b/x\"", &sb), -EPROTONOSUPPORT);
    assert_int_equal(decode_with("\"base\":null", "\"base\":null,\"color\":\"green\"", &sb), 0);
    assert_same(&sb, &sample);
    /* a future one may keep its checksum elsewhere */
    assert_int_equal(superblock_decode(FUTURE, strlen(FUTURE), &sb, &why), -EPROTONOSUPPORT);
}

#define BASE(url)                                                                                  \
    "{\"url\":\"" url "\",\"uuid\":\"01020304-0506-4708-890a-0b0c0d0e0f10\",\"root\":3,\"seq\":7}"

static void test_bases_of_a_clone(void **state)
{
    char text[NOTE_BYTES_MAX];
    struct superblock sb = sample, back;
    size_t len;

    (void)state;
    for (sb.nbases = 0; sb.nbases < BASES_MAX; sb.nbases++) {
        struct base *b = &sb.bases[sb.nbases];
        *b = (struct base){.root = sb.nbases, .seq = SEQ_MAX - sb.nbases};
        memset(b->url, sb.nbases ? '"' : 'x', BASE_URL_MAX - 1);
        b->uuid[3] = (uint8_t)sb.nbases;
    }
    assert_int_equal(superblock_encode(&sb, text, sizeof text, &len), -ENAMETOOLONG); /* quoted */
    for (unsigned i = 0; i < BASES_MAX; i++)
        sb.bases[i].url[20 + i] = 0;
    assert_int_equal(superblock_encode(&sb, text, sizeof text, &len), 0);
    assert_int_equal(superblock_decode(text, len, &back, &why), 0);
    assert_int_equal(back.nbases, BASES_MAX);
    for (unsigned i = 0; i < BASES_MAX; i++) {
        assert_string_equal(back.bases[i].url, sb.bases[i].url);
        assert_memory_equal(back.bases[i].uuid, sb.bases[i].uuid, UUID_BYTES);
        assert_true(back.bases[i].root == sb.bases[i].root && back.bases[i].seq == sb.bases[i].seq);
    }
    assert_int_equal(decode_with("\"base\":null", "\"base\":[" BASE("/a") "]", &back), 0);
    assert_int_equal(back.nbases, 1);
    assert_string_equal(back.bases[0].url, "/a");
    assert_true(back.bases[0].root == 3 && back.bases[0].seq == 7);
    assert_int_equal(decode_with("\"base\":null", "\"base\":[]", &back), -EBADMSG);
    assert_int_equal(decode_with("\"base\":null", "\"base\":[3]", &back), -EBADMSG);
    assert_int_equal(decode_with("\"base\":null", "\"base\":[" BASE("") "]", &back), -EBADMSG);
    assert_int_equal(decode_with("\"base\":null", "\"base\":[" BASE("\\n") "]", &back), -EBADMSG);
    assert_int_equal(decode_with("\"base\":null", "\"base\":{\"url\":\"/a\"}", &back),
                     -EPROTONOSUPPORT);
}

static void test_values_that_make_no_sense(void **state)
{
    static const char *const wrong[][2] = {
        {"\"size_bytes\":1099511627776", "\"size_bytes\":0"},
        {"\"size_bytes\":1099511627776", "\"size_bytes\":4097"},
        {"\"size_bytes\":1099511627776", "\"size_bytes\":-4096"},
        {"\"size_bytes\":1099511627776", "\"size_bytes\":9223372036854775807"},
        {"\"size_bytes\":1099511627776", "\"size_bytes\":null"},
        {"\"block_bytes\":4096", "\"block_bytes\":8192"},
        {"\"chunk_blocks\":64", "\"chunk_blocks\":32"},
        {"\"window\":1024", "\"window\":2048"},
        {"01234567-89ab-4def", "0123456-789ab-4def"},
        {"01234567-89ab-4def", "0"},
        {"01234567-89ab-4def", "0-0-0-0-0-0-0-0-0-"},
        {"01234567-89ab-4def", "01234567-89ab-4de"},
        {"01234567-89ab-4def", "01234567-89ab-4DEF"},
        {"01234567-89ab-4def", "x1234567-89ab-4def"},
        {"\"2024-05-06T07:08:09Z\"", "\"2024-05-06T07:08:09Z and a lot more of it\""},
        {"\"created\":\"2024-05-06T07:08:09Z\"", "\"created\":null"},
    };
    struct superblock sb;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
        assert_int_equal(decode_with(wrong[i][0], wrong[i][1], &sb), -EBADMSG);
}

/* ------------------------------------------------------------------ in a store */

static void test_create_and_load(void **state)
{
    struct superblock sb = {.size_bytes = 1 << 20, .compress = true}, back;
    char text[UUID_TEXT_BYTES];

    (void)state;
    assert_int_equal(superblock_load(store, &back, 0), -ENOENT);
    assert_int_equal(superblock_create(store, &sb, &mem_clock, 0), 0);
    assert_true(sb.conditional_put);
    assert_string_equal(sb.created, "2023-11-14T22:13:20Z");
    assert_int_equal(mem.n, 1); /* nothing is left of the probe */
    assert_int_equal(superblock_load(store, &back, 0), 0);
    assert_same(&sb, &back);
    uuid_format(sb.uuid, text);
    assert_int_equal(text[14], '4');
    assert_non_null(strchr("89ab", text[19]));
    for (int i = 0; i < 36; i++)
        assert_true(i == 8 || i == 13 || i == 18 || i == 23 ? text[i] == '-' : isxdigit(text[i]));
}

static void test_create_where_something_is(void **state)
{
    struct superblock sb = {.size_bytes = 1 << 20};

    (void)state;
    mem_set(&mem, "volume", "whatever it is", 14);
    assert_int_equal(superblock_create(store, &sb, &mem_clock, 0), -EEXIST);
    assert_memory_equal(mem_find(&mem, "volume")->data, "whatever it is", 14);
    assert_int_equal(mem.tries['P'], 0);
    assert_int_equal(superblock_load(store, &sb, 0), -EBADMSG);
}

static void test_a_store_that_ignores_conditions(void **state)
{
    struct superblock sb = {.size_bytes = 1 << 20}, back;

    (void)state;
    mem.ignores_conditions = true;
    assert_int_equal(superblock_create(store, &sb, &mem_clock, 0), 0);
    assert_false(sb.conditional_put);
    assert_int_equal(superblock_load(store, &back, 0), 0);
    assert_false(back.conditional_put);
    assert_int_equal(mem.n, 1);
}

struct lose {
    const char *prefix;
    int nth; /* PUT of such a key */
};

static enum mem_act lose_nth(void *ctx, char verb, const char *key)
{
    struct lose *l = ctx;

    return verb == 'P' && strncmp(key, l->prefix, strlen(l->prefix)) == 0 && l->nth-- == 0
               ? MEM_LOSE
               : MEM_OK;
}

/* Wherever an answer is lost, what the store can do is found out all the same. */
static void test_lost_answers(void **state)
{
    (void)state;
    for (int ignores = 0; ignores < 2; ignores++)
        for (int i = 0; i < 3; i++) {
            struct superblock sb = {.size_bytes = 1 << 20}, back;
            struct lose lose = {i < 2 ? "probe-" : "volume", i % 2};
            mem.ignores_conditions = ignores;
            mem_retry(&mem, lose_nth, &lose);
            assert_int_equal(superblock_create(store, &sb, &mem_clock, 60000), 0);
            assert_true(lose.nth < 0);
            assert_int_equal(sb.conditional_put, !ignores);
            assert_int_equal(superblock_load(store, &back, 0), 0);
            assert_same(&sb, &back);
            assert_int_equal(mem.n, 1);
            mem_remove(&mem, "volume");
        }
}

/* Somebody else's appears between the look and the PUT. */
static enum mem_act create_meanwhile(void *ctx, char verb, const char *key)
{
    if (verb == 'P' && strcmp(key, "volume") == 0 && !mem_find(&mem, key))
        mem_set(&mem, key, ctx, strlen(ctx));
    return MEM_OK;
}

static void test_two_create_at_once(void **state)
{
    struct superblock sb = {.size_bytes = 1 << 20};
    char theirs[NOTE_BYTES_MAX];
    size_t len;

    (void)state;
    assert_int_equal(superblock_encode(&sample, theirs, sizeof theirs, &len), 0);
    mem_retry(&mem, create_meanwhile, theirs);
    assert_int_equal(superblock_create(store, &sb, &mem_clock, 0), -EEXIST);
    mem_retry(&mem, NULL, NULL);
    assert_int_equal(superblock_load(store, &sb, 0), 0);
    assert_same(&sb, &sample);
}

static enum mem_act refuse_puts(void *ctx, char verb, const char *key)
{
    (void)ctx, (void)key;
    return verb == 'P' ? MEM_REFUSE : MEM_OK;
}

static void test_a_store_that_refuses(void **state)
{
    struct superblock sb = {.size_bytes = 1 << 20};

    (void)state;
    mem_retry(&mem, refuse_puts, NULL);
    assert_int_equal(superblock_create(store, &sb, &mem_clock, 0), -EIO);
    assert_int_equal(mem.n, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_golden_text),
        TEST(test_round_trips),
        TEST(test_every_flipped_bit_is_noticed),
        TEST(test_truncated_and_garbage),
        TEST(test_what_this_version_does_not_know),
        TEST(test_bases_of_a_clone),
        TEST(test_values_that_make_no_sense),
        TEST(test_create_and_load),
        TEST(test_create_where_something_is),
        TEST(test_a_store_that_ignores_conditions),
        TEST(test_lost_answers),
        TEST(test_two_create_at_once),
        TEST(test_a_store_that_refuses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
