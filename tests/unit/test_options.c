/* The command line: what each way of writing an option does, and what is refused. */
#include "../../fuse/mount_helper.h"
#include "../../fuse/options.h"
#include "../../store/msg.h"
#include "../../store/scope.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

enum { WORDS_MAX = 16 };

/* Parses the words, up to a NULL, as those behind the command `bit`. */
static int parse(struct options *options, enum command_bit bit, const char *first, ...)
{
    char *words[WORDS_MAX];
    int n = 0;
    va_list ap;

    va_start(ap, first);
    for (const char *w = first; w; w = va_arg(ap, const char *))
        words[n++] = (char *)w;
    va_end(ap);
    options_init(options);
    return options_parse(n, words, bit, 2, options);
}

/* It is refused, and the message contains `text`. */
#define REFUSED(text, bit, ...)                                                                    \
    do {                                                                                           \
        struct options o_;                                                                         \
        char said_[512];                                                                           \
        assert_int_equal(parse(&o_, bit, __VA_ARGS__, NULL), -EINVAL);                             \
        options_free(&o_);                                                                         \
        msg_last_error(said_, sizeof said_);                                                       \
        if (!strstr(said_, text))                                                                  \
            fail_msg("\"%s\" does not contain \"%s\"", said_, text);                               \
    } while (0)

static void defaults(void **state)
{
    struct volume_config want;
    struct options o;

    (void)state;
    volume_config_init(&want);
    assert_int_equal(parse(&o, COMMAND_MOUNT, "s3://b/v", "/mnt", NULL), 0);
    assert_int_equal(o.nargs, 2);
    assert_string_equal(o.args[0], "s3://b/v");
    assert_string_equal(o.args[1], "/mnt");
    assert_null(o.volume.cache_dir);
    assert_int_equal(o.volume.timeout_ms, want.timeout_ms);
    assert_int_equal(o.volume.uploads, want.uploads);
    assert_int_equal(o.volume.sync, SYNC_BUCKET);
    assert_true(o.direct_io);
    assert_false(o.foreground);
    options_free(&o);
    assert_int_equal(parse(&o, COMMAND_CREATE, "v", NULL), 0);
    assert_int_equal(o.create.size_bytes, 0);
    assert_true(o.create.compress);
}

static void check_all(const struct options *o)
{
    assert_string_equal(o->volume.cache_dir, "/c");
    assert_int_equal(o->volume.cache_bytes, UINT64_C(2) << 30);
    assert_int_equal(o->volume.dirty_bytes, 8 << 20);
    assert_int_equal(o->volume.readahead_bytes, 0);
    assert_int_equal(o->volume.sync, SYNC_CACHE);
    assert_int_equal(o->volume.timeout_ms, 30000);
    assert_int_equal(o->volume.writeback_ms, 250);
    assert_int_equal(o->volume.uploads, 3);
    assert_int_equal(o->volume.downloads, 7);
    assert_false(o->volume.compress);
    assert_true(o->volume.discard_local);
    assert_true(o->allow_other);
    assert_false(o->direct_io);
    assert_string_equal(o->store.endpoint, "http://h:1");
    assert_string_equal(o->store.region, "r");
    assert_string_equal(o->store.profile, "p");
    assert_string_equal(o->store.ca_file, "/a,b");
    assert_int_equal(o->store.addressing, ADDRESSING_VIRTUAL);
    assert_int_equal(o->store.connect_timeout_ms, 1000);
    assert_int_equal(o->store.stall_timeout_ms, 2000);
    assert_int_equal(o->nargs, 2);
}

