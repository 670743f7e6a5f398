#include "watch.h"
#include "sched.h"

#include "../../store/bytes.h"
#include "../../store/log.h"
#include "../../store/part.h"
#include "../../store/pin.h"
#include "../../store/scope.h"

#include <inttypes.h>
#include <string.h>

struct seen {
    struct seen *next;
    int volume;
    char name[PIN_NAME_MAX];
};
static struct seen *stored_once;

struct watched {
    struct watched *next;
    int volume;
    char name[PIN_NAME_MAX];
    uint64_t root, seq;
    struct part_list list; /* of the root */
    uint64_t *segments;    /* that the root's map is in */
    size_t n, room;
};

static struct watched *pins;

/* ------------------------------------------------------------------ a line of JSON */

static const char *value_of(const char *text, const char *name)
{
    char what[64];
    const char *at;

    (void)snprintf(what, sizeof what, "\"%s\":", name);
    at = strstr(text, what);
    return at ? at + strlen(what) : "";
}

uint64_t watch_json_number(const char *text, const char *name)
{
    return strtoull(value_of(text, name), NULL, 10);
}

void watch_json_text(const char *text, const char *name, char *ret, size_t size_bytes)
{
    const char *value = value_of(text, name);

    value += *value == '"';
    (void)snprintf(ret, size_bytes, "%.*s", (int)strcspn(value, "\""), value);
}

/* ------------------------------------------------------------------ what a pin needs */

static struct watched **find_pin(int volume, const char *name)
{
    struct watched **at = &pins;

    while (*at && ((*at)->volume != volume || strcmp((*at)->name, name) != 0))
        at = &(*at)->next;
    return at;
}

bool watch_pin_is_good(int volume, const char *name)
{
    return *find_pin(volume, name) != NULL;
}

static void add_segment(struct watched *w, uint64_t seq)
{
    if (w->n > 0 && w->segments[w->n - 1] == seq)
        return;
    if (w->n == w->room) {
        w->room = 2 * w->room + 64;
        w->segments = realloc(w->segments, w->room * sizeof *w->segments);
    }
    w->segments[w->n++] = seq;
}

/* Of whichever volume the root is: its own uuid is right, and it may name any base. */
static void read_root(struct watched *w)
{
    static struct entry entries[PART_ENTRIES];
    struct superblock sb = {.nbases = BASES_MAX};
    char key[STORE_KEY_MAX];
    struct header h;
    const char *why;

    (void)snprintf(key, sizeof key, "map/%016" PRIx64, w->root);
    const struct object *root = objects_find(w->volume, key);
    memcpy(sb.uuid, root->data + HEADER_AT_UUID, UUID_BYTES);
    if (part_list_decode(&sb, w->root, root->data, root->len, &h, &w->list, &why) < 0)
        sim_fail("%s: %s", key, why);
    for (size_t i = 0; i < w->list.nparts; i++) {
        part_key(w->list.parts[i].seq, w->list.parts[i].index, key);
        const struct object *part = objects_find(w->volume, key);
        if (!part)
            sim_fail("snapshot/%s is stored, and %s of its checkpoint is not there", w->name, key);
        if (part_decode(&sb, &w->list, i, part->data, part->len, entries, &why) < 0)
            sim_fail("%s: %s", key, why);
        for (uint32_t k = 0; k < w->list.parts[i].nentries; k++)
            if (entries[k].base == 0)
                add_segment(w, entries[k].seq);
    }
}

static bool is_newest_root(int volume, uint64_t root)
{
    const struct object *end = objects_end(volume);
    bool there = root == 0;

    for (const struct object *o = objects_from(volume, "map/"); o < end; o++) {
        uint64_t seq = objects_number(o, "map/");
        if (seq > root)
            return false;
        there = there || seq == root;
    }
    return there;
}

static bool is_kept(const struct watched *w)
{
    for (const struct watched *o = pins; o; o = o->next)
        if (o->volume == w->volume && o->root == w->root && o->seq == w->seq)
            return true;
    return false;
}

static bool is_first(int volume, const char *name)
{
    struct seen *s = stored_once;

    while (s && (s->volume != volume || strcmp(s->name, name) != 0))
        s = s->next;
    if (s)
        return false;
    s = calloc(1, sizeof *s);
    *s = (struct seen){.next = stored_once, .volume = volume};
    (void)snprintf(s->name, sizeof s->name, "%s", name);
    stored_once = s;
    return true;
}

/* It means nothing until the clone's superblock is stored, which is judged then. */
static bool is_of_clone(const char *name)
{
    return strncmp(name, "clone-", 6) == 0;
}

