/*
 * Keys, region and endpoint from the environment and the shared files, in the AWS CLI's order; the
 * files' format; renewal while in use.
 */
#include "../../store/credentials.h"
#include "../../store/ini.h"
#include "../../store/msg.h"
#include "../../store/scope.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

static char home[] = "/tmp/test_credentials.XXXXXX";
static char keys_path[64], config_path[64];

static const char *const variables[] = {
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",          "AWS_PROFILE",
    "AWS_REGION",        "AWS_DEFAULT_REGION",    "AWS_ENDPOINT_URL_S3",        "AWS_ENDPOINT_URL",
    "AWS_CA_BUNDLE",     "AWS_CONFIG_FILE",       "AWS_SHARED_CREDENTIALS_FILE"};

static void write_file(const char *path, const char *text)
{
    scope_close int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

/* Nothing set, no files. */
static int set_up(void **state)
{
    char dir[64];

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(variables); i++)
        unsetenv(variables[i]);
    setenv("HOME", home, 1);
    assert_int_equal(format(dir, sizeof dir, "%s/.aws", home), 0);
    assert_int_equal(format(keys_path, sizeof keys_path, "%s/credentials", dir), 0);
    assert_int_equal(format(config_path, sizeof config_path, "%s/config", dir), 0);
    (void)mkdir(dir, 0700);
    unlink(keys_path);
    unlink(config_path);
    return 0;
}

static struct credentials_settings settings;
static struct credentials keys;
static char origin[512];

/* Opens, takes what there is, frees. */
static int look(const struct store_config *config)
{
    const struct store_config none = {.endpoint = NULL};
    struct credentials_source *source;
    int r = credentials_open(config ? config : &none, &settings, &source);

    if (!r) {
        credentials_get(source, &keys);
        assert_int_equal(format(origin, sizeof origin, "%s", credentials_origin(source)), 0);
        credentials_free(source);
    }
    return r;
}

/* Fails with these words in the message, and without the secret. */
static void expect_error(const struct store_config *config, int err, const char *words)
{
    char text[512];

    assert_int_equal(look(config), err);
    msg_last_error(text, sizeof text);
    if (!strstr(text, words))
        print_error("message: %s\n", text);
    assert_non_null(strstr(text, words));
    assert_null(strstr(text, "S3CRET"));
}

static void expect_keys(const struct store_config *config, const char *id, const char *secret,
                        const char *token)
{
    assert_int_equal(look(config), 0);
    assert_string_equal(keys.access_key, id);
    assert_string_equal(keys.secret, secret);
    assert_string_equal(keys.token, token);
}

/* ------------------------------------------------------------------ the format */

static const char ini[] = "# comment\n"
                          "stray = 1\n"
                          "[ default ] # here too\n"
                          "a=1\r\n"
                          "b = two words  \r\n"
                          "c = x#y=z\n"
                          "empty =\n"
                          "; d = no\n"
                          "e\n"
                          "[profile\t x]\n"
                          "  a = 3\n"
                          "  s3 =\n"
                          "    a = nested\n"
                          "    # comment\n"
                          "\n"
                          "\t\t\taddressing_style = path\n"
                          "  b = 4\n"
                          "    a = continuation\n"
                          "[default]\n"
                          "a = 5\n"
                          "[broken\n"
                          "f = 6";

static const char *find(const char *section, const char *key, const char *sub)
{
    static char value[64];

    return ini_find(ini, sizeof ini - 1, section, key, sub, value, sizeof value) == 0 ? value
                                                                                      : NULL;
}

