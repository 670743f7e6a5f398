#include "options.h"

#include "../../fuse/units.h"
#include "../../store/msg.h"
#include "../../store/scope.h"

#include <getopt.h>
#include <string.h>

enum {
    CONNECTIONS_DEFAULT = 64,
    CONNECTIONS_MAX = 1024,
    GRACE_DEFAULT_MS = 30 * 1000,
};

enum kind {
    FLAG,     /* bool */
    TEXT,     /* const char * */
    UNIX,     /* one more of them */
    TCP,      /* the same */
    COUNT,    /* unsigned, from 1 to CONNECTIONS_MAX */
    DURATION, /* int64_t, ms */
    SIZE,     /* const char *, which must be a size */
};

static const struct entry {
    const char *name;
    char letter;
    enum kind kind;
    size_t offset; /* in struct options */
    const char *argument, *help;
} table[] = {
#define AT(field) offsetof(struct options, field)
    {"unix", 'u', UNIX, 0, "PATH",
     "listen on a Unix socket; the default, at /run/s3vol-nbd.sock for root, else at "
     "$XDG_RUNTIME_DIR/s3vol-nbd.sock"},
    {"listen", 'l', TCP, 0, "ADDR:PORT",
     "listen on TCP; loopback without ADDR, port 10809 without PORT; 0.0.0.0 or [::] for all"},
    {"stdin", 0, FLAG, AT(use_stdin), NULL,
     "serve one client on standard input and output, then end; for inetd and systemd's Accept=yes"},
    {"single", '1', FLAG, AT(single), NULL, "end when the first client has left"},
    {"read-only", 'r', FLAG, AT(read_only), NULL, "nobody writes"},
    {"tls-cert", 0, TEXT, AT(tls_cert), "FILE",
     "speak TLS only; this server's certificate and those above it, PEM"},
    {"tls-key", 0, TEXT, AT(tls_key), "FILE", "its key; in the same file if not said"},
    {"tls-ca", 0, TEXT, AT(tls_ca), "FILE",
     "serve only clients whose certificates these authorities have signed, PEM"},
    {"max-connections", 0, COUNT, AT(max_connections), "N",
     "serve so many clients at once, others wait; 64 by default, at most 1024"},
    {"pid-file", 0, TEXT, AT(pid_file), "FILE", "write the process id there when ready"},
    {"volumes", 0, TEXT, AT(volumes), "URL",
     "export each volume below URL under its name: mounted for its first client, unmounted after "
     "the last"},
    {"mount-dir", 0, TEXT, AT(mount_dir), "DIR", "where to mount them"},
    {"create-size", 0, SIZE, AT(create_size), "SIZE",
     "create so large what a client asks for and does not exist"},
    {"mount-options", 'o', TEXT, AT(mount_options), "LIST",
     "for s3vol mount -o, for example sync=cache,cache-size=20G"},
    {"grace", 0, DURATION, AT(grace_ms), "TIME",
     "unmount so long after the last client has left; 30s by default"},
    {"debug", 'd', FLAG, AT(debug), NULL, "say more on standard error"},
    {"help", 'h', FLAG, AT(help), NULL, "this text"},
    {"version", 'V', FLAG, AT(version), NULL, "the version"},
#undef AT
};

static int set(struct options *options, const struct entry *entry, const char *text)
{
    void *field = (char *)options + entry->offset;
    uint64_t n;

    switch (entry->kind) {
    case FLAG:
        *(bool *)field = true;
        return 0;
    case UNIX:
    case TCP:
        if (options->nunix + options->ntcp == LISTEN_MAX)
            return msg_error(-EINVAL, "--%s %s: there can be %d sockets", entry->name, text,
                             LISTEN_MAX);
        if (entry->kind == UNIX)
            options->unix_path[options->nunix++] = text;
        else
            options->tcp[options->ntcp++] = text;
        return 0;
    case COUNT:
        if (units_parse_count(text, &n) < 0 || n < 1 || n > CONNECTIONS_MAX)
            return msg_error(-EINVAL, "--%s %s: must be a number from 1 to %d", entry->name, text,
                             CONNECTIONS_MAX);
        *(unsigned *)field = (unsigned)n;
        return 0;
    case DURATION:
        if (units_parse_duration(text, field) < 0)
            return msg_error(
                -EINVAL, "--%s %s: not a time; write a whole number and ms, s, m or h, like 30s",
                entry->name, text);
        return 0;
    case SIZE:
        if (units_parse_size(text, &n) < 0)
            return msg_error(-EINVAL,
                             "--%s %s: not a size; write a whole number and K, M, G or T, like 10G",
                             entry->name, text);
        break;
    case TEXT:
        break;
    }
    if (!*text)
        return msg_error(-EINVAL, "--%s: must not be empty", entry->name);
    *(const char **)field = text;
    return 0;
}

