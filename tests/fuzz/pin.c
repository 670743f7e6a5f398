/* Pins: input is the text of one, which is read once as it is and once with its checksum right. */
#include "fuzz.h"

#include "../../store/pin.h"
#include "../../store/url.h"

const unsigned long fuzz_runs = 5000; /* each opens SQLite several times */

enum { TEXT_MAX = 4096 };

static int decode(const char *text, size_t len, struct pin *pin)
{
    scope_free char *copy = scope_copy(text, len);
    const char *why = NULL;
    int r = pin_decode(copy, len, pin, &why);

    if (r < 0)
        assert_refused(r, why);
    return r;
}

static void look(char *text, size_t len)
{
    struct pin pin = {0}, back = {0};
    char again[NOTE_BYTES_MAX];
    size_t n;

    if (decode(text, len, &pin) < 0)
        return;
    INVARIANT(pin.root <= pin.seq && pin.seq < pin.next && pin.next <= SEQ_MAX);
    INVARIANT(pin.size_bytes > 0 && pin.size_bytes % BLOCK_BYTES == 0);
    INVARIANT(pin.size_bytes / BLOCK_BYTES < VOLUME_BLOCKS_MAX);
    INVARIANT(url_is_snapshot_name(pin.name) && (!pin.of[0] || url_is_snapshot_name(pin.of)));
    INVARIANT(pin_encode(&pin, again, sizeof again, &n) == 0);
    INVARIANT(decode(again, n, &back) == 0);
    INVARIANT(memcmp(&pin, &back, sizeof pin) == 0);
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
