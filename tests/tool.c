/*
 * What the end-to-end tests need and a shell cannot do. Bytes that it writes are a function of seed
 * and offset, so they can be verified without a copy. Each command ends with one line and exit 1
 * at the first difference or error.
 */
#include "pattern.h"

#include "../fuse/control.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/mman.h>

#define HAMMER_SPAN 5000 /* not a multiple of a block: neighbours share blocks */

static void differ(const char *file, uint64_t offset)
{
    fprintf(stderr, "tool: %s: wrong byte at %" PRIu64 " (block %" PRIu64 ")\n", file, offset,
            offset / BLOCK);
    exit(1);
}

static void compare(const char *file, const void *got, const void *wanted, size_t len, uint64_t at)
{
    const unsigned char *a = got, *b = wanted;
    if (memcmp(a, b, len) == 0)
        return;
    for (size_t i = 0; i < len; i++)
        if (a[i] != b[i])
            differ(file, at + i);
}

/* fill|verify FILE OFFSET LEN SEED */
static int fill(char **arg)
{
    bool writing = arg[0][0] == 'f';
    uint64_t offset = number(arg[2]), end = offset + number(arg[3]), seed = number(arg[4]);
    unsigned char *want = buffer(), *got = buffer();
    int fd = open_or_die(arg[1], writing ? O_WRONLY : O_RDONLY);
    for (size_t len; offset < end; offset += len) {
        len = end - offset < BUFFER ? end - offset : BUFFER;
        pattern(want, len, offset, seed);
        if (writing) {
            write_all(fd, want, len, offset);
        } else {
            read_all(fd, got, len, offset);
            compare(arg[1], got, want, len, offset);
        }
    }
    return close(fd);
}

/* scatter|verify-scatter FILE LEN COUNT SEED: so many blocks at random places in the first LEN
 * bytes; a place may come twice, with the same bytes. */
static int scatter(char **arg)
{
    bool writing = arg[0][0] == 's';
    uint64_t blocks = number(arg[2]) / BLOCK, count = number(arg[3]), seed = number(arg[4]);
    uint64_t rng = seed << 32;
    unsigned char *want = buffer(), *got = buffer();
    int fd = open_or_die(arg[1], writing ? O_WRONLY : O_RDONLY);
    while (count--) {
        uint64_t offset = draw(&rng, blocks) * BLOCK;
        pattern(want, BLOCK, offset, seed);
        if (writing) {
            write_all(fd, want, BLOCK, offset);
        } else {
            read_all(fd, got, BLOCK, offset);
            compare(arg[1], got, want, BLOCK, offset);
        }
    }
    return close(fd);
}

/* shuffle FILE LEN SEED: what "fill FILE 0 LEN SEED" writes, block by block in random order. */
static int shuffle(char **arg)
{
    uint64_t blocks = number(arg[2]) / BLOCK, seed = number(arg[3]), rng = seed << 32;
    uint32_t *order = calloc(blocks, sizeof *order);
    unsigned char *want = buffer();
    int fd = open_or_die(arg[1], O_WRONLY);

    if (!order)
        die("memory");
    for (uint64_t i = 0; i < blocks; i++) {
        uint64_t j = draw(&rng, i + 1);
        order[i] = order[j];
        order[j] = (uint32_t)i;
    }
    for (uint64_t i = 0; i < blocks; i++) {
        uint64_t offset = (uint64_t)order[i] * BLOCK;
        pattern(want, BLOCK, offset, seed);
        write_all(fd, want, BLOCK, offset);
    }
    free(order);
    return close(fd);
}

/* inspect FILE OFFSET LEN SEED, inspect-scatter FILE LEN COUNT SEED: as verify and verify-scatter,
 * but blocks that cannot be read are only counted, and the count is printed. */
static int inspect(char **arg)
{
    bool scattered = arg[0][7];
    uint64_t len = number(arg[scattered ? 2 : 3]), seed = number(arg[4]), rng = seed << 32;
    uint64_t count = scattered ? number(arg[3]) : len / BLOCK, errors = 0;
    unsigned char *want = buffer(), *got = buffer();
    int fd = open_or_die(arg[1], O_RDONLY);

    for (uint64_t i = 0; i < count; i++) {
        uint64_t offset = scattered ? draw(&rng, len / BLOCK) * BLOCK : number(arg[2]) + i * BLOCK;
        pattern(want, BLOCK, offset, seed);
        ssize_t n = pread(fd, got, BLOCK, offset);
        if (n < 0 && errno == EIO) {
            errors++;
            continue;
        }
        if (n != BLOCK)
            die("read");
        compare(arg[1], got, want, BLOCK, offset);
    }
    printf("%" PRIu64 "\n", errors);
    return close(fd);
}

