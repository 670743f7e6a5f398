#include "server.h"

#include "control.h"
#include "fault.h"
#include "journal.h"

#include "../../store/scope.h"

#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>

enum { STACK_BYTES = 512 * 1024 };

/* A connection and its thread. */
struct slot {
    enum { FREE, SERVING, ENDED } state; /* an ended one is joined before it serves again */
    struct conn conn;
    pthread_t thread;
};

static const struct server_config *config;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards the slots' states */
static struct slot slots[SERVER_CONNECTIONS_MAX];
int server_ended = -1;

/* ------------------------------------------------------------------ one request */

/* Puts a changed copy in place of an answer's body. */
static void spoil(struct answer *answer, enum fault_kind kind)
{
    static atomic_uint_fast64_t random = 88172645463325252u;
    char *copy = malloc(answer->body_len + 1);

    INVARIANT(copy);
    memcpy(copy, answer->body, answer->body_len);
    if (kind == FAULT_FLIP)
        copy[answer->body_len / 2] ^= 0x10;
    uint64_t x = random;
    for (size_t i = 0; kind == FAULT_GARBAGE && i < answer->body_len; i++) {
        x ^= x << 13; /* xorshift64 (Marsaglia) */
        x ^= x >> 7;
        x ^= x << 17;
        copy[i] = (char)x;
    }
    random = x;
    free(answer->text);
    answer->body = answer->text = copy;
}

/* Reads the body. 0; 1 with an error as the answer; -EPIPE when there is nobody to answer. */
static int receive(struct conn *conn, struct request *request, const struct target *target,
                   const struct fault *fault, struct answer *answer)
{
    bool upload = strcmp(request->method, "PUT") == 0 || strcmp(request->method, "POST") == 0;
    int r =
        conn_read_body(conn, request, upload && fault->kind == FAULT_CUT ? fault->cut : UINT64_MAX);

    if (r == 0 || r == -EPIPE)
        return r;
    request->keep_alive = false; /* where the next request begins is not known */
    if (r == -EMSGSIZE)
        api_error(answer, 400, "EntityTooLarge",
                  "Your proposed upload exceeds the maximum allowed object size.", target->name,
                  "");
    else
        api_error(answer, 411, "MissingContentLength",
                  "You must provide the Content-Length HTTP header.", target->name, "");
    return 1;
}

static void act(struct request *request, const struct target *target, const struct fault *fault,
                struct answer *answer)
{
    char hash[SIGV4_HEX_SIZE];
    struct auth_refusal refusal;

    if (fault->kind == FAULT_ERROR) {
        api_error(answer, fault->status, fault->code, "As ordered", target->name, "");
    } else if (!auth_check(&config->auth, request, hash, &refusal)) {
        api_error(answer, refusal.status, refusal.code, refusal.message, target->name,
                  refusal.detail);
        answer_header(answer, "x-amz-bucket-region: %s", config->auth.region);
    } else {
        api_do(&config->api, request, target, hash,
               fault->kind == FAULT_PARTIAL ? fault->code : NULL, answer);
    }
}

/* A request of S3: false ends the connection. `answer` is empty, and freed by the caller. */
static bool serve_s3(struct conn *conn, struct request *request, struct answer *answer)
{
    struct target target;
    struct fault fault = {0};
    int64_t start = now_us();
    bool ok = api_target(&config->api, request, &target);

    if (settings.down)
        return false;
    if (ok)
        fault_match(target.op, target.name, request_header(request, "if-none-match"), &fault);
    else
        api_error(answer, 400, "InvalidURI", "Couldn't parse the specified URI.", "", "");
    unsigned generation = fault_generation;
    int r = receive(conn, request, &target, &fault, answer);
    if (r == 0) {
        sleep_us((int64_t)settings.latency_ms * 1000 + fault.delay_ms * 1000);
        if (fault.kind == FAULT_HANG)
            conn_hang(conn, &fault_generation, generation);
        else if (ok && !settings.down)
            act(request, &target, &fault, answer);
    }
    if (fault.kind == FAULT_LOST || fault.kind == FAULT_HANG || settings.down)
        r = -EPIPE;
    if ((fault.kind == FAULT_GARBAGE || fault.kind == FAULT_FLIP) && answer->status / 100 == 2 &&
        answer->body && answer->body_len)
        spoil(answer, fault.kind);
    if (strcmp(request->method, "HEAD") == 0)
        answer->body = NULL;
    uint64_t limit = fault.kind == FAULT_CUT ? fault.cut : UINT64_MAX;
    bool answered = r >= 0;
    /* Before the answer: who has it may look into the journal. */
    journal_add(&(struct journal_entry){
        .op = target.op,
        .key = target.name,
        .status = answered ? answer->status : 0,
        .in = conn->in,
        .out = answered && answer->body ? MIN(answer->body_len, limit) : 0,
        .us = now_us() - start,
        .fault = fault.delay_ms && !fault.kind ? "delay" : fault_names[fault.kind]});
    if (answered)
        r = conn_write(conn, request, answer, limit);
    return r >= 0 && request->keep_alive;
}

