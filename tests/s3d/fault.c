#include "fault.h"

#include "../../store/scope.h"
#include "../../store/sigv4.h"

#include <string.h>

enum { RULES_MAX = 64 };

struct rule {
    struct fault fault;
    char op[8], match[128];
    bool conditional; /* only requests with If-None-Match */
    int64_t skip;     /* so many requests that fit go unharmed first */
    int64_t count;    /* and then so many are hit */
    double p;
    uint64_t random;
};

const char *const fault_names[] = {"-",       "error", "cut",  "lost",
                                   "garbage", "flip",  "hang", "partial"};
struct settings settings;
atomic_uint fault_generation;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards the rules */
static struct rule rules[RULES_MAX];
static unsigned nrules;

static const struct {
    const char *code;
    int status;
} codes[] = {{"InternalError", 500},
             {"SlowDown", 503},
             {"ServiceUnavailable", 503},
             {"AccessDenied", 403},
             {"ExpiredToken", 400},
             {"InvalidToken", 400},
             {"RequestTimeTooSkewed", 403},
             {"PreconditionFailed", 412},
             {"NotImplemented", 501},
             {"ConditionalRequestConflict", 409},
             {"RequestTimeout", 400},
             {"NoSuchBucket", 404},
             {"NoSuchKey", 404},
             {"TooManyRequests", 429}};

/* An error may be given by its status, its code, or both. */
static void complete_error(struct fault *f)
{
    for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
        if (!f->status && strcmp(f->code, codes[i].code) == 0)
            f->status = codes[i].status;
        if (!f->code[0] && f->status == codes[i].status)
            strcpy(f->code, codes[i].code);
    }
    if (!f->status)
        f->status = 500;
    if (!f->code[0])
        strcpy(f->code, "InternalError");
}

bool fault_parse_size(const char *text, uint64_t *ret_bytes)
{
    static const char units[] = "KMG";
    char *end;
    uint64_t n = strtoull(text, &end, 10);

    if (end == text || (*end && (end[1] || !strchr(units, *end))))
        return false;
    *ret_bytes = *end ? n << (10 * (strchr(units, *end) - units + 1)) : n;
    return true;
}

static bool parse_number(const char *value, int64_t *ret_n)
{
    char *end;

    *ret_n = strtoll(value, &end, 10);
    return end != value && !*end && *ret_n >= 0;
}

/* The parameters that only select requests. */
static bool parse_filter(struct rule *r, const char *name, const char *value, bool *ok)
{
    int64_t n;

    if (strcmp(name, "method") == 0)
        *ok = format(r->op, sizeof r->op, "%s", value) == 0;
    else if (strcmp(name, "match") == 0)
        *ok = format(r->match, sizeof r->match, "%s", value) == 0;
    else if (strcmp(name, "conditional") == 0)
        *ok = r->conditional = strcmp(value, "1") == 0;
    else if (strcmp(name, "skip") == 0)
        *ok = parse_number(value, &r->skip);
    else if (strcmp(name, "count") == 0)
        *ok = parse_number(value, &r->count);
    else if (strcmp(name, "seed") == 0)
        *ok = parse_number(value, &n), r->random = (uint64_t)n * 2654435761u + 1;
    else if (strcmp(name, "p") == 0)
        r->p = strtod(value, NULL), *ok = r->p > 0 && r->p <= 1;
    else
        return false;
    return true;
}