/* -------------------------------------------------------------------------------------- mirror */

struct mirror {
    const char *file;
    int fd, ref;
    unsigned char *map; /* of fd, or NULL */
    bool private;       /* the map: what is written there stays there */
    bool only;          /* the map is what is written to, and msync() all that is asked for */
    uint64_t len, rng, align;
    unsigned char *a, *b;
};

static void mirror_write(struct mirror *m, uint64_t at, size_t len)
{
    pattern(m->a, len, at, m->rng);
    if (m->map && !m->private && (m->only || draw(&m->rng, 2))) {
        memcpy(m->map + at, m->a, len);
        uint64_t page = at / BLOCK * BLOCK;
        if (msync(m->map + page, at + len - page, MS_SYNC))
            die("msync");
    } else {
        write_all(m->fd, m->a, len, at);
    }
    write_all(m->ref, m->a, len, at);
}

static void mirror_read(struct mirror *m, uint64_t at, size_t len)
{
    read_all(m->ref, m->b, len, at);
    if (m->map && !m->private && draw(&m->rng, 2)) {
        compare(m->file, m->map + at, m->b, len, at);
        return;
    }
    read_all(m->fd, m->a, len, at);
    compare(m->file, m->a, m->b, len, at);
    if (m->private) /* must not be seen by anybody */
        memset(m->map + at, 0x55, len);
}

static void mirror_drop(struct mirror *m, uint64_t at, size_t len)
{
    int mode = draw(&m->rng, 2) ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;
    if (fallocate(m->fd, mode | FALLOC_FL_KEEP_SIZE, at, len))
        die("fallocate");
    if (fallocate(m->ref, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, len))
        die("fallocate");
}

static void mirror_step(struct mirror *m)
{
    static const uint32_t most[] = {64, 5000, 5000, 70000, 70000, 300000, BUFFER};
    uint64_t len = 1 + draw(&m->rng, most[draw(&m->rng, sizeof most / sizeof *most)]);
    len = (len + m->align - 1) / m->align * m->align;
    uint64_t at = draw(&m->rng, (m->len - len) / m->align + 1) * m->align;
    unsigned what = draw(&m->rng, 100);
    if (what < 45)
        mirror_write(m, at, len);
    else if (what < 90)
        mirror_read(m, at, len);
    else if (m->only)
        return;
    else if (what < 97)
        mirror_drop(m, at, len);
    else if ((what == 97 ? fdatasync : fsync)(m->fd))
        die("fsync");
}

/* mirror FILE REF LEN OPS SEED plain|direct|sync|mmap|msync|private: reads, writes, zeroes of any
 * size and alignment in the first LEN bytes, the same on the plain file REF; every byte read is
 * compared. msync: writes through the map, and nothing is synced but by msync(). */
static int mirror(char **arg)
{
    struct mirror m = {
        .file = arg[1], .len = number(arg[3]), .rng = number(arg[5]) << 32, .align = 1};
    uint64_t ops = number(arg[4]);
    const char *how = arg[6];
    int flags = O_RDWR;
    if (!strcmp(how, "direct"))
        flags |= O_DIRECT, m.align = 512;
    else if (!strcmp(how, "sync"))
        flags |= O_SYNC;
    m.private = !strcmp(how, "private");
    m.fd = open_or_die(arg[1], flags);
    m.ref = open_or_die(arg[2], O_RDWR | O_CREAT);
    if (ftruncate(m.ref, m.len))
        die(arg[2]);
    m.only = !strcmp(how, "msync");
    if (m.private || m.only || !strcmp(how, "mmap")) {
        m.map = mmap(NULL, m.len, PROT_READ | PROT_WRITE, m.private ? MAP_PRIVATE : MAP_SHARED,
                     m.fd, 0);
        if (m.map == MAP_FAILED)
            die("mmap");
    }
    m.a = buffer();
    m.b = buffer();
    while (ops--)
        mirror_step(&m);
    for (uint64_t at = 0; at < m.len; at += BUFFER) {
        m.map = NULL;
        m.private = false;
        mirror_read(&m, at, m.len - at < BUFFER ? m.len - at : BUFFER);
    }
    return close(m.fd);
}

/* -------------------------------------------------------------------------------------- hammer */

struct hammer {
    const char *file;
    uint64_t seed, rounds, len;
    unsigned nth, of;
};

