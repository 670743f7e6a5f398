/*
 * For the programs of the tests: bytes that are a function of seed and offset, so that they can be
 * verified without a copy, and I/O that ends the program with one line when it fails.
 */
#ifndef S3VOL_TESTS_PATTERN_H
#define S3VOL_TESTS_PATTERN_H

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOCK  4096
#define BUFFER (1 << 20)

_Noreturn static inline void die(const char *what)
{
    fprintf(stderr, "tool: %s: %s\n", what, strerror(errno));
    exit(1);
}

static inline uint64_t number(const char *text)
{
    char *end;
    uint64_t n = strtoull(text, &end, 0);
    if (*end == 'K' || *end == 'M' || *end == 'G' || *end == 'T')
        n <<= *end == 'K' ? 10 : *end == 'M' ? 20 : *end == 'G' ? 30 : 40;
    else if (*end || end == text) {
        fprintf(stderr, "tool: not a number: %s\n", text);
        exit(2);
    }
    return n;
}

/* splitmix64: https://prng.di.unimi.it/splitmix64.c */
static inline uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
}

static inline uint64_t draw(uint64_t *rng, uint64_t below)
{
    return mix((*rng)++) % below;
}

static inline void pattern(unsigned char *buf, size_t len, uint64_t offset, uint64_t seed)
{
    for (size_t i = 0; i < len;) {
        uint64_t at = offset + i, word = mix(seed * 0x100000001b3 ^ at / 8);
        for (unsigned k = at % 8; k < 8 && i < len; k++, i++)
            buf[i] = word >> (8 * k);
    }
}

static inline int open_or_die(const char *file, int flags)
{
    int fd = open(file, flags | O_CLOEXEC, 0644);
    if (fd < 0)
        die(file);
    return fd;
}

static inline void write_all(int fd, const void *buf, size_t len, uint64_t offset)
{
    while (len) {
        ssize_t n = pwrite(fd, buf, len, offset);
        if (n <= 0)
            die("write");
        buf = (const char *)buf + n;
        offset += n;
        len -= n;
    }
}

static inline void read_all(int fd, void *buf, size_t len, uint64_t offset)
{
    while (len) {
        ssize_t n = pread(fd, buf, len, offset);
        if (n == 0)
            errno = ENODATA;
        if (n <= 0)
            die("read");
        buf = (char *)buf + n;
        offset += n;
        len -= n;
    }
}

/* BUFFER bytes, fit for O_DIRECT; to be freed. */
static inline void *buffer_new(void)
{
    void *p = aligned_alloc(BLOCK, BUFFER);
    if (!p)
        die("memory");
    return p;
}

/* Good until the end: never freed, and still pointed to, so that no sanitizer calls it lost. For
 * one thread. */
static inline void *buffer(void)
{
    static void *all[8];
    static unsigned n;
    if (n == sizeof all / sizeof *all)
        die("too many buffers");
    return all[n++] = buffer_new();
}

#endif
