/* The directory store: what is durable when, what is atomic, what a lost share looks like. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "../../store/msg.h"
#include "../../store/scope.h"
#include "../../store/store.h"
#include "../../store/url.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* Calls of libc that the store makes, as this program sees them: counted, and failing on demand. */
static atomic_int fail_link, fail_fsync, fail_fdatasync; /* errno, or 0 */
static atomic_uint nfsync, nfdatasync;
static char synced[64][256]; /* what fsync was called for; by one thread only */

int link(const char *from, const char *to)
{
    if (fail_link) {
        errno = fail_link;
        return -1;
    }
    return (int)syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int fsync(int fd)
{
    char proc[64];
    unsigned n = nfsync++ % ARRAY_SIZE(synced);

    (void)snprintf(proc, sizeof proc, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(proc, synced[n], sizeof synced[n] - 1);
    synced[n][MAX(len, 0)] = 0;
    if (fail_fsync) {
        errno = fail_fsync;
        return -1;
    }
    return 0;
}

int fdatasync(int fd)
{
    (void)fd;
    nfdatasync++;
    if (fail_fdatasync) {
        errno = fail_fdatasync;
        return -1;
    }
    return 0;
}

static char parent[64], root[128];
static struct store_backend dir;
static struct store_error err;

static int setup(void **state)
{
    struct url url;

    (void)state;
    strcpy(parent, "/tmp/test-dir-XXXXXX");
    assert_non_null(mkdtemp(parent));
    assert_int_equal(format(root, sizeof root, "%s/vm1", parent), 0);
    assert_int_equal(url_parse(root, &url), 0);
    assert_int_equal(dir_open(&url, &dir), 0);
    nfsync = nfdatasync = 0;
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static int teardown(void **state)
{
    (void)state;
    fail_link = fail_fsync = fail_fdatasync = 0;
    dir.ops->free(dir.self);
    (void)nftw(parent, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return 0;
}

static int put(const char *key, const char *text, unsigned flags)
{
    memset(&err, 0, sizeof err);
    return dir.ops->put(dir.self, key, text, strlen(text), flags, &err);
}

static int del(const char *key)
{
    memset(&err, 0, sizeof err);
    return dir.ops->del(dir.self, &key, 1, &err);
}

static char got[64];
static int to_got(void *ctx, const void *data, size_t len)
{
    (void)ctx;
    return format(got + strlen(got), sizeof got - strlen(got), "%.*s", (int)len,
                  (const char *)data);
}

static int get(const char *key, uint64_t offset, uint64_t len, uint64_t *size)
{
    memset(&err, 0, sizeof err);
    got[0] = 0;
    return dir.ops->get(dir.self, key, offset, len, to_got, NULL, size, &err);
}

/* One page, as "key=size key=size …[+]"; '+' for more. */
static const char *ls(const char *prefix, const char *after, bool dirs)
{
    static char text[4096];
    struct store_page page = {0};

    memset(&err, 0, sizeof err);
    text[0] = 0;
    int r = dir.ops->list(dir.self, prefix, after, dirs, &page, &err);
    if (r < 0)
        (void)snprintf(text, sizeof text, "error %d", r);
    for (size_t i = 0; r == 0 && i < page.nitems; i++)
        assert_int_equal(format(text + strlen(text), sizeof text - strlen(text), "%s%s=%d",
                                i ? " " : "", page.items[i].key, (int)page.items[i].size_bytes),
                         0);
    strcat(text, page.more ? "+" : "");
    free(page.items);
    return text;
}

/* How many files and directories there are below the parent. */
static unsigned nfound;
static int count_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)path, (void)st, (void)type, (void)ftw;
    nfound++;
    return 0;
}
static unsigned count(void)
{
    nfound = 0;
    (void)nftw(parent, count_one, 16, FTW_PHYS);
    return nfound - 1;
}

static bool was_synced(const char *path)
{
    for (unsigned i = 0; i < MIN(nfsync, ARRAY_SIZE(synced)); i++)
        if (strcmp(synced[i], path) == 0)
            return true;
    return false;
}

static void test_put_get_delete(void **state)
{
    uint64_t size = 99;

    (void)state;
    assert_int_equal(get("log/7", 0, 10, &size), -ENOENT);
    assert_int_equal(put("log/7", "hello world", 0), 0);
    assert_int_equal(get("log/7", 0, 100, &size), 0);
    assert_string_equal(got, "hello world");
    assert_int_equal(size, 11);
    assert_int_equal(get("log/7", 6, 3, &size), 0);
    assert_string_equal(got, "wor");
    assert_int_equal(get("log/7", 50, 3, &size), 0);
    assert_string_equal(got, "");
    assert_int_equal(put("log/7", "other", 0), 0);
    assert_int_equal(get("log/7", 0, 100, &size), 0);
    assert_string_equal(got, "other");
    assert_int_equal(put("empty", "", 0), 0);
    assert_int_equal(get("empty", 0, 1, &size), 0);
    assert_int_equal(size, 0);
    assert_int_equal(get("log", 0, 1, &size), -ENOENT);         /* a directory */
    assert_int_equal(get("empty/below", 0, 1, &size), -ENOENT); /* below a file */
    assert_int_equal(del("log/7"), 0);
    assert_int_equal(get("log/7", 0, 1, &size), -ENOENT);
    assert_int_equal(del("log/7"), 0);
}

static void test_if_absent(void **state)
{
    uint64_t size;

    (void)state;
    assert_int_equal(put("a", "first", STORE_IF_ABSENT), 0);
    assert_int_equal(put("a", "second", STORE_IF_ABSENT), -EEXIST);
    assert_int_equal(get("a", 0, 10, &size), 0);
    assert_string_equal(got, "first");
    assert_int_equal(count(), 2); /* no temporary file was left */
}

static void test_if_absent_without_links(void **state)
{
    static const int errors[] = {EPERM, EOPNOTSUPP, ENOSYS};
    uint64_t size;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
        fail_link = errors[i];
        assert_int_equal(put("a", "first", STORE_IF_ABSENT), 0);
        assert_int_equal(put("a", "second", STORE_IF_ABSENT), -EEXIST);
        assert_int_equal(get("a", 0, 10, &size), 0);
        assert_string_equal(got, "first");
        assert_int_equal(count(), 2);
        assert_int_equal(del("a"), 0);
    }
}

enum { NRACERS = 4, NRACES = 100 };
static atomic_int nwinners[NRACES];

static void *racer(void *ctx)
{
    struct store_error e;

    for (int i = 0; i < NRACES; i++) {
        char key[32];
        assert_int_equal(format(key, sizeof key, "race%d/%d", i % 7, i), 0);
        int r = dir.ops->put(dir.self, key, ctx, 1, STORE_IF_ABSENT, &e);
        if (r == 0)
            nwinners[i]++;
        else if (r != -EEXIST)
            nwinners[i] += 100;
    }
    return NULL;
}

static void test_races_have_one_winner(void **state)
{
    pthread_t t[NRACERS];
    char names[] = "abcd";

    (void)state;
    for (int i = 0; i < NRACERS; i++)
        assert_int_equal(pthread_create(&t[i], NULL, racer, names + i), 0);
    for (int i = 0; i < NRACERS; i++)
        pthread_join(t[i], NULL);
    for (int i = 0; i < NRACES; i++)
        assert_int_equal(nwinners[i], 1);
}

/* File, then its directory, then, once, the directories above that are new. */
static void test_what_is_synced(void **state)
{
    char path[256];

    (void)state;
    assert_int_equal(put("log/1", "x", STORE_IF_ABSENT), 0);
    assert_int_equal(nfdatasync, 1);
    assert_int_equal(nfsync, 3);
    assert_int_equal(format(path, sizeof path, "%s/log", root), 0);
    assert_true(was_synced(path));
    assert_true(was_synced(root));
    assert_true(was_synced(parent));
    assert_int_equal(put("log/2", "x", 0), 0);
    assert_int_equal(nfdatasync, 2);
    assert_int_equal(nfsync, 4);
    /* What exists may be another's, who did not get to syncing it. */
    assert_int_equal(put("log/2", "x", STORE_IF_ABSENT), -EEXIST);
    assert_int_equal(nfsync, 5);
    nfsync = 0;
    const char *keys[] = {"log/1", "log/2"};
    assert_int_equal(dir.ops->del(dir.self, keys, 2, &err), 0);
    assert_int_equal(nfsync, 1);
    assert_true(was_synced(parent));
    assert_int_equal(count(), 0);
    nfsync = 0;
    assert_int_equal(put("log/3", "x", 0), 0); /* made anew: synced anew */
    assert_int_equal(nfsync, 3);
}

static void test_failed_syncs(void **state)
{
    (void)state;
    fail_fdatasync = EIO;
    assert_int_equal(put("a", "x", 0), -EIO);
    assert_int_equal(err.fate, STORE_RETRY);
    fail_fdatasync = 0;
    fail_fsync = EIO; /* may be forgotten by the next fsync */
    assert_int_equal(put("a", "x", 0), -EIO);
    assert_int_equal(err.fate, STORE_FINAL);
    assert_int_equal(put("a", "x", STORE_IF_ABSENT), -EIO);
    fail_fsync = 0;
    assert_int_equal(put("a", "x", STORE_IF_ABSENT), -EIO); /* it is there; who knows how long */
    assert_int_equal(err.fate, STORE_FINAL);
    assert_int_equal(put("b", "x", 0), -EIO);
}

static void test_no_sync_of_directories(void **state)
{
    (void)state;
    fail_fsync = EINVAL; /* cannot be done there */
    assert_int_equal(put("a", "x", 0), 0);
}

static void test_full_disk_is_a_pause(void **state)
{
    static const int errors[] = {ENOSPC, EDQUOT};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
        fail_fdatasync = errors[i];
        assert_int_equal(put("a", "x", 0), -errors[i]);
        assert_int_equal(err.fate, STORE_RETRY);
        assert_non_null(strstr(err.text, "is full"));
        assert_non_null(strstr(err.text, root));
    }
    assert_int_equal(count(), 1); /* only the root */
    fail_fdatasync = EROFS;
    assert_int_equal(put("a", "x", 0), -EACCES);
    assert_int_equal(err.fate, STORE_REFUSED);
}

