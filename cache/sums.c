#include "sums.h"

#include "../store/crc32c.h"
#include "../store/entry.h"
#include "../store/msg.h"
#include "../store/scope.h"

#include <pthread.h>
#include <string.h>
#include <sys/stat.h>

enum { PAGE_BYTES = 4096, SUMS_AT = 256, SLAB_PAGES = 16 };

#define NO_PAGE UINT32_MAX

struct sums_page {
    uint32_t number;
    unsigned holders;
    bool used;    /* since the hand came by */
    bool changed; /* the file has an older one */
    bool busy;    /* being read or written: nobody else may touch it */
    uint8_t *bytes;
};

struct header {
    uint32_t crc; /* of all that follows in the page */
    uint32_t number;
};

struct slab {
    _Alignas(PAGE_BYTES) uint8_t bytes[SLAB_PAGES][PAGE_BYTES];
    struct sums_page pages[SLAB_PAGES];
    struct slab *next;
};

struct sums {
    int fd;
    pthread_mutex_t lock;     /* guards what follows; never held during I/O */
    pthread_cond_t moved;     /* a page is not busy any more */
    struct sums_page **table; /* by number; NULL: not in memory */
    size_t ntable;
    struct sums_page **pages; /* those in memory, and the clock's hand over them */
    size_t npages, room, max_pages, hand;
    struct slab *slabs;
    uint32_t file_pages; /* the file has none from here on */
    bool told_lost, told_unwritten;
};

int sums_new(int fd, size_t max_pages, struct sums **ret)
{
    struct sums *s = calloc(1, sizeof *s);
    struct stat st;

    if (!s || fstat(fd, &st) < 0) {
        int r = s ? -errno : -ENOMEM;
        free(s);
        close(fd);
        return r;
    }
    s->fd = fd;
    s->max_pages = max_pages;
    s->file_pages = (uint32_t)MIN((uint64_t)st.st_size / PAGE_BYTES, (uint64_t)NO_PAGE);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->moved, NULL);
    *ret = s;
    return 0;
}

