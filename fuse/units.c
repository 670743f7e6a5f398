#include "units.h"

#include "../store/scope.h"

#include <ctype.h>
#include <inttypes.h>
#include <string.h>

/* The digits at *text, which moves behind them. */
static int parse_digits(const char **text, uint64_t *ret)
{
    uint64_t n = 0;

    if (!isdigit((unsigned char)**text))
        return -EINVAL;
    for (; isdigit((unsigned char)**text); (*text)++)
        if (__builtin_mul_overflow(n, 10, &n) ||
            __builtin_add_overflow(n, (uint64_t)(**text - '0'), &n))
            return -ERANGE;
    *ret = n;
    return 0;
}

int units_parse_count(const char *text, uint64_t *ret_count)
{
    uint64_t n;
    int r = parse_digits(&text, &n);

    if (r < 0)
        return r;
    if (*text)
        return -EINVAL;
    *ret_count = n;
    return 0;
}

int units_parse_size(const char *text, uint64_t *ret_bytes)
{
    static const char letters[] = "KMGTPE";
    uint64_t n;
    int r = parse_digits(&text, &n);

    if (r < 0)
        return r;
    const char *letter = *text ? strchr(letters, toupper((unsigned char)*text)) : NULL;
    if (letter) {
        if (__builtin_mul_overflow(n, UINT64_C(1) << (10 * (letter - letters + 1)), &n))
            return -ERANGE;
        text++;
        if (strcasecmp(text, "iB") == 0)
            text += 2;
    }
    if (strcasecmp(text, "B") == 0)
        text++;
    if (*text)
        return -EINVAL;
    *ret_bytes = n;
    return 0;
}

int units_parse_duration(const char *text, int64_t *ret_ms)
{
    static const struct {
        const char *name;
        int64_t ms;
    } unit[] = {{"", 1000},
                {"s", 1000},
                {"ms", 1},
                {"m", 60 * 1000},
                {"min", 60 * 1000},
                {"h", 3600 * 1000},
                {"d", 24 * 3600 * 1000}};
    uint64_t n;
    int64_t ms;
    int r = parse_digits(&text, &n);

    if (r < 0)
        return r;
    for (size_t i = 0; i < ARRAY_SIZE(unit); i++)
        if (strcmp(text, unit[i].name) == 0) {
            if (__builtin_mul_overflow(n, unit[i].ms, &ms))
                return -ERANGE;
            *ret_ms = ms;
            return 0;
        }
    return -EINVAL;
}

const char *units_format_size(uint64_t bytes, char buf[UNITS_TEXT_MAX])
{
    static const char *const unit[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double n = (double)bytes / 1024;
    size_t i = 0;

    if (bytes < 1024) {
        INVARIANT(format(buf, UNITS_TEXT_MAX, "%" PRIu64 " bytes", bytes) == 0);
        return buf;
    }
    for (; n >= 1023.95 && i + 1 < ARRAY_SIZE(unit); i++)
        n /= 1024;
    INVARIANT(format(buf, UNITS_TEXT_MAX, "%.1f %s", n, unit[i]) == 0);
    return buf;
}

const char *units_format_duration(int64_t ms, char buf[UNITS_TEXT_MAX])
{
    static const struct {
        int64_t below_ms, unit_ms;
        const char *name;
    } step[] = {{1000, 1, "ms"},
                {120 * 1000, 1000, "s"},
                {120 * 60 * 1000, 60 * 1000, "min"},
                {48 * 3600 * 1000, 3600 * 1000, "h"},
                {INT64_MAX, 24 * 3600 * 1000, "days"}};
    size_t i = 0;

    while (i + 1 < ARRAY_SIZE(step) && ms >= step[i].below_ms)
        i++;
    INVARIANT(format(buf, UNITS_TEXT_MAX, "%" PRId64 " %s", ms / step[i].unit_ms, step[i].name) ==
              0);
    return buf;
}