static void test_lists_in_order_of_bytes(void **state)
{
    static const char *const keys[] = {"log/2", "log/10",     "log-x", "log0",
                                       "map/1", "log/a/deep", "volume"};
    char path[256];

    (void)state;
    assert_string_equal(ls("", "", false), "");
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
        assert_int_equal(put(keys[i], keys[i], 0), 0);
    assert_string_equal(ls("", "", false), "log-x=5 log/10=6 log/2=5 log/a/deep=10 log0=4 "
                                           "map/1=5 volume=6");
    assert_string_equal(ls("log/", "", false), "log/10=6 log/2=5 log/a/deep=10");
    assert_string_equal(ls("log/", "log/10", false), "log/2=5 log/a/deep=10");
    assert_string_equal(ls("log/", "log/a/deep", false), "");
    assert_string_equal(ls("log/1", "", false), "log/10=6");
    assert_string_equal(ls("lo", "log/b", false), "log0=4");
    assert_string_equal(ls("", "log/a/x", false), "log0=4 map/1=5 volume=6");
    assert_string_equal(ls("none/", "", false), "");
    assert_string_equal(ls("", "", true), "log/=0 map/=0");
    assert_string_equal(ls("", "log0", true), "map/=0");
    /* What is none of ours stays out, and in place. */
    assert_int_equal(format(path, sizeof path, "%s/log/my file", root), 0);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(format(path, sizeof path, "%s/log/.hidden", root), 0);
    assert_int_equal(mknod(path, S_IFREG | 0600, 0), 0);
    assert_string_equal(ls("log/", "", false), "log/10=6 log/2=5 log/a/deep=10");
    assert_int_equal(access(path, F_OK), 0);
}

