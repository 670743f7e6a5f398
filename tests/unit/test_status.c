/* What status says: the JSON is well-formed whatever the strings are, has the keys that were
 * promised, and fits or fails. */
#include "../../fuse/status.h"
#include "../../store/scope.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static const struct status sample = {
    .url = "s3://b/v\"\\\n",
    .pid = 42,
    .volume = {.uuid = "00000000-0000-4000-8000-000000000000",
               .state = VOLUME_STORE_UNREACHABLE,
               .sync = SYNC_CACHE,
               .epoch = 3,
               .size_bytes = 1 << 30,
               .allocated_bytes = 5,
               .cached_bytes = 6,
               .dirty_bytes = 7,
               .uploading_bytes = 8,
               .uploads_in_flight = 2,
               .hits = 3,
               .misses = 1,
               .cache_errors = 4,
               .commits = 9,
               .last_commit_age_s = 11,
               .conditional_put = true,
               .cache_dir = "/c"},
    .store = {.get = 12,
              .put = 13,
              .head = 14,
              .list = 15,
              .del = 16,
              .failed = 17,
              .retried = 18,
              .hedged = 21,
              .bytes_up = 19,
              .bytes_down = UINT64_MAX},
    .last_error = "it\tbroke",
};

static void has(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("no %s in: %s", part, text);
}

static void json_contract(void **state)
{
    static const char *const parts[] = {
        "{\"url\":\"s3://b/v\\\"\\\\\\u000a\"",
        "\"uuid\":\"00000000-0000-4000-8000-000000000000\"",
        "\"state\":\"store-unreachable\"",
        "\"sync\":\"cache\"",
        "\"epoch\":3,",
        "\"pid\":42",
        "\"size_bytes\":1073741824,",
        "\"allocated_bytes\":5,",
        "\"cached_bytes\":6,",
        "\"dirty_bytes\":7,",
        "\"uploading_bytes\":8,",
        "\"uploads_in_flight\":2,",
        "\"stored_bytes\":null,",
        "\"live_bytes\":5,",
        "\"moved_bytes\":0,",
        "\"hits\":3,\"misses\":1,\"hit_ratio\":0.7500,",
        "\"cache_errors\":4,",
        "\"requests\":{\"get\":12,\"put\":13,\"head\":14,\"list\":15,\"delete\":16,",
        "\"failed\":17,\"retried\":18,\"hedged\":21},",
        "\"bytes_up\":19,\"bytes_down\":18446744073709551615,",
        "\"commits\":9,\"last_commit_age_s\":11,",
        "\"conditional_put\":true,",
        "\"last_error\":\"it\\u0009broke\"}\n",
    };
    char buf[STATUS_TEXT_MAX];

    (void)state;
    assert_int_equal(status_json(&sample, buf, sizeof buf), 0);
    for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
        has(buf, parts[i]);
}

static void json_unknowns(void **state)
{
    struct status s = sample;
    char buf[STATUS_TEXT_MAX];

    (void)state;
    s.volume.hits = s.volume.misses = 0;
    s.volume.last_commit_age_s = -1;
    s.last_error = "";
    s.volume.state = VOLUME_FENCED;
    assert_int_equal(status_json(&s, buf, sizeof buf), 0);
    has(buf, "\"hit_ratio\":null");
    has(buf, "\"last_commit_age_s\":null");
    has(buf, "\"last_error\":null");
    has(buf, "\"state\":\"fenced\"");
    s.volume.state = VOLUME_DAMAGED;
    assert_int_equal(status_json(&s, buf, sizeof buf), 0);
    has(buf, "\"state\":\"damaged\"");
    s.volume.state = VOLUME_FAILED;
    assert_int_equal(status_json(&s, buf, sizeof buf), 0);
    has(buf, "\"state\":\"failed\"");
}

