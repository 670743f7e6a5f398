#include "credentials.h"

#include "ini.h"
#include "msg.h"
#include "scope.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <pwd.h>
#include <string.h>
#include <sys/stat.h>

enum { FILE_MAX = 1 << 20, PATH_SIZE = 1024, PROFILE_SIZE = 128 };

/* One of the two shared files, as it was when last read. */
struct file {
    char path[PATH_SIZE];
    char *text; /* only while we look something up: it holds secrets */
    size_t len;
    struct timespec changed; /* these three: which version of the file it was; zero: none */
    off_t size;
    ino_t inode;
};

struct credentials_source {
    char profile[PROFILE_SIZE];
    bool from_environment; /* then the files are never looked at again */
    char origin[PATH_SIZE + PROFILE_SIZE + 64];

    struct file keys, config; /* their paths never change */

    pthread_mutex_t lock; /* guards the files' versions, and what follows */
    struct credentials now;
    bool again;    /* the server refused what we have */
    bool renewing; /* a thread is reading the files */
};

void credentials_wipe(struct credentials *credentials)
{
    OPENSSL_cleanse(credentials, sizeof *credentials);
}

/* A variable that is set to nothing counts as not set. */
static const char *env(const char *name)
{
    const char *value = getenv(name);

    return value && *value ? value : NULL;
}

static const char *first_of(const char *a, const char *b, const char *c)
{
    return a && *a ? a : b ? b : c;
}

/* ------------------------------------------------------------------ the files */

static int home_dir(char *buf, size_t size_bytes)
{
    const char *home = env("HOME");
    struct passwd entry, *found = NULL;
    char strings[4096];

    if (!home && getpwuid_r(geteuid(), &entry, strings, sizeof strings, &found) == 0 && found)
        home = found->pw_dir;
    return format(buf, size_bytes, "%s", home ? home : "");
}

/* The path as it is from everywhere: a daemon leaves the working directory before it opens it
 * again. None stays none. */
static int whole_path(const char *path, char *buf, size_t size_bytes)
{
    char here[PATH_SIZE];

    if (!*path || *path == '/')
        return format(buf, size_bytes, "%s", path);
    if (!getcwd(here, sizeof here))
        return errno == ERANGE ? -ENAMETOOLONG : -errno;
    return format(buf, size_bytes, "%s/%s", here, path);
}

static int find_file(struct file *file, const char *variable, const char *usual)
{
    char home[PATH_SIZE] = "";
    const char *given = env(variable);
    int r = home_dir(home, sizeof home);

    if (!r && given && (given[0] != '~' || given[1] != '/'))
        r = whole_path(given, file->path, sizeof file->path);
    else if (!r)
        r = format(file->path, sizeof file->path, "%s%s", home, given ? given + 1 : usual);
    return r ? msg_error(r, "the path in %s, or of the home directory: %s", variable, strerror(-r))
             : 0;
}

static void forget_text(struct file *file)
{
    if (file->text)
        OPENSSL_cleanse(file->text, file->len);
    free(file->text);
    file->text = NULL;
    file->len = 0;
}

static void note_version(struct file *file, const struct stat *st)
{
    file->changed = st->st_mtim;
    file->size = st->st_size;
    file->inode = st->st_ino;
}

static void copy_version(struct file *to, const struct file *from)
{
    to->changed = from->changed;
    to->size = from->size;
    to->inode = from->inode;
}

static bool has_changed(struct credentials_source *s, const struct file *file)
{
    struct stat st = {0};

    (void)!stat(file->path, &st); /* a file that is not there is all zeros */
    scope_lock(&s->lock);
    return st.st_mtim.tv_sec != file->changed.tv_sec ||
           st.st_mtim.tv_nsec != file->changed.tv_nsec || st.st_size != file->size ||
           st.st_ino != file->inode;
}

/* Reads the file into file->text; one that is not there reads as empty. */
static int read_text(struct file *file)
{
    scope_close int fd = open(file->path, O_RDONLY | O_CLOEXEC);
    struct stat st = {0};
    ssize_t n;

    forget_text(file);
    note_version(file, &st);
    if (fd < 0)
        return errno == ENOENT || errno == ENOTDIR ? 0 : -errno;
    if (fstat(fd, &st) < 0)
        return -errno;
    note_version(file, &st); /* before reading, so that a later change is seen */
    if (!S_ISREG(st.st_mode) || st.st_size > FILE_MAX)
        return -EINVAL;
    if (!(file->text = malloc((size_t)st.st_size + 1)))
        return -ENOMEM;
    while (file->len < (size_t)st.st_size) {
        n = read(fd, file->text + file->len, (size_t)st.st_size - file->len);
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        file->len += (size_t)n;
    }
    return 0;
}

