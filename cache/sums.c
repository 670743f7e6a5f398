#include "sums.h"

#include "../store/crc32c.h"
#include "../store/entry.h"
#include "../store/msg.h"
#include "../store/scope.h"
#include "../store/superblock.h"
#include "disk_io.h"

#include <pthread.h>
#include <string.h>
#include <sys/stat.h>

enum { PAGE_BYTES = 4096, SUMS_AT = 256, SLAB_PAGES = 64 };

#define NO_PAGE UINT32_MAX

struct sums_page {
    uint32_t number;
    unsigned holders;
    bool used;    /* since the hand came by */
    bool changed; /* the file has an older one */
    bool busy;    /* being read or written: nobody else may touch it */
    uint8_t *bytes;
};

struct page_head {
    uint32_t crc; /* of all that follows in the page */
    uint32_t number;
    uint64_t life; /* NO_PAGE's */
};

enum told { TOLD_DAMAGED, TOLD_LOST, TOLD_UNWRITTEN, TOLD_KINDS };

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
    uint64_t life;
    bool sync_failed;
    bool told[TOLD_KINDS]; /* atomic */
};

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

static off_t place_of(uint32_t number)
{
    return number == NO_PAGE ? 0 : ((off_t)number + 1) * PAGE_BYTES;
}

static uint32_t page_crc(const uint8_t *bytes)
{
    size_t skip = offsetof(struct page_head, number);

    return crc32c(0, bytes + skip, PAGE_BYTES - skip);
}

/* Each once. */
static void tell(struct sums *s, enum told what, int r)
{
    static const char *const texts[] = {
        [TOLD_DAMAGED] = "are damaged: what they are of is not used",
        [TOLD_LOST] = "cannot be read: what they are of is believed",
        [TOLD_UNWRITTEN] = "cannot be written, and stay in memory",
    };

    if (!__atomic_exchange_n(&s->told[what], true, __ATOMIC_RELAXED))
        msg_warn("the cache: sums of blocks %s: %s", texts[what], strerror(-r));
}

static bool is_zero(const uint8_t *bytes)
{
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, PAGE_BYTES - 1) == 0;
}

/* Of what was never written no sum is known, nor of what cannot be read. -EBADMSG: damaged: sums
 * that hardly any block has. */
static int read_page(const struct sums *s, struct sums_page *p)
{
    int r = io_all(s->fd, false, p->bytes, PAGE_BYTES, place_of(p->number));
    struct page_head h;

    memcpy(&h, p->bytes, sizeof h);
    if (r == 0 && (is_zero(p->bytes) || (h.number == p->number && h.crc == page_crc(p->bytes))))
        return 0;
    memset(p->bytes, r == 0 ? 0xff : 0, PAGE_BYTES);
    return r == 0 ? -EBADMSG : r;
}

static int write_page(const struct sums *s, struct sums_page *p)
{
    struct page_head h = {.number = p->number, .life = p->number == NO_PAGE ? s->life : 0};

    memcpy(p->bytes, &h, sizeof h);
    h.crc = page_crc(p->bytes);
    memcpy(p->bytes, &h, sizeof h);
    return io_all(s->fd, true, p->bytes, PAGE_BYTES, place_of(p->number));
}

static int sync_file(struct sums *s)
{
    if (s->sync_failed || fdatasync(s->fd) < 0) {
        s->sync_failed = true;
        return -EIO;
    }
    return 0;
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
static struct sums_page *find_old(struct sums *s, bool changed_too)
{
    for (size_t tries = 0; tries < 2 * s->npages; tries++) {
        struct sums_page *p = s->pages[s->hand];
        if (!p->holders && !p->busy && !p->used && (changed_too || !p->changed))
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

/* Lock held, released meanwhile. */
static int write_old(struct sums *s, struct sums_page *p)
{
    begin_io(s, p);
    int r = write_page(s, p);
    if (r < 0)
        tell(s, TOLD_UNWRITTEN, r);
    end_io(s, p);
    p->changed = r < 0;
    s->file_pages = MAX(s->file_pages, p->number + 1);
    return r;
}

/* A place for a page, without one now. What cannot be written stays in memory; there are more pages
 * then, if no other one can go. NULL: what was true before may not be now, as the lock was
 * released; or -ENOMEM. Lock held. */
static struct sums_page *take_place(struct sums *s, int *ret)
{
    struct sums_page *p = s->npages < s->max_pages ? add_page(s) : NULL;

    if (!p)
        p = find_old(s, true);
    if (p && p->changed) {
        if (write_old(s, p) == 0)
            return NULL;
        s->hand = (s->hand + 1) % s->npages; /* the next time another one is tried */
        p = find_old(s, false);
    }
    if (!p)
        p = add_page(s);
    *ret = p ? 0 : -ENOMEM;
    if (p && p->number != NO_PAGE) {
        s->table[p->number] = NULL;
        p->number = NO_PAGE;
    }
    return p;
}

/* Lock held, released meanwhile. */
static void load(struct sums *s, struct sums_page *p, uint32_t number)
{
    p->number = number;
    p->changed = false;
    s->table[number] = p;
    if (number >= s->file_pages) {
        memset(p->bytes, 0, PAGE_BYTES);
        return;
    }
    begin_io(s, p);
    int r = read_page(s, p);
    if (r < 0)
        tell(s, r == -EBADMSG ? TOLD_DAMAGED : TOLD_LOST, r);
    end_io(s, p);
    p->changed = r < 0; /* written anew, which may help */
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
        if (r < 0)
            return r;
        if (p && !s->table[number])
            load(s, p, number);
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
    return r < 0 ? r : sync_file(s);
}

/* ------------------------------------------------------------------ a life */

int sums_new(int fd, size_t max_pages, struct sums **ret)
{
    struct sums *s = calloc(1, sizeof *s);
    struct page_head h;
    struct stat st;

    if (!s || fstat(fd, &st) < 0) {
        int r = s ? -errno : -ENOMEM;
        free(s);
        close(fd);
        return r;
    }
    s->fd = fd;
    s->max_pages = max_pages;
    s->file_pages =
        (uint32_t)MIN((uint64_t)st.st_size / PAGE_BYTES, (uint64_t)NO_PAGE); /* at least */
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->moved, NULL);
    struct sums_page *p = add_page(s);
    if (!p) {
        sums_free(s);
        return -ENOMEM;
    }
    if (read_page(s, p) == 0) {
        memcpy(&h, p->bytes, sizeof h);
        s->life = h.life;
    }
    *ret = s;
    return 0;
}

uint64_t sums_life(const struct sums *s)
{
    return s->life;
}

int sums_begin(struct sums *s)
{
    struct sums_page *p = s->pages[0];

    INVARIANT(p->number == NO_PAGE);
    int r = random_bytes(&s->life, sizeof s->life);
    if (r < 0)
        return r;
    s->life |= 1; /* not 0 */
    memset(p->bytes, 0, PAGE_BYTES);
    r = write_page(s, p);
    return r < 0 ? r : sync_file(s);
}