static void views(void **state)
{
    struct status s = sample;
    char buf[STATUS_TEXT_MAX];

    (void)state;
    assert_int_equal(status_json(&s, buf, sizeof buf), 0);
    has(buf, "\"read_only\":false");
    s.volume.read_only = true;
    s.volume.instant_seq = 77;
    s.volume.instant_age_s = 5;
    strcpy(s.volume.snapshot, "monday");
    assert_int_equal(status_json(&s, buf, sizeof buf), 0);
    has(buf, "\"read_only\":true,\"snapshot\":\"monday\",\"follow_s\":null,"
             "\"instant_seq\":77,\"instant_age_s\":5,");
    assert_int_equal(status_text(&s, buf, sizeof buf), 0);
    has(buf, "the snapshot monday (log number 77), made 5 s ago");
    s.volume.snapshot[0] = 0;
    s.volume.follow_ms = 90000;
    s.volume.state = VOLUME_GONE;
    assert_int_equal(status_json(&s, buf, sizeof buf), 0);
    has(buf, "\"state\":\"gone\"");
    has(buf, "\"snapshot\":null,\"follow_s\":90.0000,");
    assert_int_equal(status_text(&s, buf, sizeof buf), 0);
    has(buf, "follows every 90 s; as of log number 77, which was the newest 5 s ago");
}

/* Each size that is too small fails and writes nothing behind it; the first that suffices is the
 * length and a NUL. */
static void json_fits_or_fails(void **state)
{
    char whole[STATUS_TEXT_MAX], buf[STATUS_TEXT_MAX];

    (void)state;
    assert_int_equal(status_json(&sample, whole, sizeof whole), 0);
    for (size_t size = 1; size < sizeof buf; size++) {
        memset(buf, '#', sizeof buf);
        int r = status_json(&sample, buf, size);
        for (size_t i = size; i < sizeof buf; i++)
            assert_int_equal(buf[i], '#');
        if (r == 0) {
            assert_int_equal(size, strlen(whole) + 1);
            assert_string_equal(buf, whole);
            return;
        }
        assert_int_equal(r, -ENOSPC);
    }
    fail();
}

static void text_for_people(void **state)
{
    char buf[STATUS_TEXT_MAX];
    struct status s = sample;

    (void)state;
    assert_int_equal(status_text(&s, buf, sizeof buf), 0);
    has(buf, "store-unreachable");
    has(buf, "1.0 GiB");
    has(buf, "hit ratio 75.0%");
    has(buf, "4 blocks came back damaged");
    has(buf, "on the local disk");
    has(buf, "11 s ago");
    assert_null(strstr(buf, "second writer"));
    s.volume.conditional_put = false;
    s.volume.state = VOLUME_FENCED;
    assert_int_equal(status_text(&s, buf, sizeof buf), 0);
    has(buf, "fenced: another machine");
    has(buf, "second writer");
    assert_int_equal(status_text(&s, buf, 100), -ENOSPC);
}

static void stored_volume(void **state)
{
    const struct volume_info info = {.uuid = "u-u",
                                     .size_bytes = 1 << 30,
                                     .allocated_bytes = 1 << 20,
                                     .stored_bytes = 3000,
                                     .epoch = 2,
                                     .log_seq = 77,
                                     .created = "2024-01-01T00:00:00Z",
                                     .attached_by = "host1",
                                     .compression = "zstd"};
    char buf[STATUS_TEXT_MAX];

    (void)state;
    assert_int_equal(status_info_json("s3://b/v", &info, buf, sizeof buf), 0);
    assert_string_equal(buf, "{\"url\":\"s3://b/v\",\"uuid\":\"u-u\",\"epoch\":2,"
                             "\"size_bytes\":1073741824,\"allocated_bytes\":1048576,"
                             "\"stored_bytes\":3000,\"live_bytes\":1048576,\"log_seq\":77,"
                             "\"created\":\"2024-01-01T00:00:00Z\",\"attached_by\":\"host1\","
                             "\"compression\":\"zstd\",\"snapshots\":0,\"clone_of\":null}\n");
    assert_int_equal(status_info_text("s3://b/v", &info, buf, sizeof buf), 0);
    has(buf, "host1");
    has(buf, "2.9 KiB");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_contract),   cmocka_unit_test(json_unknowns),
        cmocka_unit_test(views),           cmocka_unit_test(json_fits_or_fails),
        cmocka_unit_test(text_for_people), cmocka_unit_test(stored_volume),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