/* In the config file a profile's section is "profile NAME", but for "default". */
static void config_section(const char *profile, char *buf, size_t size_bytes)
{
    (void)snprintf(buf, size_bytes, "%s%s", strcmp(profile, "default") == 0 ? "" : "profile ",
                   profile);
}

static bool in_keys(const struct credentials_source *s, const char *key, char *buf, size_t size)
{
    return s->keys.text &&
           ini_find(s->keys.text, s->keys.len, s->profile, key, NULL, buf, size) == 0;
}

static bool in_config(const struct credentials_source *s, const char *key, const char *sub,
                      char *buf, size_t size)
{
    char section[PROFILE_SIZE + 16];

    config_section(s->profile, section, sizeof section);
    return s->config.text &&
           ini_find(s->config.text, s->config.len, section, key, sub, buf, size) == 0;
}

/* ------------------------------------------------------------------ keys */

/* True if both keys are there; the token is optional. */
static bool keys_of_profile(const struct credentials_source *s, bool config,
                            struct credentials *keys)
{
    struct {
        const char *name;
        char *to;
        size_t size;
    } const parts[] = {{"aws_access_key_id", keys->access_key, sizeof keys->access_key},
                       {"aws_secret_access_key", keys->secret, sizeof keys->secret},
                       {"aws_session_token", keys->token, sizeof keys->token}};
    bool found[3];

    for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
        found[i] = config ? in_config(s, parts[i].name, NULL, parts[i].to, parts[i].size)
                          : in_keys(s, parts[i].name, parts[i].to, parts[i].size);
        if (!found[i])
            *parts[i].to = '\0';
    }
    return found[0] && found[1];
}

/* A setting by which the profile wants its keys from another service; NULL if there is none. */
static const char *unsupported(const struct credentials_source *s, bool before_keys)
{
    static const char *const before[] = {"role_arn", "sso_session", "sso_start_url", NULL};
    static const char *const after[] = {"credential_process", NULL};
    char value[2048];

    for (const char *const *name = before_keys ? before : after; *name; name++)
        if (in_config(s, *name, NULL, value, sizeof value) ||
            in_keys(s, *name, value, sizeof value))
            return *name;
    return NULL;
}

static int no_keys(const struct credentials_source *s)
{
    char section[PROFILE_SIZE + 16];

    config_section(s->profile, section, sizeof section);
    if (strcmp(s->profile, "default") != 0 &&
        !(s->keys.text && ini_has_section(s->keys.text, s->keys.len, s->profile)) &&
        !(s->config.text && ini_has_section(s->config.text, s->config.len, section)))
        return msg_error(-EACCES, "there is no profile '%s' in %s or %s", s->profile, s->keys.path,
                         s->config.path);
    return msg_error(-EACCES,
                     "no credentials for S3: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
                     "put aws_access_key_id and aws_secret_access_key under [%s] into %s (looked "
                     "there and in %s)",
                     s->profile, s->keys.path, s->config.path);
}

static void set_origin(struct credentials_source *s, const struct file *file)
{
    (void)snprintf(s->origin, sizeof s->origin, "profile '%s' in %s", s->profile, file->path);
}

/* The keys of the profile, from the files' texts. With `opening` it says what is wrong, and
 * remembers where they came from. */
static int keys_from_files(struct credentials_source *s, bool opening, struct credentials *keys)
{
    const char *other = unsupported(s, true);
    bool found = false, config = false;

    if (!other && !(found = keys_of_profile(s, false, keys))) {
        other = unsupported(s, false);
        config = found = !other && keys_of_profile(s, true, keys);
    }
    if (found && opening)
        set_origin(s, config ? &s->config : &s->keys);
    if (found || !opening)
        return found ? 0 : -EACCES;
    if (other)
        return msg_error(-EACCES,
                         "profile '%s' gets its keys through %s, which is not supported yet: use a "
                         "profile with aws_access_key_id and aws_secret_access_key, or set "
                         "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN",
                         s->profile, other);
    return no_keys(s);
}