static void test_ini(void **state)
{
    char small[4];

    (void)state;
    assert_string_equal(find("default", "a", NULL), "5"); /* the last one counts */
    assert_string_equal(find("default", "b", NULL), "two words");
    assert_string_equal(find("default", "c", NULL), "x#y=z");
    assert_string_equal(find("default", "f", NULL), "6");
    assert_string_equal(find("profile x", "a", NULL), "3");
    assert_string_equal(find("profile x", "b", NULL), "4");
    assert_string_equal(find("profile x", "s3", "a"), "nested");
    assert_string_equal(find("profile x", "s3", "addressing_style"), "path");
    assert_null(find("profile x", "b", "a"));
    assert_null(find("default", "empty", NULL));
    assert_null(find("default", "d", NULL));
    assert_null(find("default", "; d", NULL));
    assert_null(find("default", "e", NULL));
    assert_null(find("default", "stray", NULL));
    assert_null(find("default", "s3", "a"));
    assert_null(find("x", "a", NULL));
    assert_true(ini_has_section(ini, sizeof ini - 1, "profile x"));
    assert_false(ini_has_section(ini, sizeof ini - 1, "profile"));
    assert_false(ini_has_section(ini, sizeof ini - 1, "broken"));
    assert_int_equal(ini_find(ini, sizeof ini - 1, "default", "c", NULL, small, sizeof small),
                     -ENAMETOOLONG);
    assert_int_equal(ini_find("[a]\nb=c\0d", 9, "a", "b", NULL, small, sizeof small), -ENOENT);
    assert_int_equal(ini_find("", 0, "a", "b", NULL, small, sizeof small), -ENOENT);
}

/* ------------------------------------------------------------------ keys */

