/* Pins: their text, what is refused, and how they are stored, found and deleted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "mem_store.h"

#include "../../store/crc32c.h"
#include "../../store/pin.h"

static struct mem mem;
static struct store *store;
static const char *why;

static const struct superblock sb = {
    .uuid = {0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0x4d, 0xef, 0x81, 0x23, 0x45, 0x67, 0x89, 0xab,
             0xcd, 0xef},
    .conditional_put = true,
};

static const struct pin sample = {
    .name = "monday.1",
    .uuid = {0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0x4d, 0xef, 0x81, 0x23, 0x45, 0x67, 0x89, 0xab,
             0xcd, 0xef},
    .root = 7,
    .seq = 9,
    .next = 10,
    .size_bytes = 1 << 20,
    .epoch = 3,
    .created = "2024-05-06T07:08:09Z",
};

static const struct pin clones = {
    .name = "clone-00000000-0000-0000-0000-000000000001",
    .uuid = {0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0x4d, 0xef, 0x81, 0x23, 0x45, 0x67, 0x89, 0xab,
             0xcd, 0xef},
    .seq = 9,
    .next = 1034,
    .size_bytes = 4096,
    .created = "2024-05-06T07:08:09Z",
    .clone_url = "/a \"dir\"/clo\\ne",
    .clone_uuid = {[15] = 1},
    .of = "monday",
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

/* ------------------------------------------------------------------ the text */

#define GOLDEN                                                                                     \
    "{\"s3vol\":1,\"name\":\"monday.1\",\"uuid\":\"01234567-89ab-4def-8123-456789abcdef\","        \
    "\"root\":7,\"seq\":9,\"next\":10,\"size_bytes\":1048576,\"epoch\":3,"                         \
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
    struct pin pin;
    size_t len;

    (void)state;
    with_crc(GOLDEN, want, sizeof want);
    assert_int_equal(pin_encode(&sample, got, sizeof got, &len), 0);
    assert_string_equal(got, want);
    assert_int_equal(pin_decode(got, len, &pin, &why), 0);
    assert_memory_equal(&pin, &sample, sizeof pin);
    assert_int_equal(pin_encode(&sample, got, len, &len), -ENAMETOOLONG);
}

static void test_clones_round_trip(void **state)
{
    char text[NOTE_BYTES_MAX];
    struct pin pin;
    size_t len;

    (void)state;
    assert_int_equal(pin_encode(&clones, text, sizeof text, &len), 0);
    assert_int_equal(pin_decode(text, len, &pin, &why), 0);
    assert_memory_equal(&pin, &clones, sizeof pin);
    pin = clones;
    pin.clone_url[1] = '\n';
    assert_int_equal(pin_encode(&pin, text, sizeof text, &len), -EINVAL);
}

static void test_every_flipped_bit_and_cut_is_noticed(void **state)
{
    char text[NOTE_BYTES_MAX];
    struct pin pin;
    size_t len;

    (void)state;
    assert_int_equal(pin_encode(&clones, text, sizeof text, &len), 0);
    for (size_t bit = 0; bit < len * 8; bit++) {
        text[bit / 8] = (char)(text[bit / 8] ^ 1 << bit % 8);
        int r = pin_decode(text, len, &pin, &why);
        assert_true(r == -EBADMSG || r == -EPROTONOSUPPORT);
        text[bit / 8] = (char)(text[bit / 8] ^ 1 << bit % 8);
    }
    for (size_t n = 0; n < len; n++)
        assert_int_equal(pin_decode(text, n, &pin, &why), -EBADMSG);
    assert_int_equal(pin_decode("{}", 2, &pin, &why), -EBADMSG);
}

/* The text with `from` replaced by `to`, under a good checksum. */
static int decode_with(const char *from, const char *to)
{
    char members[1024], text[1100];
    const char *at = strstr(GOLDEN, from);
    struct pin pin;

    assert_non_null(at);
    snprintf(members, sizeof members, "%.*s%s%s", (int)(at - GOLDEN), GOLDEN, to,
             at + strlen(from));
    return pin_decode(text, with_crc(members, text, sizeof text), &pin, &why);
}

#define MORE(members) ",\"epoch\":3" members

