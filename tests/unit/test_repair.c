/*
 * volume_repair(): whatever object of the log and its checkpoints is damaged or missing, afterwards
 * the volume can be attached, is what it was after some commit, and that is the newest one that can
 * be read; nothing that was in the bucket has changed. The engine has small limits here.
 */
#define SMALL_LIMITS
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "mem_volume.h"

#include "../../cache/offline.h"
#include "../../store/bytes.h"
#include "../../store/log.h"

enum { SIZE = 4 * 1024 * 1024, COMMITS = 15, A_LIFE = 5, OBJECTS_MAX = 100 };

/* ------------------------------------------------------------------ the bucket */

static struct mem_object good[OBJECTS_MAX];
static size_t ngood;

static void keep_bucket(void)
{
    for (size_t i = 0; i < mem.n; i++) {
        assert_true(ngood < OBJECTS_MAX);
        good[ngood] = mem.objects[i];
        good[ngood].data = malloc(mem.objects[i].len);
        memcpy(good[ngood++].data, mem.objects[i].data, mem.objects[i].len);
    }
}

static void restore_bucket(void)
{
    mem.script = NULL;
    while (mem.n > 0)
        mem_remove(&mem, mem.objects[mem.n - 1].key);
    for (size_t i = 0; i < ngood; i++)
        mem_set(&mem, good[i].key, good[i].data, good[i].len);
}

/* Each commit writes a place of its own, and one that all of them write. */
static void commit(uint64_t number)
{
    put(number * 64 * KIB, 64 * KIB, number);
    put(3 * MIB, 8 * KIB, number);
    assert_int_equal(volume_flush(volume, true), 0);
}

static void begin_with_no_cache(void)
{
    lose_cache();
    assert_int_equal(mkdir(cache_dir, 0700), 0);
}

/* Three lives; two of them end with a checkpoint. */
static void make_bucket(void)
{
    create(SIZE);
    for (uint64_t number = 1; number <= COMMITS; number++) {
        if (number % A_LIFE == 1) {
            begin_with_no_cache();
            attach();
        }
        commit(number);
        if (number % A_LIFE == 0)
            assert_int_equal(detach(number == COMMITS), 0);
    }
    assert_int_equal(mem_count(&mem, "map/"), 2);
    keep_bucket();
}

/* ------------------------------------------------------------------ looking */

/* Which commit the attached volume is as of; fails if it is none. */
static uint64_t found_commit(void)
{
    uint64_t number = 0;

    for (uint64_t n = 0; n <= COMMITS; n++)
        if (check_pattern(3 * MIB, 8 * KIB, n, true) == 0)
            number = n;
    expect(3 * MIB, 8 * KIB, number);
    for (uint64_t n = 1; n <= COMMITS; n++)
        expect(n * 64 * KIB, 64 * KIB, n <= number ? n : 0);
    return number;
}

static char *report;

static uint64_t check(void)
{
    uint64_t errors = 0;
    size_t len;

    free(report);
    FILE *f = open_memstream(&report, &len);
    struct store *s = mem_store(&mem, &clock_system);
    assert_int_equal(volume_check(s, f, &errors), 0);
    store_free(s);
    fclose(f);
    return errors;
}

static struct volume_repair plan;
static unsigned asked;

static int agree(void *ctx, const struct volume_repair *p)
{
    (void)p;
    asked++;
    return ctx ? *(int *)ctx : 0;
}

static int repair_if(int answer)
{
    struct store *s = mem_store(&mem, &clock_system);

    asked = 0;
    plan = (struct volume_repair){0};
    int r = volume_repair(s, agree, &answer, &plan);
    store_free(s);
    return r;
}

/* Every object that was there is there, as it was. */
static void nothing_changed(const struct mem_object *before, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct mem_object *o = mem_find(&mem, before[i].key);
        assert_non_null(o);
        assert_int_equal(o->len, before[i].len);
        assert_memory_equal(o->data, before[i].data, o->len);
    }
}

