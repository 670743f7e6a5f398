#include "json.h"

#include "../store/scope.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

static void put(struct json *json, const char *text, size_t len)
{
    if (json->overflow || len >= json->size_bytes - json->len) {
        json->overflow = true;
        return;
    }
    memcpy(json->buf + json->len, text, len);
    json->len += len;
}

static void put_text(struct json *json, const char *text)
{
    put(json, text, strlen(text));
}

static void put_quoted(struct json *json, const char *text)
{
    put(json, "\"", 1);
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        char escape[8];
        if (c == '"' || c == '\\') {
            INVARIANT(format(escape, sizeof escape, "\\%c", c) == 0);
            put_text(json, escape);
        } else if (c < ' ' || c == 0x7f) {
            INVARIANT(format(escape, sizeof escape, "\\u%04x", c) == 0);
            put_text(json, escape);
        } else {
            put(json, text, 1);
        }
    }
    put(json, "\"", 1);
}

static void put_key(struct json *json, const char *key)
{
    if (json->comma)
        put(json, ",", 1);
    json->comma = true;
    put_quoted(json, key);
    put(json, ":", 1);
}

void json_begin(struct json *json, char *buf, size_t size_bytes)
{
    *json = (struct json){.buf = buf, .size_bytes = size_bytes};
    put(json, "{", 1);
}

void json_string(struct json *json, const char *key, const char *value)
{
    put_key(json, key);
    put_quoted(json, value);
}

void json_number(struct json *json, const char *key, uint64_t value)
{
    char text[24];

    put_key(json, key);
    INVARIANT(format(text, sizeof text, "%" PRIu64, value) == 0);
    put_text(json, text);
}

void json_fraction(struct json *json, const char *key, double value)
{
    char text[400];

    if (!isfinite(value)) {
        json_null(json, key);
        return;
    }
    put_key(json, key);
    INVARIANT(format(text, sizeof text, "%.4f", value) == 0);
    put_text(json, text);
}

void json_bool(struct json *json, const char *key, bool value)
{
    put_key(json, key);
    put_text(json, value ? "true" : "false");
}

void json_null(struct json *json, const char *key)
{
    put_key(json, key);
    put_text(json, "null");
}

void json_open(struct json *json, const char *key)
{
    put_key(json, key);
    put(json, "{", 1);
    json->comma = false;
}

void json_close(struct json *json)
{
    put(json, "}", 1);
    json->comma = true;
}

int json_end(struct json *json)
{
    put(json, "}\n", 2);
    json->buf[json->len] = 0;
    return json->overflow ? -ENOSPC : 0;
}
