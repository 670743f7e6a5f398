/*
 * An NBD client with bad manners, for the tests of s3vol-nbd: it says exactly what it is told to,
 * and prints what the server answers. Each command connects to a Unix socket.
 */
#include "../contrib/nbd/protocol.h"
#include "pattern.h"

#include <poll.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { ANSWER_MS = 60000 };

static int dial(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    if (strlen(path) >= sizeof addr.sun_path)
        exit(2);
    memcpy(addr.sun_path, path, strlen(path));
    if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof addr) < 0)
        die(path);
    return fd;
}

/* The server may have gone already: that is not our business here. */
static void say(int fd, const void *buf, size_t len)
{
    while (len) {
        ssize_t n = send(fd, buf, len, MSG_NOSIGNAL);
        if (n <= 0)
            return;
        buf = (const char *)buf + n;
        len -= (size_t)n;
    }
}

/* False: the server has closed the connection. */
static bool hear(int fd, void *buf, size_t len)
{
    for (size_t done = 0; done < len;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, ANSWER_MS) == 0) {
            fprintf(stderr, "nbdpeer: the server says nothing\n");
            exit(1);
        }
        ssize_t n = recv(fd, (char *)buf + done, len - done, 0);
        if (n <= 0)
            return false;
        done += (size_t)n;
    }
    return true;
}

/* ----------------------------------------------------------------------------- handshake */

static int meet(const char *path, uint32_t flags)
{
    unsigned char greeting[NBD_GREETING_BYTES], answer[NBD_CLIENT_FLAGS_BYTES];
    int fd = dial(path);

    if (!hear(fd, greeting, sizeof greeting) || get_be64(greeting) != NBD_INIT_MAGIC ||
        get_be64(greeting + 8) != NBD_OPTION_MAGIC || get_be16(greeting + 16) != 3) {
        fprintf(stderr, "nbdpeer: no greeting\n");
        exit(1);
    }
    put_be32(answer, flags);
    say(fd, answer, sizeof answer);
    return fd;
}

static void say_option(int fd, uint32_t option, const void *data, size_t len)
{
    unsigned char head[NBD_OPTION_BYTES];

    put_be32(put_be32(put_be64(head, NBD_OPTION_MAGIC), option), (uint32_t)len);
    say(fd, head, sizeof head);
    say(fd, data, len);
}

/* The type of the final reply to an option; 0: the connection is closed. */
static uint32_t final_reply(int fd)
{
    unsigned char head[NBD_OPTION_REPLY_BYTES];
    static unsigned char data[1 << 16];

    for (;;) {
        if (!hear(fd, head, sizeof head))
            return 0;
        uint32_t type = get_be32(head + 12), len = get_be32(head + 16);
        if (get_be64(head) != NBD_REPLY_MAGIC || len > sizeof data || !hear(fd, data, len)) {
            fprintf(stderr, "nbdpeer: no reply to an option\n");
            exit(1);
        }
        if (type == NBD_REP_ACK || type & NBD_REP_ERR_BIT)
            return type;
    }
}

