#include "options_internal.h"

#include "../store/msg.h"
#include "../store/scope.h"

#include <string.h>

#define AT(field) offsetof(struct options, field)
#define K         UINT64_C(1024)
#define M         (K * K)
#define G         (K * M)
#define T         (K * G)
#define SECOND    1000
#define WRITERS   (COMMAND_MOUNT | FOR_WRITING)
#define COPIES    (COMMAND_IMPORT | COMMAND_EXPORT)
/* What opens a store. */
#define URL_COMMANDS                                                                               \
    (COMMAND_CREATE | COMMAND_MOUNT | COMMAND_STATUS | COMMAND_LIST | COMMAND_DELETE |             \
     COMMAND_CHECK | COMMAND_RESIZE | COMMAND_SNAPSHOT | COMMAND_CLONE | COMMAND_FLATTEN |         \
     COMMAND_IMPORT | COMMAND_EXPORT)

/* clang-format off */
static const struct option table[] = {
    {"size", 0, SIZE, COMMAND_CREATE, AT(create.size_bytes), "SIZE", M, 8 * K * K * T - 4096, 4096,
     "how large the image is, for example 10G; a multiple of 4096 bytes"},
    {"size", 0, SIZE, COMMAND_IMPORT, AT(create.size_bytes), "SIZE", 1, 8 * K * K * T - 4096, 0,
     "how much comes from standard input, or a pipe: exactly so many bytes must"},
    {"compress", 0, SWITCH, COMMAND_CREATE | COMMAND_IMPORT, AT(create.compress), NULL, 0, 0, 0,
     "compress what is stored (zstd) where it pays; on by default"},

    {"cache-dir", 0, TEXT, COMMAND_MOUNT | COMMAND_RESIZE | COMMAND_FLATTEN | COMMAND_CLONE | COPIES, AT(volume.cache_dir), "DIR", 0, 0, 0,
     "where the caches of all volumes are; $S3VOL_CACHE_DIR, else /var/cache/s3vol for root and "
     "~/.cache/s3vol for others"},
    {"cache-size", 0, SIZE, COMMAND_MOUNT, AT(volume.cache_bytes), "SIZE", 16 * M, 1024 * T, 0,
     "disk space for this volume's cache; by default a fifth of what is free there, 256M to 10G"},
    {"cache-size", 0, SIZE, COPIES, AT(volume.cache_bytes), "SIZE", 16 * M, 1024 * T, 0,
     "disk space there, used meanwhile; 512M by default"},
    {"dirty-limit", 0, SIZE, WRITERS, AT(volume.dirty_bytes), "SIZE", 4 * M, 1024 * T, 0,
     "writes wait while so much is not in the bucket yet; by default half the cache"},
    {"read-ahead", 0, SIZE, COMMAND_MOUNT, AT(volume.readahead_bytes), "SIZE", 0, G, 0,
     "the most that is fetched ahead of a sequential reader; 0 for none"},
    {"sync", 0, CHOICE, WRITERS, AT(volume.sync), "bucket|cache", 0, 0, 0,
     "where data is safe when a flush (fsync) returns: in the bucket, the default, or on the local "
     "disk, the bucket following within seconds"},
    {"timeout", 0, PATIENCE, COMMAND_MOUNT, AT(volume.timeout_ms), "TIME", SECOND, INT64_MAX, 0,
     "how long a flush or an uncached read waits for the store before it fails; forever by "
     "default"},
    {"writeback-delay", 0, DURATION, WRITERS, AT(volume.writeback_ms), "TIME", 0,
     24 * 3600 * SECOND, 0,
     "a write is on its way to the bucket after this time at most, or when 64 MiB wait for each 5s "
     "of it"},
    {"uploads", 0, COUNT, WRITERS | COMMAND_IMPORT, AT(volume.uploads), "N", 1, 64, 0,
     "objects uploaded at once"},
    {"downloads", 0, COUNT, COMMAND_MOUNT | COMMAND_EXPORT, AT(volume.downloads), "N", 1, 256, 0,
     "ranges fetched at once"},
    {"gc", 0, SWITCH, WRITERS, AT(volume.gc), NULL, 0, 0, 0,
     "reclaim the space of what was overwritten or discarded, in the background; on by default"},
    {"gc-grace", 0, DURATION, WRITERS, AT(volume.gc_grace_ms), "TIME", 0,
     24 * 3600 * SECOND, 0,
     "what nothing needs any more is deleted after this time, so that read-only mounts elsewhere "
     "can follow; 5m by default"},
    {"compress", 0, SWITCH, WRITERS, AT(volume.compress), NULL, 0, 0, 0,
     "compress what this mount stores, where it pays; on by default"},
    {"direct-io", 0, SWITCH, COMMAND_MOUNT, AT(direct_io), NULL, 0, 0, 0,
     "keep the image out of this machine's page cache, so that nothing is in memory twice; on by "
     "default where Linux can do it and still map the image (6.6)"},
    {"discard-local", 0, FLAG, WRITERS, AT(volume.discard_local), NULL, 0, 0, 0,
     "throw away what only the local cache has, where mounting would refuse because the volume has "
     "since been mounted elsewhere"},
    {"read-only", 0, FLAG, COMMAND_MOUNT, AT(volume.read_only), NULL, 0, 0, 0,
     "take the volume from nobody and write nothing to the bucket: the image is what the volume is "
     "at this moment, while another machine may go on writing; of a snapshot always"},
    {"follow", 0, DURATION, COMMAND_MOUNT, AT(volume.follow_ms), "TIME", 100, 24 * 3600 * SECOND, 0,
     "with --read-only: look so often for what was written since, and show it"},
    {"allow-other", 0, FLAG, COMMAND_MOUNT, AT(allow_other), NULL, 0, 0, 0,
     "let other users reach the image, as its mode allows; on for root"},
    {"foreground", 'f', FLAG, COMMAND_MOUNT, AT(foreground), NULL, 0, 0, 0,
     "stay in the foreground, messages to stderr; Ctrl-C unmounts"},

    {"offset", 0, SIZE, COMMAND_DEFRAG, AT(offset), "SIZE", 0, 8 * K * K * T, 0,
     "where the range begins; 0 by default"},
    {"length", 0, SIZE, COMMAND_DEFRAG, AT(length), "SIZE", 1, 8 * K * K * T, 0,
     "how long it is; to the end by default"},
    {"keep-local", 0, FLAG, COMMAND_UMOUNT, AT(keep_local), NULL, 0, 0, 0,
     "do not wait for uploads: what is not in the bucket stays in this machine's cache, and goes "
     "on its way at the next mount here"},
    {"json", 0, FLAG, COMMAND_STATUS | COMMAND_SNAPSHOT, AT(json), NULL, 0, 0, 0,
     "for programs: one JSON object; of snapshot list an array of them"},
    {"repair", 0, FLAG, COMMAND_CHECK, AT(repair), NULL, 0, 0, 0,
     "if the volume cannot be mounted as it is: make it what it was at the newest instant that can "
     "be read; says which that is, and asks"},
    {"force", 0, FLAG, COMMAND_DELETE | COMMAND_CHECK, AT(force), NULL, 0, 0, 0, "do not ask"},
    {"local", 0, FLAG, COMMAND_CLONE, AT(local), NULL, 0, 0, 0,
     "where mounting refuses because the volume has since been mounted elsewhere: begin as it was "
     "on this machine then, with what only the local cache has"},
    {"force", 0, FLAG, COMMAND_CLONE, AT(force), NULL, 0, 0, 0,
     "with --local: save the rest if something was reclaimed meanwhile, with zeros there"},
    {"force", 0, FLAG, COMMAND_EXPORT, AT(force), NULL, 0, 0, 0,
     "replace FILE if it is there; overwrite a block device"},
    {"shrink", 0, FLAG, COMMAND_RESIZE, AT(shrink), NULL, 0, 0, 0,
     "let SIZE be smaller than the volume is; refused if there is data beyond"},
    {"discard-data", 0, FLAG, COMMAND_RESIZE, AT(discard_data), NULL, 0, 0, 0,
     "with --shrink: cut off data, too, for good"},

    {"endpoint", 0, TEXT, URL_COMMANDS, AT(store.endpoint), "URL", 0, 0, 0,
     "S3 server, for example http://127.0.0.1:8000; $AWS_ENDPOINT_URL_S3, $AWS_ENDPOINT_URL"},
    {"region", 0, TEXT, URL_COMMANDS, AT(store.region), "NAME", 0, 0, 0, "S3 region; $AWS_REGION"},
    {"profile", 0, TEXT, URL_COMMANDS, AT(store.profile), "NAME", 0, 0, 0,
     "profile in ~/.aws/config and ~/.aws/credentials; $AWS_PROFILE"},
    {"ca-file", 0, TEXT, URL_COMMANDS, AT(store.ca_file), "FILE", 0, 0, 0,
     "trust the certificates in this PEM file instead of the system's"},
    {"addressing", 0, CHOICE, URL_COMMANDS, AT(store.addressing), "auto|path|virtual", 0, 0, 0,
     "whether the bucket's name goes into the path or into the host name"},
    {"connect-timeout", 0, DURATION, URL_COMMANDS, AT(store.connect_timeout_ms), "TIME", 100,
     3600 * SECOND, 0, "give up connecting, and try again, after this time; 5s by default"},
    {"stall-timeout", 0, DURATION, URL_COMMANDS, AT(store.stall_timeout_ms), "TIME", 100,
     3600 * SECOND, 0, "give up a transfer that does not move for so long; 10s by default"},

    {"debug", 'd', FLAG, ANY, AT(debug), NULL, 0, 0, 0,
     "say more on stderr; with mount: stay in the foreground"},
    {"help", 'h', FLAG, ANY, AT(help), NULL, 0, 0, 0, "this text"},

    {"ro", 0, FSTAB, COMMAND_MOUNT, AT(volume.read_only), NULL, 0, 0, 0, "as --read-only"},
    {"remount", 0, REFUSED, COMMAND_MOUNT, 0, NULL, 0, 0, 0,
     "options of a mounted volume cannot be changed; umount it and mount it again"},
};
/* clang-format on */

