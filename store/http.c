#include "http.h"

#include "hedge.h"
#include "msg.h"
#include "scope.h"

#include <curl/curl.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

enum {
    BUFFER_BYTES = 512 << 10,
    IDLE_POLL_MS = 1000, /* how often a request that waits looks at the clock, at least */
};

/* One connection. Owned by the pool, or by the one request that took it. */
struct slot {
    CURL *easy;
    CURLM *multi; /* the connection belongs to it; also what a stop wakes */
    bool busy;    /* guarded by the pool's lock */
};

struct http {
    struct http_config config;
    char *ca_file;
    atomic_bool stopping;

    pthread_mutex_t lock; /* guards what follows, and slot.busy */
    pthread_cond_t freed; /* a slot became free, or stopping */
    struct slot **idle;   /* a stack: the most recently used on top */
    size_t nidle;
    struct slot *slots;
    struct hedge hedge;
};

/* A request as it is sent: on this slot's handle, but all of one transfer over the first one's
 * multi handle. */
struct attempt {
    struct transfer *transfer;
    struct slot *slot; /* NULL: it was not sent */
    bool done;
    bool refused; /* its answer is none as long as the other one may come */
    CURLcode code;
    char reason[CURL_ERROR_SIZE];
};

/* One request under way. */
struct transfer {
    const struct http_request *request;
    struct curl_slist *headers;
    struct http_answer *answer;
    struct attempt attempts[2]; /* the second one is the hedge */
    struct attempt *taken;      /* whose answer this is; NULL: none has begun */
    int refused;                /* with this status; 0: none was */
    size_t body_size;           /* allocated */
    bool enough, no_memory, too_long;
};

_Static_assert(sizeof((struct http_answer *)NULL)->reason == CURL_ERROR_SIZE,
               "for libcurl's words");

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;
static CURLcode curl_ready;

static void init_curl(void)
{
    struct sigaction was;

    curl_ready = curl_global_init(CURL_GLOBAL_DEFAULT);
    /* With CURLOPT_NOSIGNAL libcurl leaves SIGPIPE alone, and older ones write to TLS connections
     * that the server closed without MSG_NOSIGNAL. */
    if (sigaction(SIGPIPE, NULL, &was) == 0 && was.sa_handler == SIG_DFL)
        signal(SIGPIPE, SIG_IGN);
}

/* ------------------------------------------------------------------ what libcurl calls */

static int collect(struct transfer *t, const void *data, size_t len)
{
    struct http_answer *a = t->answer;

    if (len > HTTP_BODY_MAX - a->body_len) {
        t->too_long = true;
        return -1;
    }
    if (a->body_len + len + 1 > t->body_size) {
        size_t size = MAX(t->body_size * 2, a->body_len + len + 1);
        char *body = realloc(a->body, size);

        if (!body) {
            t->no_memory = true;
            return -1;
        }
        a->body = body;
        t->body_size = size;
    }
    memcpy(a->body + a->body_len, data, len);
    a->body_len += len;
    a->body[a->body_len] = '\0';
    return 0;
}

static bool is_under_way(const struct attempt *a)
{
    return a->slot && !a->done && !a->refused;
}

static size_t on_write(char *data, size_t one, size_t len, void *ctx)
{
    struct attempt *a = ctx;
    struct transfer *t = a->transfer;
    const struct http_request *request = t->request;
    int r;

    (void)one;
    if (t->taken != a)
        return CURL_WRITEFUNC_ERROR;
    if (request->on_body && t->answer->status / 100 == 2) {
        r = request->on_body(request->ctx, t->answer, data, len);
        t->enough = r != 0;
    } else {
        r = collect(t, data, len);
    }
    return r ? CURL_WRITEFUNC_ERROR : len;
}

/* "Slow down", and the like, while the other one may be answered: that is no answer yet. */
static void answer_begins(struct attempt *a, int status)
{
    struct transfer *t = a->transfer;
    const struct attempt *other = &t->attempts[a == &t->attempts[0]];

    if (t->taken)
        return;
    a->refused = (status >= 500 || status == 429) && is_under_way(other);
    if (a->refused)
        t->refused = status;
    else
        t->taken = a;
}

