#include "sigv4.h"

#include "scope.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>
#include <string.h>
#include <strings.h>

#define ALGORITHM "AWS4-HMAC-SHA256"

enum { SECRET_MAX = 256 };

/* A bounded string under construction: past its end nothing is written, and out_end() says so. */
struct out {
    char *buf;
    size_t size, len;
};

static void out_char(struct out *out, char c)
{
    if (out->len < out->size)
        out->buf[out->len] = c;
    out->len++;
}

static void out_text(struct out *out, const char *text)
{
    while (*text)
        out_char(out, *text++);
}

static int out_end(struct out *out)
{
    if (out->len >= out->size)
        return -ENAMETOOLONG;
    out->buf[out->len] = '\0';
    return 0;
}

/* ------------------------------------------------------------------ encoding */

static bool unreserved(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_' || c == '~';
}

static void out_encoded(struct out *out, const char *text, bool keep_slash)
{
    static const char hex[] = "0123456789ABCDEF";

    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;

        if (unreserved(c) || (keep_slash && c == '/')) {
            out_char(out, (char)c);
        } else {
            out_char(out, '%');
            out_char(out, hex[c >> 4]);
            out_char(out, hex[c & 15]);
        }
    }
}

int sigv4_encode(const char *text, int keep_slash, char *buf, size_t size_bytes)
{
    struct out out = {buf, size_bytes, 0};

    out_encoded(&out, text, keep_slash);
    return out_end(&out);
}

int sigv4_encode_path(const char *path, char *buf, size_t size_bytes)
{
    return sigv4_encode(path, true, buf, size_bytes);
}

/* By encoded name, then encoded value: not as one string, where '=' would sort after '-'. */
static int compare_pairs(const void *a, const void *b)
{
    const struct sigv4_pair *x = a, *y = b;
    int r = strcmp(x->name, y->name);

    return r ? r : strcmp(x->value, y->value);
}

int sigv4_encode_query(const struct sigv4_pair *params, size_t nparams, char *buf,
                       size_t size_bytes)
{
    char scratch[SIGV4_CANONICAL_SIZE];
    struct sigv4_pair encoded[SIGV4_PAIRS_MAX];
    struct out tmp = {scratch, sizeof scratch, 0}, out = {buf, size_bytes, 0};

    if (nparams > SIGV4_PAIRS_MAX)
        return -EINVAL;
    for (size_t i = 0; i < nparams; i++) {
        encoded[i].name = scratch + tmp.len;
        out_encoded(&tmp, params[i].name, false);
        out_char(&tmp, '\0');
        encoded[i].value = scratch + tmp.len;
        out_encoded(&tmp, params[i].value ? params[i].value : "", false);
        out_char(&tmp, '\0');
        if (tmp.len >= tmp.size)
            return -ENAMETOOLONG;
    }
    qsort(encoded, nparams, sizeof *encoded, compare_pairs);
    for (size_t i = 0; i < nparams; i++) {
        if (i)
            out_char(&out, '&');
        out_text(&out, encoded[i].name);
        out_char(&out, '=');
        out_text(&out, encoded[i].value);
    }
    return out_end(&out);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* Decodes `len` bytes of `text`, with a NUL after them. */
static int out_decoded(struct out *out, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (text[i] != '%') {
            out_char(out, text[i]);
            continue;
        }
        int high = i + 2 < len ? hex_digit(text[i + 1]) : -1;
        int low = high < 0 ? -1 : hex_digit(text[i + 2]);

        if (low < 0 || high * 16 + low == 0)
            return -EINVAL;
        out_char(out, (char)(high * 16 + low));
        i += 2;
    }
    out_char(out, '\0');
    return out->len > out->size ? -ENAMETOOLONG : 0;
}

int sigv4_decode(const char *text, char *buf, size_t size_bytes)
{
    struct out out = {buf, size_bytes, 0};

    return out_decoded(&out, text, strlen(text));
}

