/* What the bucket has: the objects of the simulation's volumes, by key. Each volume is a prefix of
 * its own. */
#ifndef SIM_OBJECTS_H
#define SIM_OBJECTS_H

#include "../../store/store.h"

enum { THE_VOLUME = 0, THE_CLONE = 1, VOLUMES = 2 };

struct object {
    char key[STORE_KEY_MAX];
    uint8_t *data;
    size_t len;
    bool late; /* a checkpoint's root that was replaced before it was there */
};

/* NULL: it is not there. Valid until the next change. */
struct object *objects_find(int volume, const char *key);
/* The first one whose key is not less, or the end. The next one follows it in memory. */
struct object *objects_from(int volume, const char *key);
const struct object *objects_end(int volume);

/* `data` is its own from now on. */
void objects_set(int volume, const char *key, uint8_t *data, size_t len);
void objects_drop(int volume, const char *key);

size_t objects_count(int volume, const char *prefix);
/* "log/0000000000000001": 1; 0: not below `prefix`. */
uint64_t objects_number(const struct object *o, const char *prefix);

#endif
