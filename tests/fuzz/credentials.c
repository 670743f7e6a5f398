/*
 * Credentials: input is a choice of settings, the length (2 bytes) of a credentials file, that
 * file, and a config file.
 */
#include "fuzz.h"

#include "../../store/credentials.h"

#include <ctype.h>
#include <sys/mman.h>

/* A file in memory that is named in the environment. */
static int open_file(const char *variable)
{
    char path[64];
    int fd = memfd_create("fuzz", MFD_CLOEXEC);

    INVARIANT(fd >= 0 && format(path, sizeof path, "/proc/self/fd/%d", fd) == 0);
    INVARIANT(setenv(variable, path, 1) == 0);
    return fd;
}

static void fill(int fd, const void *data, size_t len)
{
    INVARIANT(ftruncate(fd, 0) == 0 && pwrite(fd, data, len, 0) == (ssize_t)len);
}

static void set_up(int *ret_keys, int *ret_config)
{
    static const char *const variables[] = {"AWS_ACCESS_KEY_ID",   "AWS_SECRET_ACCESS_KEY",
                                            "AWS_SESSION_TOKEN",   "AWS_PROFILE",
                                            "AWS_REGION",          "AWS_DEFAULT_REGION",
                                            "AWS_ENDPOINT_URL",    "AWS_CA_BUNDLE",
                                            "AWS_ENDPOINT_URL_S3", "HOME"};

    for (size_t i = 0; i < ARRAY_SIZE(variables); i++)
        unsetenv(variables[i]);
    msg_set_sink(MSG_NONE);
    *ret_keys = open_file("AWS_SHARED_CREDENTIALS_FILE");
    *ret_config = open_file("AWS_CONFIG_FILE");
}

/* They go into the headers of requests. */
static void assert_clean(const char *text, size_t size)
{
    INVARIANT(memchr(text, 0, size));
    for (; *text; text++)
        INVARIANT(*text == '\t' || !iscntrl((unsigned char)*text));
}

static void check(struct credentials_source *source)
{
    struct credentials keys;

    credentials_get(source, &keys);
    INVARIANT(*keys.access_key && *keys.secret);
    assert_clean(keys.access_key, sizeof keys.access_key);
    assert_clean(keys.secret, sizeof keys.secret);
    assert_clean(keys.token, sizeof keys.token);
    credentials_wipe(&keys);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int keys_fd, config_fd;
    struct store_config config = {0};
    struct credentials_settings settings;
    struct credentials_source *source;
    struct input in = {data, size};

    if (!keys_fd)
        set_up(&keys_fd, &config_fd);
    unsigned choice = (unsigned)take_number(&in, 1);
    size_t keys_len = take_length(&in);
    config.profile = choice & 1 ? "work" : NULL;
    config.addressing = choice & 2 ? ADDRESSING_PATH : ADDRESSING_AUTO;
    fill(keys_fd, in.at, keys_len);
    fill(config_fd, in.at + keys_len, in.left - keys_len);
    int r = credentials_open(&config, &settings, &source);
    if (r < 0) {
        INVARIANT(r == -EACCES || r == -EINVAL);
        return 0;
    }
    assert_clean(settings.region, sizeof settings.region);
    assert_clean(settings.endpoint, sizeof settings.endpoint);
    assert_clean(settings.ca_file, sizeof settings.ca_file);
    INVARIANT(!(choice & 2) || settings.addressing == ADDRESSING_PATH);
    check(source);
    /* while they are being rewritten, what they said last still counts */
    fill(keys_fd, in.at, keys_len / 2);
    credentials_refused(source);
    check(source);
    credentials_free(source);
    return 0;
}