/* What mount(8) and fstab may say besides, after -o. The image is not executable and is no device,
 * nobody else writes it, and its times are kept in memory: nothing to do. */
static const char *const generic[] = {
    "rw",
    "defaults",
    "auto",
    "noauto",
    "nofail",
    "_netdev",
    "user",
    "users",
    "nouser",
    "owner",
    "group",
    "dev",
    "nodev",
    "suid",
    "nosuid",
    "exec",
    "noexec",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "lazytime",
    "nolazytime",
    "async",
    "silent",
    "loud",
    "default_permissions",
};

void options_init(struct options *options)
{
    *options = (struct options){.create.compress = true, .direct_io = true};
    volume_config_init(&options->volume);
    options->volume.cache_dir = NULL; /* see command_mount.c */
}

void options_free(struct options *options)
{
    for (unsigned i = 0; i < options->ncopies; i++)
        free(options->copies[i]);
    free(options->copies);
    options->copies = NULL;
    options->ncopies = 0;
}

/* ---------------------------------------------------------------------------- looking up */

/* `len` bytes of `name` against an option's name; '_' counts as '-' (allow_other). */
static bool same_name(const char *name, size_t len, const char *option)
{
    if (strlen(option) != len)
        return false;
    for (size_t i = 0; i < len; i++)
        if (name[i] != option[i] && !(name[i] == '_' && option[i] == '-'))
            return false;
    return true;
}

