/*
 * Faults on command: rules that are tried in the order in which they came; the first that fits a
 * request and still has a count is what happens to it. Safe from any thread.
 */
#ifndef S3D_FAULT_H
#define S3D_FAULT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum fault_kind {
    FAULT_NONE,
    FAULT_ERROR,   /* answer with `status` and `code` */
    FAULT_CUT,     /* the body, of a PUT or POST that of the request, ends after `cut` bytes */
    FAULT_LOST,    /* do it, and do not answer */
    FAULT_GARBAGE, /* answer with random bytes of the right length */
    FAULT_FLIP,    /* answer with one bit changed */
    FAULT_HANG,    /* never answer */
    FAULT_PARTIAL, /* of a batch delete, refuse the last key with `code` */
};

struct fault {
    enum fault_kind kind;
    int status;
    char code[48];
    uint64_t cut;
    int64_t delay_ms; /* before anything else */
};

/* What holds for all requests. */
struct settings {
    atomic_bool down;                           /* close every connection, and every new one */
    atomic_uint_fast64_t latency_ms, bandwidth; /* bytes per second and connection, 0: no bound */
};
extern struct settings settings;
/* Changes whenever rules or settings do: whoever hangs may look again. */
extern atomic_uint fault_generation;

/* One rule, or changed settings, from a query like "status=503&count=5&method=PUT&match=log/".
 * Returns NULL, or what is wrong with it. */
const char *fault_add(const char *query);
/* No rules, not down; latency and bandwidth as given. */
void fault_clear(uint64_t latency_ms, uint64_t bandwidth);

/* What happens to this request. `op` is its method, or "LIST". */
void fault_match(const char *op, const char *key, bool conditional, struct fault *ret_fault);

/* "8M": bytes, with K, M or G. False if it is no such number. */
bool fault_parse_size(const char *text, uint64_t *ret_bytes);

extern const char *const fault_names[];

#endif
