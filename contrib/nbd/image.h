/*
 * An open image: a regular file or a block device, and what NBD does with it. Any number of threads
 * may use one at once. Errors are 0 or a negative errno; I/O errors are logged, at most one a
 * second.
 */
#ifndef NBD_IMAGE_H
#define NBD_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct image;

/* Opens `path`, which the image keeps a copy of. Refuses what is neither file nor block device,
 * with one line said. */
int image_open(const char *path, bool read_only, struct image **ret_image);
/* Flushes what was written, unless read-only. */
void image_close(struct image *image);

uint64_t image_size(const struct image *image);
bool image_read_only(const struct image *image);
/* A power of two, at least 4096: requests of such pieces are cheapest. */
uint32_t image_preferred_bytes(const struct image *image);

/* All of it. What lies beyond the end of a file that has shrunk is -EIO. */
int image_read(struct image *image, void *buf, size_t len, uint64_t offset);
/* The same if that takes no waiting; -EAGAIN, which is not logged, if it does. */
int image_read_at_once(struct image *image, void *buf, size_t len, uint64_t offset);
/* With `fua`, here and below: it is on stable storage when this returns. */
int image_write(struct image *image, const void *buf, size_t len, uint64_t offset, bool fua);
/* Whether such a write gains nothing by being done beside others, and mostly takes no waiting. */
bool image_writes_at_once(const struct image *image, size_t len, uint64_t offset);
/* All that was written before is on stable storage when this returns 0. Once data was lost it is
 * -EIO until the image is opened anew. */
int image_flush(struct image *image);
/* The range need not be kept; a hint. */
int image_trim(struct image *image, uint64_t offset, uint64_t len, bool fua);

enum {
    IMAGE_NO_HOLE = 1 << 0, /* keep the space */
    IMAGE_FAST = 1 << 1,    /* -EOPNOTSUPP instead of writing zeroes */
    IMAGE_FUA = 1 << 2,
};
int image_zero(struct image *image, uint64_t offset, uint64_t len, unsigned flags);

/* Whether there is a hole at `offset`, and how far that goes, up to `end`, which is at most the
 * size. What cannot be found out is data, and so may be a hole that others have made since the
 * image was opened. */
void image_extent(struct image *image, uint64_t offset, uint64_t end, uint64_t *ret_len,
                  bool *ret_hole);

#endif