static void test_nothing_anywhere(void **state)
{
    (void)state;
    expect_error(NULL, -EACCES, keys_path);
    expect_error(NULL, -EACCES, config_path);
    expect_error(NULL, -EACCES, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY");
    setenv("AWS_ACCESS_KEY_ID", "", 1); /* counts as not set */
    expect_error(NULL, -EACCES, "no credentials");
}

static void test_environment(void **state)
{
    (void)state;
    setenv("AWS_ACCESS_KEY_ID", "ID", 1);
    expect_error(NULL, -EACCES, "AWS_ACCESS_KEY_ID is set, but AWS_SECRET_ACCESS_KEY is not");
    setenv("AWS_SECRET_ACCESS_KEY", "S3CRET", 1);
    expect_keys(NULL, "ID", "S3CRET", "");
    assert_string_equal(origin, "the environment");
    setenv("AWS_SESSION_TOKEN", "TOKEN", 1);
    expect_keys(NULL, "ID", "S3CRET", "TOKEN");
    unsetenv("AWS_ACCESS_KEY_ID");
    expect_error(NULL, -EACCES, "AWS_SECRET_ACCESS_KEY is set, but AWS_ACCESS_KEY_ID is not");
}

static const char two_profiles[] = "[default]\naws_access_key_id = ID1\n"
                                   "aws_secret_access_key = S3CRET/1+=\n"
                                   "[work]\naws_access_key_id=ID2\naws_secret_access_key=S3CRET2\n"
                                   "aws_session_token=TOKEN2\n";

static void test_profiles(void **state)
{
    const struct store_config work = {.profile = "work"}, none = {.profile = "none"};

    (void)state;
    write_file(keys_path, two_profiles);
    expect_keys(NULL, "ID1", "S3CRET/1+=", "");
    assert_non_null(strstr(origin, "profile 'default' in "));
    assert_non_null(strstr(origin, keys_path));
    expect_keys(&work, "ID2", "S3CRET2", "TOKEN2");
    expect_error(&none, -EACCES, "there is no profile 'none'");

    setenv("AWS_PROFILE", "work", 1);
    expect_keys(NULL, "ID2", "S3CRET2", "TOKEN2");
    setenv("AWS_ACCESS_KEY_ID", "ENV", 1);
    setenv("AWS_SECRET_ACCESS_KEY", "S3CRET3", 1);
    expect_keys(NULL, "ENV", "S3CRET3", ""); /* before AWS_PROFILE */
    expect_keys(&work, "ID2", "S3CRET2", "TOKEN2");
}

static void test_keys_in_the_config_file(void **state)
{
    const struct store_config work = {.profile = "work"};

    (void)state;
    write_file(config_path, "[default]\naws_access_key_id = ID1\naws_secret_access_key = S3CRET1\n"
                            "[profile work]\naws_access_key_id = ID2\n"
                            "aws_secret_access_key = S3CRET2\n"
                            "[work]\naws_access_key_id = NO\naws_secret_access_key = NO\n");
    expect_keys(NULL, "ID1", "S3CRET1", "");
    expect_keys(&work, "ID2", "S3CRET2", "");
    assert_non_null(strstr(origin, config_path));
    write_file(keys_path, "[work]\naws_access_key_id = ID3\naws_secret_access_key = S3CRET3\n");
    expect_keys(&work, "ID3", "S3CRET3", "");
    write_file(keys_path, "[work]\naws_access_key_id = ID3\n"); /* half is none */
    expect_keys(&work, "ID2", "S3CRET2", "");
}

static void test_files_elsewhere(void **state)
{
    char path[96];

    (void)state;
    assert_int_equal(format(path, sizeof path, "%s/elsewhere", home), 0);
    write_file(path, two_profiles);
    setenv("AWS_SHARED_CREDENTIALS_FILE", path, 1);
    expect_keys(NULL, "ID1", "S3CRET/1+=", "");
    setenv("AWS_SHARED_CREDENTIALS_FILE", "~/elsewhere", 1);
    expect_keys(NULL, "ID1", "S3CRET/1+=", "");
    write_file(path, "[default]\nregion = nowhere-1\n");
    setenv("AWS_CONFIG_FILE", path, 1);
    setenv("AWS_ACCESS_KEY_ID", "ID", 1);
    setenv("AWS_SECRET_ACCESS_KEY", "S3CRET", 1);
    assert_int_equal(look(NULL), 0);
    assert_string_equal(settings.region, "nowhere-1");
    unlink(path);
}

static void test_profiles_that_need_another_service(void **state)
{
    static const char *const lines[] = {"role_arn = arn:aws:iam::1:role/x", "sso_session = x",
                                        "sso_start_url = https://x", "credential_process = /bin/x"};
    char text[128], words[64];

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
        assert_int_equal(format(text, sizeof text, "[default]\n%s\n", lines[i]), 0);
        write_file(config_path, text);
        assert_int_equal(format(words, sizeof words, "through %.*s, which is not supported yet",
                                (int)strcspn(lines[i], " "), lines[i]),
                         0);
        expect_error(NULL, -EACCES, words);
    }
    /* Keys of its own go before a process, but not before a role. */
    write_file(keys_path, two_profiles);
    expect_keys(NULL, "ID1", "S3CRET/1+=", "");
    write_file(config_path, "[default]\nrole_arn = x\n");
    expect_error(NULL, -EACCES, "role_arn");
}

/* ------------------------------------------------------------------ renewal */

static void expect_now(struct credentials_source *source, const char *id)
{
    credentials_get(source, &keys);
    assert_string_equal(keys.access_key, id);
}

static void test_keys_are_renewed(void **state)
{
    const struct store_config none = {.endpoint = NULL};
    struct credentials_source *source;

    (void)state;
    write_file(keys_path, two_profiles);
    assert_int_equal(credentials_open(&none, &settings, &source), 0);
    expect_now(source, "ID1");
    write_file(keys_path, "[default]\naws_access_key_id = NEW\naws_secret_access_key = S3CRET9\n");
    expect_now(source, "NEW");
    assert_string_equal(keys.secret, "S3CRET9");
    write_file(keys_path, "[default]\naws_access_"); /* being rewritten */
    expect_now(source, "NEW");
    unlink(keys_path);
    expect_now(source, "NEW");
    write_file(config_path,
               "[default]\naws_access_key_id = CONF\naws_secret_access_key = S3CRET\n");
    expect_now(source, "CONF");
    credentials_free(source);
}

