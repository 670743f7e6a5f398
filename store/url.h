/*
 * Volume URLs: "s3://BUCKET/PREFIX/NAME", "file:///DIR/NAME", or a plain path, each perhaps with
 * "@SNAPSHOT" at its end. Pure, but for the working directory of relative paths.
 *
 * An '@' counts in the last component only (the last one in it); nothing is percent-decoded; runs
 * of '/' and those at the end collapse. A path loses its "." components and keeps "..", which only
 * the kernel can resolve; in S3 both are refused. Snapshot names: up to 100 of [A-Za-z0-9._-], no
 * '.' first.
 */
#ifndef S3VOL_URL_H
#define S3VOL_URL_H

#include <stdbool.h>

enum { URL_PART_MAX = 1024 };

struct url {
    bool s3;
    char bucket[64];         /* s3 only */
    char path[URL_PART_MAX]; /* s3: the key prefix without slashes at its ends, may be empty;
                                otherwise: an absolute directory */
    char snapshot[128];      /* what followed '@', or "" */
    char text[URL_PART_MAX]; /* normal form (s3://BUCKET/PREFIX/NAME, or the absolute path), without
                                the snapshot: for messages and `status` */
};

/* 0, or -EINVAL with one line printed. A relative path is taken from the working directory. */
int url_parse(const char *text, struct url *ret_url);

bool url_is_snapshot_name(const char *name);

#endif
