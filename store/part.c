#include "part.h"

#include "bytes.h"
#include "scope.h"

#include <inttypes.h>
#include <zstd.h>

enum {
    ROW_BYTES = 32, /* of a part, in the root */
    RAW_BYTES_MAX = PART_ENTRIES * ENTRY_BYTES,
    PARTS_MAX = 1 << 20,
};

static const char WRONG_SIZE[] = "damaged: longer or shorter than it says of itself";

void part_key(uint64_t seq, uint32_t index, char key[STORE_KEY_MAX])
{
    (void)snprintf(key, STORE_KEY_MAX, "part/%016" PRIx64 ".%08" PRIx32, seq, index);
}

bool part_parse_key(const char *key, uint64_t *ret_seq, uint32_t *ret_index)
{
    char back[STORE_KEY_MAX];

    if (sscanf(key, "part/%16" SCNx64 ".%8" SCNx32, ret_seq, ret_index) != 2)
        return false;
    part_key(*ret_seq, *ret_index, back);
    return strcmp(key, back) == 0;
}

uint64_t part_end_chunk(const struct part_list *list, size_t i)
{
    return i + 1 < list->nparts ? list->parts[i + 1].first_chunk : VOLUME_BLOCKS_MAX / CHUNK_BLOCKS;
}

/* ------------------------------------------------------------------ encoding */

int part_encode(struct header *h, const void *raw, uint32_t nentries, uint8_t **ret_object)
{
    size_t raw_bytes = (size_t)nentries * ENTRY_BYTES, room = ZSTD_compressBound(raw_bytes);
    uint8_t *object = malloc(HEADER_BYTES + room);
    size_t n = object ? ZSTD_compress(object + HEADER_BYTES, room, raw, raw_bytes, 1) : 0;

    if (!object || ZSTD_isError(n)) {
        free(object);
        return -ENOMEM;
    }
    h->nentries = nentries;
    h->body_bytes = (uint32_t)n;
    h->object_bytes = HEADER_BYTES + h->body_bytes;
    header_encode(h, object + HEADER_BYTES, object);
    *ret_object = object;
    return 0;
}

int part_list_encode(struct header *h, const struct part_list *list, uint8_t **ret_object)
{
    h->nentries = (uint32_t)list->nparts;
    h->body_bytes = h->nentries * ROW_BYTES;
    h->object_bytes = HEADER_BYTES + h->body_bytes;
    uint8_t *object = malloc(h->object_bytes);
    if (!object)
        return -ENOMEM;
    for (size_t i = 0; i < list->nparts; i++) {
        const struct part *part = &list->parts[i];
        uint8_t *p = object + HEADER_BYTES + i * ROW_BYTES;
        put_le64(p, part->first_chunk);
        put_le64(p + 8, part->seq);
        put_le32(p + 16, part->index);
        put_le32(p + 20, part->nentries);
        put_le32(p + 24, part->object_bytes);
        put_le32(p + 28, part->crc);
    }
    header_encode(h, object + HEADER_BYTES, object);
    *ret_object = object;
    return 0;
}

/* ------------------------------------------------------------------ decoding */

static int decode_row(const uint8_t *p, uint64_t root_seq, struct part *part)
{
    *part = (struct part){get_le64(p),      get_le64(p + 8),  get_le32(p + 16),
                          get_le32(p + 20), get_le32(p + 24), get_le32(p + 28)};
    return part->first_chunk < VOLUME_BLOCKS_MAX / CHUNK_BLOCKS && part->seq <= root_seq &&
                   part->nentries > 0 && part->nentries <= PART_ENTRIES &&
                   part->object_bytes > HEADER_BYTES &&
                   part->object_bytes <= HEADER_BYTES + ZSTD_COMPRESSBOUND(RAW_BYTES_MAX)
               ? 0
               : -EBADMSG;
}

int part_list_decode(const struct superblock *sb, uint64_t seq, const void *data, size_t len,
                     struct header *ret_header, struct part_list *ret_list, const char **ret_why)
{
    const uint8_t *row = (const uint8_t *)data + HEADER_BYTES;
    scope_free struct part *parts = NULL;
    struct header h;
    int r = header_decode(data, len, sb->uuid, HEADER_CHECKPOINT, seq, &h, ret_why);

    if (r < 0)
        return r;
    *ret_why = WRONG_SIZE;
    if (len != h.object_bytes)
        return -EBADMSG;
    *ret_why = "damaged: its parts make no sense";
    if (h.nentries > PARTS_MAX || h.body_bytes != h.nentries * ROW_BYTES ||
        h.object_bytes != HEADER_BYTES + h.body_bytes)
        return -EBADMSG;
    parts = calloc(MAX(h.nentries, 1u), sizeof *parts);
    if (!parts)
        return -ENOMEM;
    for (size_t i = 0; i < h.nentries; i++, row += ROW_BYTES)
        if (decode_row(row, seq, &parts[i]) < 0 ||
            (i > 0 && parts[i].first_chunk <= parts[i - 1].first_chunk))
            return -EBADMSG;
    *ret_header = h;
    *ret_list = (struct part_list){take(parts), h.nentries};
    return 0;
}

/* A checkpoint knows no later segment, and nothing beyond the volume's end. */
static int decode_entries(const struct superblock *sb, const uint8_t *raw, const struct header *h,
                          uint64_t at, uint64_t end_chunk, struct entry *entries)
{
    uint64_t end = MIN(end_chunk * CHUNK_BLOCKS, h->size_blocks);

    for (uint32_t i = 0; i < h->nentries; i++) {
        struct entry *e = &entries[i];
        if (entry_decode(raw + (size_t)i * ENTRY_BYTES, e) < 0 || e->kind != ENTRY_DATA ||
            e->block < at || e->block + e->nblocks > end || e->base > sb->nbases ||
            (e->base == 0 && e->seq > h->seq))
            return -EBADMSG;
        at = e->block + e->nblocks;
    }
    return 0;
}

int part_decode(const struct superblock *sb, const struct part_list *list, size_t i,
                const void *data, size_t len, struct entry *ret_entries, const char **ret_why)
{
    const struct part *part = &list->parts[i];
    size_t raw_bytes = (size_t)part->nentries * ENTRY_BYTES;
    scope_free uint8_t *raw = NULL;
    struct header h;
    int r = header_decode(data, len, sb->uuid, HEADER_PART, part->seq, &h, ret_why);

    if (r < 0)
        return r;
    *ret_why = WRONG_SIZE;
    if (len != h.object_bytes)
        return -EBADMSG;
    *ret_why = "not the part that its checkpoint lists";
    if (h.body_crc != part->crc || h.first != part->index || h.nentries != part->nentries ||
        h.object_bytes != part->object_bytes || h.object_bytes != HEADER_BYTES + h.body_bytes)
        return -EBADMSG;
    raw = malloc(raw_bytes);
    if (!raw)
        return -ENOMEM;
    *ret_why = "damaged: its entries make no sense";
    if (ZSTD_decompress(raw, raw_bytes, (const uint8_t *)data + HEADER_BYTES, h.body_bytes) !=
        raw_bytes)
        return -EBADMSG;
    return decode_entries(sb, raw, &h, part->first_chunk * CHUNK_BLOCKS, part_end_chunk(list, i),
                          ret_entries);
}