static size_t on_header(char *line, size_t one, size_t len, void *ctx)
{
    struct attempt *a = ctx;
    struct transfer *t = a->transfer;
    bool begins = len >= 5 && memcmp(line, "HTTP/", 5) == 0;
    long status = 0;

    (void)one;
    if (begins)
        curl_easy_getinfo(a->slot->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status >= 200) /* not a "100 Continue" */
        answer_begins(a, (int)status);
    if (t->taken != a)
        return t->taken || a->refused ? 0 : len;
    if (begins)
        http_answer_begin(t->answer, (int)status);
    else
        http_answer_header(t->answer, line, len);
    return len;
}

/* ------------------------------------------------------------------ the pool */

static bool set_up_slot(struct http *http, struct slot *slot)
{
    CURL *easy = slot->easy = curl_easy_init();

    slot->multi = curl_multi_init();
    if (!easy || !slot->multi)
        return false;
    curl_multi_setopt(slot->multi, CURLMOPT_MAXCONNECTS, 2L); /* one may be a hedge's */
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "s3vol/" S3VOL_VERSION);
    curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L); /* or giving up waits for the resolver */
    curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 1L);
    curl_easy_setopt(easy, CURLOPT_TCP_NODELAY, 1L);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, (long)BUFFER_BYTES);
    curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, (long)BUFFER_BYTES);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)http->config.connect_timeout_ms);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_write);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    return !http->ca_file || curl_easy_setopt(easy, CURLOPT_CAINFO, http->ca_file) == CURLE_OK;
}

int http_new(const struct http_config *config, struct http **ret_http)
{
    struct http *http;

    pthread_once(&curl_once, init_curl);
    if (curl_ready != CURLE_OK)
        return msg_error(-EIO, "libcurl cannot be used: %s", curl_easy_strerror(curl_ready));
    http = calloc(1, sizeof *http);
    if (!http)
        return -ENOMEM;
    http->config = *config;
    pthread_mutex_init(&http->lock, NULL);
    pthread_cond_init(&http->freed, NULL);
    http->slots = calloc(config->connections, sizeof *http->slots);
    http->idle = calloc(config->connections, sizeof *http->idle);
    if (config->ca_file)
        http->ca_file = strdup(config->ca_file);
    if (!http->slots || !http->idle || (config->ca_file && !http->ca_file)) {
        http_free(http);
        return -ENOMEM;
    }
    for (unsigned i = 0; i < config->connections; i++) {
        if (!set_up_slot(http, &http->slots[i])) {
            http_free(http);
            return -ENOMEM;
        }
        http->idle[http->nidle++] = &http->slots[i];
    }
    *ret_http = http;
    return 0;
}

void http_free(struct http *http)
{
    if (!http)
        return;
    for (unsigned i = 0; http->slots && i < http->config.connections; i++) {
        curl_easy_cleanup(http->slots[i].easy);
        curl_multi_cleanup(http->slots[i].multi);
    }
    free(http->slots);
    free(http->idle);
    free(http->ca_file);
    pthread_cond_destroy(&http->freed);
    pthread_mutex_destroy(&http->lock);
    free(http);
}

void http_stop(struct http *http)
{
    scope_lock(&http->lock);
    atomic_store(&http->stopping, true);
    pthread_cond_broadcast(&http->freed);
    for (unsigned i = 0; i < http->config.connections; i++)
        if (http->slots[i].busy)
            curl_multi_wakeup(http->slots[i].multi);
}

/* Lock held; one is idle. */
static struct slot *pop_slot(struct http *http)
{
    struct slot *slot = http->idle[--http->nidle];

    slot->busy = true;
    return slot;
}

/* NULL when stopping. */
static struct slot *take_slot(struct http *http)
{
    scope_lock(&http->lock);
    while (http->nidle == 0 && !atomic_load(&http->stopping))
        pthread_cond_wait(&http->freed, &http->lock);
    if (atomic_load(&http->stopping))
        return NULL;
    return pop_slot(http);
}

/* For a hedge, but not the last one; NULL: none is idle, or there were enough of them. */
static struct slot *spare_slot(struct http *http)
{
    scope_lock(&http->lock);
    if (http->nidle < 2 || atomic_load(&http->stopping) || !hedge_spend(&http->hedge))
        return NULL;
    return pop_slot(http);
}

static void give_slot_back(struct http *http, struct slot *slot)
{
    scope_lock(&http->lock);
    slot->busy = false;
    http->idle[http->nidle++] = slot;
    pthread_cond_signal(&http->freed);
}

