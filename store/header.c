#include "header.h"

#include "bytes.h"
#include "crc32c.h"
#include "entry.h"
#include "scope.h"

static const char MAGIC[8] = "S3VOLUME";

enum {
    AT_MAGIC = 0,
    AT_VERSION = 8,
    AT_KIND = 10,
    AT_FLAGS = 12,
    AT_UUID = HEADER_AT_UUID,
    AT_NONCE = 32,
    AT_EPOCH = 48,
    AT_SEQ = 56,
    AT_SIZE = 64,
    AT_FIRST = 72,
    AT_NEXT = 80,
    AT_WALL = 88,
    AT_NENTRIES = 96,
    AT_BODY_BYTES = 100,
    AT_BODY_CRC = 104,
    AT_OBJECT_BYTES = 108,
    AT_CLAIM = 112,
    AT_RESERVED = 120,
    AT_CRC = 124,
};
_Static_assert(AT_CRC + 4 == HEADER_BYTES, "the checksum ends the header");

void header_encode(struct header *h, const void *body, void *out)
{
    uint8_t *p = out;

    h->body_crc = crc32c(0, body, h->body_bytes);
    memset(p, 0, HEADER_BYTES);
    memcpy(p + AT_MAGIC, MAGIC, sizeof MAGIC);
    put_le16(p + AT_VERSION, FORMAT_VERSION);
    put_le16(p + AT_KIND, (uint16_t)h->kind);
    put_le32(p + AT_FLAGS, h->flags);
    memcpy(p + AT_UUID, h->uuid, UUID_BYTES);
    memcpy(p + AT_NONCE, h->nonce, UUID_BYTES);
    put_le64(p + AT_EPOCH, h->epoch);
    put_le64(p + AT_SEQ, h->seq);
    put_le64(p + AT_SIZE, h->size_blocks);
    put_le64(p + AT_FIRST, h->first);
    put_le64(p + AT_NEXT, h->next);
    put_le64(p + AT_WALL, h->wall_ms);
    put_le32(p + AT_NENTRIES, h->nentries);
    put_le32(p + AT_BODY_BYTES, h->body_bytes);
    put_le32(p + AT_BODY_CRC, h->body_crc);
    put_le32(p + AT_OBJECT_BYTES, h->object_bytes);
    put_le64(p + AT_CLAIM, h->claim);
    put_le32(p + AT_CRC, crc32c(0, p, AT_CRC));
}

static int bad(const char **ret_why, const char *why)
{
    *ret_why = why;
    return -EBADMSG;
}

static uint32_t known_flags(unsigned kind)
{
    return kind == HEADER_SEGMENT ? HEADER_LAST
           : kind == HEADER_CLAIM ? HEADER_ROLLBACK | HEADER_AHEAD
                                  : 0;
}

/* So that no sum of them wraps, and a claim leads on. */
static bool numbers_make_sense(const struct header *h)
{
    if (h->seq > SEQ_MAX || h->next > SEQ_MAX || h->size_blocks >= VOLUME_BLOCKS_MAX)
        return false;
    if (h->kind == HEADER_CLAIM && h->claim != h->seq)
        return false;
    return h->kind == HEADER_SEGMENT || h->kind == HEADER_PART ||
           (h->next > h->seq && h->first <= h->seq);
}

int header_decode(const void *data, size_t len, const uint8_t uuid[UUID_BYTES],
                  enum header_kind kind, uint64_t seq, struct header *ret, const char **ret_why)
{
    const uint8_t *p = data;
    struct header h;

    if (len < HEADER_BYTES)
        return bad(ret_why, "truncated: shorter than a header");
    if (memcmp(p + AT_MAGIC, MAGIC, sizeof MAGIC) != 0)
        return bad(ret_why, "not an object of s3vol");
    if (get_le32(p + AT_CRC) != crc32c(0, p, AT_CRC))
        return bad(ret_why, "damaged: the header's checksum does not match");
    if (get_le16(p + AT_VERSION) != FORMAT_VERSION || get_le32(p + AT_RESERVED) != 0 ||
        get_le32(p + AT_FLAGS) & ~known_flags(get_le16(p + AT_KIND))) {
        *ret_why = "of a format version that this s3vol does not know: upgrade it";
        return -EPROTONOSUPPORT;
    }
    h = (struct header){
        .kind = get_le16(p + AT_KIND),
        .flags = get_le32(p + AT_FLAGS),
        .epoch = get_le64(p + AT_EPOCH),
        .seq = get_le64(p + AT_SEQ),
        .size_blocks = get_le64(p + AT_SIZE),
        .first = get_le64(p + AT_FIRST),
        .next = get_le64(p + AT_NEXT),
        .wall_ms = get_le64(p + AT_WALL),
        .nentries = get_le32(p + AT_NENTRIES),
        .body_bytes = get_le32(p + AT_BODY_BYTES),
        .body_crc = get_le32(p + AT_BODY_CRC),
        .object_bytes = get_le32(p + AT_OBJECT_BYTES),
        .claim = get_le64(p + AT_CLAIM),
    };
    memcpy(h.uuid, p + AT_UUID, UUID_BYTES);
    memcpy(h.nonce, p + AT_NONCE, UUID_BYTES);
    if (memcmp(h.uuid, uuid, UUID_BYTES) != 0)
        return bad(ret_why, "of another volume");
    if (kind ? h.kind != kind : h.kind != HEADER_SEGMENT && h.kind != HEADER_CLAIM)
        return bad(ret_why, "of another kind than its name says");
    if (h.seq != seq)
        return bad(ret_why, "of another number than its name says");
    if (h.body_bytes > len - HEADER_BYTES)
        return bad(ret_why, "truncated");
    if (h.object_bytes < HEADER_BYTES + (uint64_t)h.body_bytes)
        return bad(ret_why, "damaged: sizes do not add up");
    if (!numbers_make_sense(&h))
        return bad(ret_why, "damaged: its numbers make no sense");
    if (crc32c(0, p + HEADER_BYTES, h.body_bytes) != h.body_crc)
        return bad(ret_why, "damaged: the body's checksum does not match");
    *ret = h;
    return 0;
}

uint64_t header_knows_of(const struct header *h)
{
    return h->kind == HEADER_SEGMENT ? h->next : h->flags & HEADER_AHEAD ? h->first : h->seq;
}