void sums_free(struct sums *s)
{
    if (!s)
        return;
    while (s->slabs) {
        struct slab *slab = s->slabs;
        s->slabs = slab->next;
        free(slab);
    }
    free(s->pages);
    free(s->table);
    close(s->fd);
    pthread_cond_destroy(&s->moved);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

int sums_reserve(struct sums *s, uint32_t slot)
{
    size_t need = (size_t)slot / SUMS_SLOTS + 1;

    scope_lock(&s->lock);
    if (need <= s->ntable)
        return 0;
    size_t n = MAX(MAX(need, 2 * s->ntable), (size_t)1024);
    struct sums_page **more = realloc(s->table, n * sizeof *more);
    if (!more)
        return -ENOMEM;
    memset(more + s->ntable, 0, (n - s->ntable) * sizeof *more);
    s->table = more;
    s->ntable = n;
    return 0;
}

/* ------------------------------------------------------------------ the file */

static uint32_t page_crc(const uint8_t *bytes)
{
    size_t skip = offsetof(struct header, number);

    return crc32c(0, bytes + skip, PAGE_BYTES - skip);
}

/* What was never there is not known. -EBADMSG: it was, and is damaged: sums that hardly any block
 * has, so that none is believed. */
static int read_page(const struct sums *s, struct sums_page *p)
{
    static const struct header none;
    struct header h;
    ssize_t n;

    do
        n = pread(s->fd, p->bytes, PAGE_BYTES, (off_t)p->number * PAGE_BYTES);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EBADMSG ? -EIO : -errno; /* the file system's damage is not ours */
    memcpy(&h, p->bytes, sizeof h);
    if (n == PAGE_BYTES && h.number == p->number && h.crc == page_crc(p->bytes))
        return 0;
    bool hole = n < PAGE_BYTES || memcmp(&h, &none, sizeof h) == 0;
    memset(p->bytes, hole ? 0 : 0xff, PAGE_BYTES);
    return hole ? 0 : -EBADMSG;
}

static int write_page(const struct sums *s, struct sums_page *p)
{
    struct header h = {.number = p->number};
    ssize_t n;

    memcpy(p->bytes, &h, sizeof h);
    h.crc = page_crc(p->bytes);
    memcpy(p->bytes, &h, sizeof h);
    do
        n = pwrite(s->fd, p->bytes, PAGE_BYTES, (off_t)p->number * PAGE_BYTES);
    while (n < 0 && errno == EINTR);
    return n == PAGE_BYTES ? 0 : n < 0 && errno != EBADMSG ? -errno : -EIO;
}

/* ------------------------------------------------------------------ what is in memory */

/* Lock held. NULL: no memory. */
static struct sums_page *add_page(struct sums *s)
{
    if (s->npages == s->room) {
        size_t room = s->room + SLAB_PAGES;
        struct sums_page **more = realloc(s->pages, room * sizeof *more);
        if (!more)
            return NULL;
        s->pages = more;
        struct slab *slab = aligned_alloc(PAGE_BYTES, sizeof *slab);
        if (!slab)
            return NULL;
        slab->next = s->slabs;
        s->slabs = slab;
        s->room = room;
    }
    size_t i = s->npages % SLAB_PAGES;
    struct sums_page *p = &s->slabs->pages[i];
    *p = (struct sums_page){.number = NO_PAGE, .bytes = s->slabs->bytes[i]};
    return s->pages[s->npages++] = p;
}

/* One that nobody holds, and that was not used for a while. Lock held. */
static struct sums_page *find_old(struct sums *s)
{
    for (size_t tries = 0; tries < 2 * s->npages; tries++) {
        struct sums_page *p = s->pages[s->hand];
        if (!p->holders && !p->busy && !p->used)
            return p;
        p->used = false;
        s->hand = (s->hand + 1) % s->npages;
    }
    return NULL;
}

static void begin_io(struct sums *s, struct sums_page *p)
{
    p->busy = true;
    pthread_mutex_unlock(&s->lock);
}

static void end_io(struct sums *s, struct sums_page *p)
{
    pthread_mutex_lock(&s->lock);
    p->busy = false;
    pthread_cond_broadcast(&s->moved);
}

/* A place for a page, without one now. What cannot be written stays in memory, and there are more
 * of them then. NULL: what was true before may not be now, as the lock was released; or -ENOMEM.
 * Lock held. */
static struct sums_page *take_place(struct sums *s, int *ret)
{
    struct sums_page *p = s->npages < s->max_pages ? NULL : find_old(s);
    int r = 0;

    if (p && p->changed) {
        begin_io(s, p);
        r = write_page(s, p);
        end_io(s, p);
        p->changed = r < 0;
        p->used = r < 0;
        s->file_pages = MAX(s->file_pages, p->number + 1);
        if (r == 0)
            return NULL;
        if (!s->told_unwritten)
            msg_warn("sums of the cache: %s: keeping them in memory", strerror(-r));
        s->told_unwritten = true;
        p = NULL;
    }
    if (p && p->number != NO_PAGE)
        s->table[p->number] = NULL;
    if (!p)
        p = add_page(s);
    *ret = p ? 0 : -ENOMEM;
    return p;
}

/* Lock held, released meanwhile. */
static int load(struct sums *s, struct sums_page *p, uint32_t number)
{
    int r = 0;

    p->number = number;
    p->changed = false;
    s->table[number] = p;
    if (number >= s->file_pages) {
        memset(p->bytes, 0, PAGE_BYTES);
        return 0;
    }
    begin_io(s, p);
    r = read_page(s, p);
    end_io(s, p);
    if (r == -EBADMSG && !s->told_lost)
        msg_warn("sums of the cache: damaged: what they were of is not used");
    s->told_lost |= r == -EBADMSG;
    if (r == 0 || r == -EBADMSG)
        return 0;
    s->table[number] = NULL;
    p->number = NO_PAGE;
    return r;
}

/* Lock held, released meanwhile. */
static int hold_page(struct sums *s, uint32_t number, struct sums_page **ret)
{
    struct sums_page *p;
    int r = 0;

    INVARIANT(number < s->ntable);
    while (!(p = s->table[number]) || p->busy) {
        if (p) {
            pthread_cond_wait(&s->moved, &s->lock);
            continue;
        }
        p = take_place(s, &r);
        if (p && !s->table[number])
            r = load(s, p, number);
        if (r < 0)
            return r;
    }
    p->holders++;
    p->used = true;
    *ret = p;
    return 0;
}

/* Lock held. */
static void release_page(struct sums_page *p, bool changed)
{
    p->holders--;
    p->changed |= changed;
}

/* ------------------------------------------------------------------ the API */

int sums_hold(struct sums *s, uint32_t slot, uint32_t n, struct sums_held *ret)
{
    struct sums_held held = {.first = slot / SUMS_SLOTS};
    uint32_t last = (slot + n - 1) / SUMS_SLOTS;

    INVARIANT(n > 0 && n <= SUMS_RUN);
    scope_lock(&s->lock);
    int r = hold_page(s, held.first, &held.pages[0]);
    if (r == 0 && last != held.first) {
        r = hold_page(s, last, &held.pages[1]);
        if (r < 0)
            release_page(held.pages[0], false);
    }
    *ret = held;
    return r;
}

uint32_t *sums_of(const struct sums_held *held, uint32_t slot)
{
    const struct sums_page *p = held->pages[slot / SUMS_SLOTS - held->first];
    uint8_t *at = p->bytes + SUMS_AT + slot % SUMS_SLOTS * CHUNK_BLOCKS * sizeof(uint32_t);

    return (uint32_t *)(void *)at;
}

void sums_release(struct sums *s, struct sums_held *held, bool changed)
{
    scope_lock(&s->lock);
    for (unsigned i = 0; i < ARRAY_SIZE(held->pages) && held->pages[i]; i++)
        release_page(held->pages[i], changed);
}

int sums_save(struct sums *s)
{
    int r = 0;

    for (size_t i = 0; i < s->npages && r == 0; i++) {
        struct sums_page *p = s->pages[i];
        if (!p->changed)
            continue;
        r = write_page(s, p);
        p->changed = r < 0;
        s->file_pages = MAX(s->file_pages, p->number + 1);
    }
    return r < 0 ? r : fdatasync(s->fd) < 0 ? -errno : 0;
}

int sums_forget(struct sums *s)
{
    for (size_t i = 0; i < s->npages; i++) {
        if (s->pages[i]->number != NO_PAGE)
            s->table[s->pages[i]->number] = NULL;
        s->pages[i]->number = NO_PAGE;
        s->pages[i]->changed = false;
    }
    s->file_pages = 0;
    return ftruncate(s->fd, 0) < 0 ? -errno : 0;
}
