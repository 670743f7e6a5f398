/* A log and an empty index in a temporary directory: to read a volume without attaching to it. */
#ifndef S3VOL_SCRATCH_H
#define S3VOL_SCRATCH_H

#include "index.h"

struct scratch {
    struct log *log;
    struct index *index;
    char dir[256];
};

int scratch_new(struct store *store, const struct superblock *sb, struct scratch **ret_scratch);
/* Removes the directory. */
void scratch_free(struct scratch *scratch);

#endif
