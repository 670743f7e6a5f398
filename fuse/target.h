/*
 * What a volume is exported to: a new file, which has its name once it is whole; a block device; or
 * a pipe. Errors are reported.
 */
#ifndef S3VOL_TARGET_H
#define S3VOL_TARGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct target;

/* Whether `name` ("-": standard output) may be written: a file must not be there and a block device
 * is refused, unless `force`. */
int target_check(const char *name, bool force);

/* Opens it, after the same check, for `size_bytes`. Borrows `name`. */
int target_open(const char *name, uint64_t size_bytes, bool force, struct target **ret_target);

/* Writes what follows; between two calls, and up to the size, are zeros. `offset` and, but at the
 * end, `len` are multiples of 4096. *ret_bytes of it were no holes. */
int target_write(struct target *target, const void *buf, size_t len, uint64_t offset,
                 uint64_t *ret_bytes);

/* All of it is on the disk, and a file has its name. */
int target_finish(struct target *target);

/* A file that is not finished is removed. */
void target_free(struct target *target);

#endif
