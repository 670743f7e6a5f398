#include "control.h"

#include "fault.h"
#include "journal.h"

#include "../../store/scope.h"

#include <string.h>

bool control_wants(const struct request *request)
{
    return strcmp(request->path, "/_control") == 0 || strncmp(request->path, "/_control/", 10) == 0;
}

void control_do(const struct request *request, uint64_t latency_ms, uint64_t bandwidth,
                struct answer *answer)
{
    bool post = strcmp(request->method, "POST") == 0;
    const char *what = request->path + strlen("/_control"), *why = NULL;
    size_t len;
    FILE *text = open_memstream(&answer->text, &len);

    INVARIANT(text);
    if (post && !*what) {
        why = fault_add(request->query);
    } else if (post && strcmp(what, "/clear") == 0) {
        fault_clear(latency_ms, bandwidth);
    } else if (post && strcmp(what, "/reset") == 0) {
        fault_clear(latency_ms, bandwidth);
        journal_clear();
    } else if (!post && strcmp(what, "/log") == 0) {
        journal_print(text);
    } else if (!post && strcmp(what, "/stats") == 0) {
        journal_print_stats(text);
    } else {
        why = "there is POST /_control?…, /_control/clear, /_control/reset and "
              "GET /_control/log, /_control/stats";
    }
    if (why)
        fprintf(text, "s3d: %s\n", why);
    else if (post)
        fputs("ok\n", text);
    INVARIANT(fclose(text) == 0);
    answer->status = why ? 400 : 200;
    answer->body = answer->text;
    answer->body_len = len;
    answer_header(answer, "Content-Type: text/plain; charset=utf-8");
}