/* 1: taken from the environment; 0: nothing there. */
static int keys_from_environment(struct credentials_source *s)
{
    const char *id = env("AWS_ACCESS_KEY_ID"), *secret = env("AWS_SECRET_ACCESS_KEY");
    const char *token = env("AWS_SESSION_TOKEN");

    if (!id && !secret)
        return 0;
    if (!id || !secret)
        return msg_error(-EACCES, "%s is set, but %s is not: set both",
                         id ? "AWS_ACCESS_KEY_ID" : "AWS_SECRET_ACCESS_KEY",
                         id ? "AWS_SECRET_ACCESS_KEY" : "AWS_ACCESS_KEY_ID");
    if (format(s->now.access_key, sizeof s->now.access_key, "%s", id) ||
        format(s->now.secret, sizeof s->now.secret, "%s", secret) ||
        format(s->now.token, sizeof s->now.token, "%s", token ? token : ""))
        return msg_error(-EINVAL, "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY or AWS_SESSION_TOKEN "
                                  "is too long to be one");
    s->from_environment = true;
    return format(s->origin, sizeof s->origin, "the environment") ? -ENAMETOOLONG : 1;
}

/* ------------------------------------------------------------------ the other settings */

/* From the profile: in the credentials file or the config file. */
static const char *of_profile(const struct credentials_source *s, const char *key, char *buf,
                              size_t size)
{
    return in_keys(s, key, buf, size) || in_config(s, key, NULL, buf, size) ? buf : NULL;
}

/* The endpoint for S3 alone: "services = NAME" points to a section of that name. */
static const char *of_services(const struct credentials_source *s, char *buf, size_t size)
{
    char name[128], section[160];

    if (!of_profile(s, "services", name, sizeof name) || !s->config.text)
        return NULL;
    (void)snprintf(section, sizeof section, "services %s", name);
    return ini_find(s->config.text, s->config.len, section, "s3", "endpoint_url", buf, size) == 0
               ? buf
               : NULL;
}

static int read_addressing(const struct credentials_source *s, enum addressing *ret_addressing)
{
    static const char *const names[] = {
        [ADDRESSING_AUTO] = "auto", [ADDRESSING_PATH] = "path", [ADDRESSING_VIRTUAL] = "virtual"};
    char style[32];

    if (!in_config(s, "s3", "addressing_style", style, sizeof style))
        return 0;
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if (strcmp(style, names[i]) == 0) {
            *ret_addressing = (enum addressing)i;
            return 0;
        }
    }
    return msg_error(-EINVAL,
                     "addressing_style '%s' of profile '%s' in %s is none of auto, path "
                     "and virtual",
                     style, s->profile, s->config.path);
}

static int read_settings(const struct credentials_source *s, const struct store_config *config,
                         struct credentials_settings *settings)
{
    char region[256], endpoint[1024], services[1024], ca[PATH_SIZE];
    const char *region_env = first_of(env("AWS_REGION"), env("AWS_DEFAULT_REGION"),
                                      of_profile(s, "region", region, sizeof region));
    const char *endpoint_file =
        first_of(of_services(s, services, sizeof services),
                 of_profile(s, "endpoint_url", endpoint, sizeof endpoint), "");
    const char *endpoint_env =
        first_of(env("AWS_ENDPOINT_URL_S3"), env("AWS_ENDPOINT_URL"), endpoint_file);

    const char *ca_other =
        first_of(env("AWS_CA_BUNDLE"), NULL, of_profile(s, "ca_bundle", ca, sizeof ca));

    settings->addressing = config->addressing;
    if (format(settings->region, sizeof settings->region, "%s",
               first_of(config->region, region_env, "")))
        return msg_error(-EINVAL, "the region is too long to be one");
    if (format(settings->endpoint, sizeof settings->endpoint, "%s",
               first_of(config->endpoint, endpoint_env, "")))
        return msg_error(-EINVAL, "the endpoint is longer than %zu characters",
                         sizeof settings->endpoint - 1);
    int r = whole_path(first_of(config->ca_file, ca_other, ""), settings->ca_file,
                       sizeof settings->ca_file);
    if (r)
        return msg_error(r, "the path of the CA file: %s", strerror(-r));
    return settings->addressing == ADDRESSING_AUTO ? read_addressing(s, &settings->addressing) : 0;
}