static void shut_others(const struct conn *self)
{
    scope_lock(&lock);
    for (unsigned i = 0; i < SERVER_CONNECTIONS_MAX; i++)
        if (slots[i].state == SERVING && &slots[i].conn != self)
            conn_shut(&slots[i].conn);
}

static bool serve_control(struct conn *conn, struct request *request, struct answer *answer)
{
    if (conn_read_body(conn, request, UINT64_MAX) < 0)
        return false;
    control_do(request, config->latency_ms, config->bandwidth, answer);
    if (settings.down)
        shut_others(conn);
    return conn_write(conn, request, answer, UINT64_MAX) == 0 && request->keep_alive;
}

static bool serve(struct conn *conn)
{
    struct request request;
    struct answer answer = {0};
    bool more = false;

    conn->bandwidth = settings.bandwidth;
    conn->clock_ahead_s = config->auth.clock_ahead_s;
    int r = conn_read_head(conn, &request);
    if (r == 0) {
        more = control_wants(&request) ? serve_control(conn, &request, &answer)
                                       : serve_s3(conn, &request, &answer);
    } else if (r != -EPIPE) {
        api_error(&answer, 400, "BadRequest", "This is no HTTP request, or too long a one", "", "");
        request.keep_alive = false;
        (void)conn_write(conn, &request, &answer, UINT64_MAX);
    }
    request_free(&request);
    answer_free(&answer);
    return more;
}

/* ------------------------------------------------------------------ connections */

static void *slot_thread(void *ctx)
{
    struct slot *slot = ctx;
    int r = conn_open(&slot->conn, config->tls);

    while (r == 0 && serve(&slot->conn))
        ;
    scope_lock(&lock);
    slot->state = ENDED; /* nobody shuts it from now on */
    conn_close(&slot->conn);
    (void)eventfd_write(server_ended, 1);
    return NULL;
}

static int state_of(const struct slot *slot)
{
    scope_lock(&lock);
    return slot->state;
}

/* A slot that is not serving, or NULL. For the one thread that starts connections. */
static struct slot *find_slot(void)
{
    for (unsigned i = 0; i < SERVER_CONNECTIONS_MAX; i++)
        if (state_of(&slots[i]) != SERVING)
            return &slots[i];
    return NULL;
}

bool server_has_room(void)
{
    return find_slot();
}

void server_start(int fd)
{
    struct slot *slot = find_slot();
    pthread_attr_t attr;

    INVARIANT(slot);
    if (state_of(slot) == ENDED)
        pthread_join(slot->thread, NULL);
    journal_connected();
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    scope_lock(&lock);
    slot->conn = (struct conn){.fd = fd};
    slot->state = SERVING;
    INVARIANT(pthread_create(&slot->thread, &attr, slot_thread, slot) == 0);
    pthread_attr_destroy(&attr);
}

void server_init(const struct server_config *what)
{
    config = what;
    server_ended = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    INVARIANT(server_ended >= 0);
    fault_clear(what->latency_ms, what->bandwidth);
}

void server_stop(void)
{
    fault_clear(0, 0); /* who hangs or waits goes on */
    settings.down = true;
    shut_others(NULL);
    for (unsigned i = 0; i < SERVER_CONNECTIONS_MAX; i++)
        if (state_of(&slots[i]) != FREE)
            pthread_join(slots[i].thread, NULL);
}
