/* Messages to the system's log, which may be stuck, or start anew. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "../../store/msg.h"
#include "../../store/scope.h"

#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

static char dir[256], path[300];
static char line[1024]; /* that heard() got */
static int ear;

static void listen_there(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    assert_int_equal(format(address.sun_path, sizeof address.sun_path, "%s", path), 0);
    ear = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_true(ear >= 0);
    assert_int_equal(bind(ear, (struct sockaddr *)&address, sizeof address), 0);
}

static void listen_no_more(void)
{
    close(ear);
    assert_int_equal(unlink(path), 0);
}

/* What was said is here at once, or never. */
static bool heard(void)
{
    ssize_t n = recv(ear, line, sizeof line - 1, MSG_DONTWAIT);

    line[MAX(n, 0)] = 0;
    return n > 0;
}

/* The text, without what is before it. */
static const char *heard_text(void)
{
    assert_true(heard());
    const char *text = strstr(line, "]: ");
    assert_non_null(text);
    return text + 3;
}

static int setup(void **state)
{
    const char *tmp = getenv("T") ? getenv("T") : "/tmp";

    (void)state;
    assert_int_equal(format(dir, sizeof dir, "%s/s3vol-unit-XXXXXX", tmp), 0);
    assert_non_null(mkdtemp(dir));
    assert_int_equal(format(path, sizeof path, "%s/log", dir), 0);
    listen_there();
    msg_set_log(path);
    msg_set_sink(MSG_SYSLOG);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    msg_set_sink(MSG_NONE);
    listen_no_more();
    return rmdir(dir);
}

static void test_a_line(void **state)
{
    char want[64];
    struct tm tm = {0};

    (void)state;
    assert_int_equal(msg_error(-EIO, "log/%d: is\nmissing", 7), -EIO);
    assert_true(heard());
    assert_int_equal(strncmp(line, "<27>", 4), 0); /* daemon, error */
    const char *end = strptime(line + 4, "%b %e %T", &tm);
    assert_non_null(end);
    assert_int_equal(end - line, 4 + strlen("Dec  1 14:00:00"));
    assert_int_equal(format(want, sizeof want, " s3vol[%d]: log/7: is missing", getpid()), 0);
    assert_string_equal(end, want);
    msg_warn("%0600d", 1);
    assert_true(strlen(heard_text()) > 500);
    assert_int_equal(strncmp(line, "<28>", 4), 0);
    assert_non_null(strstr(line, "]: warning: 000"));
    assert_false(heard());
}

/* As the log is when its disk is a volume that waits for the store. */
static void test_nobody_waits_for_the_log(void **state)
{
    enum { SAID = 20000 };
    char want[80];
    int n = 0;

    (void)state;
    alarm(60); /* or this would be for ever */
    for (int i = 0; i < SAID; i++)
        msg_error(0, "nth %d", i);
    alarm(0);
    while (heard())
        n++;
    assert_in_range(n, 1, SAID - 1);
    msg_warn("after");
    assert_int_equal(
        format(want, sizeof want, "%d messages before this did not get into the log", SAID - n), 0);
    assert_string_equal(heard_text(), want);
    assert_string_equal(heard_text(), "warning: after");
    msg_info("then");
    assert_string_equal(heard_text(), "then");
    assert_false(heard());
}

static void test_the_log_starts_anew(void **state)
{
    (void)state;
    msg_info("before");
    assert_string_equal(heard_text(), "before");
    listen_no_more();
    msg_info("nobody");
    listen_there();
    msg_info("here");
    assert_string_equal(heard_text(), "1 message before this did not get into the log");
    assert_string_equal(heard_text(), "here");
    listen_no_more();
    listen_there();
    msg_info("again");
    assert_string_equal(heard_text(), "again");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_line),
        TEST(test_nobody_waits_for_the_log),
        TEST(test_the_log_starts_anew),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
