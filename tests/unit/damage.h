/* What can happen to an object of a bucket in memory (mem_store.h), of which good[] has the copies.
 */
#ifndef DAMAGE_H
#define DAMAGE_H

enum damage { FLIP, CUT, ZERO, APPEND, REMOVE, SWAP, STRANGER, OLD_COPY, DAMAGES };
static const char *const damage_names[] = {"flip",   "cut",  "zero",     "append",
                                           "remove", "swap", "stranger", "old copy"};

static uint64_t state;

static uint64_t pick(uint64_t below)
{
    return draw(&state, below);
}

static bool is_binary(const struct mem_object *o)
{
    return o->len >= HEADER_BYTES && memcmp(o->data, "S3VOLUME", 8) == 0;
}

static bool same_kind(const struct mem_object *a, const struct mem_object *b)
{
    return is_binary(a) && is_binary(b) && a->data[10] == b->data[10];
}

/* Another object of the same kind; NULL if there is none. */
static const struct mem_object *another(const struct mem_object *o)
{
    size_t from = pick(ngood);

    for (size_t i = 0; i < ngood; i++) {
        const struct mem_object *other = &good[(from + i) % ngood];
        if (other != o && same_kind(o, other))
            return other;
    }
    return NULL;
}

static bool zero_sector(struct mem_object *o)
{
    static const uint8_t zeros[512];
    size_t at = o->len > 512 ? pick(o->len / 512) * 512 : 0, n = MIN(o->len - at, (size_t)512);

    if (memcmp(o->data + at, zeros, n) == 0)
        return false;
    memset(o->data + at, 0, n);
    return true;
}

/* It is what it was, but for the volume that it belongs to. */
static bool make_stranger(struct mem_object *o)
{
    if (is_binary(o)) {
        o->data[16]++;
        put_le32(o->data + 124, crc32c(0, o->data, 124));
        return true;
    }
    if (strcmp(o->key, "volume") != 0)
        return false;
    struct superblock sb;
    const char *why;
    char text[1024];
    size_t len;
    assert_int_equal(superblock_decode((char *)o->data, o->len, &sb, &why), 0);
    sb.uuid[0]++;
    assert_int_equal(superblock_encode(&sb, text, sizeof text, &len), 0);
    mem_set(&mem, "volume", text, len);
    return true;
}

/* False: that does not apply. */
static bool damage(const struct mem_object *g, enum damage how)
{
    const struct mem_object *other = another(g);
    struct mem_object *o = mem_find(&mem, g->key);
    uint8_t more[600] = {0};

    switch (how) {
    case FLIP:
        o->data[pick(o->len)] ^= (uint8_t)(1 << pick(8));
        return true;
    case CUT:
        o->len = pick(3) ? pick(o->len) : o->len - 1;
        return true;
    case ZERO:
        return zero_sector(o);
    case APPEND: {
        scope_free uint8_t *longer = malloc(g->len + sizeof more);
        memcpy(longer, g->data, g->len);
        memset(longer + g->len, (int)pick(256), sizeof more);
        mem_set(&mem, g->key, longer, g->len + 1 + pick(sizeof more));
        return true;
    }
    case REMOVE:
        mem_remove(&mem, g->key);
        return true;
    case SWAP:
        if (other)
            mem_set(&mem, other->key, g->data, g->len);
        /* fall through */
    case OLD_COPY:
        if (other)
            mem_set(&mem, g->key, other->data, other->len);
        return other != NULL;
    default:
        return make_stranger(o);
    }
}

#endif