/* Owns every of'th span of the file; other threads own the rest of the same blocks. */
static void *hammer_thread(void *ctx)
{
    struct hammer *h = ctx;
    unsigned char *want = buffer_new(), *got = buffer_new();
    int fd = open_or_die(h->file, O_RDWR);
    uint64_t rng = (h->seed << 32) + h->nth, spans = h->len / HAMMER_SPAN / h->of;
    for (uint64_t round = 0; round < h->rounds; round++) {
        for (uint64_t i = 0; i < spans; i++) {
            uint64_t at = (i * h->of + h->nth) * HAMMER_SPAN;
            pattern(want, HAMMER_SPAN, at, h->seed + round);
            write_all(fd, want, HAMMER_SPAN, at);
            if (draw(&rng, 64) == 0 && fdatasync(fd))
                die("fdatasync");
            uint64_t back = draw(&rng, i + 1); /* one that this round has written already */
            at = (back * h->of + h->nth) * HAMMER_SPAN;
            pattern(want, HAMMER_SPAN, at, h->seed + round);
            read_all(fd, got, HAMMER_SPAN, at);
            compare(h->file, got, want, HAMMER_SPAN, at);
        }
    }
    close(fd);
    free(want);
    free(got);
    return NULL;
}

/* hammer FILE LEN THREADS ROUNDS SEED: writers and readers at once, each verifying its own bytes;
 * afterwards `verify FILE 0 LEN' SEED+ROUNDS-1` holds for the whole spans. Prints LEN'. */
static int hammer(char **arg)
{
    unsigned n = number(arg[3]);
    pthread_t thread[64];
    struct hammer h[64];
    if (n < 1 || n > 64)
        return 2;
    for (unsigned i = 0; i < n; i++) {
        h[i] = (struct hammer){arg[1], number(arg[5]), number(arg[4]), number(arg[2]), i, n};
        if (pthread_create(&thread[i], NULL, hammer_thread, &h[i]))
            die("thread");
    }
    for (unsigned i = 0; i < n; i++)
        pthread_join(thread[i], NULL);
    printf("%" PRIu64 "\n", h[0].len / HAMMER_SPAN / n * n * HAMMER_SPAN);
    return 0;
}

/* ----------------------------------------------------------------------------------- the others */

/* extents FILE: "data FROM TO" and "hole FROM TO", as SEEK_DATA and SEEK_HOLE tell. */
static int extents(char **arg)
{
    int fd = open_or_die(arg[1], O_RDONLY);
    off_t end = lseek(fd, 0, SEEK_END), at = 0;
    while (at < end) {
        off_t data = lseek(fd, at, SEEK_DATA);
        if (data < 0 && errno != ENXIO)
            die("SEEK_DATA");
        if (data < 0)
            data = end;
        if (data > at)
            printf("hole %jd %jd\n", (intmax_t)at, (intmax_t)data);
        if (data >= end)
            break;
        at = lseek(fd, data, SEEK_HOLE);
        if (at <= data)
            die("SEEK_HOLE");
        printf("data %jd %jd\n", (intmax_t)data, (intmax_t)at);
    }
    return 0;
}

/* flip FILE OFFSET: turns all bits of one byte; a negative offset counts from the end. */
static int flip(char **arg)
{
    int fd = open_or_die(arg[1], O_RDWR);
    off_t at = lseek(fd, atoll(arg[2]), arg[2][0] == '-' ? SEEK_END : SEEK_SET);
    unsigned char byte;
    if (at < 0)
        die(arg[1]);
    read_all(fd, &byte, 1, at);
    byte = ~byte;
    write_all(fd, &byte, 1, at);
    return close(fd);
}

/* order FILE KIND: a task by ioctl (fuse/control.h), of who has opened the file only for reading;
 * keep-local is a kind, too. */
static int order(char **arg)
{
    struct control_task task = {.wait_ms = 1000, .len = 1 << 20};
    uint32_t on = 1;
    int fd = open_or_die(arg[1], O_RDONLY);
    bool keep = !strcmp(arg[2], "keep-local");
    if (!keep)
        task.kind = number(arg[2]);
    if (keep ? ioctl(fd, CONTROL_KEEP_LOCAL, &on) : ioctl(fd, CONTROL_TASK, &task))
        die("ioctl");
    return close(fd);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int nargs;
        int (*run)(char **arg);
    } command[] = {
        {"fill", 4, fill},
        {"verify", 4, fill},
        {"shuffle", 3, shuffle},
        {"scatter", 4, scatter},
        {"verify-scatter", 4, scatter},
        {"mirror", 6, mirror},
        {"hammer", 5, hammer},
        {"extents", 1, extents},
        {"flip", 2, flip},
        {"order", 2, order},
        {"inspect", 4, inspect},
        {"inspect-scatter", 4, inspect},
    };
    for (size_t i = 0; i < sizeof command / sizeof *command; i++)
        if (argc > 1 && !strcmp(argv[1], command[i].name) && argc == command[i].nargs + 2)
            return command[i].run(argv + 1) ? 1 : 0;
    fprintf(stderr, "tool: unknown command or wrong number of arguments; see tests/tool.c\n");
    return 2;
}