/* ------------------------------------------------------------------ one attempt */

static bool set_up_request(struct attempt *a)
{
    struct transfer *t = a->transfer;
    const struct http_request *request = t->request;
    bool sends = request->body || strcmp(request->method, "PUT") == 0 ||
                 strcmp(request->method, "POST") == 0;
    CURL *easy = a->slot->easy;

    a->reason[0] = '\0';
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, a);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, a);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, a->reason);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, t->headers);
    /* A PUT that is a POST by another name: libcurl then sends a small body in the packet that has
     * the headers, and rewinds by itself when a reused connection turns out to be dead. */
    if (sends) {
        curl_easy_setopt(easy, CURLOPT_POST, 1L);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, request->body_len ? request->body : "");
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body_len);
    } else {
        curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
    }
    return curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request->method) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_URL, request->url) == CURLE_OK;
}

/* The slot is the attempt's, whatever comes of it. */
static bool begin_attempt(struct attempt *a, struct slot *slot)
{
    a->slot = slot;
    a->done = !set_up_request(a) ||
              curl_multi_add_handle(a->transfer->attempts[0].slot->multi, slot->easy) != CURLM_OK;
    a->code = a->done ? CURLE_OUT_OF_MEMORY : CURLE_OK;
    return !a->done;
}

/* The first one last: its multi handle has the other one's easy handle. */
static void end_attempt(struct http *http, struct attempt *a)
{
    if (!a->slot)
        return;
    curl_multi_remove_handle(a->transfer->attempts[0].slot->multi, a->slot->easy);
    curl_easy_setopt(a->slot->easy, CURLOPT_ERRORBUFFER, NULL);
    give_slot_back(http, a->slot);
    a->slot = NULL;
}

/* Grows with every byte that moves, and when the connection is there. */
static int64_t progress(const struct attempt *a)
{
    curl_off_t up = 0, down = 0, connected = 0;
    long header = 0;

    if (!a->slot)
        return 0;
    curl_easy_getinfo(a->slot->easy, CURLINFO_SIZE_UPLOAD_T, &up);
    curl_easy_getinfo(a->slot->easy, CURLINFO_SIZE_DOWNLOAD_T, &down);
    curl_easy_getinfo(a->slot->easy, CURLINFO_HEADER_SIZE, &header);
    curl_easy_getinfo(a->slot->easy, CURLINFO_PRETRANSFER_TIME_T, &connected);
    return connected ? up + down + header + 1 : 0;
}

/* ------------------------------------------------------------------ one request */

/* Is libcurl done with it? What is not taken is given up. */
static bool is_over(struct http *http, struct transfer *t)
{
    struct attempt *const first = &t->attempts[0], *const hedge = &t->attempts[1];
    CURLM *multi = first->slot->multi;
    CURLMsg *msg;
    int left;

    while ((msg = curl_multi_info_read(multi, &left)) != NULL) {
        struct attempt *of = msg->easy_handle == first->slot->easy ? first : hedge;
        of->done = true;
        of->code = msg->data.result;
    }
    if (t->taken == first) {
        end_attempt(http, hedge);
    } else if (t->taken && !first->done) {
        curl_multi_remove_handle(multi, first->slot->easy);
        first->done = true;
    }
    return (first->done || first->refused) && (!hedge->slot || hedge->done || hedge->refused);
}

static int64_t hedge_at(struct http *http, const struct transfer *t, int64_t now_ms)
{
    if (!t->request->hedge)
        return INT64_MAX;
    scope_lock(&http->lock);
    int64_t after = hedge_begin(&http->hedge);
    return after == INT64_MAX ? after : now_ms + after;
}

static void learn(struct http *http, const struct transfer *t, int64_t ms)
{
    if (!t->request->hedge)
        return;
    scope_lock(&http->lock);
    hedge_learn(&http->hedge, ms);
}

/* Drives the transfer to its end; HTTP_ANSWERED stands for "libcurl is done with it". */
static enum http_end drive(struct http *http, struct transfer *t)
{
    const struct clock *clock = http->config.clock;
    CURLM *multi = t->attempts[0].slot->multi;
    int64_t begun_ms = clock->now_ms(), moved_ms = begun_ms, seen = 0;
    int64_t hedge_ms = hedge_at(http, t, begun_ms);
    bool learnt = false;
    int running;