/* It could not be attached; it is repaired, and is as of which commit? */
static uint64_t repair(void)
{
    struct mem_object before[OBJECTS_MAX];
    size_t n = mem.n;

    begin_with_no_cache();
    assert_int_not_equal(try_attach(), 0);
    for (size_t i = 0; i < n; i++) {
        before[i] = mem.objects[i];
        before[i].data = malloc(before[i].len);
        memcpy(before[i].data, mem.objects[i].data, before[i].len);
    }
    assert_int_equal(repair_if(0), 0);
    assert_true(plan.needed);
    assert_int_equal(asked, 1);
    nothing_changed(before, n);
    while (n > 0)
        free(before[--n].data);
    if (check() != 0)
        fail_msg("check finds after the repair:\n%s", report);
    begin_with_no_cache();
    attach();
    uint64_t number = found_commit();
    put(2 * MIB + 512 * KIB, 4 * KIB, 77); /* and it can be used */
    assert_int_equal(volume_flush(volume, true), 0);
    assert_int_equal(detach(false), 0);
    begin_with_no_cache();
    attach();
    expect(2 * MIB + 512 * KIB, 4 * KIB, 77);
    assert_int_equal(found_commit(), number);
    assert_int_equal(detach(false), 0);
    if (check() != 0)
        fail_msg("check finds after the repaired volume was used:\n%s", report);
    return number;
}

/* The n-th object of the log that is a claim, or the segment of the n-th commit. */
static const char *key_of(enum header_kind kind, unsigned n)
{
    for (size_t i = 0; i < ngood; i++)
        if (strncmp(good[i].key, "log/", 4) == 0 && get_le16(good[i].data + 10) == kind && --n == 0)
            return good[i].key;
    fail();
    return NULL;
}

static const char *last_key(const char *prefix)
{
    const char *key = NULL;

    for (size_t i = 0; i < ngood; i++)
        if (strncmp(good[i].key, prefix, strlen(prefix)) == 0)
            key = good[i].key;
    assert_non_null(key);
    return key;
}

static void flip(const char *key, size_t at)
{
    mem_find(&mem, key)->data[at] ^= 1;
}

/* ------------------------------------------------------------------ the tests */

static void test_a_missing_number(void **arg)
{
    (void)arg;
    restore_bucket();
    mem_remove(&mem, key_of(HEADER_SEGMENT, 13));
    assert_int_equal(repair(), 12);
    assert_true(plan.log_broken && !plan.roots_damaged);
    assert_int_equal(plan.commits_lost, 2);
    assert_int_equal(plan.damaged, 0);
    for (size_t i = 0; i < ngood; i++)
        if (strcmp(good[i].key, key_of(HEADER_SEGMENT, 12)) == 0)
            assert_int_equal(plan.wall_ms, get_le64(good[i].data + 88));
}

static void test_a_damaged_head(void **arg)
{
    (void)arg;
    restore_bucket();
    flip(key_of(HEADER_SEGMENT, 14), 60);
    assert_int_equal(repair(), 13);
    assert_int_equal(plan.commits_lost, 1);
    assert_int_equal(plan.damaged, 1);
}

/* The last one of all may have been a claim, or not: both a writer that is behind it, and one that
 * jumped, must be stopped. */
static void test_a_damaged_last_object(void **arg)
{
    uint64_t seq;
    char key[STORE_KEY_MAX];

    (void)arg;
    restore_bucket();
    flip(key_of(HEADER_SEGMENT, 15), 60);
    assert_true(log_parse_key(key_of(HEADER_SEGMENT, 15), &seq));
    assert_int_equal(repair(), 14);
    log_key(seq + 1, key);
    assert_non_null(mem_find(&mem, key));
    log_key(seq + LOG_WINDOW + 1, key);
    assert_non_null(mem_find(&mem, key));
}

/* So must one that claimed ahead, and will claim again behind that. */
static void test_a_claim_ahead(void **arg)
{
    struct log_position pos = {.epoch = 9};
    struct superblock sb;
    struct log *log;
    uint64_t seq;
    char key[STORE_KEY_MAX];

    (void)arg;
    restore_bucket();
    assert_true(log_parse_key(key_of(HEADER_SEGMENT, 15), &seq));
    struct store *s = mem_store(&mem, &clock_system);
    assert_int_equal(superblock_load(s, &sb, 0), 0);
    assert_int_equal(log_new(s, &sb, &clock_system, &log), 0);
    assert_int_equal(log_claim_ahead(log, &pos, seq + 1, 5, sb.uuid, "who is outrun", 0), 0);
    log_free(log);
    store_free(s);
    mem_remove(&mem, key_of(HEADER_SEGMENT, 13));
    assert_int_equal(repair(), 12);
    assert_int_equal(plan.damaged, 0);
    for (int i = 0; i < 2; i++) {
        log_key(i ? seq + 6 + LOG_WINDOW + 1 : seq + 1, key);
        assert_non_null(mem_find(&mem, key));
    }
}

static void test_a_claim(void **arg)
{
    (void)arg;
    restore_bucket();
    flip(key_of(HEADER_CLAIM, 3), 60);
    assert_int_equal(repair(), 10);
    restore_bucket();
    mem_remove(&mem, key_of(HEADER_CLAIM, 3));
    assert_int_equal(repair(), 10);
}

