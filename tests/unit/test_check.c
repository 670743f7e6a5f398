/*
 * volume_check() against every kind of damage to every kind of object, and an attachment that reads
 * everything against the same: right or an error, never wrong bytes, and nothing that fails without
 * check naming the object, and the blocks.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "mem_volume.h"

#include "../../cache/offline.h"
#include "../../store/bytes.h"
#include "../../store/crc32c.h"
#include "../../store/frame.h"
#include "../../store/log.h"

enum { SIZE = 8 * 1024 * 1024, BLOCKS = SIZE / BLOCK, OBJECTS_MAX = 400 };

/* ------------------------------------------------------------------ the bucket */

/* As it is when nothing is wrong, and what the volume has then. */
static struct mem_object good[OBJECTS_MAX];
static size_t ngood;
static uint8_t want[SIZE];

#include "damage.h"

static void keep_bucket(void)
{
    for (size_t i = 0; i < mem.n; i++) {
        assert_true(ngood < OBJECTS_MAX);
        good[ngood] = mem.objects[i];
        good[ngood].data = malloc(mem.objects[i].len);
        memcpy(good[ngood].data, mem.objects[i].data, mem.objects[i].len);
        ngood++;
    }
}

static void restore_bucket(void)
{
    while (mem.n > 0)
        mem_remove(&mem, mem.objects[mem.n - 1].key);
    for (size_t i = 0; i < ngood; i++)
        mem_set(&mem, good[i].key, good[i].data, good[i].len);
}

static void flush(void)
{
    assert_int_equal(volume_flush(volume, true), 0);
}

static int ignore_commit(void *ctx, const struct header *last, const struct entry *entries,
                         size_t nentries, const struct log_position *pos)
{
    (void)ctx, (void)last, (void)entries, (void)nentries, (void)pos;
    return 0;
}

/* A machine that claims the log, stores the first and the third segment of a commit, and dies; or
 * ends the commit, and another has claimed ahead, and dies. */
static void die_in_a_commit(bool ended)
{
    static const uint8_t zeros[BLOCK_BYTES];
    struct entry e = {.block = 7, .nblocks = 1, .offset = HEADER_BYTES + ENTRY_BYTES};
    uint8_t buf[HEADER_BYTES + ENTRY_BYTES + BLOCK_BYTES] = {0}, nonce[UUID_BYTES];
    struct log_position pos = {.next = 1, .size_blocks = BLOCKS};
    struct superblock sb;
    struct framer *framer;
    struct log *log, *other;
    uint64_t missing;

    assert_int_equal(framer_new(&framer), 0);
    frame_pack(framer, zeros, false, &e, buf + e.offset);
    framer_free(framer);
    struct store *s = mem_store(&mem, &clock_system);
    assert_int_equal(superblock_load(s, &sb, 0), 0);
    assert_int_equal(log_new(s, &sb, &clock_system, &log), 0);
    assert_int_equal(log_new(s, &sb, &clock_system, &other), 0);
    log_go_back(log);
    assert_int_equal(log_replay(log, &pos, ignore_commit, NULL, 0, &missing), 0);
    assert_int_equal(random_bytes(nonce, sizeof nonce), 0);
    assert_int_equal(log_claim(log, &pos, missing, nonce, "who dies", 0), 0);
    uint64_t first = log_reserve(log, 3);
    for (uint64_t seq = first; seq <= first + 2; seq += ended ? 1 : 2) {
        e.seq = seq;
        assert_int_equal(log_append(log, seq, first, first + 2, BLOCKS, &e, 1, buf, sizeof buf), 0);
    }
    assert_int_equal(random_bytes(nonce, sizeof nonce), 0);
    assert_int_equal(log_claim_ahead(other, &pos, first + 1, 2, nonce, "the other", 0), 0);
    log_free(log);
    log_free(other);
    store_free(s);
}