static void same_in_all_places(void **state)
{
    static char *words[] = {"--cache-dir",
                            "/c",
                            "--cache-size=2G",
                            "--dirty-limit",
                            "8M",
                            "--read-ahead",
                            "0",
                            "--sync",
                            "cache",
                            "--timeout",
                            "30s",
                            "--writeback-delay",
                            "250ms",
                            "--uploads",
                            "3",
                            "--downloads",
                            "7",
                            "s3://b/v",
                            "--no-compress",
                            "--discard-local",
                            "--allow-other",
                            "--no-direct-io",
                            "--endpoint",
                            "http://h:1",
                            "--region",
                            "r",
                            "--profile",
                            "p",
                            "--ca-file",
                            "/a,b",
                            "--addressing",
                            "virtual",
                            "--connect-timeout",
                            "1",
                            "--stall-timeout",
                            "2",
                            "/mnt"};
    static const char list[] =
        "rw,cache-dir=/c,cache_size=2G,dirty-limit=8M,read-ahead=0,sync=cache,timeout=30s,"
        "writeback-delay=250ms,uploads=3,downloads=7,no-compress,discard-local,allow_other,"
        "no_direct_io,noatime,_netdev,endpoint=http://h:1,region=r,profile=p,ca-file=/a\\,b,"
        "addressing=virtual,connect-timeout=1,stall-timeout=2,x-systemd.automount,nofail";
    struct options o;

    (void)state;
    options_init(&o);
    assert_int_equal(options_parse(ARRAY_SIZE(words), words, COMMAND_MOUNT, 2, &o), 0);
    check_all(&o);
    options_free(&o);
    assert_int_equal(parse(&o, COMMAND_MOUNT, "s3://b/v", "/mnt", "-o", list, NULL), 0);
    check_all(&o);
    options_free(&o);
}

static void letters_and_lists(void **state)
{
    struct options o;

    (void)state;
    assert_int_equal(parse(&o, COMMAND_MOUNT, "-fd", "-ouploads=5", "u", "-o", "downloads=6,,",
                           "--", "-d", NULL),
                     0);
    assert_true(o.foreground && o.debug);
    assert_int_equal(o.volume.uploads, 5);
    assert_int_equal(o.volume.downloads, 6);
    assert_string_equal(o.args[1], "-d");
    options_free(&o);
    /* The last one counts. */
    assert_int_equal(parse(&o, COMMAND_MOUNT, "--uploads=1", "-o", "uploads=2", "--uploads", "3",
                           "--no-compress", "--compress", NULL),
                     0);
    assert_int_equal(o.volume.uploads, 3);
    assert_true(o.volume.compress);
    options_free(&o);
    assert_int_equal(parse(&o, COMMAND_MOUNT, "--timeout=forever", NULL), 0);
    assert_true(o.volume.timeout_ms == STORE_FOREVER);
    assert_int_equal(parse(&o, COMMAND_STATUS, "--json", "-h", "d", NULL), 0);
    assert_true(o.json && o.help);
}

static void generic_options(void **state)
{
    struct options o;

    (void)state;
    assert_int_equal(parse(&o, COMMAND_MOUNT, "-o",
                           "rw,auto,noauto,nofail,_netdev,user=joe,users,defaults,dev,nodev,suid,"
                           "nosuid,exec,noexec,relatime,noatime,x-gvfs-show,comment=hello",
                           NULL),
                     0);
    options_free(&o);
    REFUSED("--size", COMMAND_MOUNT, "--size", "1G");
    REFUSED("nofail", COMMAND_MOUNT, "--nofail");
    REFUSED("--ro", COMMAND_MOUNT, "--ro");
    REFUSED("remount", COMMAND_MOUNT, "-o", "remount");
    REFUSED("-o sync: needs a value", COMMAND_MOUNT, "-o", "sync");
    REFUSED("-o", COMMAND_STATUS, "-o", "json");
}

static void read_only(void **state)
{
    struct options o;

    (void)state;
    assert_int_equal(parse(&o, COMMAND_MOUNT, "-o", "rw", NULL), 0);
    assert_false(o.volume.read_only);
    options_free(&o);
    assert_int_equal(parse(&o, COMMAND_MOUNT, "-o", "ro,follow=5s,cache-size=1G", NULL), 0);
    assert_true(o.volume.read_only);
    assert_int_equal(o.volume.follow_ms, 5000);
    assert_null(o.for_writing);
    options_free(&o);
    assert_int_equal(parse(&o, COMMAND_MOUNT, "--read-only", "--sync", "bucket", NULL), 0);
    assert_string_equal(o.for_writing, "sync");
    options_free(&o);
    assert_int_equal(parse(&o, COMMAND_MOUNT, "--read-only", "--no-gc", NULL), 0);
    assert_string_equal(o.for_writing, "gc");
    options_free(&o);
    REFUSED("--follow", COMMAND_MOUNT, "--follow", "0s");
}

