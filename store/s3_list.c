#include "s3_internal.h"

#include "s3xml.h"
#include "scope.h"

#include <string.h>

enum { ITEMS_MAX = 10000 }; /* S3 sends 1000 at most; much more than that is nonsense */

/* A page being collected. */
struct listing {
    const struct s3 *s3;
    struct store_page *page;
    size_t allocated;
    const char *start_after; /* relative; items up to it are dropped */
    bool dirs;
    char last[S3_KEY_SIZE]; /* the greatest S3 key seen: where the next request goes on */
};

/* Directories sort with their slash: "a-b/" before "a/". */
static int compare(const struct listing *l, const char *a, const char *b)
{
    size_t same = 0;

    while (a[same] && a[same] == b[same])
        same++;
    int x = (unsigned char)a[same], y = (unsigned char)b[same];
    if (l->dirs && x != y) {
        x = x ? x : '/';
        y = y ? y : '/';
    }
    return x - y;
}

static int add_item(struct listing *l, const char *key, uint64_t size_bytes)
{
    struct store_page *page = l->page;

    if (page->nitems && compare(l, page->items[page->nitems - 1].key, key) >= 0)
        return -EBADMSG;
    if (page->nitems == l->allocated) {
        size_t n = l->allocated ? l->allocated * 2 : 64;
        void *items = n > 2 * ITEMS_MAX ? NULL : reallocarray(page->items, n, sizeof *page->items);

        if (!items)
            return n > 2 * ITEMS_MAX ? -EBADMSG : -ENOMEM;
        page->items = items;
        l->allocated = n;
    }
    (void)snprintf(page->items[page->nitems].key, STORE_KEY_MAX, "%s", key);
    page->items[page->nitems++].size_bytes = size_bytes;
    return 0;
}

/* Takes what is asked for; notes how far we are. */
static int on_item(void *ctx, const char *key, uint64_t size_bytes, bool is_prefix)
{
    struct listing *l = ctx;
    size_t prefix_len = strlen(l->s3->prefix), len = strlen(key);
    char name[STORE_KEY_MAX];

    if (strncmp(key, l->s3->prefix, prefix_len) != 0 || len >= sizeof l->last)
        return -EBADMSG;
    /* After the directory "a/" comes what is greater than all of "a/…", and so than "a0". */
    if (is_prefix && len && key[len - 1] == '/') {
        char after[S3_KEY_SIZE];

        (void)!format(after, sizeof after, "%.*s0", (int)len - 1, key);
        if (strcmp(after, l->last) > 0)
            memcpy(l->last, after, len + 1);
        len--;
    } else if (strcmp(key, l->last) > 0) {
        memcpy(l->last, key, len + 1);
    }
    /* A key that is longer than any of ours is a stranger's. */
    if (is_prefix != l->dirs || len <= prefix_len ||
        format(name, sizeof name, "%.*s", (int)(len - prefix_len), key + prefix_len))
        return 0;
    return !*l->start_after || compare(l, name, l->start_after) > 0 ? add_item(l, name, size_bytes)
                                                                    : 0;
}

static int list_once(struct s3 *s3, struct listing *l, const char *prefix, struct store_error *err)
{
    struct s3_call call = {.method = "GET", .op = S3ERROR_LIST};
    char from[S3_KEY_SIZE];
    int r;

    memcpy(from, l->last, sizeof from);
    s3_call_query(&call, "list-type", "2");
    s3_call_query(&call, "max-keys", "1000");
    s3_call_query(&call, "prefix", prefix);
    if (*from)
        s3_call_query(&call, "start-after", from);
    if (l->dirs)
        s3_call_query(&call, "delimiter", "/");
    r = s3_call_send(s3, &call, err);
    if (!r && !s3_call_answered(&call, 200)) {
        r = s3_call_judge(s3, &call, err);
    } else if (!r) {
        r = s3xml_parse_list(call.answer.body, call.answer.body_len, on_item, l, &l->page->more);
        if (!r && l->page->more && strcmp(l->last, from) <= 0)
            r = -EBADMSG; /* asking again would go on for ever */
        if (r == -ENOMEM)
            s3error(err, r, STORE_RETRY, "out of memory");
        else if (r)
            s3error(err, r, STORE_RETRY, "%s sent a list that makes no sense", s3->place.endpoint);
    }
    s3_call_end(&call);
    return r;
}

/* More than one request only while an answer has nothing for us (directories among many keys). */
int s3_list(void *self, const char *prefix, const char *start_after, bool dirs,
            struct store_page *page, struct store_error *err)
{
    struct s3 *s3 = self;
    struct listing l = {.s3 = s3, .page = page, .start_after = start_after, .dirs = dirs};
    char full[S3_KEY_SIZE];
    int r = format(full, sizeof full, "%s%s", s3->prefix, prefix);

    *page = (struct store_page){0};
    if (!r && *start_after)
        r = format(l.last, sizeof l.last, "%s%s%s", s3->prefix, start_after, dirs ? "0" : "");
    if (r)
        return s3error(err, r, STORE_FINAL, "a name to list is too long");
    do
        r = list_once(s3, &l, full, err);
    while (!r && page->more && page->nitems == 0);
    return r;
}
