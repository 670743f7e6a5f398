/*
 * TLS: a server's certificate is believed only if its CA is, and only for its own name. The server
 * is in this process, with a certificate that it signed itself a moment ago.
 */
#include "../../store/scope.h"
#include "../../store/store.h"
#include "../../store/url.h"

#include <arpa/inet.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <cmocka.h>

static char ca_file[] = "/tmp/test_s3_tls.XXXXXX";
static SSL_CTX *context;
static int listener;
static unsigned port;
static pthread_t thread;
static struct store_error error;

static void add_extension(X509 *cert, int nid, const char *value)
{
    X509V3_CTX v3;
    X509_EXTENSION *extension;

    X509V3_set_ctx_nodb(&v3);
    X509V3_set_ctx(&v3, cert, cert, NULL, NULL, 0);
    extension = X509V3_EXT_conf_nid(NULL, &v3, nid, value);
    assert_non_null(extension);
    assert_int_equal(X509_add_ext(cert, extension, -1), 1);
    X509_EXTENSION_free(extension);
}

/* For 127.0.0.1 and no other name; also written to ca_file. */
static void make_certificate(void)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    X509_NAME *name = X509_get_subject_name(cert);
    int fd = mkstemp(ca_file);
    FILE *file = fdopen(fd, "w");

    assert_true(key && cert && file);
    X509_set_version(cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_set_pubkey(cert, key);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"test", -1, -1, 0);
    X509_set_issuer_name(cert, name);
    add_extension(cert, NID_basic_constraints, "critical,CA:TRUE");
    add_extension(cert, NID_subject_alt_name, "IP:127.0.0.1");
    assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
    assert_int_equal(PEM_write_X509(file, cert), 1);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(SSL_CTX_use_certificate(context, cert), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(context, key), 1);
    X509_free(cert);
    EVP_PKEY_free(key);
}

/* One request, one answer. */
static void talk(SSL *ssl)
{
    static const char answer[] =
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    char request[8192];
    int len = 0;

    if (SSL_accept(ssl) != 1)
        return;
    for (;;) {
        int n = SSL_read(ssl, request + len, (int)sizeof request - 1 - len);

        if (n <= 0)
            return;
        len += n;
        request[len] = '\0';
        if (strstr(request, "\r\n\r\nbody"))
            break;
    }
    SSL_write(ssl, answer, sizeof answer - 1);
    SSL_shutdown(ssl);
}

static void *serve(void *ctx)
{
    (void)ctx;
    for (;;) {
        scope_close int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        SSL *ssl = fd < 0 ? NULL : SSL_new(context);

        if (fd < 0)
            return NULL;
        SSL_set_fd(ssl, fd);
        talk(ssl);
        SSL_free(ssl);
    }
}

static int start(void **state)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;

    (void)state;
    setenv("AWS_ACCESS_KEY_ID", "ID", 1);
    setenv("AWS_SECRET_ACCESS_KEY", "SECRET", 1);
    signal(SIGPIPE, SIG_IGN);
    context = SSL_CTX_new(TLS_server_method());
    make_certificate();
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, len), 0);
    assert_int_equal(listen(listener, 8), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &len), 0);
    port = ntohs(address.sin_port);
    return pthread_create(&thread, NULL, serve, NULL);
}

static int finish(void **state)
{
    (void)state;
    shutdown(listener, SHUT_RDWR);
    pthread_join(thread, NULL);
    close(listener);
    SSL_CTX_free(context);
    return unlink(ca_file);
}

static int put(const char *host, const char *ca)
{
    const struct url url = {.s3 = true, .bucket = "bucket", .text = "s3://bucket"};
    struct store_backend b;
    char endpoint[64];
    int r;

    assert_int_equal(format(endpoint, sizeof endpoint, "https://%s:%u", host, port), 0);
    const struct store_config config = {.endpoint = endpoint, .ca_file = ca};
    assert_int_equal(s3_open(&url, &config, &b), 0);
    error = (struct store_error){.text = ""};
    r = b.ops->put(b.self, "k", "body", 4, 0, &error);
    b.ops->free(b.self);
    return r;
}

static void expect_refusal(int r, const char *words)
{
    print_message("    %s\n", error.text);
    assert_int_equal(r, -EACCES);
    assert_int_equal(error.fate, STORE_REFUSED);
    assert_non_null(strstr(error.text, words));
}

static void test_a_private_ca(void **state)
{
    (void)state;
    assert_int_equal(put("127.0.0.1", ca_file), 0);
}

static void test_an_unknown_ca_is_not_trusted(void **state)
{
    (void)state;
    expect_refusal(put("127.0.0.1", NULL), "is not trusted");
}

static void test_another_name_is_not_trusted(void **state)
{
    (void)state;
    expect_refusal(put("localhost", ca_file), "is not trusted");
}

static void test_no_ca_file(void **state)
{
    (void)state;
    expect_refusal(put("127.0.0.1", "/nonexistent/ca.pem"), "CA certificates");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_private_ca),
        cmocka_unit_test(test_an_unknown_ca_is_not_trusted),
        cmocka_unit_test(test_another_name_is_not_trusted),
        cmocka_unit_test(test_no_ca_file),
    };

    return cmocka_run_group_tests(tests, start, finish);
}