int sigv4_canonical_path(const char *received, char *buf, size_t size_bytes)
{
    char path[SIGV4_CANONICAL_SIZE];
    int r = sigv4_decode(received, path, sizeof path);

    return r ? r : sigv4_encode_path(path, buf, size_bytes);
}

int sigv4_canonical_query(const char *received, char *buf, size_t size_bytes)
{
    char scratch[SIGV4_CANONICAL_SIZE];
    struct sigv4_pair pairs[SIGV4_PAIRS_MAX];
    struct out tmp = {scratch, sizeof scratch, 0};
    size_t n = 0;

    for (const char *p = received; *p; p += strspn(p, "&")) {
        size_t len = strcspn(p, "&"), name = MIN(strcspn(p, "="), len);
        size_t value = MIN(name + 1, len); /* a bare name has an empty value */

        if (len && n == SIGV4_PAIRS_MAX)
            return -EINVAL;
        if (len) {
            pairs[n].name = scratch + tmp.len;
            int r = out_decoded(&tmp, p, name);
            if (r)
                return r;
            pairs[n].value = scratch + tmp.len;
            if ((r = out_decoded(&tmp, p + value, len - value)))
                return r;
            n++;
        }
        p += len;
    }
    return sigv4_encode_query(pairs, n, buf, size_bytes);
}

/* ------------------------------------------------------------------ dates and hashes */

int sigv4_date(time_t when, char ret_date[SIGV4_DATE_SIZE])
{
    struct tm tm;

    if (!gmtime_r(&when, &tm) || tm.tm_year < 0 || tm.tm_year > 9999 - 1900)
        return -EINVAL;
    return strftime(ret_date, SIGV4_DATE_SIZE, "%Y%m%dT%H%M%SZ", &tm) ? 0 : -EINVAL;
}

int sigv4_parse_date(const char *date, time_t *ret_when)
{
    struct tm tm = {0};
    const char *end;

    if (strlen(date) != SIGV4_DATE_SIZE - 1)
        return -EINVAL;
    end = strptime(date, "%Y%m%dT%H%M%SZ", &tm);
    if (!end || *end)
        return -EINVAL;
    *ret_when = timegm(&tm);
    return 0;
}

static void to_hex(const unsigned char digest[SHA256_DIGEST_LENGTH], char hex[SIGV4_HEX_SIZE])
{
    static const char digits[] = "0123456789abcdef";

    for (int i = 0; i < SHA256_DIGEST_LENGTH; i++) {
        hex[2 * i] = digits[digest[i] >> 4];
        hex[2 * i + 1] = digits[digest[i] & 15];
    }
    hex[SIGV4_HEX_SIZE - 1] = '\0';
}

int sigv4_sha256_hex(const void *data, size_t len, char ret_hex[SIGV4_HEX_SIZE])
{
    unsigned char digest[SHA256_DIGEST_LENGTH];

    if (!SHA256(data, len, digest))
        return -EIO;
    to_hex(digest, ret_hex);
    return 0;
}

/* ------------------------------------------------------------------ the canonical request */

static int compare_header_names(const void *a, const void *b)
{
    return strcasecmp(((const struct sigv4_pair *)a)->name, ((const struct sigv4_pair *)b)->name);
}

static void out_lower(struct out *out, const char *text)
{
    for (; *text; text++)
        out_char(out, *text >= 'A' && *text <= 'Z' ? (char)(*text - 'A' + 'a') : *text);
}

/* "host;x-amz-date": the given list, or all headers, each name once. */
static int signed_headers(const struct sigv4_request *request, char *buf, size_t size_bytes)
{
    struct out out = {buf, size_bytes, 0};
    struct sigv4_pair sorted[SIGV4_PAIRS_MAX];

    if (request->nheaders > SIGV4_PAIRS_MAX)
        return -EINVAL;
    if (request->signed_headers) {
        out_text(&out, request->signed_headers);
        return out_end(&out);
    }
    for (size_t i = 0; i < request->nheaders; i++)
        sorted[i] = request->headers[i];
    qsort(sorted, request->nheaders, sizeof *sorted, compare_header_names);
    for (size_t i = 0; i < request->nheaders; i++) {
        if (i && strcasecmp(sorted[i].name, sorted[i - 1].name) == 0)
            continue;
        if (i)
            out_char(&out, ';');
        out_lower(&out, sorted[i].name);
    }
    return out_end(&out);
}