    for (;;) {
        if (curl_multi_perform(multi, &running) != CURLM_OK)
            return HTTP_NO_MEMORY;
        int64_t now_ms = clock->now_ms(),
                now = progress(&t->attempts[0]) + progress(&t->attempts[1]);
        if (t->taken && !learnt) {
            learn(http, t, now_ms - begun_ms);
            learnt = true;
        }
        if (is_over(http, t))
            return HTTP_ANSWERED;
        if (atomic_load(&http->stopping))
            return HTTP_STOPPED;
        if (!t->taken && now_ms >= hedge_ms) {
            struct slot *slot = spare_slot(http);
            t->answer->hedged = slot && begin_attempt(&t->attempts[1], slot);
            hedge_ms = INT64_MAX;
            continue;
        }
        if (now != seen || now == 0) { /* connecting has its own time limit */
            seen = now;
            moved_ms = now_ms;
        }
        int64_t left_ms = moved_ms + http->config.stall_timeout_ms - now_ms;
        if (left_ms <= 0)
            return HTTP_STALLED;
        if (!t->taken)
            left_ms = MIN(left_ms, hedge_ms - now_ms);
        if (curl_multi_poll(multi, NULL, 0, (int)MIN(left_ms, IDLE_POLL_MS), NULL))
            return HTTP_NO_MEMORY;
    }
}

static enum http_end judge(const struct transfer *t, CURLcode code)
{
    if (t->enough)
        return HTTP_ENOUGH;
    if (t->no_memory || code == CURLE_OUT_OF_MEMORY)
        return HTTP_NO_MEMORY;
    if (code == CURLE_OK && t->answer->status)
        return HTTP_ANSWERED;
    return t->answer->status ? HTTP_CUT : HTTP_NO_ANSWER;
}

static enum http_end run(struct http *http, struct transfer *t)
{
    struct http_answer *a = t->answer;
    enum http_end end = drive(http, t);
    const struct attempt *last = t->taken ? t->taken : &t->attempts[0];

    if (!t->taken && t->refused && (end == HTTP_ANSWERED || end == HTTP_STALLED)) {
        http_answer_begin(a, t->refused); /* that is all the answer there is */
        return HTTP_ANSWERED;
    }
    if (end == HTTP_ANSWERED)
        end = judge(t, last->code);
    a->curl_code = (int)last->code;
    memcpy(a->reason, last->reason, sizeof a->reason);
    if (last->code && !a->reason[0])
        (void)snprintf(a->reason, sizeof a->reason, "%s", curl_easy_strerror(last->code));
    if (t->too_long)
        (void)snprintf(a->reason, sizeof a->reason, "the answer is longer than %d bytes",
                       HTTP_BODY_MAX);
    return end;
}

static struct curl_slist *header_list(const struct http_request *request)
{
    /* Waiting for a "100 Continue" costs a round trip, and libcurl asks for it from 1 MiB on. */
    struct curl_slist *list = curl_slist_append(NULL, "Expect:");

    for (size_t i = 0; list && i < request->nheaders; i++) {
        struct curl_slist *longer = curl_slist_append(list, request->headers[i]);

        if (!longer) {
            curl_slist_free_all(list);
            return NULL;
        }
        list = longer;
    }
    return list;
}

void http_do(struct http *http, const struct http_request *request, struct http_answer *ret_answer)
{
    struct transfer t = {.request = request, .answer = ret_answer, .headers = header_list(request)};
    struct slot *slot = NULL;

    t.attempts[0].transfer = t.attempts[1].transfer = &t;
    *ret_answer = (struct http_answer){.end = HTTP_NO_MEMORY};
    http_answer_begin(ret_answer, 0);
    ret_answer->body = calloc(1, t.body_size = 1);
    if (t.headers && ret_answer->body) {
        slot = take_slot(http);
        ret_answer->end = HTTP_STOPPED;
    }
    if (slot) {
        ret_answer->end = HTTP_NO_MEMORY;
        if (begin_attempt(&t.attempts[0], slot))
            ret_answer->end = run(http, &t);
        end_attempt(http, &t.attempts[1]);
        end_attempt(http, &t.attempts[0]);
    }
    curl_slist_free_all(t.headers);
}
