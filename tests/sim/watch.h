/*
 * Watches what happens in the bucket, and ends the simulation at once if a rule is broken:
 *
 *   no root of a checkpoint is stored before its parts, no part deleted before the roots that list
 *   it; nothing is deleted that a stored pin needs: its root, the parts of that, the segments that
 *   its map is in, the numbers of the log from the root to the pin; no clone is stored before its
 *   pin is there.
 *
 * A pin counts if it was stored while its root was the newest one, or another good one kept the
 * same. Others may be those that are being made, and copies of a request that come late, when it
 * was deleted already.
 */
#ifndef SIM_WATCH_H
#define SIM_WATCH_H

#include "objects.h"

/* The object was stored just now. */
void watch_put(int volume, const char *key);
/* It will be deleted. */
void watch_delete(int volume, const char *key);

/* The pin is there, and counts. */
bool watch_pin_is_good(int volume, const char *name);

/* The number behind "name": in a line of JSON; 0: it is not there. */
uint64_t watch_json_number(const char *text, const char *name);
/* The text; "". */
void watch_json_text(const char *text, const char *name, char *ret, size_t size_bytes);

#endif