/* Without white space at its ends, and with one space for several. */
static void out_header_value(struct out *out, const char *value)
{
    const char *end = value + strlen(value);

    value += strspn(value, " \t");
    while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    for (; value < end; value++)
        if (*value != ' ' || value[1] != ' ')
            out_char(out, *value);
}

/* "name:value1,value2\n" of the `len` bytes long `name`; false if there is no such header. */
static bool out_header(struct out *out, const struct sigv4_request *request, const char *name,
                       size_t len)
{
    bool found = false;

    for (size_t i = 0; i < len; i++)
        out_char(out, name[i]);
    for (size_t i = 0; i < request->nheaders; i++) {
        const struct sigv4_pair *h = &request->headers[i];

        if (strncasecmp(h->name, name, len) != 0 || h->name[len])
            continue;
        out_char(out, found ? ',' : ':');
        out_header_value(out, h->value);
        found = true;
    }
    out_char(out, '\n');
    return found;
}

/* `list` is what signed_headers() made. */
static int canonical_request(const struct sigv4_request *request, const char *list, char *buf,
                             size_t size_bytes)
{
    struct out out = {buf, size_bytes, 0};

    out_text(&out, request->method);
    out_char(&out, '\n');
    out_text(&out, request->path);
    out_char(&out, '\n');
    out_text(&out, request->query);
    out_char(&out, '\n');
    for (const char *name = list; *name;) {
        size_t len = strcspn(name, ";");

        if (len == 0 || !out_header(&out, request, name, len))
            return -EINVAL;
        name += len;
        name += *name == ';';
    }
    out_char(&out, '\n');
    out_text(&out, list);
    out_char(&out, '\n');
    out_text(&out, request->payload_hash);
    return out_end(&out);
}

int sigv4_canonical_request(const struct sigv4_request *request, char *buf, size_t size_bytes)
{
    char list[1024];
    int r = signed_headers(request, list, sizeof list);

    return r ? r : canonical_request(request, list, buf, size_bytes);
}

/* ------------------------------------------------------------------ the signature */

int sigv4_string_to_sign(const struct sigv4_request *request, const struct sigv4_scope *scope,
                         char *buf, size_t size_bytes)
{
    char canonical[SIGV4_CANONICAL_SIZE], hash[SIGV4_HEX_SIZE];
    int r = sigv4_canonical_request(request, canonical, sizeof canonical);

    if (!r)
        r = sigv4_sha256_hex(canonical, strlen(canonical), hash);
    return r ? r
             : format(buf, size_bytes, ALGORITHM "\n%s\n%.8s/%s/%s/aws4_request\n%s", scope->date,
                      scope->date, scope->region, scope->service, hash);
}

static bool hmac(const void *key, size_t key_len, const char *text,
                 unsigned char ret[SHA256_DIGEST_LENGTH])
{
    return HMAC(EVP_sha256(), key, (int)key_len, (const unsigned char *)text, strlen(text), ret,
                NULL) != NULL;
}

static int sign(const struct sigv4_scope *scope, const char *text, char hex[SIGV4_HEX_SIZE])
{
    char first[SECRET_MAX + 8], day[9];
    unsigned char key[SHA256_DIGEST_LENGTH], next[SHA256_DIGEST_LENGTH];
    const char *const rounds[] = {scope->region, scope->service, "aws4_request", text};
    int r = format(first, sizeof first, "AWS4%s", scope->secret);

    if (!r)
        r = format(day, sizeof day, "%.8s", scope->date);
    if (!r && !hmac(first, strlen(first), day, key))
        r = -EIO;
    for (size_t i = 0; i < ARRAY_SIZE(rounds) && !r; i++) {
        if (!hmac(key, sizeof key, rounds[i], next))
            r = -EIO;
        memcpy(key, next, sizeof key);
    }
    if (!r)
        to_hex(key, hex);
    OPENSSL_cleanse(first, sizeof first);
    OPENSSL_cleanse(key, sizeof key);
    OPENSSL_cleanse(next, sizeof next);
    return r;
}