/* Enters transmission of the default export. */
static int enter(const char *path, bool structured)
{
    static const unsigned char go[6] = {0};
    int fd = meet(path, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);

    if (structured) {
        say_option(fd, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
        if (final_reply(fd) != NBD_REP_ACK)
            exit(1);
    }
    say_option(fd, NBD_OPT_GO, go, sizeof go);
    if (final_reply(fd) != NBD_REP_ACK) {
        fprintf(stderr, "nbdpeer: not let in\n");
        exit(1);
    }
    return fd;
}

/* ----------------------------------------------------------------------------- commands */

static size_t unhex(const char *text, unsigned char *buf, size_t size)
{
    size_t n = 0;

    for (; text[0] && text[1] && n < size; text += 2, n++)
        if (sscanf(text, "%2hhx", &buf[n]) != 1)
            exit(2);
    return n;
}

/* option SOCKET FLAGS OPTION LENGTH HEX: an option that claims a length, with as many zeroes as
 * that for the HEX "zeroes"; prints the final reply. */
static int option(char **arg)
{
    static unsigned char head[NBD_OPTION_BYTES], data[1 << 18];
    int fd = meet(arg[1], (uint32_t)number(arg[2]));
    bool zeroes = strcmp(arg[5], "zeroes") == 0;
    size_t len = zeroes ? number(arg[4]) : unhex(arg[5], data, sizeof data);

    if (len > sizeof data)
        exit(2);
    put_be32(put_be32(put_be64(head, NBD_OPTION_MAGIC), (uint32_t)number(arg[3])),
             (uint32_t)number(arg[4]));
    say(fd, head, sizeof head);
    say(fd, data, len);
    if (len < number(arg[4]))
        shutdown(fd, SHUT_WR);
    uint32_t reply = final_reply(fd);
    printf(reply ? "%#x\n" : "closed\n", reply);
    return 0;
}

static void say_request(int fd, unsigned flags, unsigned type, uint64_t offset, uint32_t len)
{
    unsigned char q[NBD_REQUEST_BYTES];
    unsigned char *p = put_be16(put_be16(put_be32(q, NBD_REQUEST_MAGIC), flags), type);

    put_be32(put_be64(put_be64(p, 0x1122334455667788), offset), len);
    say(fd, q, sizeof q);
}

static void wrong(const char *what)
{
    fprintf(stderr, "nbdpeer: %s\n", what);
    exit(1);
}

/* The error of a reply, with the payload of a READ of `len` bytes behind it. */
static uint32_t hear_simple(int fd, unsigned type, uint32_t len)
{
    unsigned char head[NBD_SIMPLE_REPLY_BYTES];
    static unsigned char data[64 << 20];

    if (!hear(fd, head, sizeof head))
        wrong("closed");
    if (get_be32(head) != NBD_SIMPLE_REPLY_MAGIC || get_be64(head + 8) != 0x1122334455667788)
        wrong("no reply");
    uint32_t error = get_be32(head + 4);
    if (!error && type == NBD_CMD_READ && !hear(fd, data, len))
        wrong("closed");
    return error;
}

/* request SOCKET FLAGS TYPE OFFSET LENGTH: its payload, if it is a WRITE, is zeroes; prints the
 * error. Then the connection must still be good. */
static int request(char **arg)
{
    static char zeroes[1 << 20];
    int fd = enter(arg[1], false);
    unsigned type = (unsigned)number(arg[3]);
    uint32_t len = (uint32_t)number(arg[5]);

    say_request(fd, (unsigned)number(arg[2]), type, number(arg[4]), len);
    for (uint32_t left = type == NBD_CMD_WRITE ? len : 0, n; left; left -= n) {
        n = left < sizeof zeroes ? left : sizeof zeroes;
        say(fd, zeroes, n);
    }
    printf("%u\n", hear_simple(fd, type, len));
    say_request(fd, 0, NBD_CMD_READ, 0, 512);
    if (hear_simple(fd, NBD_CMD_READ, 512) != 0)
        wrong("the next request fails");
    return 0;
}

/* Makes trouble of one kind, and is gone. */
static void trouble(const char *path, uint64_t kind)
{
    static unsigned char junk[100000];
    int fd = -1;

    pattern(junk, sizeof junk, 0, kind);
    switch (kind % 9) {
    case 0: /* gone at once */
        fd = dial(path);
        break;
    case 1: /* junk instead of a handshake */
        fd = dial(path);
        say(fd, junk, sizeof junk);
        break;
    case 2: /* an option of 4 GiB, of which little comes */
        fd = meet(path, 3);
        put_be32(put_be32(put_be64(junk, NBD_OPTION_MAGIC), NBD_OPT_GO), UINT32_MAX);
        say(fd, junk, 5000);
        break;
    case 3: /* junk instead of requests */
        fd = enter(path, true);
        say(fd, junk, sizeof junk);
        break;
    case 4: /* gone in the middle of a payload */
        fd = enter(path, true);
        say_request(fd, 0, NBD_CMD_WRITE, 0, 65536);
        say(fd, junk, 1000);
        break;
    case 5: /* many reads, and none of their answers taken */
        fd = enter(path, true);
        for (unsigned i = 0; i < 64; i++)
            say_request(fd, 0, NBD_CMD_READ, i * 4096, 1 << 20);
        break;
    case 6: /* every command that there may be, with junk for the rest */
        fd = enter(path, kind & 16);
        for (unsigned i = 0; i < 32; i++)
            if (i != NBD_CMD_WRITE && i != NBD_CMD_DISC && i != NBD_CMD_TRIM &&
                i != NBD_CMD_WRITE_ZEROES)
                say_request(fd, junk[i], i, get_be64(junk + 8 * i), get_be32(junk + 4 * i));
        break;
    case 7: /* good-bye in the middle of the work */
        fd = enter(path, false);
        for (unsigned i = 0; i < 16; i++)
            say_request(fd, 0, i % 2 ? NBD_CMD_READ : NBD_CMD_FLUSH, 0, i % 2 ? 4096 : 0);
        say_request(fd, 0, NBD_CMD_DISC, 0, 0);
        break;
    default: /* options that contradict themselves */
        fd = meet(path, 3);
        for (uint32_t i = 3; i < 14; i++)
            if (i != NBD_OPT_STARTTLS)
                say_option(fd, i, junk, junk[i]);
        break;
    }
    if (fd >= 0)
        close(fd);
}

/* rampage SOCKET COUNT: trouble of every kind, again and again. */
static int rampage(char **arg)
{
    for (uint64_t i = 0; i < number(arg[2]); i++)
        trouble(arg[1], i);
    return 0;
}

/* stall SOCKET N: N clients that say half of something and wait, and N that take no answers, until
 * the standard input ends. */
static int stall(char **arg)
{
    char c;

    for (uint64_t i = 0; i < number(arg[2]); i++) {
        int fd = enter(arg[1], true);
        say_request(fd, 0, NBD_CMD_WRITE, 0, 32 << 20);
        say(fd, "half", 4);
        fd = enter(arg[1], false);
        for (unsigned k = 0; k < 32; k++)
            say_request(fd, 0, NBD_CMD_READ, 0, 1 << 20);
    }
    puts("stalled");
    fflush(stdout);
    while (read(0, &c, 1) > 0)
        ;
    return 0;
}

/* hold SOCKET: enters, prints "in", and writes 4096 bytes 'x' at 0 when the standard input ends;
 * prints the error. */
static int hold(char **arg)
{
    char block[4096], c;
    int fd = enter(arg[1], false);

    memset(block, 'x', sizeof block);
    puts("in");
    fflush(stdout);
    while (read(0, &c, 1) > 0)
        ;
    say_request(fd, 0, NBD_CMD_WRITE, 0, sizeof block);
    say(fd, block, sizeof block);
    printf("%u\n", hear_simple(fd, NBD_CMD_WRITE, sizeof block));
    return 0;
}

/* notified SOCKET N: prints N messages that come to a datagram socket, each in a line. */
static int notified(char **arg)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    char text[256];

    memcpy(addr.sun_path, arg[1], strnlen(arg[1], sizeof addr.sun_path - 1));
    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof addr) < 0)
        die(arg[1]);
    for (uint64_t i = 0; i < number(arg[2]); i++) {
        ssize_t n = recv(fd, text, sizeof text, 0);
        printf("%.*s\n", n > 0 ? (int)n : 0, text);
        fflush(stdout);
    }
    return 0;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int args;
        int (*run)(char **arg);
    } command[] = {{"option", 5, option}, {"request", 5, request}, {"rampage", 2, rampage},
                   {"stall", 2, stall},   {"hold", 1, hold},       {"notified", 2, notified}};
    for (size_t i = 0; i < sizeof command / sizeof command[0]; i++)
        if (argc > 1 && strcmp(argv[1], command[i].name) == 0 && argc - 2 == command[i].args)
            return command[i].run(argv + 1);
    fprintf(stderr, "usage: nbdpeer option|request|rampage|stall|hold|notified SOCKET …\n");
    return 2;
}
