/* What was asked for, and how it ended: a bounded list of requests, and counters. Thread-safe. */
#ifndef S3D_JOURNAL_H
#define S3D_JOURNAL_H

#include <stdint.h>
#include <stdio.h>

struct journal_entry {
    const char *op;  /* method, or LIST */
    const char *key; /* BUCKET/KEY */
    int status;      /* 0: not answered */
    uint64_t in, out;
    int64_t us;
    const char *fault;
};

void journal_add(const struct journal_entry *entry);
void journal_connected(void);
void journal_clear(void);

/* Lines "OP KEY STATUS IN OUT MS FAULT", the key percent-encoded. The newest 65536. */
void journal_print(FILE *to);
/* Lines "NAME NUMBER". */
void journal_print_stats(FILE *to);

#endif