int sigv4_signature(const struct sigv4_request *request, const struct sigv4_scope *scope,
                    char ret_signature[SIGV4_HEX_SIZE])
{
    char text[512];
    int r = sigv4_string_to_sign(request, scope, text, sizeof text);

    return r ? r : sign(scope, text, ret_signature);
}

int sigv4_authorization(const struct sigv4_request *request, const struct sigv4_scope *scope,
                        char *buf, size_t size_bytes)
{
    char signature[SIGV4_HEX_SIZE], list[1024];
    int r = signed_headers(request, list, sizeof list);

    if (!r)
        r = sigv4_signature(request, scope, signature);
    return r ? r
             : format(buf, size_bytes,
                      ALGORITHM " Credential=%s/%.8s/%s/%s/aws4_request,SignedHeaders=%s,"
                                "Signature=%s",
                      scope->access_key, scope->date, scope->region, scope->service, list,
                      signature);
}

/* ------------------------------------------------------------------ the server's side */

static int copy_field(const char *from, size_t len, char *to, size_t size_bytes)
{
    return len == 0 ? -EINVAL : format(to, size_bytes, "%.*s", (int)len, from);
}

/* "AKID/20130524/us-east-1/s3/aws4_request", from the end, for an access key may have slashes. */
static int parse_credential(const char *text, size_t len, struct sigv4_claim *claim)
{
    struct {
        char *to;
        size_t size;
    } const parts[] = {{claim->service, sizeof claim->service},
                       {claim->region, sizeof claim->region},
                       {claim->day, sizeof claim->day}};
    static const char last[] = "/aws4_request";

    if (len < sizeof last || memcmp(text + len - (sizeof last - 1), last, sizeof last - 1) != 0)
        return -EINVAL;
    len -= sizeof last - 1;
    for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
        const char *slash = memrchr(text, '/', len);

        if (!slash)
            return -EINVAL;
        size_t start = (size_t)(slash - text) + 1;
        int r = copy_field(text + start, len - start, parts[i].to, parts[i].size);
        if (r)
            return r;
        len = start - 1;
    }
    return copy_field(text, len, claim->access_key, sizeof claim->access_key);
}

int sigv4_parse_authorization(const char *value, struct sigv4_claim *ret_claim)
{
    struct sigv4_claim claim = {0};
    static const char algorithm[] = ALGORITHM " ";

    if (strncmp(value, algorithm, sizeof algorithm - 1) != 0)
        return -EINVAL;
    value += sizeof algorithm - 1;
    for (value += strspn(value, " ,"); *value; value += strspn(value, " ,")) {
        size_t name = strcspn(value, "=, "), len = strcspn(value, ", ");
        const char *text = value + name + 1;
        int r = -EINVAL;

        if (name >= len)
            return -EINVAL;
        if (strncmp(value, "Credential=", name + 1) == 0)
            r = parse_credential(text, len - name - 1, &claim);
        else if (strncmp(value, "SignedHeaders=", name + 1) == 0)
            r = copy_field(text, len - name - 1, claim.signed_headers, sizeof claim.signed_headers);
        else if (strncmp(value, "Signature=", name + 1) == 0)
            r = copy_field(text, len - name - 1, claim.signature, sizeof claim.signature);
        if (r)
            return r;
        value += len;
    }
    if (!*claim.access_key || !*claim.signed_headers || strlen(claim.signature) != 64)
        return -EINVAL;
    *ret_claim = claim;
    return 0;
}
