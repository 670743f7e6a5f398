/*
 * The file `image`, and the directory it is in: FUSE operations on a volume. What can be answered
 * from the cache is answered by the thread that received the request; what would block goes to
 * workers, of which reads, writes, and the rest (flush, discard, resize, …) each have their own, so
 * that a store that does not answer never keeps cached reads waiting.
 */
#ifndef S3VOL_IMAGE_H
#define S3VOL_IMAGE_H

#include "../cache/volume.h"

#include <fuse_lowlevel.h>

struct image;

/* The operations; their user data is a struct image. */
extern const struct fuse_lowlevel_ops image_ops;

struct image_config {
    bool direct_io; /* not through the kernel's page cache, if that leaves mapping possible */
    bool read_only;
    bool follows; /* what it holds changes by itself: never through the page cache */
};

/* Borrows volume and store; they must outlive the image. */
int image_new(struct volume *volume, struct store *store, const struct image_config *config,
              struct image **ret_image);

/* Whether CONTROL_KEEP_LOCAL asked to leave what is dirty in the cache. */
bool image_keep_local(struct image *image);

/* Ends the workers when all they have is answered. The session must be stopped and still be there.
 */
void image_stop(struct image *image);

void image_free(struct image *image);

#endif