static void judge_pin(int volume, const struct object *pin)
{
    struct watched *w = calloc(1, sizeof *w);
    char of[PIN_NAME_MAX];

    w->volume = volume;
    (void)snprintf(w->name, sizeof w->name, "%s", strchr(pin->key, '/') + 1);
    w->root = watch_json_number((const char *)pin->data, "root");
    w->seq = watch_json_number((const char *)pin->data, "seq");
    watch_json_text((const char *)pin->data, "of", of, sizeof of);
    bool first = is_first(volume, w->name);
    if (!is_newest_root(volume, w->root) && !is_kept(w)) {
        if (first && !pin_is_pending(w->name) && !is_of_clone(w->name) && !*of)
            sim_fail("snapshot/%s is stored, when what it needs (checkpoint %016" PRIx64
                     ") may have been deleted",
                     w->name, w->root);
        free(w);
        return;
    }
    if (w->root)
        read_root(w);
    w->next = pins;
    pins = w;
}

static bool needs_segment(const struct watched *w, uint64_t seq)
{
    if (seq > w->root && seq <= w->seq)
        return true;
    for (size_t i = 0; i < w->n; i++)
        if (w->segments[i] == seq)
            return true;
    return false;
}

static bool needs(const struct watched *w, const struct object *o)
{
    uint64_t seq = objects_number(o, "log/"), root = objects_number(o, "map/");
    char part[STORE_KEY_MAX];

    if (seq)
        return needs_segment(w, seq);
    for (size_t i = 0; strncmp(o->key, "part/", 5) == 0 && i < w->list.nparts; i++) {
        part_key(w->list.parts[i].seq, w->list.parts[i].index, part);
        if (strcmp(part, o->key) == 0)
            return true;
    }
    return root && root == w->root;
}

static void forget_pin(int volume, const char *name)
{
    struct watched **at = find_pin(volume, name), *w = *at;

    if (!w)
        return;
    *at = w->next;
    free(w->list.parts);
    free(w->segments);
    free(w);
}

/* ------------------------------------------------------------------ checkpoints are whole */

static void row_key(const struct object *root, size_t at, char key[STORE_KEY_MAX])
{
    part_key(get_le64(root->data + at + 8), get_le32(root->data + at + 16), key);
}

enum { ROW_BYTES = 32 };

/* A root was stored. The copy of a request that arrives when there is a newer one harms nobody. */
static void judge_root(int volume, struct object *root)
{
    char part[STORE_KEY_MAX];

    root->late = root + 1 < objects_end(volume) && objects_number(root + 1, "map/") > 0;
    for (size_t at = HEADER_BYTES; !root->late && at < root->len; at += ROW_BYTES) {
        row_key(root, at, part);
        if (!objects_find(volume, part))
            sim_fail("%s is stored, and %s of it is not there", root->key, part);
    }
}

/* A part is to be deleted. */
static void judge_part(int volume, const char *key)
{
    const struct object *root = objects_from(volume, "map/"), *end = objects_end(volume);
    char part[STORE_KEY_MAX];

    for (; root < end && objects_number(root, "map/") > 0; root++)
        for (size_t at = HEADER_BYTES; !root->late && at < root->len; at += ROW_BYTES) {
            row_key(root, at, part);
            if (strcmp(part, key) == 0)
                sim_fail("%s is deleted, but it is of %s, which is there", key, root->key);
        }
}

/* ------------------------------------------------------------------ a clone */

static void judge_superblock(int volume, const struct object *o)
{
    char uuid[64], name[PIN_NAME_MAX];

    if (volume == THE_VOLUME)
        return;
    watch_json_text((const char *)o->data, "uuid", uuid, sizeof uuid);
    (void)snprintf(name, sizeof name, "clone-%s", uuid);
    if (!watch_pin_is_good(THE_VOLUME, name))
        sim_fail("a clone is stored, and its base has no snapshot/%s that keeps what it needs",
                 name);
}

/* ------------------------------------------------------------------ what happens */

void watch_put(int volume, const char *key)
{
    struct object *o = objects_find(volume, key);

    if (strncmp(key, "map/", 4) == 0)
        judge_root(volume, o);
    else if (strncmp(key, "snapshot/", 9) == 0)
        judge_pin(volume, o);
    else if (strcmp(key, "volume") == 0)
        judge_superblock(volume, o);
}

void watch_delete(int volume, const char *key)
{
    const struct object *o = objects_find(volume, key);

    if (!o)
        return;
    for (const struct watched *w = pins; w; w = w->next)
        if (w->volume == volume && needs(w, o))
            sim_fail("%s is deleted, but snapshot/%s needs it (of checkpoint %016" PRIx64
                     " and the log up to %016" PRIx64 ")",
                     key, w->name, w->root, w->seq);
    if (strncmp(key, "part/", 5) == 0)
        judge_part(volume, key);
    else if (strncmp(key, "snapshot/", 9) == 0)
        forget_pin(volume, key + 9);
}