/* What goes together, and what does not. */
static int check(const struct options *o)
{
    if (o->help || o->version)
        return 0;
    if (!o->nexports && !o->volumes)
        return msg_error(-EINVAL, "nothing to serve: give the path of an image, or --volumes");
    if (!o->volumes != !o->mount_dir)
        return msg_error(-EINVAL, "--volumes and --mount-dir go together");
    if (!o->volumes && (o->create_size || o->mount_options))
        return msg_error(-EINVAL, "--create-size and --mount-options need --volumes");
    if (!o->tls_cert && (o->tls_key || o->tls_ca))
        return msg_error(-EINVAL, "--tls-key and --tls-ca need --tls-cert");
    if (o->use_stdin && (o->nunix || o->ntcp))
        return msg_error(-EINVAL, "--stdin goes with neither --unix nor --listen");
    return 0;
}

int options_parse(int argc, char **argv, struct options *ret_options)
{
    struct option longs[ARRAY_SIZE(table) + 1] = {0};
    char shorts[2 * ARRAY_SIZE(table) + 2] = ":";
    struct options o = {.max_connections = CONNECTIONS_DEFAULT, .grace_ms = GRACE_DEFAULT_MS};
    size_t len = strlen(shorts);
    int c;

    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        longs[i] = (struct option){table[i].name, table[i].argument ? 1 : 0, NULL, 256 + (int)i};
        if (table[i].letter)
            shorts[len++] = table[i].letter;
        if (table[i].letter && table[i].argument)
            shorts[len++] = ':';
    }
    while ((c = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
        const char *word = argv[optind - 1];
        if (c == ':')
            return msg_error(-EINVAL, "%s: a value is missing", word);
        if (c == '?')
            return msg_error(-EINVAL,
                             "%s: there is no such option, or it takes no value; see --help", word);
        size_t i = c >= 256 ? (size_t)c - 256 : 0;
        while (c < 256 && table[i].letter != c)
            i++;
        if (set(&o, &table[i], optarg) < 0)
            return -EINVAL;
    }
    o.exports = argv + optind;
    o.nexports = (unsigned)(argc - optind);
    if (check(&o) < 0)
        return -EINVAL;
    *ret_options = o;
    return 0;
}

/* Prints `text` in lines of at most 80 characters that begin at column `indent`. */
static void print_wrapped(const char *text, int indent)
{
    int column = indent;

    while (*text) {
        int word = (int)strcspn(text, " ");
        if (column > indent && column + word > 80) {
            printf("\n%*s", indent, "");
            column = indent;
        }
        printf("%s%.*s", column > indent ? " " : "", word, text);
        column += word + 1;
        text += word + (text[word] == ' ');
    }
    putchar('\n');
}

void options_print(void)
{
    enum { INDENT = 28 };

    puts("usage: s3vol-nbd [OPTIONS] [NAME=]IMAGE...\n"
         "       s3vol-nbd [OPTIONS] --volumes URL --mount-dir DIR\n"
         "Serves image files and block devices to NBD clients.\n");
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        char letter[8] = "    ";
        if (table[i].letter)
            (void)snprintf(letter, sizeof letter, "-%c, ", table[i].letter);
        int n = printf("  %s--%s %s", letter, table[i].name,
                       table[i].argument ? table[i].argument : "");
        if (n >= INDENT)
            printf("\n%*s", INDENT, "");
        else
            printf("%*s", INDENT - n, "");
        print_wrapped(table[i].help, INDENT);
    }
}