/* Nothing is lost with a checkpoint, nor with all of them. */
static void test_checkpoints(void **arg)
{
    static const char *const prefixes[] = {"map/", "part/"};

    (void)arg;
    for (size_t p = 0; p < ARRAY_SIZE(prefixes); p++) {
        restore_bucket();
        flip(last_key(prefixes[p]), 130);
        assert_int_equal(repair(), COMMITS);
        assert_true(plan.roots_damaged && !plan.log_broken && plan.checkpoint > 0);
        restore_bucket();
        for (size_t i = 0; i < ngood; i++)
            if (strncmp(good[i].key, prefixes[p], strlen(prefixes[p])) == 0)
                flip(good[i].key, 130);
        assert_int_equal(repair(), COMMITS);
        assert_true(plan.roots_damaged && !plan.log_broken && plan.checkpoint == 0);
        assert_int_equal(plan.commits_lost, 0);
    }
    restore_bucket();
    mem_remove(&mem, last_key("part/"));
    assert_int_equal(repair(), COMMITS);
}

/* A root with the name of a number that the log has not reached. */
static void test_a_root_of_the_future(void **arg)
{
    (void)arg;
    restore_bucket();
    mem_set(&mem, "map/0000000000001000", "what", 4);
    assert_int_equal(repair(), COMMITS);
}

/* Any object, damaged in any of these ways: what can be read until there is what is brought back.
 */
static void test_any_object(void **arg)
{
    unsigned repaired = 0;

    (void)arg;
    for (size_t i = 0; i < ngood; i++) {
        for (int how = 0; how < 3; how++) {
            uint64_t seq, before = 0;
            bool log = log_parse_key(good[i].key, &seq);
            if (strcmp(good[i].key, "volume") == 0)
                continue;
            restore_bucket();
            if (how == 0)
                flip(good[i].key, 9);
            else if (how == 1)
                mem_find(&mem, good[i].key)->len /= 2;
            else
                mem_remove(&mem, good[i].key);
            begin_with_no_cache();
            if (try_attach() == 0) {
                detach(true);
                continue;
            }
            for (uint64_t n = 1; n <= COMMITS; n++)
                before += !log || strcmp(key_of(HEADER_SEGMENT, n), good[i].key) < 0;
            assert_int_equal(repair(), before);
            repaired++;
        }
    }
    print_message("%u of them repaired\n", repaired);
    assert_true(repaired > 10);
}

static void test_nothing_to_repair(void **arg)
{
    (void)arg;
    restore_bucket();
    assert_int_equal(repair_if(0), 0);
    assert_false(plan.needed);
    assert_int_equal(asked, 0);
    flip(key_of(HEADER_SEGMENT, 12), 60000); /* a frame: an I/O error, as before */
    assert_int_equal(repair_if(0), 0);
    assert_false(plan.needed);
    assert_int_equal(mem.n, ngood);
}

/* Blocks whose frames are damaged stay so, and are named; the rest of their segment is used. */
static void test_damaged_frames_stay(void **arg)
{
    (void)arg;
    restore_bucket();
    flip(key_of(HEADER_SEGMENT, 11), 60000);
    mem_remove(&mem, key_of(HEADER_SEGMENT, 13));
    assert_int_equal(repair_if(0), 0);
    assert_int_equal(check(), 1);
    assert_non_null(strstr(report, key_of(HEADER_SEGMENT, 11)));
    begin_with_no_cache();
    attach();
    expect(3 * MIB, 8 * KIB, 12);
    expect(12 * 64 * KIB, 64 * KIB, 12);
    assert_int_equal(check_pattern(11 * 64 * KIB, 64 * KIB, 11, true), -EIO);
    assert_int_equal(detach(true), 0);
}

static void test_who_does_not_agree(void **arg)
{
    (void)arg;
    restore_bucket();
    mem_remove(&mem, key_of(HEADER_SEGMENT, 13));
    assert_int_equal(repair_if(-ECANCELED), -ECANCELED);
    assert_int_equal(asked, 1);
    assert_int_equal(mem.n, ngood - 1);
}

static void test_what_cannot_be_repaired(void **arg)
{
    (void)arg;
    restore_bucket();
    flip("volume", 20);
    assert_int_equal(repair_if(0), -EBADMSG);
    mem_remove(&mem, "volume");
    assert_int_equal(repair_if(0), -ENOENT);
    restore_bucket();
    for (size_t i = 0; i < ngood; i++)
        if (strncmp(good[i].key, "map/", 4) == 0)
            flip(good[i].key, 9);
    mem_remove(&mem, key_of(HEADER_SEGMENT, 1));
    assert_int_equal(repair_if(0), -ENODATA);
    assert_int_equal(mem.n, ngood - 1);
    assert_int_equal(asked, 0);
}

