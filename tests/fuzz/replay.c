/*
 * Runs a fuzzer without libFuzzer: NAME [DIR]. First every file of its corpus, then mutations of
 * them, always the same ones; FUZZ_RUNS says how many (20000). What makes it fail is left in the
 * scratch directory, to be put into the corpus.
 */
#include "fuzz.h"

#include <dirent.h>
#include <limits.h>
#include <signal.h>
#include <sys/stat.h>

enum { FILES_MAX = 1000, LONGEST = 1 << 18 };

struct file {
    char name[256];
    uint8_t *data;
    size_t len;
};

static struct file files[FILES_MAX];
static size_t nfiles;
static uint8_t now[LONGEST]; /* what is being looked at */
static size_t now_len;
static char left[PATH_MAX]; /* where it is left if this fails */

void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static void leave(void)
{
    FILE *f = fopen(left, "w");

    if (f && fwrite(now, 1, now_len, f) == now_len && fclose(f) == 0)
        fprintf(stderr, "the input that did it is in %s\n", left);
}

static void on_signal(int number)
{
    signal(number, SIG_DFL);
    leave();
    raise(number);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct file *)a)->name, ((const struct file *)b)->name);
}

static void load(const char *dir)
{
    char path[PATH_MAX];
    struct dirent *entry;
    DIR *d = opendir(dir);

    if (!d) {
        perror(dir);
        exit(1);
    }
    while ((entry = readdir(d)) != NULL) {
        struct file *f = &files[nfiles];
        if (entry->d_name[0] == '.')
            continue;
        INVARIANT(nfiles < FILES_MAX && format(f->name, sizeof f->name, "%s", entry->d_name) == 0);
        INVARIANT(format(path, sizeof path, "%s/%s", dir, f->name) == 0);
        FILE *in = fopen(path, "r");
        if (!in) {
            perror(path);
            exit(1);
        }
        f->len = fread(now, 1, sizeof now, in);
        f->data = scope_copy(now, f->len);
        fclose(in);
        nfiles++;
    }
    closedir(d);
    qsort(files, nfiles, sizeof *files, by_name); /* not in the order of this file system */
}

/* ------------------------------------------------------------------ mutations */

static uint64_t state = 88172645463325252;

static uint64_t draw(uint64_t below)
{
    state ^= state << 13; /* xorshift64 */
    state ^= state >> 7;
    state ^= state << 17;
    return (state >> 11) % below;
}

static void put_number(void)
{
    static const uint64_t numbers[] = {0,
                                       1,
                                       16,
                                       63,
                                       64,
                                       65,
                                       127,
                                       128,
                                       255,
                                       256,
                                       4095,
                                       4096,
                                       0x7fff,
                                       0x8000,
                                       0xffff,
                                       0x7fffffff,
                                       0x80000000,
                                       0xffffffff,
                                       UINT64_C(1) << 48,
                                       UINT64_C(1) << 51,
                                       INT64_MAX,
                                       UINT64_MAX};
    size_t width = (size_t)1 << draw(4);
    uint8_t bytes[8];

    put_le64(bytes, numbers[draw(ARRAY_SIZE(numbers))]);
    if (now_len >= width)
        memcpy(now + draw(now_len - width + 1), bytes, width);
}

/* Makes room for `n` bytes at `at`, or takes them out. */
static size_t insert(size_t at, size_t n)
{
    n = MIN(n, sizeof now - now_len);
    memmove(now + at + n, now + at, now_len - at);
    now_len += n;
    return n;
}

static void erase(size_t at, size_t n)
{
    n = MIN(n, now_len - at);
    memmove(now + at, now + at + n, now_len - at - n);
    now_len -= n;
}

static void mutate_once(void)
{
    const struct file *other = &files[draw(nfiles)];
    size_t at = draw(now_len + 1), n = 1 + draw(draw(4) ? 16 : 400), from;

    switch (draw(8)) {
    case 0:
    case 1:
        if (at < now_len)
            now[at] ^= (uint8_t)(1 << draw(8));
        break;
    case 2:
        if (at < now_len)
            now[at] = (uint8_t)draw(256);
        break;
    case 3:
        put_number();
        break;
    case 4:
        erase(at, n);
        break;
    case 5: /* a piece of it, or of another, goes in */
    case 6:
        from = draw(other->len + 1);
        n = insert(at, MIN(n, other->len - from));
        memcpy(now + at, other->data + from, n);
        break;
    default:
        n = insert(at, n % 8);
        memset(now + at, (int)draw(256), n);
    }
}

static void run(void)
{
    scope_free uint8_t *copy = scope_copy(now, now_len);

    LLVMFuzzerTestOneInput(copy, now_len);
}

static void start_from(const struct file *f)
{
    memcpy(now, f->data, f->len);
    now_len = f->len;
}

int main(int argc, char **argv)
{
    const char *name = strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0];
    const char *top = getenv("TOP"), *scratch = getenv("T"), *wanted = getenv("FUZZ_RUNS");
    unsigned long runs = wanted ? strtoul(wanted, NULL, 10) : &fuzz_runs ? fuzz_runs : 20000;
    char dir[PATH_MAX];

    INVARIANT(format(dir, sizeof dir, "%s/tests/fuzz/corpus/%s", top ? top : ".", name) == 0);
    INVARIANT(format(left, sizeof left, "%s/fuzz-%s", scratch ? scratch : "/tmp", name) == 0);
    load(argc > 1 ? argv[1] : dir);
    signal(SIGABRT, on_signal);
    signal(SIGSEGV, on_signal);
    if (__sanitizer_set_death_callback)
        __sanitizer_set_death_callback(leave);
    for (size_t i = 0; i < nfiles; i++) {
        start_from(&files[i]);
        run();
    }
    for (unsigned long n = 0; n < runs && nfiles > 0; n++) {
        start_from(&files[n % nfiles]);
        for (uint64_t changes = 1 + draw(4); changes > 0; changes--)
            mutate_once();
        run();
    }
    for (size_t i = 0; i < nfiles; i++)
        free(files[i].data);
    printf("%s: %zu files, %lu mutations\n", name, nfiles, nfiles ? runs : 0);
    return nfiles ? 0 : 1;
}
