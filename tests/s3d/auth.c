#include "auth.h"

#include "../../store/scope.h"

#include <openssl/crypto.h>
#include <string.h>
#include <strings.h>

enum { SKEW_MAX_S = 15 * 60 };

static bool refuse(struct auth_refusal *refusal, const char *code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static bool refuse(struct auth_refusal *refusal, const char *code, const char *fmt, ...)
{
    static const char *const denials[] = {"AccessDenied", "InvalidAccessKeyId",
                                          "SignatureDoesNotMatch", "RequestTimeTooSkewed"};
    va_list ap;

    refusal->code = code;
    refusal->status = strcmp(code, "NotImplemented") == 0 ? 501 : 400;
    for (size_t i = 0; i < ARRAY_SIZE(denials); i++)
        if (strcmp(code, denials[i]) == 0)
            refusal->status = 403;
    va_start(ap, fmt);
    (void)vsnprintf(refusal->message, sizeof refusal->message, fmt, ap);
    va_end(ap);
    return false;
}

static bool check_date(const struct auth_config *config, const struct sigv4_claim *claim,
                       const char *date, struct auth_refusal *refusal)
{
    time_t signed_at, now = time(NULL) + config->clock_ahead_s;
    char now_text[SIGV4_DATE_SIZE] = "";

    if (!date || sigv4_parse_date(date, &signed_at) < 0)
        return refuse(refusal, "AccessDenied",
                      "AWS authentication requires a valid Date or x-amz-date header");
    if (strncmp(date, claim->day, 8) != 0)
        return refuse(refusal, "AuthorizationHeaderMalformed",
                      "Invalid credential date \"%s\": it differs from x-amz-date", claim->day);
    if (signed_at - now > SKEW_MAX_S || now - signed_at > SKEW_MAX_S) {
        (void)sigv4_date(now, now_text);
        (void)snprintf(refusal->detail, sizeof refusal->detail,
                       "<RequestTime>%s</RequestTime><ServerTime>%s</ServerTime>"
                       "<MaxAllowedSkewMilliseconds>%d</MaxAllowedSkewMilliseconds>",
                       date, now_text, SKEW_MAX_S * 1000);
        return refuse(refusal, "RequestTimeTooSkewed",
                      "The difference between the request time and the current time is too large.");
    }
    return true;
}

static bool check_scope(const struct auth_config *config, const struct sigv4_claim *claim,
                        const char *token, struct auth_refusal *refusal)
{
    if (strcmp(claim->access_key, config->access_key) != 0)
        return refuse(refusal, "InvalidAccessKeyId",
                      "The AWS Access Key Id you provided does not exist in our records.");
    if (strcmp(token ? token : "", config->token ? config->token : "") != 0)
        return refuse(refusal, "InvalidToken",
                      "The provided token is malformed or otherwise invalid.");
    if (strcmp(claim->service, "s3") != 0)
        return refuse(refusal, "AuthorizationHeaderMalformed",
                      "The authorization header is malformed; incorrect service \"%s\". This "
                      "endpoint belongs to \"s3\".",
                      claim->service);
    if (strcmp(claim->region, config->region) != 0) {
        (void)snprintf(refusal->detail, sizeof refusal->detail, "<Region>%s</Region>",
                       config->region);
        return refuse(refusal, "AuthorizationHeaderMalformed",
                      "The authorization header is malformed; the region '%s' is wrong; expecting "
                      "'%s'",
                      claim->region, config->region);
    }
    return true;
}

static bool is_signed(const char *list, const char *name)
{
    size_t len = strlen(name);

    for (const char *p = list; *p; p += strcspn(p, ";"), p += *p == ';')
        if (strcspn(p, ";") == len && strncasecmp(p, name, len) == 0)
            return true;
    return false;
}

static bool check_signed_headers(const struct request *request, const char *list,
                                 struct auth_refusal *refusal)
{
    for (size_t i = 0; i < request->nheaders; i++) {
        const char *name = request->headers[i].name;
        if ((strcasecmp(name, "host") == 0 || strncasecmp(name, "x-amz-", 6) == 0) &&
            !is_signed(list, name)) {
            (void)snprintf(refusal->detail, sizeof refusal->detail,
                           "<HeadersNotSigned>%.64s</HeadersNotSigned>", name);
            return refuse(refusal, "AccessDenied",
                          "There were headers present in the request which were not signed");
        }
    }
    return is_signed(list, "host") ||
           refuse(refusal, "AccessDenied", "The host header is not signed");
}

static bool check_signature(const struct auth_config *config, const struct request *request,
                            const struct sigv4_claim *claim, const char *date, const char *hash,
                            struct auth_refusal *refusal)
{
    char path[SIGV4_CANONICAL_SIZE], query[SIGV4_CANONICAL_SIZE], wanted[SIGV4_HEX_SIZE];
    struct sigv4_request r = {.method = request->method,
                              .path = path,
                              .query = query,
                              .headers = request->headers,
                              .nheaders = request->nheaders,
                              .signed_headers = claim->signed_headers,
                              .payload_hash = hash};
    struct sigv4_scope scope = {
        .secret = config->secret, .date = date, .region = claim->region, .service = claim->service};

    if (sigv4_canonical_path(request->path, path, sizeof path) < 0 ||
        sigv4_canonical_query(request->query, query, sizeof query) < 0 ||
        sigv4_signature(&r, &scope, wanted) < 0)
        return refuse(refusal, "InvalidRequest",
                      "The request cannot be brought into canonical form");
    if (CRYPTO_memcmp(wanted, claim->signature, sizeof wanted) != 0)
        return refuse(refusal, "SignatureDoesNotMatch",
                      "The request signature we calculated does not match the signature you "
                      "provided. Check your key and signing method.");
    return true;
}

static bool check_payload(const struct request *request, const char *sent,
                          char hash[SIGV4_HEX_SIZE], struct auth_refusal *refusal)
{
    if (strncmp(sent, "STREAMING-", 10) == 0)
        return refuse(refusal, "NotImplemented", "Streaming signatures are not implemented");
    if (sigv4_sha256_hex(request->body, request->body_len, hash) < 0)
        return refuse(refusal, "InternalError", "The payload cannot be hashed");
    if (strcmp(sent, SIGV4_UNSIGNED_PAYLOAD) == 0 || strcmp(sent, hash) == 0)
        return true;
    (void)snprintf(refusal->detail, sizeof refusal->detail,
                   "<ClientComputedContentSHA256>%.64s</ClientComputedContentSHA256>"
                   "<S3ComputedContentSHA256>%s</S3ComputedContentSHA256>",
                   strspn(sent, "0123456789abcdef") == 64 ? sent : "", hash);
    return refuse(refusal, "XAmzContentSHA256Mismatch",
                  "The provided 'x-amz-content-sha256' header does not match what was computed.");
}

bool auth_check(const struct auth_config *config, const struct request *request,
                char ret_hash[SIGV4_HEX_SIZE], struct auth_refusal *ret_refusal)
{
    const char *authorization = request_header(request, "authorization");
    const char *date = request_header(request, "x-amz-date");
    const char *hash = request_header(request, "x-amz-content-sha256");
    const char *token = request_header(request, "x-amz-security-token");
    struct sigv4_claim claim;

    *ret_refusal = (struct auth_refusal){0};
    if (!authorization)
        return refuse(ret_refusal, "AccessDenied", "Access Denied");
    if (sigv4_parse_authorization(authorization, &claim) < 0)
        return refuse(ret_refusal, "AuthorizationHeaderMalformed",
                      "The authorization header is malformed.");
    if (!hash)
        return refuse(ret_refusal, "InvalidRequest",
                      "Missing required header for this request: x-amz-content-sha256");
    return check_scope(config, &claim, token, ret_refusal) &&
           check_date(config, &claim, date, ret_refusal) &&
           check_signed_headers(request, claim.signed_headers, ret_refusal) &&
           check_signature(config, request, &claim, date, hash, ret_refusal) &&
           check_payload(request, hash, ret_hash, ret_refusal);
}
