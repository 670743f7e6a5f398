/*
 * Numbers and messages of the NBD protocol, after doc/proto.md of
 * https://github.com/NetworkBlockDevice/nbd, whose names these are, less the prefix where C has it
 * in an enum's. All numbers on the wire are big-endian.
 */
#ifndef NBD_PROTOCOL_H
#define NBD_PROTOCOL_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

/* "Handshake": "Newstyle negotiation", "Fixed newstyle negotiation" */
#define NBD_INIT_MAGIC   UINT64_C(0x4e42444d41474943) /* NBDMAGIC */
#define NBD_OPTION_MAGIC UINT64_C(0x49484156454f5054) /* IHAVEOPT */
#define NBD_REPLY_MAGIC  UINT64_C(0x0003e889045565a9)

/* "Request message", "Simple reply message", "Structured reply chunk message" */
#define NBD_REQUEST_MAGIC      UINT32_C(0x25609513)
#define NBD_SIMPLE_REPLY_MAGIC UINT32_C(0x67446698)
#define NBD_CHUNK_MAGIC        UINT32_C(0x668e33ef)

enum { /* lengths of what is fixed */
       NBD_GREETING_BYTES = 18,
       NBD_CLIENT_FLAGS_BYTES = 4,
       NBD_OPTION_BYTES = 16,
       NBD_OPTION_REPLY_BYTES = 20,
       NBD_EXPORT_NAME_ZEROES = 124,
       NBD_REQUEST_BYTES = 28,
       NBD_SIMPLE_REPLY_BYTES = 16,
       NBD_CHUNK_BYTES = 20,
};

enum { NBD_STRING_MAX = 4096 }; /* "Conventions" */

/* "Handshake flags", "Client flags": the same bits */
enum {
    NBD_FLAG_FIXED_NEWSTYLE = 1 << 0,
    NBD_FLAG_NO_ZEROES = 1 << 1,
};

/* "Transmission flags" */
enum {
    NBD_FLAG_HAS_FLAGS = 1 << 0,
    NBD_FLAG_READ_ONLY = 1 << 1,
    NBD_FLAG_SEND_FLUSH = 1 << 2,
    NBD_FLAG_SEND_FUA = 1 << 3,
    NBD_FLAG_SEND_TRIM = 1 << 5,
    NBD_FLAG_SEND_WRITE_ZEROES = 1 << 6,
    NBD_FLAG_SEND_DF = 1 << 7,
    NBD_FLAG_CAN_MULTI_CONN = 1 << 8,
    NBD_FLAG_SEND_CACHE = 1 << 10,
    NBD_FLAG_SEND_FAST_ZERO = 1 << 11,
};

/* "Option types" */
enum {
    NBD_OPT_EXPORT_NAME = 1,
    NBD_OPT_ABORT = 2,
    NBD_OPT_LIST = 3,
    NBD_OPT_STARTTLS = 5,
    NBD_OPT_INFO = 6,
    NBD_OPT_GO = 7,
    NBD_OPT_STRUCTURED_REPLY = 8,
    NBD_OPT_LIST_META_CONTEXT = 9,
    NBD_OPT_SET_META_CONTEXT = 10,
};

/* "Option reply types" */
#define NBD_REP_ACK          UINT32_C(1)
#define NBD_REP_SERVER       UINT32_C(2)
#define NBD_REP_INFO         UINT32_C(3)
#define NBD_REP_META_CONTEXT UINT32_C(4)
#define NBD_REP_ERR_UNSUP    UINT32_C(0x80000001)
#define NBD_REP_ERR_POLICY   UINT32_C(0x80000002)
#define NBD_REP_ERR_INVALID  UINT32_C(0x80000003)
#define NBD_REP_ERR_TLS_REQD UINT32_C(0x80000005)
#define NBD_REP_ERR_UNKNOWN  UINT32_C(0x80000006)
#define NBD_REP_ERR_SHUTDOWN UINT32_C(0x80000007)
#define NBD_REP_ERR_TOO_BIG  UINT32_C(0x80000009)
#define NBD_REP_ERR_BIT      UINT32_C(0x80000000)

