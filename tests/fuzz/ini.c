/* Config files: input is a text in which settings are looked for. */
#include "fuzz.h"

#include "../../store/ini.h"

#include <ctype.h>

static void find(const char *text, size_t len, const char *section, const char *key,
                 const char *sub)
{
    char value[64];
    int r = ini_find(text, len, section, key, sub, value, sizeof value);

    INVARIANT(r == 0 || r == -ENOENT || r == -ENAMETOOLONG);
    if (r != -ENOENT)
        INVARIANT(ini_has_section(text, len, section));
    if (r < 0)
        return;
    size_t n = strlen(value);
    INVARIANT(n > 0 && n < sizeof value && memmem(text, len, value, n));
    INVARIANT(value[0] != ' ' && value[0] != '\t' && value[n - 1] != ' ' && value[n - 1] != '\t');
    for (size_t i = 0; i < n; i++)
        INVARIANT(value[i] == '\t' || !iscntrl((unsigned char)value[i]));
}

/* What comes last counts, whatever stands before it. */
static void append_and_find(const char *text, size_t len)
{
    static const char end[] = "\n[profile  x] # y\nregion = one\n region = none\nregion=two \n"
                              "s3 =\n  style = path\n; style = virtual\n";
    scope_free char *longer = malloc(len + sizeof end);
    char value[64];

    memcpy(longer, text, len);
    memcpy(longer + len, end, sizeof end);
    len += sizeof end - 1;
    INVARIANT(ini_find(longer, len, "profile x", "region", NULL, value, sizeof value) == 0);
    INVARIANT(strcmp(value, "two") == 0);
    INVARIANT(ini_find(longer, len, "profile x", "s3", "style", value, sizeof value) == 0);
    INVARIANT(strcmp(value, "path") == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const sections[] = {"default", "profile work", "services s"};
    static const char *const keys[][2] = {{"aws_access_key_id", NULL},
                                          {"region", NULL},
                                          {"s3", NULL},
                                          {"s3", "addressing_style"},
                                          {"s3", "endpoint_url"}};
    scope_free char *text = scope_copy(data, size);

    for (size_t s = 0; s < ARRAY_SIZE(sections); s++)
        for (size_t k = 0; k < ARRAY_SIZE(keys); k++)
            find(text, size, sections[s], keys[k][0], keys[k][1]);
    append_and_find(text, size);
    return 0;
}