static void test_values_that_make_no_sense(void **state)
{
    static const char *const wrong[][2] = {
        {"monday.1", ""},
        {"monday.1", ".monday"},
        {"monday.1", "mon/day"},
        {"\"monday.1\"", "null"},
        {"01234567-89ab-4def", "01234567-89ab-4de"},
        {"\"root\":7", "\"root\":10"},
        {"\"root\":7", "\"root\":-1"},
        {"\"root\":7", "\"root\":\"7\""},
        {"\"seq\":9", "\"seq\":10"},
        {"\"next\":10", "\"next\":281474976710656"},
        {"\"next\":10,", ""},
        {"1048576", "0"},
        {"1048576", "4097"},
        {"1048576", "9223372036854775807"},
        {"\"epoch\":3", "\"epoch\":-3"},
        {"2024-05-06T07:08:09Z", "2024-05-06T07:08:09Z and a lot more of it"},
        {"2024-05-06", "2024\\n05-06"},
        {",\"epoch\":3", MORE(",\"clone\":\"\"")},
        {",\"epoch\":3", MORE(",\"clone\":\"/x\"")},
        {",\"epoch\":3", MORE(",\"of\":\"x\"")},
        {",\"epoch\":3", MORE(",\"clone\":\"/x\",\"of\":\".\",\"clone_uuid\":"
                              "\"01234567-89ab-4def-8123-456789abcdef\"")},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
        assert_int_equal(decode_with(wrong[i][0], wrong[i][1]), -EBADMSG);
    assert_int_equal(decode_with("\"s3vol\":1", "\"s3vol\":2"), -EPROTONOSUPPORT);
    assert_non_null(strstr(why, "upgrade"));
    assert_int_equal(decode_with("\"root\":7", "\"color\":\"green\",\"root\":7"), 0);
}

static void test_keys(void **state)
{
    char key[STORE_KEY_MAX], name[PIN_NAME_MAX], longest[PIN_NAME_MAX + 1];

    (void)state;
    pin_key("monday", key);
    assert_string_equal(key, "snapshot/monday");
    assert_true(pin_parse_key(key, name));
    assert_string_equal(name, "monday");
    assert_false(pin_parse_key("snapshot/", name));
    assert_false(pin_parse_key("snapshot/.x", name));
    assert_false(pin_parse_key("snapshot/x/y", name));
    assert_false(pin_parse_key("log/monday", name));
    memset(longest, 'x', sizeof longest);
    longest[PIN_NAME_MAX - 1] = 0;
    pin_key(longest, key);
    assert_true(pin_parse_key(key, name));
    strcat(key, "x");
    assert_false(pin_parse_key(key, name));
}

/* ------------------------------------------------------------------ in a store */

struct seen {
    char names[256];
    int end;
};

static int see(void *ctx, const struct pin *pin)
{
    struct seen *seen = ctx;

    strcat(seen->names, pin->name);
    strcat(seen->names, " ");
    return seen->end;
}

static void put_as(const char *name)
{
    struct pin pin = sample;

    strcpy(pin.name, name);
    assert_int_equal(pin_store(store, &sb, &pin, 0), 0);
}

static void test_stored_found_and_deleted(void **state)
{
    struct seen seen = {0};
    struct pin pin;

    (void)state;
    assert_int_equal(pin_load(store, &sb, "b", &pin, 0), -ENOENT);
    assert_int_equal(pin_each(store, &sb, see, &seen, 0), 0);
    for (const char *name = "b\0a\0c\0"; *name; name += 2)
        put_as(name);
    mem_set(&mem, "snapshot/.lies about", "x", 1);
    assert_int_equal(pin_each(store, &sb, see, &seen, 0), 0);
    assert_string_equal(seen.names, "a b c ");
    assert_int_equal(pin_load(store, &sb, "b", &pin, 0), 0);
    assert_string_equal(pin.name, "b");
    assert_int_equal(pin_delete(store, "b", 0), 0);
    assert_int_equal(pin_load(store, &sb, "b", &pin, 0), -ENOENT);
    seen = (struct seen){.end = -ECANCELED};
    assert_int_equal(pin_each(store, &sb, see, &seen, 0), -ECANCELED);
    assert_string_equal(seen.names, "a ");
}

static void test_damaged_ones_are_errors(void **state)
{
    struct superblock other = sb;
    struct seen seen = {0};
    struct pin pin;

    (void)state;
    put_as("a");
    other.uuid[0]++;
    assert_int_equal(pin_load(store, &other, "a", &pin, 0), -EBADMSG);
    mem_set(&mem, "snapshot/b", mem_find(&mem, "snapshot/a")->data,
            mem_find(&mem, "snapshot/a")->len);
    assert_int_equal(pin_load(store, &sb, "b", &pin, 0), -EBADMSG);
    assert_int_equal(pin_each(store, &sb, see, &seen, 0), -EBADMSG);
}

static enum mem_act lose_puts(void *ctx, char verb, const char *key)
{
    (void)key;
    return verb == 'P' && (*(int *)ctx)-- > 0 ? MEM_LOSE : MEM_OK;
}

/* One of that name stays as it is; our own lost first try is none. */
static void test_stored_once(void **state)
{
    (void)state;
    for (int conditional = 0; conditional < 2; conditional++) {
        struct superblock with = sb;
        struct pin other = sample, back;
        int lose = 1;

        with.conditional_put = conditional;
        mem.ignores_conditions = !conditional;
        mem_retry(&mem, lose_puts, &lose);
        assert_int_equal(pin_store(store, &with, &sample, 60000), 0);
        assert_true(lose < 0);
        other.seq--;
        assert_int_equal(pin_store(store, &with, &other, 0), -EEXIST);
        assert_int_equal(pin_load(store, &with, sample.name, &back, 0), 0);
        assert_memory_equal(&back, &sample, sizeof back);
        assert_int_equal(pin_delete(store, sample.name, 0), 0);
    }
}

/* It is deleted between the listing and the reading. */
static enum mem_act delete_b(void *ctx, char verb, const char *key)
{
    (void)ctx;
    if (verb == 'G' && strcmp(key, "snapshot/b") == 0)
        mem_remove(&mem, key);
    return MEM_OK;
}

static void test_deleted_meanwhile(void **state)
{
    struct seen seen = {0};

    (void)state;
    put_as("a");
    put_as("b");
    put_as("c");
    mem_retry(&mem, delete_b, NULL);
    assert_int_equal(pin_each(store, &sb, see, &seen, 0), 0);
    assert_string_equal(seen.names, "a c ");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_golden_text),
        TEST(test_clones_round_trip),
        TEST(test_every_flipped_bit_and_cut_is_noticed),
        TEST(test_values_that_make_no_sense),
        TEST(test_keys),
        TEST(test_stored_found_and_deleted),
        TEST(test_damaged_ones_are_errors),
        TEST(test_stored_once),
        TEST(test_deleted_meanwhile),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