/* Several epochs, a checkpoint, segments that are overwritten, and what the interrupted left. */
static void make_bucket(void)
{
    create_and_attach(SIZE);
    put(0, MIB, 1);
    flush();
    put(2 * MIB, 600 * KIB, 2); /* nobody will need these two */
    flush();
    put(5 * MIB, 4 * KIB, 2);
    flush();
    put(2 * MIB, 600 * KIB, 3);
    put(5 * MIB, 4 * KIB, 3);
    flush();
    put(512 * KIB, 40 * KIB, 4); /* parts of a frame */
    assert_int_equal(volume_discard(volume, 300 * KIB, 20 * KIB), 0);
    for (uint64_t i = 0; i < 70; i++) {
        put((7 * MIB) + i % 10 * 12 * KIB, 4 * KIB, 5 + i);
        flush();
    }
    assert_int_equal(detach(false), 0);
    assert_int_equal(mem_count(&mem, "map/"), 1);

    die_in_a_commit(true);
    lose_cache();
    assert_int_equal(mkdir(cache_dir, 0700), 0);
    attach();
    put(3 * MIB, 200 * KIB, 100);
    put(MIB / 2, 8 * KIB, 100);
    flush();
    put(4 * MIB + 64 * KIB, 100 * KIB, 101);
    assert_int_equal(volume_discard(volume, 3 * MIB + 64 * KIB, 64 * KIB), 0);
    flush();
    assert_int_equal(volume_read(volume, want, SIZE, 0, true), 0);
    assert_int_equal(detach(true), 0);
    die_in_a_commit(false);
    mem_set(&mem, "part/0000000000000401.00000000", "an orphan", 9);
    mem_set(&mem, "log/README", "not ours", 8);
    keep_bucket();
}

/* ------------------------------------------------------------------ looking */

static char *report;
static uint64_t errors;

static int check(void)
{
    size_t len;

    free(report);
    errors = 0;
    FILE *f = open_memstream(&report, &len);
    struct store *s = mem_store(&mem, &clock_system);
    int r = volume_check(s, f, &errors);
    store_free(s);
    fclose(f);
    return r;
}

static bool names(const char *key)
{
    char line[STORE_KEY_MAX + 2];

    snprintf(line, sizeof line, "\n%s:", key);
    return strncmp(report, line + 1, strlen(line + 1)) == 0 || strstr(report, line);
}

/* Which blocks the report calls lost. */
static void read_report(bool lost[BLOCKS])
{
    memset(lost, 0, BLOCKS);
    for (const char *p = report; (p = strstr(p, "blocks ")) != NULL; p++) {
        unsigned long first, last;
        const char *end = strchr(p, '\n');
        const char *no_loss = strstr(p, "no loss");
        if (sscanf(p, "blocks %lu to %lu", &first, &last) != 2 || (no_loss && no_loss < end))
            continue;
        assert_true(first <= last && last < BLOCKS);
        for (unsigned long b = first; b <= last; b++)
            lost[b] = true;
    }
}

/* Reads every block of the attached volume: which ones are errors; wrong bytes are the end. */
static size_t read_blocks(bool failed[BLOCKS])
{
    static uint8_t buf[SIZE] __attribute__((aligned(4096)));
    enum { STEP = 16 };
    size_t n = 0;

    memset(failed, 0, BLOCKS);
    for (size_t b = 0; b < BLOCKS; b += STEP) {
        if (volume_read(volume, buf, STEP * BLOCK, b * BLOCK, true) == 0) {
            assert_memory_equal(buf, want + b * BLOCK, STEP * BLOCK);
            continue;
        }
        for (size_t i = b; i < b + STEP; i++) {
            failed[i] = volume_read(volume, buf, BLOCK, i * BLOCK, true) < 0;
            n += failed[i];
            if (!failed[i])
                assert_memory_equal(buf, want + i * BLOCK, BLOCK);
        }
    }
    return n;
}

/* With a new cache: -1 if it cannot be attached, else how many blocks cannot be read. */
static long attach_and_read(bool failed[BLOCKS])
{
    lose_cache();
    assert_int_equal(mkdir(cache_dir, 0700), 0);
    if (try_attach() < 0)
        return -1;
    long n = (long)read_blocks(failed);
    assert_int_equal(detach(true), 0);
    return n;
}

/* ------------------------------------------------------------------ who needs what */

/* Jumped over by a claim, behind the log's end, or of no checkpoint: nobody ever reads it. */
static bool is_left_over(const struct mem_object *o)
{
    uint64_t expect = 1, seq;

    if (strcmp(o->key, "log/README") == 0 || strcmp(o->key, "part/0000000000000401.00000000") == 0)
        return true;
    if (!log_parse_key(o->key, &seq))
        return false;
    for (size_t i = 0; i < ngood; i++) {
        uint64_t n;
        if (!log_parse_key(good[i].key, &n) || n < expect)
            continue;
        if (n > expect)
            break;
        if (n == seq)
            return false;
        expect = get_le16(good[i].data + 10) == HEADER_CLAIM ? get_le64(good[i].data + 80) : n + 1;
    }
    return true;
}

static void complain(const struct mem_object *g, enum damage how, const char *what)
{
    fail_msg("%s of %s: %s; check said:\n%s", damage_names[how], g->key, what, report);
}

static unsigned tried, lost_blocks;

