/*
 * Files that tell how far their writer had come. Operation n = 1, 2, 3 … makes one change to a
 * directory and waits until the file system calls it safe; only then the next one begins. So
 * whatever a crash leaves must hold all of 1 … N, for some N not less than the last one that
 * was printed, and of N + 1 any part.
 *
 *   diary write  DIR SEED FROM     from operation FROM on, for ever; prints each n that is safe
 *   diary verify DIR SEED          prints N, or exits 1
 */
#include "pattern.h"

#include <inttypes.h>
#include <stdbool.h>
#include <sys/stat.h>

enum {
    RECORD = 300, /* bytes, in the journal: they cross blocks */
    ROWS = 200,   /* blocks of the table */
    KEPT = 400,   /* a file is deleted so many operations later */
};

/* What operation n does, by n % 4. */
enum kind { APPEND, CREATE, REPLACE, OVERWRITE };

struct diary {
    int dir;
    uint64_t seed;
};

static unsigned char want[128 << 10], got[128 << 10];

static uint64_t dice(const struct diary *d, uint64_t n)
{
    return mix((d->seed << 32) + n);
}

static size_t file_bytes(const struct diary *d, uint64_t n)
{
    return 8 + dice(d, n) % 100000;
}

static void fill_bytes(const struct diary *d, uint64_t n, void *buf, size_t len)
{
    pattern(buf, len, 0, (d->seed << 32) + n);
    memcpy(buf, &n, sizeof n);
}

static int open_in(const struct diary *d, const char *name, int flags)
{
    return openat(d->dir, name, flags | O_CLOEXEC, 0644);
}

static void file_name(uint64_t n, char name[32])
{
    (void)snprintf(name, 32, "file-%" PRIu64, n);
}

/* ------------------------------------------------------------------------------------ writing */

/* A whole file, safe when this returns but for its name. */
static void write_file(const struct diary *d, const char *name, uint64_t n)
{
    int fd = open_in(d, name, O_WRONLY | O_CREAT | O_TRUNC);

    fill_bytes(d, n, want, file_bytes(d, n));
    if (fd < 0)
        die(name);
    write_all(fd, want, file_bytes(d, n), 0);
    if (fsync(fd) || close(fd))
        die("fsync");
}

static void write_part(const struct diary *d, const char *name, uint64_t n, size_t len, uint64_t at)
{
    int fd = open_in(d, name, O_WRONLY | O_CREAT);

    fill_bytes(d, n, want, len);
    if (fd < 0)
        die(name);
    write_all(fd, want, len, at);
    if (fdatasync(fd) || close(fd) || (n <= 4 && fsync(d->dir))) /* the first ones make a name */
        die("fdatasync");
}

static void operate(const struct diary *d, uint64_t n)
{
    char name[32];

    switch ((enum kind)(n % 4)) {
    case APPEND:
        write_part(d, "journal", n, RECORD, (n / 4 - 1) * RECORD);
        return;
    case OVERWRITE:
        write_part(d, "table", n, BLOCK, dice(d, n) % ROWS * BLOCK);
        return;
    case CREATE:
        if (n > KEPT) {
            file_name(n - KEPT, name);
            if (unlinkat(d->dir, name, 0) && errno != ENOENT)
                die("unlink");
        }
        file_name(n, name);
        write_file(d, name, n);
        break;
    case REPLACE:
        write_file(d, "new", n);
        if (renameat(d->dir, "new", d->dir, "latest"))
            die("rename");
        break;
    }
    if (fsync(d->dir))
        die("fsync");
}

/* ---------------------------------------------------------------------------------- verifying */

_Noreturn static void lost(const char *what, uint64_t n, uint64_t newest)
{
    fprintf(stderr,
            "diary: %s: operation %" PRIu64 " is lost or damaged, but %" PRIu64 " is here\n", what,
            n, newest);
    exit(1);
}