/* NBD_REP_INFO */
enum {
    NBD_INFO_EXPORT = 0,
    NBD_INFO_NAME = 1,
    NBD_INFO_DESCRIPTION = 2,
    NBD_INFO_BLOCK_SIZE = 3,
};

/* "Request types" */
enum {
    NBD_CMD_READ = 0,
    NBD_CMD_WRITE = 1,
    NBD_CMD_DISC = 2,
    NBD_CMD_FLUSH = 3,
    NBD_CMD_TRIM = 4,
    NBD_CMD_CACHE = 5,
    NBD_CMD_WRITE_ZEROES = 6,
    NBD_CMD_BLOCK_STATUS = 7,
};

/* "Command flags" */
enum {
    NBD_CMD_FLAG_FUA = 1 << 0,
    NBD_CMD_FLAG_NO_HOLE = 1 << 1,
    NBD_CMD_FLAG_DF = 1 << 2,
    NBD_CMD_FLAG_REQ_ONE = 1 << 3,
    NBD_CMD_FLAG_FAST_ZERO = 1 << 4,
};

/* "Structured reply flags", "Structured reply types" */
enum { NBD_REPLY_FLAG_DONE = 1 << 0 };
enum {
    NBD_REPLY_TYPE_NONE = 0,
    NBD_REPLY_TYPE_OFFSET_DATA = 1,
    NBD_REPLY_TYPE_OFFSET_HOLE = 2,
    NBD_REPLY_TYPE_BLOCK_STATUS = 5,
    NBD_REPLY_TYPE_ERROR = (1 << 15) + 1,
    NBD_REPLY_TYPE_ERROR_OFFSET = (1 << 15) + 2,
};

/* "Error values" */
enum {
    NBD_EPERM = 1,
    NBD_EIO = 5,
    NBD_ENOMEM = 12,
    NBD_EINVAL = 22,
    NBD_ENOSPC = 28,
    NBD_EOVERFLOW = 75,
    NBD_ENOTSUP = 95,
    NBD_ESHUTDOWN = 108,
};

/* "The base: metadata namespace" */
#define NBD_BASE_ALLOCATION "base:allocation"
enum {
    NBD_STATE_HOLE = 1 << 0,
    NBD_STATE_ZERO = 1 << 1,
};

/* "Size constraints", what we advertise */
enum {
    NBD_BLOCK_MIN = 1,
    NBD_BLOCK_PREFERRED = 4096, /* unless the file says more */
    NBD_PAYLOAD_MAX = 32 << 20,
};
_Static_assert(NBD_PAYLOAD_MAX >= 1 << 25, "what every client may expect");

/* Big-endian numbers; each returns where the next one goes. */
static inline unsigned char *put_be16(unsigned char *p, unsigned n)
{
    uint16_t be = htobe16((uint16_t)n);
    memcpy(p, &be, sizeof be);
    return p + sizeof be;
}
static inline unsigned char *put_be32(unsigned char *p, uint32_t n)
{
    n = htobe32(n);
    memcpy(p, &n, sizeof n);
    return p + sizeof n;
}
static inline unsigned char *put_be64(unsigned char *p, uint64_t n)
{
    n = htobe64(n);
    memcpy(p, &n, sizeof n);
    return p + sizeof n;
}
static inline uint16_t get_be16(const unsigned char *p)
{
    uint16_t n;
    memcpy(&n, p, sizeof n);
    return be16toh(n);
}
static inline uint32_t get_be32(const unsigned char *p)
{
    uint32_t n;
    memcpy(&n, p, sizeof n);
    return be32toh(n);
}
static inline uint64_t get_be64(const unsigned char *p)
{
    uint64_t n;
    memcpy(&n, p, sizeof n);
    return be64toh(n);
}

#endif
