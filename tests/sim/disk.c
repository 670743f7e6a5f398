#include "disk_internal.h"
#include "sched.h"

#include "../../store/scope.h"

#include <errno.h>
#include <string.h>

static struct {
    struct file *files; /* newest first; removed ones too */
    char fault_dir[PATH_BYTES];
    const char *fault_name; /* of the file; NULL: of any */
    unsigned fault_one_in, sync_fault_one_in;
    const char *sync_fault_dir, *sync_fault_name; /* of the next one that fails */
    const char *write_fault_dir;                  /* of the slots whose write fails */
    unsigned write_fault_after;
} disk;

/* ------------------------------------------------------------------ content */

/* `whole`: all of it will be overwritten. */
static uint8_t *page_of(struct content *c, uint64_t at, bool whole)
{
    size_t i = at / PAGE;

    if (i >= c->npages) {
        size_t n = MAX(2 * c->npages, i + 16);
        c->pages = realloc(c->pages, n * sizeof *c->pages);
        memset(c->pages + c->npages, 0, (n - c->npages) * sizeof *c->pages);
        c->npages = n;
    }
    if (!c->pages[i])
        c->pages[i] = whole ? malloc(PAGE) : calloc(1, PAGE);
    return c->pages[i] + at % PAGE;
}

/* Zeros in [from, to); whole pages go. */
static void content_clear(struct content *c, uint64_t from, uint64_t to)
{
    to = MIN(to, (uint64_t)c->npages * PAGE);
    while (from < to) {
        uint64_t n = MIN(to - from, PAGE - from % PAGE);
        uint8_t **page = &c->pages[from / PAGE];
        if (n == PAGE) {
            free(*page);
            *page = NULL;
        } else if (*page) {
            memset(*page + from % PAGE, 0, n);
        }
        from += n;
    }
}

static void content_write(struct content *c, const uint8_t *from, size_t len, uint64_t at)
{
    c->size = MAX(c->size, at + len);
    while (len > 0) {
        size_t n = MIN(len, (size_t)(PAGE - at % PAGE));
        memcpy(page_of(c, at, n == PAGE), from, n);
        from += n;
        at += n;
        len -= n;
    }
}

static void content_truncate(struct content *c, uint64_t size)
{
    if (size < c->size)
        content_clear(c, size, c->size);
    c->size = size;
}

static void content_free(struct content *c)
{
    for (size_t i = 0; i < c->npages; i++)
        free(c->pages[i]);
    free(c->pages);
    *c = (struct content){0};
}

static void content_copy(struct content *to, const struct content *from)
{
    content_free(to);
    for (size_t i = 0; i < from->npages; i++)
        if (from->pages[i])
            memcpy(page_of(to, i * PAGE, true), from->pages[i], PAGE);
    to->size = from->size;
}

/* ------------------------------------------------------------------ changes */

static void apply(struct content *c, const struct change *ch)
{
    switch (ch->kind) {
    case CHANGE_WRITE:
        content_write(c, ch->bytes, ch->len, ch->offset);
        break;
    case CHANGE_TRUNCATE:
        content_truncate(c, ch->offset);
        break;
    case CHANGE_PUNCH:
        content_clear(c, ch->offset, ch->offset + ch->len);
        break;
    }
}

/* A power cut while it is on its way: each sector arrives, or not. */
static void apply_in_part(struct content *c, const struct change *ch, unsigned percent)
{
    if (ch->kind != CHANGE_WRITE) {
        if (sim_chance(percent, 100))
            apply(c, ch);
        return;
    }
    for (uint64_t at = 0; at < ch->len;) {
        uint64_t n = MIN(ch->len - at, SECTOR - (ch->offset + at) % SECTOR);
        if (sim_chance(percent, 100))
            content_write(c, ch->bytes + at, n, ch->offset + at);
        at += n;
    }
}

static void change(struct file *f, enum change_kind kind, uint64_t offset, uint64_t len,
                   const void *bytes)
{
    struct change ch = {.kind = kind, .number = ++f->last_change, .offset = offset, .len = len};

    if (bytes) {
        ch.bytes = malloc(len + 1);
        memcpy(ch.bytes, bytes, len);
    }
    if (f->nchanges == f->room) {
        f->room = 2 * f->room + 64;
        f->changes = realloc(f->changes, f->room * sizeof *f->changes);
    }
    f->changes[f->nchanges++] = ch;
    apply(&f->now, &ch);
}

static void drop_changes(struct file *f)
{
    for (size_t i = 0; i < f->nchanges; i++)
        free(f->changes[i].bytes);
    f->nchanges = 0;
}

/* ------------------------------------------------------------------ files */

bool file_is_below(const char *path, const char *dir)
{
    size_t n = strlen(dir);

    return strncmp(path, dir, n) == 0 && (path[n] == '/' || path[n] == '\0');
}