static const struct option *find_name(const char *name, size_t len, enum command_bit bit)
{
    for (size_t i = 0; i < ARRAY_SIZE(table); i++)
        if ((table[i].commands & bit) && same_name(name, len, table[i].name))
            return &table[i];
    return NULL;
}

static const struct option *find_letter(char letter, enum command_bit bit)
{
    for (size_t i = 0; i < ARRAY_SIZE(table); i++)
        if ((table[i].commands & bit) && letter && table[i].letter == letter)
            return &table[i];
    return NULL;
}

static bool is_generic(const char *name, size_t len)
{
    if (len > 2 && (name[0] == 'x' || name[0] == 'X') && name[1] == '-')
        return true;
    if ((len == 7 && memcmp(name, "comment", 7) == 0))
        return true;
    for (size_t i = 0; i < ARRAY_SIZE(generic); i++)
        if (strlen(generic[i]) == len && memcmp(generic[i], name, len) == 0)
            return true;
    return false;
}

static bool takes_value(const struct option *option)
{
    return option->argument;
}

/* ---------------------------------------------------------------------------- words */

/* One "name", "no-name" or "name=value". `next` is the following word, or NULL; *ret_took tells
 * whether it was the value. `mark` is "--" or "-o ", for messages. */
static int parse_name(struct options *options, enum command_bit bit, const char *mark,
                      const char *word, const char *next, bool *ret_took)
{
    size_t len = strcspn(word, "=");
    const char *value = word[len] ? word + len + 1 : NULL;
    bool dashes = mark[1] == '-', on = true;
    const struct option *option = find_name(word, len, bit);

    *ret_took = false;
    if (!option && len > 3 && memcmp(word, "no", 2) == 0 && (word[2] == '-' || word[2] == '_')) {
        option = find_name(word + 3, len - 3, bit);
        on = false;
        if (option && option->kind != SWITCH)
            option = NULL;
    }
    if (!dashes && !option && is_generic(word, len))
        return 0;
    if (!option || (dashes && (option->kind == REFUSED || option->kind == FSTAB)))
        return msg_error(-EINVAL, "%s%.*s: there is no such option; see --help", mark,
                         (int)MIN(len, (size_t)100), word);
    if (!takes_value(option)) {
        if (value)
            return msg_error(-EINVAL, "%s%s: takes no value", mark, option->name);
        return options_set(options, option, NULL, on);
    }
    if (!value && dashes && next) {
        value = next;
        *ret_took = true;
    }
    if (!value)
        return msg_error(-EINVAL, "%s%s: needs a value: %s", mark, option->name, option->argument);
    return options_set(options, option, value, true);
}

