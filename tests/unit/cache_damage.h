/* A cache whose disk gives back other bytes than were written, or that is left as a kill leaves it.
 */
#ifndef CACHE_DAMAGE_H
#define CACHE_DAMAGE_H

#include "mem_volume.h"

#include <dirent.h>
#include <fcntl.h>

/* ------------------------------------------------------------------ flipping */

/* The path of a file of the one cache there is, below `parent`. */
static inline void path_in(char path[512], const char *parent, const char *name)
{
    DIR *d = opendir(parent);
    struct dirent *e;

    assert_non_null(d);
    while ((e = readdir(d)) != NULL)
        if (strlen(e->d_name) == 36) /* a uuid */
            snprintf(path, 512, "%s/%.40s/%s", parent, e->d_name, name);
    closedir(d);
}

/* Wherever the slots hold the block at `offset` with pattern `tag`, one bit changes; how often. */
static inline unsigned flip(uint64_t offset, uint64_t tag)
{
    uint8_t want[BLOCK], block[BLOCK];
    char path[512];
    unsigned n = 0;

    path_in(path, cache_dir, "slots");
    scope_close int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    pattern(want, BLOCK, offset, tag);
    for (off_t at = 0; pread(fd, block, BLOCK, at) == BLOCK; at += BLOCK) {
        if (memcmp(block, want, BLOCK) != 0)
            continue;
        block[mix(offset) % BLOCK] ^= (uint8_t)(1 << tag % 8);
        assert_int_equal(pwrite(fd, block, BLOCK, at), BLOCK);
        n++;
    }
    return n;
}

static inline void flip_one(uint64_t offset, uint64_t tag)
{
    assert_int_equal(flip(offset, tag), 1);
}

/* The commits that are in the bucket are in the index, too: only then their blocks are clean.
 * Nothing else tells from outside. The block is damaged for it, and comes again. */
static inline void await_indexed(uint64_t offset, uint64_t tag)
{
    uint64_t errors = status().cache_errors;

    flip_one(offset, tag);
    await(check_pattern(offset, BLOCK, tag, true) == 0);
    assert_true(status().cache_errors > errors);
}

/* A clean chunk of pattern 1. */
static inline void put_clean(uint64_t offset)
{
    put(offset, CHUNK, 1);
    assert_int_equal(volume_drain(volume), 0);
    await_indexed(offset, 1);
}

static inline void begin_clean(void)
{
    cfg.compress = false;
    cfg.readahead_bytes = 0;
    create_and_attach(64 * MIB);
    put_clean(0);
}

/* As a volume is that could not upload block 5 of pattern 2. */
static inline void expect_damaged(void)
{
    assert_int_equal(volume_flush(volume, true), cfg.sync == SYNC_BUCKET ? -EIO : 0);
    assert_int_equal(volume_drain(volume), -EIO);
    assert_int_equal(status().state, VOLUME_DAMAGED);
    assert_int_equal(volume_flush(volume, true), -EIO);
    assert_int_equal(write_pattern(5 * BLOCK, BLOCK, 3, true), -EIO);
    assert_int_equal(check_pattern(5 * BLOCK, BLOCK, 2, true), -EIO);
    expect(0, 4 * BLOCK, 1);
    expect(4 * BLOCK, BLOCK, 2);
    expect(6 * BLOCK, 2 * BLOCK, 2);
}

#endif