/* The same size, time and inode: only a refusal makes us look again. */
static void test_a_refusal_makes_it_look_again(void **state)
{
    const struct store_config none = {.endpoint = NULL};
    const char *text = "[default]\naws_access_key_id = OLD\naws_secret_access_key = S3CRET\n";
    struct credentials_source *source;
    struct stat st;

    (void)state;
    write_file(keys_path, text);
    assert_int_equal(stat(keys_path, &st), 0);
    assert_int_equal(credentials_open(&none, &settings, &source), 0);
    write_file(keys_path, "[default]\naws_access_key_id = NEW\naws_secret_access_key = S3CRET\n");
    assert_int_equal(utimensat(AT_FDCWD, keys_path, (struct timespec[]){st.st_atim, st.st_mtim}, 0),
                     0);
    expect_now(source, "OLD");
    credentials_refused(source);
    expect_now(source, "NEW");
    credentials_free(source);
}

static void *get_often(void *ctx)
{
    struct credentials mine;

    for (int i = 0; i < 200; i++) {
        credentials_get(ctx, &mine);
        if (strcmp(mine.access_key, "A") != 0 && strcmp(mine.access_key, "B") != 0)
            return ctx;
    }
    return NULL;
}

static void test_renewal_with_threads(void **state)
{
    static const char *const texts[] = {
        "[default]\naws_access_key_id = A\naws_secret_access_key = S3CRET\n",
        "[default]\naws_access_key_id = B\naws_secret_access_key = S3CRET22\n"};
    const struct store_config none = {.endpoint = NULL};
    struct credentials_source *source;
    pthread_t threads[4];
    void *failed;

    (void)state;
    write_file(keys_path, texts[0]);
    assert_int_equal(credentials_open(&none, &settings, &source), 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, get_often, source), 0);
    for (int i = 0; i < 50; i++) {
        write_file(keys_path, texts[i % 2]);
        credentials_refused(source);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    expect_now(source, "B");
    credentials_free(source);
}

/* ------------------------------------------------------------------ the other settings */

static void test_region_and_endpoint(void **state)
{
    const struct store_config said = {
        .region = "r-said", .endpoint = "http://said", .ca_file = "/c"};

    (void)state;
    setenv("AWS_ACCESS_KEY_ID", "ID", 1);
    setenv("AWS_SECRET_ACCESS_KEY", "S3CRET", 1);
    assert_int_equal(look(NULL), 0);
    assert_string_equal(settings.region, "");
    assert_string_equal(settings.endpoint, "");
    assert_string_equal(settings.ca_file, "");

    write_file(config_path, "[default]\nregion = r-file\nendpoint_url = http://file\n"
                            "ca_bundle = /file\n");
    assert_int_equal(look(NULL), 0);
    assert_string_equal(settings.region, "r-file");
    assert_string_equal(settings.endpoint, "http://file");
    assert_string_equal(settings.ca_file, "/file");

    write_file(config_path, "[default]\nservices = mine\nendpoint_url = http://file\n"
                            "[services mine]\ns3 =\n  endpoint_url = http://service\n");
    assert_int_equal(look(NULL), 0);
    assert_string_equal(settings.endpoint, "http://service");

    setenv("AWS_DEFAULT_REGION", "r-default", 1);
    setenv("AWS_ENDPOINT_URL", "http://url", 1);
    setenv("AWS_CA_BUNDLE", "/env", 1);
    assert_int_equal(look(NULL), 0);
    assert_string_equal(settings.region, "r-default");
    assert_string_equal(settings.endpoint, "http://url");
    assert_string_equal(settings.ca_file, "/env");

    setenv("AWS_REGION", "r-env", 1);
    setenv("AWS_ENDPOINT_URL_S3", "http://s3", 1);
    assert_int_equal(look(NULL), 0);
    assert_string_equal(settings.region, "r-env");
    assert_string_equal(settings.endpoint, "http://s3");

    assert_int_equal(look(&said), 0);
    assert_string_equal(settings.region, "r-said");
    assert_string_equal(settings.endpoint, "http://said");
    assert_string_equal(settings.ca_file, "/c");
}