/* ------------------------------------------------------------------ the source */

/* A file that is there but cannot be read is only mentioned: the keys may be elsewhere. */
static int read_files(struct credentials_source *s)
{
    struct file *const files[] = {&s->keys, &s->config};

    for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
        int r = read_text(files[i]);

        if (r == -ENOMEM)
            return r;
        if (r)
            msg_warn("cannot read %s: %s", files[i]->path, strerror(-r));
    }
    return 0;
}

static int open_source(struct credentials_source *s, const struct store_config *config,
                       struct credentials_settings *settings)
{
    bool named = config->profile && *config->profile;
    int r;

    if (format(s->profile, sizeof s->profile, "%s",
               first_of(config->profile, env("AWS_PROFILE"), "default")))
        return msg_error(-EINVAL, "the profile's name is too long");
    if ((r = find_file(&s->keys, "AWS_SHARED_CREDENTIALS_FILE", "/.aws/credentials")) ||
        (r = find_file(&s->config, "AWS_CONFIG_FILE", "/.aws/config")) || (r = read_files(s)) ||
        (r = read_settings(s, config, settings)))
        return r;
    r = named ? 0 : keys_from_environment(s);
    return r ? MIN(r, 0) : keys_from_files(s, true, &s->now);
}

int credentials_open(const struct store_config *config, struct credentials_settings *ret_settings,
                     struct credentials_source **ret_source)
{
    struct credentials_source *s = calloc(1, sizeof *s);
    struct credentials_settings settings = {0};
    int r;

    if (!s)
        return -ENOMEM;
    pthread_mutex_init(&s->lock, NULL);
    r = open_source(s, config, &settings);
    forget_text(&s->keys);
    forget_text(&s->config);
    if (r) {
        credentials_free(s);
        return r;
    }
    *ret_settings = settings;
    *ret_source = s;
    return 0;
}

void credentials_free(struct credentials_source *source)
{
    if (!source)
        return;
    credentials_wipe(&source->now);
    pthread_mutex_destroy(&source->lock);
    free(source);
}

/* Reads the files into a source of its own, without any lock. */
static struct credentials_source *read_again(const struct credentials_source *s)
{
    struct credentials_source *fresh = calloc(1, sizeof *fresh);

    if (!fresh)
        return NULL;
    memcpy(fresh->profile, s->profile, sizeof s->profile);
    memcpy(fresh->keys.path, s->keys.path, sizeof s->keys.path);
    memcpy(fresh->config.path, s->config.path, sizeof s->config.path);
    if (read_text(&fresh->keys) || read_text(&fresh->config) ||
        keys_from_files(fresh, false, &fresh->now))
        credentials_wipe(&fresh->now); /* nothing usable, perhaps being rewritten */
    forget_text(&fresh->keys);
    forget_text(&fresh->config);
    return fresh;
}

static void renew(struct credentials_source *s)
{
    struct credentials_source *fresh = read_again(s);
    scope_lock(&s->lock);

    s->renewing = false;
    if (!fresh)
        return;
    if (*fresh->now.access_key)
        s->now = fresh->now;
    copy_version(&s->keys, &fresh->keys);
    copy_version(&s->config, &fresh->config);
    credentials_wipe(&fresh->now);
    free(fresh);
}

/* Shall this thread read the files again? While one does, the others go on with what we have. */
static bool begin_renewal(struct credentials_source *s)
{
    bool changed;

    if (s->from_environment)
        return false;
    changed = has_changed(s, &s->keys) || has_changed(s, &s->config);
    scope_lock(&s->lock);
    if (s->renewing || !(changed || s->again))
        return false;
    s->again = false;
    s->renewing = true;
    return true;
}

void credentials_get(struct credentials_source *source, struct credentials *ret_credentials)
{
    if (begin_renewal(source))
        renew(source);
    scope_lock(&source->lock);
    *ret_credentials = source->now;
}

void credentials_refused(struct credentials_source *source)
{
    scope_lock(&source->lock);
    source->again = true;
}

const char *credentials_origin(const struct credentials_source *source)
{
    return source->origin;
}
