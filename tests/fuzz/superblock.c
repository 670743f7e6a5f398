/* The superblock: input is its text, which is read once as it is and once with its checksum right.
 */
#include "fuzz.h"

#include "../../store/entry.h"
#include "../../store/superblock.h"

const unsigned long fuzz_runs = 5000; /* each opens SQLite several times */

enum { TEXT_MAX = 4096 };

static int decode(const char *text, size_t len, struct superblock *sb)
{
    scope_free char *copy = scope_copy(text, len);
    const char *why = NULL;
    int r = superblock_decode(copy, len, sb, &why);

    if (r < 0)
        assert_refused(r, why);
    return r;
}

static void look(char *text, size_t len)
{
    struct superblock sb = {0}, back = {0};
    char again[NOTE_BYTES_MAX];
    size_t n;

    if (decode(text, len, &sb) < 0)
        return;
    INVARIANT(sb.size_bytes > 0 && sb.size_bytes % BLOCK_BYTES == 0);
    INVARIANT(sb.size_bytes / BLOCK_BYTES < VOLUME_BLOCKS_MAX);
    INVARIANT(memchr(sb.created, 0, sizeof sb.created));
    INVARIANT(superblock_encode(&sb, again, sizeof again, &n) == 0);
    /* `created` may be any text here; what we write is a date */
    if (!strpbrk(sb.created, "\\\"")) {
        INVARIANT(decode(again, n, &back) == 0);
        INVARIANT(memcmp(back.uuid, sb.uuid, UUID_BYTES) == 0 && back.size_bytes == sb.size_bytes);
        INVARIANT(back.compress == sb.compress && back.conditional_put == sb.conditional_put);
        INVARIANT(strcmp(back.created, sb.created) == 0);
    }
    uint64_t bit = draw_from(text, len, 8 * len);
    text[bit / 8] ^= (char)(1 << bit % 8);
    INVARIANT(decode(text, len, &back) < 0);
    text[bit / 8] ^= (char)(1 << bit % 8);
    INVARIANT(decode(text, len - 1, &back) < 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char member[] = ",\"crc32c\":\"";
    char text[2 * TEXT_MAX] = "";
    size_t n = MIN(size, (size_t)TEXT_MAX);

    memcpy(text, data, n);
    look(text, n);
    char *at = memmem(text, n, member, strlen(member));
    if (at)
        n = (size_t)(at - text);
    (void)snprintf(text + n, sizeof text - n, "%s%08x\"}\n", member, crc32c(0, text, n));
    look(text, n + strlen(text + n));
    return 0;
}
