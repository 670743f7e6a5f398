/* Writes one JSON object into a buffer of fixed size. Pure. */
#ifndef S3VOL_JSON_H
#define S3VOL_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json {
    char *buf;
    size_t size_bytes, len;
    bool comma;
    bool overflow; /* it did not fit: what is in `buf` is of no use */
};

void json_begin(struct json *json, char *buf, size_t size_bytes);
void json_string(struct json *json, const char *key, const char *value);
void json_number(struct json *json, const char *key, uint64_t value);
/* With four decimals; not finite: null. */
void json_fraction(struct json *json, const char *key, double value);
void json_bool(struct json *json, const char *key, bool value);
void json_null(struct json *json, const char *key);
void json_open(struct json *json, const char *key); /* an object inside */
void json_close(struct json *json);
/* Ends it with a newline and a NUL: 0, or -ENOSPC. */
int json_end(struct json *json);

#endif
