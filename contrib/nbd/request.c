#include "request.h"

#include <errno.h>

uint16_t request_transmission_flags(const struct agreement *agreement)
{
    unsigned flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
                     NBD_FLAG_CAN_MULTI_CONN | NBD_FLAG_SEND_CACHE;

    if (agreement->structured)
        flags |= NBD_FLAG_SEND_DF;
    flags |= agreement->read_only
                 ? NBD_FLAG_READ_ONLY
                 : NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO;
    return (uint16_t)flags;
}

bool request_decode(const unsigned char bytes[NBD_REQUEST_BYTES], struct request *ret_request)
{
    if (get_be32(bytes) != NBD_REQUEST_MAGIC)
        return false;
    *ret_request = (struct request){
        .flags = get_be16(bytes + 4),
        .type = get_be16(bytes + 6),
        .cookie = get_be64(bytes + 8),
        .offset = get_be64(bytes + 16),
        .length = get_be32(bytes + 24),
    };
    return true;
}

/* The flags that a type may have; FUA is for all of them. -1: there is no such type. */
static int known_flags(uint16_t type, const struct agreement *agreement)
{
    switch (type) {
    case NBD_CMD_READ:
        return NBD_CMD_FLAG_FUA | (agreement->structured ? NBD_CMD_FLAG_DF : 0);
    case NBD_CMD_WRITE_ZEROES:
        return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO;
    case NBD_CMD_BLOCK_STATUS:
        return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_REQ_ONE;
    case NBD_CMD_WRITE:
    case NBD_CMD_FLUSH:
    case NBD_CMD_TRIM:
    case NBD_CMD_CACHE:
        return NBD_CMD_FLAG_FUA;
    default:
        return -1;
    }
}

static uint32_t wrong(uint32_t error, const char *why, const char **ret_why)
{
    *ret_why = why;
    return error;
}

static uint32_t check_length(const struct request *q, const struct agreement *agreement,
                             const char **ret_why)
{
    bool payload = q->type == NBD_CMD_READ || q->type == NBD_CMD_WRITE;

    if (q->length > NBD_PAYLOAD_MAX && payload)
        return wrong(q->type == NBD_CMD_READ && agreement->structured ? NBD_EOVERFLOW : NBD_EINVAL,
                     "longer than the maximum payload", ret_why);
    if (q->length > NBD_PAYLOAD_MAX && q->type == NBD_CMD_CACHE)
        return wrong(NBD_EOVERFLOW, "longer than the maximum payload", ret_why);
    if (q->length > REQUEST_PIECE_BYTES && (q->flags & NBD_CMD_FLAG_DF))
        return wrong(NBD_EOVERFLOW, "too long for one chunk", ret_why);
    if (q->length == 0 && q->type == NBD_CMD_BLOCK_STATUS)
        return wrong(NBD_EINVAL, "no length", ret_why);
    return 0;
}

uint32_t request_check(const struct request *q, const struct agreement *agreement,
                       const char **ret_why)
{
    bool zeroes = q->type == NBD_CMD_WRITE_ZEROES;
    bool writes = q->type == NBD_CMD_WRITE || q->type == NBD_CMD_TRIM || zeroes;
    int known = known_flags(q->type, agreement);

    if (known < 0)
        return wrong(NBD_EINVAL, "unknown command", ret_why);
    if (q->flags & ~known)
        return wrong(NBD_EINVAL, "unknown flag", ret_why);
    if (writes && agreement->read_only)
        return wrong(NBD_EPERM, "the export is read-only", ret_why);
    if (q->type == NBD_CMD_FLUSH)
        return q->offset || q->length
                   ? wrong(NBD_EINVAL, "a flush has no offset and length", ret_why)
                   : 0;
    if (q->type == NBD_CMD_BLOCK_STATUS && !agreement->allocation)
        return wrong(NBD_EINVAL, "no metadata context was chosen", ret_why);
    if (q->offset > agreement->size || q->length > agreement->size - q->offset)
        return wrong(q->type == NBD_CMD_WRITE || zeroes ? NBD_ENOSPC : NBD_EINVAL,
                     "beyond the end of the export", ret_why);
    return check_length(q, agreement, ret_why);
}

uint32_t request_error(int err)
{
    switch (-err) {
    case EPERM:
    case EACCES:
    case EROFS:
        return NBD_EPERM;
    case ENOMEM:
        return NBD_ENOMEM;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return NBD_ENOSPC;
    case EOPNOTSUPP:
        return NBD_ENOTSUP;
    default:
        return NBD_EIO;
    }
}