/* Those that say what happens. */
static bool parse_fault(struct fault *f, const char *name, const char *value, bool *ok)
{
    int64_t n = 0;

    for (int i = FAULT_LOST; i <= FAULT_PARTIAL; i++)
        if (strcmp(name, fault_names[i]) == 0) {
            f->kind = (enum fault_kind)i;
            *ok = strcmp(value, "1") == 0;
            return true;
        }
    if (strcmp(name, "delay") == 0) {
        *ok = parse_number(value, &f->delay_ms);
    } else if (strcmp(name, "cut") == 0) {
        *ok = parse_number(value, &n);
        f->cut = (uint64_t)n;
        f->kind = FAULT_CUT;
    } else if (strcmp(name, "status") == 0) {
        *ok = parse_number(value, &n) && n >= 200 && n < 600;
        f->status = (int)n;
    } else if (strcmp(name, "code") == 0) {
        *ok = *value && format(f->code, sizeof f->code, "%s", value) == 0;
    } else if (strcmp(name, "refuse") == 0) {
        *ok = strcmp(value, "1") == 0;
        f->status = 403;
    } else {
        return false;
    }
    return true;
}

static bool parse_setting(const char *name, const char *value, bool *ok)
{
    uint64_t n = 0;

    *ok = true;
    if (strcmp(name, "down") == 0 || strcmp(name, "up") == 0)
        settings.down = name[0] == 'd';
    else if (strcmp(name, "latency") == 0 && (*ok = fault_parse_size(value, &n)))
        settings.latency_ms = n;
    else if (strcmp(name, "bandwidth") == 0 && (*ok = fault_parse_size(value, &n)))
        settings.bandwidth = n;
    else
        return !*ok;
    return true;
}

const char *fault_add(const char *query)
{
    static _Thread_local char why[128];
    char text[1024], value[512];
    struct rule r = {.count = INT64_MAX, .p = 1, .random = 1};
    bool is_rule = false;

    if (format(text, sizeof text, "%s", query) < 0)
        return "the query is too long";
    for (char *rest = text, *part; (part = strsep(&rest, "&"));) {
        char *coded = part, *name = strsep(&coded, "=");
        bool ok = sigv4_decode(coded ? coded : "", value, sizeof value) == 0;
        if (!*name)
            continue;
        if (ok && parse_setting(name, value, &ok))
            ;
        else if (ok &&
                 (parse_filter(&r, name, value, &ok) || parse_fault(&r.fault, name, value, &ok)))
            is_rule = true;
        else
            ok = false;
        if (!ok) {
            (void)snprintf(why, sizeof why, "cannot use %.32s=%.64s", name, value);
            return why;
        }
    }
    if (r.fault.kind == FAULT_NONE && (r.fault.status || r.fault.code[0]))
        r.fault.kind = FAULT_ERROR;
    if (is_rule && r.fault.kind == FAULT_NONE && !r.fault.delay_ms)
        return "the rule does not say what is to happen";
    if (r.fault.kind == FAULT_ERROR || r.fault.kind == FAULT_PARTIAL)
        complete_error(&r.fault);
    scope_lock(&lock);
    if (is_rule && nrules == RULES_MAX)
        return "too many rules";
    if (is_rule)
        rules[nrules++] = r;
    fault_generation++;
    return NULL;
}

void fault_clear(uint64_t latency_ms, uint64_t bandwidth)
{
    scope_lock(&lock);
    nrules = 0;
    settings.down = false;
    settings.latency_ms = latency_ms;
    settings.bandwidth = bandwidth;
    fault_generation++;
}

static bool dice_locked(struct rule *r)
{
    r->random = r->random * 6364136223846793005u + 1442695040888963407u; /* Knuth's MMIX */
    return (double)(r->random >> 11) * 0x1p-53 < r->p;
}

void fault_match(const char *op, const char *key, bool conditional, struct fault *ret_fault)
{
    *ret_fault = (struct fault){0};
    scope_lock(&lock);
    for (unsigned i = 0; i < nrules; i++) {
        struct rule *r = &rules[i];
        if (!r->count || (r->op[0] && strcmp(r->op, op) != 0) || !strstr(key, r->match) ||
            (r->conditional && !conditional))
            continue;
        if (r->skip) {
            r->skip--;
            continue;
        }
        if (r->p < 1 && !dice_locked(r))
            continue;
        r->count -= r->count != INT64_MAX;
        *ret_fault = r->fault;
        return;
    }
}
