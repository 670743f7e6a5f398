#include "s3_internal.h"

#include "scope.h"

static int s3_put(void *self, const char *key, const void *data, size_t len, unsigned flags,
                  struct store_error *err)
{
    struct s3 *s3 = self;
    struct s3_call call = {
        .method = "PUT", .key = key, .op = S3ERROR_PUT, .body = data, .body_len = len};
    int r;

    s3_call_header(&call, "Content-Type", "application/octet-stream");
    if (flags & STORE_IF_ABSENT) {
        call.op = S3ERROR_PUT_IF_ABSENT;
        s3_call_header(&call, "If-None-Match", "*");
    }
    r = s3_call_send(s3, &call, err);
    if (!r && !s3_call_answered(&call, 200))
        r = s3_call_judge(s3, &call, err);
    s3_call_end(&call);
    return r;
}

static void s3_stop(void *self)
{
    struct s3 *s3 = self;

    http_stop(s3->http);
}

static void s3_free(void *self)
{
    struct s3 *s3 = self;

    http_free(s3->http);
    credentials_free(s3->credentials);
    free(s3);
}

static const struct store_ops s3_ops = {s3_put, s3_get, s3_list, s3_delete, s3_stop, s3_free};

static int set_up(struct s3 *s3, const struct url *url, const struct store_config *config)
{
    struct credentials_settings settings;
    struct http_config http = {
        .connections = config->connections ? config->connections : 16,
        .connect_timeout_ms = config->connect_timeout_ms ? config->connect_timeout_ms : 5000,
        .stall_timeout_ms = config->stall_timeout_ms ? config->stall_timeout_ms : 10000,
        .clock = s3->clock};
    int r = credentials_open(config, &settings, &s3->credentials);

    if (r ||
        (r = format(s3->region, sizeof s3->region, "%s",
                    *settings.region ? settings.region : "us-east-1")) ||
        (r = format(s3->bucket, sizeof s3->bucket, "%s", url->bucket)) ||
        (r = format(s3->prefix, sizeof s3->prefix, "%s%s", url->path, *url->path ? "/" : "")) ||
        (r = endpoint_resolve(settings.endpoint, s3->region, s3->bucket, settings.addressing,
                              &s3->endpoint)))
        return r;
    http.ca_file = *settings.ca_file ? settings.ca_file : NULL;
    s3->place = (struct s3error_place){s3->bucket, s3->endpoint.text, s3->region,
                                       credentials_origin(s3->credentials), http.stall_timeout_ms};
    return http_new(&http, &s3->http);
}

int s3_open(const struct url *url, const struct store_config *config,
            struct store_backend *ret_backend)
{
    struct s3 *s3 = calloc(1, sizeof *s3);
    struct store_backend backend = {&s3_ops, s3, ""};
    int r = s3 ? 0 : -ENOMEM;

    if (!r) {
        s3->clock = config->clock ? config->clock : &clock_system;
        r = set_up(s3, url, config);
    }
    if (!r)
        r = format(backend.url, sizeof backend.url, "%s", url->text);
    if (r && s3)
        s3_free(s3);
    if (!r)
        *ret_backend = backend;
    return r;
}