static void refusals(void **state)
{
    (void)state;
    REFUSED("--frob", COMMAND_MOUNT, "--frob");
    REFUSED("frob", COMMAND_MOUNT, "-o", "frob=1");
    REFUSED("-x", COMMAND_MOUNT, "-fx");
    REFUSED("--no-json", COMMAND_STATUS, "--no-json");
    REFUSED("takes no value", COMMAND_STATUS, "--json=yes");
    REFUSED("needs a value", COMMAND_MOUNT, "--uploads");
    REFUSED("one of auto|path|virtual", COMMAND_MOUNT, "--addressing=pat");
    REFUSED("one of", COMMAND_MOUNT, "--sync", "bucket|cache");
    REFUSED("from 1 to 64", COMMAND_MOUNT, "--uploads=0");
    REFUSED("from 1 to 64", COMMAND_MOUNT, "--uploads=65");
    REFUSED("from 1 to 64", COMMAND_MOUNT, "--uploads=99999999999999999999");
    REFUSED("not a number", COMMAND_MOUNT, "--uploads=4K");
    REFUSED("from 16.0 MiB", COMMAND_MOUNT, "--cache-size=16777215");
    REFUSED("not a time", COMMAND_MOUNT, "--timeout=never");
    REFUSED("at least 1 s", COMMAND_MOUNT, "--timeout=10ms");
    REFUSED("multiple of 4096", COMMAND_CREATE, "--size=1048577");
    REFUSED("from 1.0 MiB to 8.0 EiB", COMMAND_CREATE, "--size=1000");
    REFUSED("too many", COMMAND_MOUNT, "a", "b", "c");
    REFUSED("must not be empty", COMMAND_MOUNT, "--cache-dir=");
}

/* The words that the command mount gets of a call by mount(8), joined by '|'; "-": it is none. */
static void check_helper(const char *want, int code, int fake, ...)
{
    struct mount_helper helper = {0};
    char *words[WORDS_MAX], got[256] = "";
    int n = 0;
    va_list ap;

    va_start(ap, fake);
    for (char *w; (w = va_arg(ap, char *));)
        words[n++] = w;
    va_end(ap);
    if (!mount_helper_parse(n, words, &helper)) {
        assert_string_equal("-", want);
        return;
    }
    for (int i = 0; i < helper.argc; i++) {
        strcat(got, i ? "|" : "");
        strcat(got, helper.argv[i]);
    }
    assert_int_equal(helper.code, code);
    assert_int_equal(helper.fake, fake);
    if (!code)
        assert_string_equal(got, want);
}

static void mount_helpers(void **state)
{
    (void)state;
    check_helper("-", 0, false, "s3vol", "mount", "u", "/m", NULL);
    check_helper("-", 0, false, "/usr/bin/s3vol", "status", "/mnt", NULL);
    check_helper("u|/m|-o|rw,sync=cache", 0, false, "/sbin/mount.fuse.s3vol", "u", "/m", "-o",
                 "rw,sync=cache", NULL);
    check_helper("u|/m|-o|rw", 0, true, "mount.s3vol", "u", "/m", "-sfnv", "-t", "fuse.s3vol", "-N",
                 "/ns", "-orw", NULL);
    check_helper("s3://b/v|/m|-o|rw", 0, false, "s3vol", "s3://b/v", "/m", "-o", "rw", NULL);
    check_helper("./v|m", 0, false, "s3vol", "./v", "m", NULL);
    check_helper("", 2, false, "mount.fuse.s3vol", "u", "/m", "-o", NULL);
    check_helper("", 2, false, "mount.fuse.s3vol", "u", "/m", "-q", NULL);
    check_helper("--help", 0, false, "mount.fuse.s3vol", "--help", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),          cmocka_unit_test(same_in_all_places),
        cmocka_unit_test(letters_and_lists), cmocka_unit_test(generic_options),
        cmocka_unit_test(read_only),         cmocka_unit_test(refusals),
        cmocka_unit_test(mount_helpers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