static void try_damage(const struct mem_object *g, enum damage how)
{
    static bool failed[BLOCKS], lost[BLOCKS];

    if (!damage(g, how))
        return;
    tried++;
    int r = check();
    bool named = r == 0 && errors > 0 && names(g->key);
    if (r < 0 && strcmp(g->key, "volume") != 0)
        complain(g, how, "check failed");
    if (!named && !is_left_over(g) && how != REMOVE)
        complain(g, how, "check does not name it");
    long n = attach_and_read(failed);
    if (n != 0 && !named && !is_left_over(g))
        complain(g, how, "it is needed, and check does not name it");
    if (n != 0 && errors == 0)
        complain(g, how, "something fails, and check found nothing wrong");
    read_report(lost);
    lost_blocks += n > 0;
    for (size_t b = 0; b < BLOCKS && n > 0; b++) {
        if (failed[b] && !lost[b])
            complain(g, how, "a block cannot be read, and check does not name it");
        if (lost[b] && !failed[b] && strstr(report, "damaged at byte"))
            complain(g, how, "check calls a block lost that can be read");
    }
}

/* ------------------------------------------------------------------ the tests */

static void test_nothing_is_wrong(void **arg)
{
    static bool failed[BLOCKS];

    (void)arg;
    restore_bucket();
    assert_int_equal(check(), 0);
    if (errors)
        print_error("%s", report);
    assert_int_equal(errors, 0);
    assert_int_equal(attach_and_read(failed), 0);
    assert_int_equal(check(), 0);
    assert_int_equal(errors, 0);
}

/* Objects of which there are many get fewer tries each. */
static void test_damage(void **arg)
{
    const char *seed = getenv("SEED");
    unsigned times = getenv("LONG") ? 20 : 1;

    (void)arg;
    state = seed ? strtoull(seed, NULL, 10) : 1;
    for (size_t i = 0; i < ngood; i++) {
        bool many = strncmp(good[i].key, "log/", 4) == 0 && good[i].len < 8000;
        for (enum damage how = 0; how < DAMAGES; how++) {
            for (unsigned n = times * (many ? pick(12) == 0 : how <= ZERO ? 4 : 1); n > 0; n--) {
                restore_bucket();
                try_damage(&good[i], how);
            }
        }
    }
    print_message("%u damages; after %u of them some blocks could not be read\n", tried,
                  lost_blocks);
}

/* The first segment that has a frame which begins with this block. */
static const struct mem_object *segment_of(uint64_t block)
{
    for (size_t i = 0; i < ngood; i++) {
        const uint8_t *p = good[i].data;
        if (strncmp(good[i].key, "log/", 4) != 0 || !is_binary(&good[i]))
            continue;
        for (uint32_t n = 0; n < get_le32(p + 96); n++)
            if (get_le64(p + HEADER_BYTES + (size_t)n * ENTRY_BYTES) == block)
                return &good[i];
    }
    fail();
    return NULL;
}

/* Somebody took a number that looked missing and was deleted, and gave that up. */
static void test_a_void_claim(void **arg)
{
    struct log_position pos = {.epoch = 1};
    struct superblock sb;
    struct log *log;
    uint64_t seq;

    (void)arg;
    restore_bucket();
    const char *key = segment_of(2 * MIB / BLOCK_BYTES)->key; /* which nobody needs */
    assert_true(log_parse_key(key, &seq));
    mem_remove(&mem, key);
    struct store *s = mem_store(&mem, &clock_system);
    assert_int_equal(superblock_load(s, &sb, 0), 0);
    assert_int_equal(log_new(s, &sb, &clock_system, &log), 0);
    assert_int_equal(log_claim_ahead(log, &pos, seq - 1, 1, sb.uuid, "who slept", 0), 0);
    log_free(log);
    store_free(s);
    assert_int_equal(check(), 0);
    assert_int_equal(errors, 0);
}

static size_t count_lost(uint64_t first, uint64_t end)
{
    static bool lost[BLOCKS];
    size_t n = 0;

    read_report(lost);
    for (uint64_t b = first; b < end; b++)
        n += lost[b];
    return n;
}

/* By the map, where a checkpoint has it; else by the frames themselves, whose entries tell. */
static void test_a_damaged_head_is_told_by_its_blocks(void **arg)
{
    const struct mem_object *before = segment_of(0), *after = segment_of(768);

    (void)arg;
    for (size_t at = 9; at < HEADER_BYTES + ENTRY_BYTES; at += 50) {
        restore_bucket();
        mem_find(&mem, before->key)->data[at] ^= 1;
        assert_int_equal(check(), 0);
        assert_true(names(before->key));
        /* of its MiB 20 KiB were discarded since, and 40 and then 4 rewritten */
        assert_int_equal(count_lost(0, 256), 256 - 5 - 10 - 1);
        assert_int_equal(count_lost(256, BLOCKS), 0);

        restore_bucket();
        mem_find(&mem, after->key)->data[at] ^= 1;
        assert_int_equal(check(), 0);
        assert_true(names(after->key));
        size_t n = count_lost(768, 818), unknown = at < HEADER_BYTES ? 0 : FRAME_BLOCKS;
        assert_in_range(n, 50 - unknown, 50);
    }
}

