/*
 * A disk that tells of which instant it is. Operation n = 1, 2, 3 … writes one block, chosen by the
 * seed and n, whose bytes say n; the next one begins when it has returned. Whatever is found on the
 * disk later must then be the disk as of one n: each block as the last operation up to n left it.
 *
 *   ledger write  FILE BLOCKS COUNT SEED EVERY   fdatasync after EVERY operations, and print n then
 *   ledger verify FILE BLOCKS COUNT SEED         print n, or exit 1
 *
 * Up to 256 blocks are read at once, so that they are of one instant though somebody writes.
 */
#include "pattern.h"

#include <inttypes.h>
#include <stdbool.h>

#define AT_ONCE (BUFFER / BLOCK)

static uint64_t place(uint64_t n, uint64_t seed, uint64_t blocks)
{
    /* Every other operation falls into a small part, so that blocks are rewritten all the time. */
    uint64_t r = mix((seed << 32) + n);
    return (r & 1) ? (r >> 1) % blocks : (r >> 1) % (blocks / 64 + 1);
}

static void fill_block(void *buf, uint64_t n, uint64_t seed)
{
    pattern(buf, BLOCK, 0, (seed << 32) + n);
    memcpy(buf, &n, sizeof n);
}

static void write_ledger(const char *file, uint64_t blocks, uint64_t count, uint64_t seed,
                         uint64_t every)
{
    void *buf = buffer();
    int fd = open_or_die(file, O_WRONLY);

    for (uint64_t n = 1; n <= count; n++) {
        fill_block(buf, n, seed);
        write_all(fd, buf, BLOCK, place(n, seed, blocks) * BLOCK);
        if (n % every)
            continue;
        if (fdatasync(fd))
            die("fdatasync");
        printf("%" PRIu64 "\n", n);
        fflush(stdout);
    }
}

/* What each block says it is; a block that is neither zero nor whole is torn. */
static uint64_t read_ledger(const char *file, uint64_t blocks, uint64_t seed, uint64_t *found)
{
    static const unsigned char zero[BLOCK];
    unsigned char *got = buffer(), *want = buffer();
    uint64_t newest = 0;
    int fd = open_or_die(file, O_RDONLY);

    for (uint64_t i = 0; i < blocks; i++) {
        const unsigned char *block = got + i % AT_ONCE * BLOCK;
        if (i % AT_ONCE == 0)
            read_all(fd, got, (blocks - i < AT_ONCE ? blocks - i : AT_ONCE) * BLOCK, i * BLOCK);
        memcpy(&found[i], block, sizeof found[i]);
        fill_block(want, found[i], seed);
        if (memcmp(block, found[i] ? want : zero, BLOCK)) {
            fprintf(stderr, "ledger: block %" PRIu64 " is torn\n", i);
            exit(1);
        }
        if (found[i] > newest)
            newest = found[i];
    }
    return newest;
}

static void verify_ledger(const char *file, uint64_t blocks, uint64_t count, uint64_t seed)
{
    uint64_t *found = calloc(blocks, sizeof *found), *wanted = calloc(blocks, sizeof *wanted);
    if (!found || !wanted)
        die("memory");
    uint64_t newest = read_ledger(file, blocks, seed, found);
    if (newest > count) {
        fprintf(stderr, "ledger: a block says %" PRIu64 " of %" PRIu64 "\n", newest, count);
        exit(1);
    }
    for (uint64_t n = 1; n <= newest; n++)
        wanted[place(n, seed, blocks)] = n;
    for (uint64_t i = 0; i < blocks; i++) {
        if (found[i] == wanted[i])
            continue;
        fprintf(stderr,
                "ledger: no instant: block %" PRIu64 " is of %" PRIu64 ", should be of %" PRIu64
                ", since another is of %" PRIu64 "\n",
                i, found[i], wanted[i], newest);
        exit(1);
    }
    printf("%" PRIu64 "\n", newest);
    free(found);
    free(wanted);
}

int main(int argc, char **argv)
{
    if (argc == 7 && !strcmp(argv[1], "write")) {
        write_ledger(argv[2], number(argv[3]), number(argv[4]), number(argv[5]), number(argv[6]));
        return 0;
    }
    if (argc == 6 && !strcmp(argv[1], "verify")) {
        verify_ledger(argv[2], number(argv[3]), number(argv[4]), number(argv[5]));
        return 0;
    }
    fprintf(stderr, "usage: ledger write|verify …; see tests/ledger.c\n");
    return 2;
}