/* The bytes are those of operation n. */
static bool is_of(const struct diary *d, int fd, uint64_t n, size_t len, uint64_t at)
{
    fill_bytes(d, n, want, len);
    return pread(fd, got, len, at) == (ssize_t)len && memcmp(got, want, len) == 0;
}

static bool has_file(const struct diary *d, const char *name, uint64_t n)
{
    struct stat st;
    int fd = open_in(d, name, O_RDONLY);
    bool ok = fd >= 0 && fstat(fd, &st) == 0 && st.st_size == (off_t)file_bytes(d, n) &&
              is_of(d, fd, n, st.st_size, 0);

    if (fd >= 0)
        close(fd);
    return ok;
}

/* The number that begins the bytes there; 0 if there are none. */
static uint64_t number_at(const struct diary *d, const char *name, uint64_t at)
{
    uint64_t n = 0;
    int fd = open_in(d, name, O_RDONLY);

    if (fd < 0)
        return 0;
    if (pread(fd, &n, sizeof n, at) != sizeof n)
        n = 0;
    close(fd);
    return n;
}

static bool did(const struct diary *d, uint64_t n)
{
    char name[32];
    bool ok = false;
    int fd = -1;

    switch ((enum kind)(n % 4)) {
    case CREATE:
        file_name(n, name);
        return has_file(d, name, n);
    case REPLACE:
        return has_file(d, "latest", n);
    case APPEND:
        fd = open_in(d, "journal", O_RDONLY);
        ok = fd >= 0 && is_of(d, fd, n, RECORD, (n / 4 - 1) * RECORD);
        break;
    case OVERWRITE:
        fd = open_in(d, "table", O_RDONLY);
        ok = fd >= 0 && is_of(d, fd, n, BLOCK, dice(d, n) % ROWS * BLOCK);
        break;
    }
    if (fd >= 0)
        close(fd);
    return ok;
}

/* The newest operation of which there is a trace: at most one more than those that were safe. */
static uint64_t newest_trace(const struct diary *d)
{
    uint64_t n = number_at(d, "latest", 0), row;
    char name[32];

    for (unsigned i = 0; i < ROWS; i++) {
        row = number_at(d, "table", (uint64_t)i * BLOCK);
        n = row > n ? row : n;
    }
    while (did(d, (n / 4 + 1) * 4)) /* the next append */
        n = (n / 4 + 1) * 4;
    for (uint64_t i = n + 1; i <= n + 4; i++) {
        file_name(i, name);
        if (i % 4 == CREATE && has_file(d, name, i))
            n = i;
    }
    return n;
}

/* All that operations up to `newest` left is here, unless a later one took it away. */
static void verify(const struct diary *d)
{
    bool written[ROWS] = {false};
    uint64_t newest = newest_trace(d);

    for (uint64_t n = newest; n > 0; n--) {
        bool over = false;
        switch ((enum kind)(n % 4)) {
        case APPEND:
            break;
        case CREATE:
            over = n + KEPT <= newest + 1;
            break;
        case REPLACE:
            over = n + 4 <= newest;
            break;
        case OVERWRITE:
            over = written[dice(d, n) % ROWS];
            written[dice(d, n) % ROWS] = true;
            break;
        }
        if (!over && !did(d, n))
            lost((const char *[]){"journal", "file", "latest", "table"}[n % 4], n, newest);
    }
    printf("%" PRIu64 "\n", newest);
}

int main(int argc, char **argv)
{
    bool writing = argc == 5 && !strcmp(argv[1], "write");

    if (!writing && !(argc == 4 && !strcmp(argv[1], "verify"))) {
        fprintf(stderr, "usage: diary write|verify …; see tests/diary.c\n");
        return 2;
    }
    struct diary d = {open_or_die(argv[2], O_RDONLY | O_DIRECTORY), number(argv[3])};
    if (!writing) {
        verify(&d);
        return 0;
    }
    for (uint64_t n = number(argv[4]);; n++) {
        operate(&d, n);
        printf("%" PRIu64 "\n", n);
        fflush(stdout);
    }
}