static void test_stale_temporaries_go(void **state)
{
    char fresh[256], stale[256];
    struct timespec old[2] = {{.tv_sec = time(NULL) - 2 * 86400},
                              {.tv_sec = time(NULL) - 2 * 86400}};

    (void)state;
    assert_int_equal(put("log/1", "x", 0), 0);
    assert_int_equal(format(fresh, sizeof fresh, "%s/log/.tmp-1-0", root), 0);
    assert_int_equal(format(stale, sizeof stale, "%s/log/.tmp-1-1", root), 0);
    assert_int_equal(mknod(fresh, S_IFREG | 0600, 0), 0);
    assert_int_equal(mknod(stale, S_IFREG | 0600, 0), 0);
    assert_int_equal(utimensat(AT_FDCWD, stale, old, 0), 0);
    assert_string_equal(ls("log/", "", false), "log/1=1");
    assert_int_equal(access(fresh, F_OK), 0);
    assert_int_equal(access(stale, F_OK), -1);
}

static void test_pages(void **state)
{
    enum { N = 2500 };
    char path[256], want[32], after[STORE_KEY_MAX] = "";
    unsigned n = 0;

    (void)state;
    assert_int_equal(put("log/00000", "x", 0), 0);
    for (unsigned i = N - 1; i; i--) {
        assert_int_equal(format(path, sizeof path, "%s/log/%05u", root, i * 7919 % N), 0);
        assert_true(mknod(path, S_IFREG | 0600, 0) == 0 || errno == EEXIST);
    }
    for (bool more = true; more;) {
        struct store_page page = {0};
        assert_int_equal(dir.ops->list(dir.self, "log/", after, false, &page, &err), 0);
        assert_int_equal(page.nitems, MIN(N - n, 1000u));
        for (size_t i = 0; i < page.nitems; i++, n++) {
            assert_int_equal(format(want, sizeof want, "log/%05u", n), 0);
            assert_string_equal(page.items[i].key, want);
            strcpy(after, want);
        }
        more = page.more;
        free(page.items);
    }
    assert_int_equal(n, N);
}

