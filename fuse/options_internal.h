/* What one option is, shared by options.c (the table, words) and options_value.c (values). */
#ifndef S3VOL_OPTIONS_INTERNAL_H
#define S3VOL_OPTIONS_INTERNAL_H

#include "options.h"

enum kind {
    FLAG,     /* bool: true when given */
    FSTAB,    /* the same, only after -o */
    SWITCH,   /* bool: --name, --no-name */
    SIZE,     /* uint64_t, bytes */
    DURATION, /* int64_t, ms */
    PATIENCE, /* the same, or "forever" */
    COUNT,    /* unsigned */
    TEXT,     /* const char * */
    CHOICE,   /* an enum: the position of the word in `argument` */
    REFUSED,  /* only after -o: `help` says why */
};

/* Beside the commands that have an option: it goes with no read-only mount. */
#define FOR_WRITING (1U << 31)
#define ANY         (~0U)

struct option {
    const char *name;
    char letter;
    enum kind kind;
    unsigned commands;
    size_t offset; /* in struct options */
    const char *argument;
    uint64_t min, max, step; /* of a value, in its unit; step 0: any */
    const char *help;
};

/* Gives the option its value: `text`, or `on` of one that takes none. -EINVAL with one line printed
 * if it is not one that the option may have. */
int options_set(struct options *options, const struct option *option, const char *text, bool on);

#endif