/* The parts of a checkpoint tell which blocks' map they have. */
static void test_a_missing_part_is_told_by_its_blocks(void **arg)
{
    (void)arg;
    for (size_t i = 0; i < ngood; i++) {
        if (strncmp(good[i].key, "part/", 5) != 0 || !is_binary(&good[i]))
            continue;
        restore_bucket();
        mem_remove(&mem, good[i].key);
        assert_int_equal(check(), 0);
        assert_true(names(good[i].key));
        assert_int_equal(count_lost(0, BLOCKS), BLOCKS);
    }
}

/* Also those before the checkpoint, which no attachment reads: a number that is free again would
 * let the writer in whom its claim has fenced. */
static void test_a_missing_claim_is_noticed(void **arg)
{
    unsigned n = 0;

    (void)arg;
    for (size_t i = 0; i < ngood; i++) {
        if (strncmp(good[i].key, "log/", 4) != 0 || !is_binary(&good[i]) ||
            get_le16(good[i].data + 10) != HEADER_CLAIM || is_left_over(&good[i]))
            continue;
        restore_bucket();
        mem_remove(&mem, good[i].key);
        assert_int_equal(check(), 0);
        assert_true(names(good[i].key));
        n++;
    }
    assert_int_equal(n, 5);
}

/* An old object under the number that comes next. */
static void test_old_copies_under_new_numbers(void **arg)
{
    static const char *const keys[] = {"log/", "map/"};

    (void)arg;
    for (int k = 0; k < 2; k++) {
        static bool failed[BLOCKS];
        char key[STORE_KEY_MAX];
        uint64_t last = 0, seq;
        restore_bucket();
        for (size_t i = 0; i < ngood; i++)
            if (strncmp(good[i].key, keys[k], 4) == 0 &&
                sscanf(good[i].key + 4, "%16lx", &seq) == 1)
                last = seq;
        /* of the log: between the two that the dead machine stored, before the claim ahead */
        snprintf(key, sizeof key, "%s%016lx", keys[k], k == 0 ? last - 2 : last + 100);
        assert_null(mem_find(&mem, key));
        for (size_t i = 0; i < ngood; i++)
            if (strncmp(good[i].key, keys[k], 4) == 0 && is_binary(&good[i])) {
                mem_set(&mem, key, good[i].data, good[i].len);
                break;
            }
        assert_int_equal(check(), 0);
        assert_true(errors > 0 && names(key));
        assert_int_not_equal(attach_and_read(failed), 0);
    }
}

/* What was attached when all was well, and comes to read what is not. */
static void test_damage_under_an_attached_volume(void **arg)
{
    static bool failed[BLOCKS];

    (void)arg;
    for (size_t i = 0; i < ngood; i++) {
        if (strncmp(good[i].key, "log/", 4) != 0 || good[i].len < 8000)
            continue;
        for (enum damage how = 0; how < DAMAGES; how++) {
            restore_bucket();
            lose_cache();
            assert_int_equal(mkdir(cache_dir, 0700), 0);
            attach();
            if (damage(&good[i], how))
                read_blocks(failed); /* right, or errors */
            detach(true);
        }
    }
}

static void test_a_missing_superblock(void **arg)
{
    (void)arg;
    restore_bucket();
    mem_remove(&mem, "volume");
    assert_int_equal(check(), 0);
    assert_int_equal(errors, 1);
    assert_true(names("volume"));
    while (mem.n > 0)
        mem_remove(&mem, mem.objects[0].key);
    assert_int_equal(check(), -ENOENT); /* that is no volume at all */
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
        cmocka_unit_test(test_nothing_is_wrong),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_a_damaged_head_is_told_by_its_blocks),
        cmocka_unit_test(test_a_missing_part_is_told_by_its_blocks),
        cmocka_unit_test(test_a_missing_claim_is_noticed),
        cmocka_unit_test(test_a_void_claim),
        cmocka_unit_test(test_old_copies_under_new_numbers),
        cmocka_unit_test(test_damage_under_an_attached_volume),
        cmocka_unit_test(test_a_missing_superblock),
    };

    if (access("/dev/shm", W_OK) == 0) { /* hundreds of caches */
        setenv("T", "/dev/shm", 1);
        setenv("TMPDIR", "/dev/shm", 1);
    }
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