struct file *file_find(const char *path)
{
    for (struct file *f = disk.files; f; f = f->next)
        if (!f->removed && strcmp(f->path, path) == 0)
            return f;
    return NULL;
}

struct file *file_make(const char *path)
{
    struct file *f = calloc(1, sizeof *f);

    if (format(f->path, sizeof f->path, "%s", path) < 0)
        sim_fail("path too long: %s", path);
    f->next = disk.files;
    disk.files = f;
    return f;
}

void file_remove(struct file *f, bool synced)
{
    f->removed = true;
    f->removal_synced = synced;
}

size_t file_read(const struct file *f, void *buf, size_t len, uint64_t offset)
{
    size_t n = offset < f->now.size ? MIN(len, f->now.size - offset) : 0;

    for (size_t done = 0; done < n;) {
        uint64_t at = offset + done;
        size_t piece = MIN(n - done, (size_t)(PAGE - at % PAGE)), i = at / PAGE;
        if (i < f->now.npages && f->now.pages[i])
            memcpy((uint8_t *)buf + done, f->now.pages[i] + at % PAGE, piece);
        else
            memset((uint8_t *)buf + done, 0, piece);
        done += piece;
    }
    return n;
}

void file_write(struct file *f, const void *buf, size_t len, uint64_t offset)
{
    change(f, CHANGE_WRITE, offset, len, buf);
}

void file_truncate(struct file *f, uint64_t size)
{
    change(f, CHANGE_TRUNCATE, size, 0, NULL);
}

void file_punch(struct file *f, uint64_t offset, uint64_t len)
{
    change(f, CHANGE_PUNCH, offset, len, NULL);
}

static bool is_called(const struct file *f, const char *name)
{
    return strcmp(strrchr(f->path, '/') + 1, name) == 0;
}

static bool sync_fault(const struct file *f)
{
    if (disk.sync_fault_name && is_called(f, disk.sync_fault_name) &&
        file_is_below(f->path, disk.sync_fault_dir)) {
        disk.sync_fault_name = NULL;
        return true;
    }
    bool slots = is_called(f, "slots"); /* of the -wal there are more; one of sums ends a life */

    return disk.sync_fault_one_in && !file_is_below(f->path, "/sim/tmp") &&
           (slots || is_called(f, "index.db-wal") || is_called(f, "sums")) &&
           sim_chance(1, disk.sync_fault_one_in * (slots ? 1 : 4));
}

/* Was it written again, whole, in one piece or in several behind each other, or cut to that size
 * again, by those of the first `n` that came later, and did not fail? */
static bool is_rewritten(const struct file *f, size_t i, size_t n)
{
    const struct change *old = &f->changes[i];
    uint64_t at = old->offset, end = old->offset + old->len;

    for (size_t k = i + 1; k < n && old->kind != CHANGE_PUNCH; k++) {
        const struct change *ch = &f->changes[k];
        if (ch->kind != old->kind || ch->doubtful)
            continue;
        if (ch->kind == CHANGE_WRITE && ch->offset <= at && ch->offset + ch->len > at)
            at = ch->offset + ch->len;
        if (at >= end && (ch->kind == CHANGE_WRITE || ch->offset == old->offset))
            return true;
    }
    return false;
}

/* Pages of index.db, and its size, that the next process brings there from the -wal again, as it
 * does with all; and the -wal, which it writes again before that. */
static size_t forget_rewritten(struct file *f, size_t n)
{
    size_t kept = 0;

    for (size_t i = 0; i < f->nchanges; i++)
        if (i < n && f->changes[i].doubtful && is_rewritten(f, i, n))
            free(f->changes[i].bytes);
        else
            f->changes[kept++] = f->changes[i];
    n -= f->nchanges - kept;
    f->nchanges = kept;
    return n;
}

int file_sync(struct file *f, uint64_t upto)
{
    size_t n = 0;

    while (n < f->nchanges && f->changes[n].number <= upto)
        n++;
    if (disk_fault(f, false) < 0 || sync_fault(f)) {
        for (size_t i = 0; i < n; i++)
            f->changes[i].doubtful = true;
        return -EIO;
    }
    bool doubtful = false;
    if (is_called(f, "index.db") || is_called(f, "index.db-wal"))
        n = forget_rewritten(f, n);
    for (size_t i = 0; i < n; i++)
        if (f->changes[i].kind == CHANGE_TRUNCATE && f->changes[i].offset == 0)
            doubtful = false;
        else
            doubtful = doubtful || f->changes[i].doubtful;
    if (doubtful)
        return 0; /* what came later is not told from it: all of it may be lost */
    for (size_t i = 0; i < n; i++) {
        apply(&f->synced, &f->changes[i]);
        free(f->changes[i].bytes);
    }
    f->nchanges -= n;
    if (n > 0)
        memmove(f->changes, f->changes + n, f->nchanges * sizeof *f->changes);
    return 0;
}