static void test_unmounted_share(void **state)
{
    char away[160];
    uint64_t size;

    (void)state;
    /* The volume is made, its parent never is. */
    assert_int_equal(rmdir(parent), 0);
    assert_int_equal(put("volume", "x", 0), -EAGAIN);
    assert_int_equal(err.fate, STORE_RETRY);
    assert_int_equal(get("volume", 0, 1, &size), -EAGAIN);
    assert_string_equal(ls("", "", false), "error -11");
    assert_int_equal(del("volume"), -EAGAIN);
    assert_int_equal(mkdir(parent, 0700), 0);
    assert_int_equal(get("volume", 0, 1, &size), -ENOENT);
    assert_int_equal(put("volume", "x", 0), 0);

    /* Once it was there, it can only be away: nothing is made in its place. */
    assert_int_equal(format(away, sizeof away, "%s-away", root), 0);
    for (int empty = 0; empty < 2; empty++) {
        assert_int_equal(rename(root, away), 0);
        if (empty)
            assert_int_equal(mkdir(root, 0700), 0);
        assert_int_equal(get("volume", 0, 1, &size), -EAGAIN);
        assert_int_equal(err.fate, STORE_RETRY);
        assert_non_null(strstr(err.text, "mounted?"));
        assert_int_equal(put("log/1", "x", STORE_IF_ABSENT), -EAGAIN);
        assert_string_equal(ls("log/", "", false), "error -11");
        assert_string_equal(ls("", "", false), "error -11");
        assert_int_equal(del("log/1"), -EAGAIN);
        assert_int_equal(count(), 2 + empty);
        if (empty)
            assert_int_equal(rmdir(root), 0);
        assert_int_equal(rename(away, root), 0);
        assert_int_equal(get("volume", 0, 1, &size), 0);
    }
}

static void test_delete_leaves_nothing(void **state)
{
    const char *keys[] = {"log/1", "log/2", "map/1", "a/b/c", "volume", "missing/1"};

    (void)state;
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(put(keys[i], "x", 0), 0);
    assert_int_equal(dir.ops->del(dir.self, keys, 6, &err), 0);
    assert_int_equal(count(), 0);
    assert_int_equal(put("volume", "x", 0), 0); /* and can be made again */
}

static void test_unwritable(void **state)
{
    (void)state;
    assert_int_equal(put("a", "x", 0), 0);
    if (geteuid() == 0) /* root is not refused by modes */
        assert_int_equal(setegid(65534) + seteuid(65534), 0);
    else
        assert_int_equal(chmod(root, 0500), 0);
    int r = put("b", "x", 0), fate = err.fate;
    int r_del = del("a");
    assert_int_equal(seteuid(getuid()) + setegid(getgid()), 0);
    assert_int_equal(chmod(root, 0700), 0);
    assert_int_equal(r, -EACCES);
    assert_int_equal(r_del, -EACCES);
    assert_int_equal(fate, STORE_REFUSED);
}

#define DIR_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        DIR_TEST(test_put_get_delete),
        DIR_TEST(test_if_absent),
        DIR_TEST(test_if_absent_without_links),
        DIR_TEST(test_races_have_one_winner),
        DIR_TEST(test_what_is_synced),
        DIR_TEST(test_failed_syncs),
        DIR_TEST(test_no_sync_of_directories),
        DIR_TEST(test_full_disk_is_a_pause),
        DIR_TEST(test_lists_in_order_of_bytes),
        DIR_TEST(test_stale_temporaries_go),
        DIR_TEST(test_pages),
        DIR_TEST(test_unmounted_share),
        DIR_TEST(test_delete_leaves_nothing),
        DIR_TEST(test_unwritable),
    };

    msg_set_sink(MSG_NONE);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