static enum mem_act no_root(void *ctx, char verb, const char *key)
{
    (void)ctx;
    return verb == 'P' && strncmp(key, "map/", 4) == 0 ? MEM_REFUSE : MEM_OK;
}

/* The claim is there, and no root: as before, and the next one finds the same. */
static void test_death_between_claim_and_root(void **arg)
{
    (void)arg;
    for (int root = 0; root < 2; root++) {
        restore_bucket();
        if (root)
            flip(last_key("map/"), 9);
        else
            mem_remove(&mem, key_of(HEADER_SEGMENT, 13));
        mem.script = no_root;
        assert_true(repair_if(0) < 0);
        mem.script = NULL;
        assert_true(mem_count(&mem, "log/") > 0);
        assert_int_equal(repair(), root ? COMMITS : 12);
    }
}

/* A cache that has the map from behind the damage does not need what is damaged; but its map is not
 * the one that the claim follows. */
static void test_a_warm_cache_between_claim_and_root(void **arg)
{
    (void)arg;
    restore_bucket();
    begin_with_no_cache();
    attach();
    assert_int_equal(found_commit(), COMMITS);
    assert_int_equal(detach(true), 0);
    mem_remove(&mem, key_of(HEADER_SEGMENT, 13));
    mem.script = no_root;
    assert_true(repair_if(0) < 0);
    mem.script = NULL;
    assert_int_equal(try_attach(), -EBADMSG);
    assert_int_equal(repair_if(0), 0);
    attach();
    assert_int_equal(found_commit(), 12);
    assert_int_equal(detach(false), 0);
}

static int flush_it(void)
{
    return volume_flush(volume, true);
}

/* A writer that knows nothing of the damage goes on: its next flush fails. */
static void test_a_running_writer_is_fenced(void **arg)
{
    (void)arg;
    for (int damage = 0; damage < 4; damage++) {
        struct caller c;
        restore_bucket();
        begin_with_no_cache();
        attach();
        if (damage != 3) /* else its claim is the last object */
            put(2 * MIB + 512 * KIB, 4 * KIB, 77);
        assert_int_equal(volume_flush(volume, true), 0);
        if (damage == 0)
            mem_remove(&mem, key_of(HEADER_SEGMENT, 13));
        else if (damage == 1)
            flip(last_key("map/"), 9);
        else { /* the newest object of the log */
            char *newest = NULL;
            for (size_t i = 0; i < mem.n; i++)
                if (strncmp(mem.objects[i].key, "log/", 4) == 0)
                    newest = mem.objects[i].key;
            assert_non_null(newest);
            flip(newest, 60);
        }
        assert_int_equal(repair_if(0), 0);
        assert_true(plan.needed);
        put(2 * MIB + 768 * KIB, 4 * KIB, 78);
        call(&c, flush_it);
        assert_int_equal(called(&c), -EIO);
        assert_int_equal(status().state, VOLUME_FENCED);
        detach(true);
        begin_with_no_cache();
        attach();
        assert_int_equal(found_commit(), damage == 0 ? 12 : COMMITS);
        expect(2 * MIB + 512 * KIB, 4 * KIB, damage == 1 ? 77 : 0);
        expect(2 * MIB + 768 * KIB, 4 * KIB, 0);
        assert_int_equal(detach(true), 0);
    }
}

static int set_up(void **arg)
{
    int r = volume_setup(arg);

    cfg.compress = false;
    make_bucket();
    return r;
}

static int tear_down(void **arg)
{
    for (size_t i = 0; i < ngood; i++)
        free(good[i].data);
    free(report);
    return volume_teardown(arg);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_missing_number),
        cmocka_unit_test(test_a_damaged_head),
        cmocka_unit_test(test_a_damaged_last_object),
        cmocka_unit_test(test_a_claim_ahead),
        cmocka_unit_test(test_a_claim),
        cmocka_unit_test(test_checkpoints),
        cmocka_unit_test(test_a_root_of_the_future),
        cmocka_unit_test(test_any_object),
        cmocka_unit_test(test_nothing_to_repair),
        cmocka_unit_test(test_damaged_frames_stay),
        cmocka_unit_test(test_who_does_not_agree),
        cmocka_unit_test(test_what_cannot_be_repaired),
        cmocka_unit_test(test_death_between_claim_and_root),
        cmocka_unit_test(test_a_warm_cache_between_claim_and_root),
        cmocka_unit_test(test_a_running_writer_is_fenced),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