void file_sync_names(const char *dir)
{
    for (struct file *f = disk.files; f; f = f->next)
        if (file_is_below(f->path, dir)) {
            f->name_synced = true;
            f->removal_synced = f->removed;
        }
}

static bool write_fault(const struct file *f)
{
    if (!disk.write_fault_dir || !is_called(f, "slots") ||
        !file_is_below(f->path, disk.write_fault_dir) || disk.write_fault_after-- > 0)
        return false;
    disk.write_fault_dir = NULL;
    return true;
}

int disk_fault(const struct file *f, bool may_be_full)
{
    if (may_be_full && write_fault(f))
        return -EIO;
    bool meant = !disk.fault_name || (may_be_full && is_called(f, disk.fault_name));

    if (!meant || !disk.fault_one_in || !file_is_below(f->path, disk.fault_dir) ||
        !sim_chance(1, disk.fault_one_in))
        return 0;
    return may_be_full && sim_chance(1, 2) ? -ENOSPC : -EIO;
}

void disk_fail_one_in(const char *dir, const char *name, unsigned n)
{
    (void)snprintf(disk.fault_dir, sizeof disk.fault_dir, "%s", dir);
    disk.fault_name = name;
    disk.fault_one_in = n;
}

void disk_fail_syncs_one_in(unsigned n)
{
    disk.sync_fault_one_in = n;
    disk.sync_fault_name = NULL;
    disk.write_fault_dir = NULL;
}

void disk_fail_next_sync(const char *dir, const char *name)
{
    disk.sync_fault_dir = dir;
    disk.sync_fault_name = name;
}

void disk_fail_a_write(const char *dir, unsigned after)
{
    disk.write_fault_dir = dir;
    disk.write_fault_after = after;
}

/* ------------------------------------------------------------------ the end of power */

static unsigned choose_percent(void)
{
    static const unsigned percents[] = {0, 10, 50, 90, 100};

    return percents[sim_below(ARRAY_SIZE(percents))];
}

/* So much of what was not synced is on the disk, and nothing else anywhere. */
static void lose_some(struct file *f, unsigned percent)
{
    for (size_t i = 0; i < f->nchanges; i++)
        apply_in_part(&f->synced, &f->changes[i], percent);
    drop_changes(f);
    content_copy(&f->now, &f->synced);
}

void file_forget_doubtful(struct file *f)
{
    if (f->nchanges > 0 && f->changes[0].doubtful)
        lose_some(f, choose_percent());
}

void disk_power_cut(const char *dir)
{
    unsigned percent = choose_percent();

    for (struct file *f = disk.files; f; f = f->next) {
        if (!file_is_below(f->path, dir))
            continue;
        if (f->removed && !f->removal_synced && !file_find(f->path) && sim_chance(1, 2))
            f->removed = false;
        if (!f->removed && !f->name_synced && sim_chance(1, 2))
            f->removed = true;
        if (f->removed)
            f->removal_synced = true;
        lose_some(f, percent);
        f->name_synced = true;
    }
}

void disk_remove_all(const char *dir)
{
    for (struct file *f = disk.files; f; f = f->next)
        if (file_is_below(f->path, dir))
            file_remove(f, true);
}

/* Something that is there: a page with bytes. */
static uint8_t *some_byte(struct file *f, uint64_t *ret_at)
{
    for (int tries = 0; tries < 100 && f->now.size > 0; tries++) {
        *ret_at = sim_below(f->now.size);
        size_t i = *ret_at / PAGE;
        if (i < f->now.npages && f->now.pages[i])
            return f->now.pages[i] + *ret_at % PAGE;
    }
    return NULL;
}

static bool is_named(const struct file *f, const char *dir, const char *name)
{
    return !f->removed && file_is_below(f->path, dir) && is_called(f, name);
}

bool disk_flip(const char *dir, const char *name)
{
    for (struct file *f = disk.files; f; f = f->next) {
        uint8_t *byte, bit = (uint8_t)(1U << sim_below(8));
        uint64_t at;
        if (!is_named(f, dir, name) || !(byte = some_byte(f, &at)))
            continue;
        *byte ^= bit;
        if (at / PAGE < f->synced.npages && f->synced.pages[at / PAGE])
            f->synced.pages[at / PAGE][at % PAGE] ^= bit;
        return true;
    }
    return false;
}

void disk_remove(const char *dir, const char *name)
{
    for (struct file *f = disk.files; f; f = f->next)
        if (is_named(f, dir, name))
            file_remove(f, true);
}