/* As a daemon does, that goes to the background between these. */
static void test_relative_paths(void **state)
{
    const struct store_config none = {.endpoint = NULL};
    const struct store_config said = {.ca_file = "said.pem"};
    struct credentials_source *source;
    char here[1024], path[1100];

    (void)state;
    assert_non_null(getcwd(here, sizeof here));
    assert_int_equal(chdir(home), 0);
    setenv("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials", 1);
    setenv("AWS_CONFIG_FILE", ".aws/config", 1);
    write_file(keys_path, "[default]\naws_access_key_id = K1\naws_secret_access_key = S1\n");
    write_file(config_path, "[default]\nca_bundle = sub/file.pem\n");
    assert_int_equal(format(path, sizeof path, "%s/sub/file.pem", home), 0);
    assert_int_equal(look(NULL), 0);
    assert_string_equal(settings.ca_file, path);
    setenv("AWS_CA_BUNDLE", "env.pem", 1);
    assert_int_equal(format(path, sizeof path, "%s/env.pem", home), 0);
    assert_int_equal(look(NULL), 0);
    assert_string_equal(settings.ca_file, path);
    assert_int_equal(format(path, sizeof path, "%s/said.pem", home), 0);
    assert_int_equal(look(&said), 0);
    assert_string_equal(settings.ca_file, path);

    assert_int_equal(credentials_open(&none, &settings, &source), 0);
    assert_int_equal(chdir("/"), 0);
    write_file(keys_path, "[default]\naws_access_key_id = K22\naws_secret_access_key = S2\n");
    credentials_get(source, &keys);
    assert_string_equal(keys.access_key, "K22");
    credentials_free(source);
    assert_int_equal(chdir(here), 0);
}

static void test_addressing(void **state)
{
    const struct store_config virtual = {.addressing = ADDRESSING_VIRTUAL};

    (void)state;
    setenv("AWS_ACCESS_KEY_ID", "ID", 1);
    setenv("AWS_SECRET_ACCESS_KEY", "S3CRET", 1);
    assert_int_equal(look(NULL), 0);
    assert_int_equal(settings.addressing, ADDRESSING_AUTO);
    write_file(config_path, "[default]\ns3 =\n  addressing_style = path\n");
    assert_int_equal(look(NULL), 0);
    assert_int_equal(settings.addressing, ADDRESSING_PATH);
    assert_int_equal(look(&virtual), 0);
    assert_int_equal(settings.addressing, ADDRESSING_VIRTUAL);
    write_file(config_path, "[default]\ns3 =\n  addressing_style = sideways\n");
    expect_error(NULL, -EINVAL, "'sideways'");
}

static int remove_home(void **state)
{
    char dir[64];

    set_up(state);
    assert_int_equal(format(dir, sizeof dir, "%s/.aws", home), 0);
    rmdir(dir);
    rmdir(home);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ini),
        cmocka_unit_test_setup(test_nothing_anywhere, set_up),
        cmocka_unit_test_setup(test_environment, set_up),
        cmocka_unit_test_setup(test_profiles, set_up),
        cmocka_unit_test_setup(test_keys_in_the_config_file, set_up),
        cmocka_unit_test_setup(test_files_elsewhere, set_up),
        cmocka_unit_test_setup(test_profiles_that_need_another_service, set_up),
        cmocka_unit_test_setup(test_keys_are_renewed, set_up),
        cmocka_unit_test_setup(test_a_refusal_makes_it_look_again, set_up),
        cmocka_unit_test_setup(test_renewal_with_threads, set_up),
        cmocka_unit_test_setup(test_region_and_endpoint, set_up),
        cmocka_unit_test_setup(test_relative_paths, set_up),
        cmocka_unit_test_setup(test_addressing, set_up),
    };

    msg_set_sink(MSG_NONE);
    if (!mkdtemp(home))
        return 1;
    return cmocka_run_group_tests(tests, NULL, remove_home);
}
