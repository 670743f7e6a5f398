#include "options_internal.h"

#include "../store/msg.h"
#include "../store/scope.h"
#include "units.h"

#include <inttypes.h>
#include <string.h>

static int bad_value(const struct option *option, const char *text, const char *why)
{
    return msg_error(-EINVAL, "--%s %.100s: %s", option->name, text, why);
}

static int out_of_range(const struct option *option, const char *text)
{
    char low[UNITS_TEXT_MAX], high[UNITS_TEXT_MAX], why[80];

    if (option->kind == SIZE) {
        units_format_size(option->min, low);
        units_format_size(option->max, high);
    } else if (option->kind == COUNT) {
        INVARIANT(format(low, sizeof low, "%" PRIu64, option->min) == 0);
        INVARIANT(format(high, sizeof high, "%" PRIu64, option->max) == 0);
    } else {
        units_format_duration((int64_t)option->min, low);
        units_format_duration((int64_t)option->max, high);
    }
    if (option->max == INT64_MAX)
        INVARIANT(format(why, sizeof why, "must be at least %s", low) == 0);
    else
        INVARIANT(format(why, sizeof why, "must be from %s to %s", low, high) == 0);
    return bad_value(option, text, why);
}

/* A number within the option's limits. */
static int parse_number(const struct option *option, const char *text, uint64_t *ret)
{
    static const char *const shape[] = {
        [SIZE] = "not a size; write a whole number and K, M, G or T, like 10G",
        [DURATION] = "not a time; write a whole number and ms, s, m or h, like 30s",
        [PATIENCE] = "not a time; write a whole number and ms, s, m or h, like 30s, or forever",
        [COUNT] = "not a number",
    };
    uint64_t n = 0;
    int64_t ms;
    int r;

    if (option->kind == SIZE)
        r = units_parse_size(text, &n);
    else if (option->kind == COUNT)
        r = units_parse_count(text, &n);
    else if ((r = units_parse_duration(text, &ms)) == 0)
        n = (uint64_t)ms;
    if (r == -EINVAL)
        return bad_value(option, text, shape[option->kind]);
    if (r < 0 || n < option->min || n > option->max)
        return out_of_range(option, text);
    if (option->step && n % option->step)
        return bad_value(option, text, "must be a multiple of 4096 bytes");
    *ret = n;
    return 0;
}

static int parse_choice(const struct option *option, const char *text, int *ret)
{
    size_t len = strlen(text);
    int position = 0;

    for (const char *word = option->argument;; position++) {
        size_t n = strcspn(word, "|");
        if (n == len && memcmp(word, text, n) == 0) {
            *ret = position;
            return 0;
        }
        if (!word[n])
            break;
        word += n + 1;
    }
    return msg_error(-EINVAL, "--%s %.100s: must be one of %s", option->name, text,
                     option->argument);
}

int options_set(struct options *options, const struct option *option, const char *text, bool on)
{
    void *field = (char *)options + option->offset;
    uint64_t n = 0;
    int r;

    if (option->commands != ANY && option->commands & FOR_WRITING)
        options->for_writing = option->name;
    switch (option->kind) {
    case FLAG:
    case FSTAB:
    case SWITCH:
        *(bool *)field = on;
        return 0;
    case PATIENCE:
        if (strcmp(text, "forever") == 0) {
            *(int64_t *)field = STORE_FOREVER;
            return 0;
        }
        __attribute__((fallthrough));
    case SIZE:
    case DURATION:
    case COUNT:
        r = parse_number(option, text, &n);
        if (r < 0)
            return r;
        if (option->kind == SIZE)
            *(uint64_t *)field = n;
        else if (option->kind == COUNT)
            *(unsigned *)field = (unsigned)n;
        else
            *(int64_t *)field = (int64_t)n;
        return 0;
    case TEXT:
        if (!*text)
            return bad_value(option, text, "must not be empty");
        *(const char **)field = text;
        return 0;
    case CHOICE:
        return parse_choice(option, text, (int *)field);
    case REFUSED:
        return msg_error(-EINVAL, "-o %s: %s", option->name, option->help);
    }
    return -EINVAL;
}
