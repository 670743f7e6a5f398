/*
 * What can be had under which name: the images of the command line, and volumes on demand. An image
 * is open while it has clients; all of them share it. Any thread may use these.
 */
#ifndef NBD_EXPORTS_H
#define NBD_EXPORTS_H

#include "image.h"

enum { EXPORTS_MAX = 1000 };

struct exports;
struct volumes;

/* One client's use of an export. */
struct export
{
    struct image *image;
    const char *name;        /* the canonical one */
    const char *description; /* for people */
};

/* `volumes`, or NULL, stays the caller's. */
int exports_new(bool read_only, struct volumes *volumes, struct exports **ret_exports);
/* When nobody uses one any more. */
void exports_free(struct exports *exports);

/* `word` is "NAME=PATH", or "PATH", whose name is empty. Says what is wrong: with the word, or with
 * opening it, which is tried. Before there are clients. */
int exports_add(struct exports *exports, const char *word);
/* How many there are on the command line, and their names in order. */
unsigned exports_count(const struct exports *exports);
void exports_describe(const struct exports *exports, unsigned i, const char **ret_name,
                      const char **ret_description);

/* Opens what is called so, for as long as *ret_export is not released. If there is one export only,
 * the empty name is its name, too. -ENOENT: there is no such name; other errors have been said. May
 * take as long as mounting takes. */
int exports_acquire(struct exports *exports, const char *name, struct export **ret_export);
void exports_release(struct exports *exports, struct export *export);

#endif