/* Cuts the next item off a list "a=b,c"; "\," is a comma inside one. NULL at the end. */
static char *next_item(char **list)
{
    char *item = *list, *to = item, *from = item;

    if (!item)
        return NULL;
    for (; *from && *from != ','; from++) {
        if (from[0] == '\\' && from[1] == ',')
            from++;
        *to++ = *from;
    }
    *list = *from ? from + 1 : NULL;
    *to = 0;
    return item;
}

/* What follows -o. */
static int parse_list(struct options *options, enum command_bit bit, const char *text)
{
    bool took;
    char **copies = realloc(options->copies, (options->ncopies + 1) * sizeof *copies);

    if (!copies)
        return -ENOMEM;
    options->copies = copies;
    char *rest = copies[options->ncopies] = strdup(text);
    if (!rest)
        return -ENOMEM;
    options->ncopies++;
    for (char *item; (item = next_item(&rest));) {
        int r = *item ? parse_name(options, bit, "-o ", item, NULL, &took) : 0;
        if (r < 0)
            return r;
    }
    return 0;
}

/* "-fd", "-o a,b", "-oa,b". */
static int parse_letters(struct options *options, enum command_bit bit, const char *word,
                         const char *next, bool *ret_took)
{
    *ret_took = false;
    for (const char *p = word + 1; *p; p++) {
        if (*p == 'o' && (bit & COMMAND_MOUNT)) {
            const char *list = p[1] ? p + 1 : next;
            *ret_took = !p[1] && next;
            return list ? parse_list(options, bit, list)
                        : msg_error(-EINVAL, "-o: needs a list of options");
        }
        const struct option *option = find_letter(*p, bit);
        if (!option)
            return msg_error(-EINVAL, "-%c: there is no such option; see --help", *p);
        int r = options_set(options, option, NULL, true);
        if (r < 0)
            return r;
    }
    return 0;
}

int options_parse(int argc, char *const *argv, enum command_bit bit, unsigned max_args,
                  struct options *options)
{
    bool only_args = false, took;

    INVARIANT(max_args <= OPTIONS_ARGS_MAX);
    for (int i = 0; i < argc; i++) {
        const char *word = argv[i], *next = i + 1 < argc ? argv[i + 1] : NULL;
        int r = 0;

        took = false;
        if (!only_args && strcmp(word, "--") == 0)
            only_args = true;
        else if (!only_args && word[0] == '-' && word[1] == '-')
            r = parse_name(options, bit, "--", word + 2, next, &took);
        else if (!only_args && word[0] == '-' && word[1])
            r = parse_letters(options, bit, word, next, &took);
        else if (options->nargs == max_args)
            r = msg_error(-EINVAL, "%.100s: one argument too many; see --help", word);
        else
            options->args[options->nargs++] = word;
        if (r < 0)
            return r;
        i += took;
    }
    return 0;
}

/* ---------------------------------------------------------------------------- help */

/* `text` in lines of what is left of 80 columns beside the names. */
static void print_wrapped(FILE *out, const char *text)
{
    enum { INDENT = 26, WIDTH = 80 - INDENT };

    while (*text) {
        size_t n = strlen(text);
        if (n > WIDTH)
            for (n = WIDTH; n && text[n] != ' '; n--)
                ;
        fprintf(out, "%.*s\n", (int)n, text);
        text += n;
        text += strspn(text, " ");
        if (*text)
            fprintf(out, "%*s", INDENT, "");
    }
}

void options_print(FILE *out, enum command_bit bit)
{
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        const struct option *o = &table[i];
        char names[64];

        if (!(o->commands & bit) || o->kind == REFUSED || o->kind == FSTAB)
            continue;
        INVARIANT(format(names, sizeof names, "  %c%c%s --%s%s%s%s", o->letter ? '-' : ' ',
                         o->letter ? o->letter : ' ', o->letter ? "," : " ",
                         o->kind == SWITCH ? "[no-]" : "", o->name, o->argument ? " " : "",
                         o->argument ? o->argument : "") == 0);
        if (strlen(names) < 25)
            fprintf(out, "%-26s", names);
        else
            fprintf(out, "%s\n%26s", names, "");
        print_wrapped(out, o->help);
    }
    if (bit == COMMAND_MOUNT)
        fputs("  -o NAME[=VALUE],...     the same options as in fstab, without dashes in front\n",
              out);
}
