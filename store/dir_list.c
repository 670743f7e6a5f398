#include "dir_internal.h"

#include "scope.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { PAGE_ITEMS = 1000, TMP_KEPT_S = 24 * 3600 };

/* One pass over the tree that keeps the smallest keys above `after`. Their number is bounded, so
 * they are a heap: heap[0] is the index of the largest. */
struct scan {
    struct dir *dir;
    const char *prefix, *after;
    bool dirs;
    struct store_page *page;
    unsigned heap[PAGE_ITEMS];
    struct store_error *err;
};

static const char *heap_key(const struct scan *s, size_t i)
{
    return s->page->items[s->heap[i]].key;
}

static void heap_swap(struct scan *s, size_t i, size_t j)
{
    unsigned t = s->heap[i];

    s->heap[i] = s->heap[j];
    s->heap[j] = t;
}

static void sift_up(struct scan *s, size_t i)
{
    for (; i && strcmp(heap_key(s, i), heap_key(s, (i - 1) / 2)) > 0; i = (i - 1) / 2)
        heap_swap(s, i, (i - 1) / 2);
}

static void sift_down(struct scan *s)
{
    size_t n = s->page->nitems;

    for (size_t i = 0, child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && strcmp(heap_key(s, child + 1), heap_key(s, child)) > 0)
            child++;
        if (strcmp(heap_key(s, i), heap_key(s, child)) >= 0)
            break;
        heap_swap(s, i, child);
    }
}

/* Whether some key that begins with `key` can still come on the page. */
static bool wanted(struct scan *s, const char *key)
{
    if (strncmp(s->after, key, strlen(key)) > 0)
        return false;
    if (s->page->nitems < PAGE_ITEMS || strcmp(key, heap_key(s, 0)) < 0)
        return true;
    s->page->more = true;
    return false;
}

static void keep(struct scan *s, const char *key)
{
    size_t n = s->page->nitems;

    if (strcmp(key, s->after) <= 0 || !wanted(s, key))
        return;
    if (n < PAGE_ITEMS) {
        strcpy(s->page->items[n].key, key);
        s->heap[n] = (unsigned)n;
        s->page->nitems++;
        sift_up(s, n);
    } else {
        s->page->more = true;
        strcpy(s->page->items[s->heap[0]].key, key);
        sift_down(s);
    }
}

/* What a put that never ended has left. */
static void remove_stale(int fd, const char *name)
{
    struct stat st;

    if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
        st.st_mtime < time(NULL) - TMP_KEPT_S)
        (void)unlinkat(fd, name, 0);
}

/* DT_REG, DT_DIR, or something that is not for us. */
static unsigned char type_of(int fd, const struct dirent *e)
{
    struct stat st;

    if (e->d_type != DT_UNKNOWN && e->d_type != DT_LNK)
        return e->d_type;
    if (fstatat(fd, e->d_name, &st, 0) < 0)
        return DT_UNKNOWN;
    return S_ISREG(st.st_mode) ? DT_REG : S_ISDIR(st.st_mode) ? DT_DIR : DT_UNKNOWN;
}

static int scan_dir(struct scan *s, const char *sub);

static int scan_entry(struct scan *s, int fd, const char *sub, const struct dirent *e)
{
    static const char valid[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    char key[STORE_KEY_MAX];

    if (strncmp(e->d_name, DIR_TMP_PREFIX, strlen(DIR_TMP_PREFIX)) == 0)
        remove_stale(fd, e->d_name);
    if (e->d_name[0] == '.' || (!s->dirs && e->d_name[strspn(e->d_name, valid)]))
        return 0; /* somebody else's */
    unsigned char type = type_of(fd, e);
    if (type != DT_DIR && (type != DT_REG || s->dirs))
        return 0;
    if (format(key, sizeof key, "%s%s%s%s", sub, *sub ? "/" : "", e->d_name,
               type == DT_DIR ? "/" : "") < 0 ||
        strncmp(key, s->prefix, strlen(s->prefix)) != 0)
        return 0;
    if (type == DT_REG || s->dirs) {
        keep(s, key);
        return 0;
    }
    if (!wanted(s, key))
        return 0;
    key[strlen(key) - 1] = 0;
    return scan_dir(s, key);
}

static int scan_dir(struct scan *s, const char *sub)
{
    char path[DIR_PATH_MAX];
    struct dirent *e;
    int r = 0;

    dir_path(s->dir, sub, path);
    DIR *d = opendir(path);
    if (!d && (errno == ENOENT || errno == ENOTDIR))
        return 0;
    if (!d)
        return dir_failed("list", path, errno, s->err);
    while (r == 0 && (errno = 0, e = readdir(d)))
        r = scan_entry(s, dirfd(d), sub, e);
    if (r == 0 && errno)
        r = dir_failed("list", path, errno, s->err);
    closedir(d);
    return r;
}

static int by_key(const void *a, const void *b)
{
    return strcmp(a, b); /* the key is an item's first member */
}

/* Fills in the sizes; what has been deleted since the scan drops out. */
static int stat_items(struct scan *s)
{
    struct store_page *page = s->page;
    size_t kept = 0;

    for (size_t i = 0; i < page->nitems; i++) {
        char path[DIR_PATH_MAX];
        struct stat st;

        dir_path(s->dir, page->items[i].key, path);
        if (stat(path, &st) < 0) {
            if (errno != ENOENT && errno != ENOTDIR)
                return dir_failed("list", path, errno, s->err);
            continue;
        }
        page->items[kept] = page->items[i];
        page->items[kept++].size_bytes = s->dirs ? 0 : (uint64_t)st.st_size;
    }
    page->nitems = kept;
    return 0;
}

int dir_list(void *self, const char *prefix, const char *start_after, bool dirs,
             struct store_page *page, struct store_error *err)
{
    char sub[STORE_KEY_MAX], after[STORE_KEY_MAX + 1];
    struct scan s = {self, prefix, after, dirs, page, {0}, err};
    const char *slash = strrchr(prefix, '/');
    size_t sub_len = slash ? (size_t)(slash - prefix) : 0;
    int r;

    memcpy(sub, prefix, sub_len);
    sub[sub_len] = 0;
    INVARIANT(format(after, sizeof after, "%s", start_after) == 0);
    page->items = calloc(PAGE_ITEMS, sizeof *page->items);
    if (!page->items)
        return dir_failed("list", s.dir->root, ENOMEM, err);
    do {
        page->nitems = 0;
        page->more = false;
        r = scan_dir(&s, sub);
        if (r < 0)
            return r;
        if (!page->nitems) /* is it empty, or away? */
            return dir_check_root(s.dir, err);
        qsort(page->items, page->nitems, sizeof *page->items, by_key);
        strcpy(after, page->items[page->nitems - 1].key);
        r = stat_items(&s);
    } while (r == 0 && page->more && !page->nitems);
    if (page->nitems)
        s.dir->populated = true;
    return r;
}
