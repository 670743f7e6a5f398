#include "tasks.h"

#include "../store/scope.h"

enum { SLOTS = 8, KEEP_SLOT = SLOTS, WAIT_MAX_MS = 1000 };

enum state { FREE, RUNNING, DONE };

/* FREE → RUNNING when started, → DONE when the work has ended; a DONE slot keeps its result until
 * another task needs the slot. */
struct slot {
    struct work work;
    struct tasks *tasks;
    enum state state;
    enum control_kind kind;
    uint64_t ticket;
    int result;
    uint64_t offset, len;
    struct volume_defrag defrag;
};

struct tasks {
    struct volume *volume;
    struct workers *workers, *keeper;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t ended;
    uint64_t last_ticket;
    struct slot slot[SLOTS + 1]; /* the last one is for CONTROL_KEEP */
};

int tasks_new(struct volume *volume, struct workers *workers, struct workers *keeper,
              struct tasks **ret_tasks)
{
    struct tasks *t = calloc(1, sizeof *t);

    if (!t)
        return -ENOMEM;
    t->volume = volume;
    t->workers = workers;
    t->keeper = keeper;
    pthread_mutex_init(&t->lock, NULL);
    clock_cond_init(&t->ended);
    *ret_tasks = t;
    return 0;
}

static int defrag(struct slot *slot)
{
    struct volume *v = slot->tasks->volume;
    uint64_t size = volume_size_bytes(v);

    if (slot->offset > size)
        return -EINVAL;
    return volume_defrag(v, slot->offset, slot->len ? slot->len : size - slot->offset,
                         &slot->defrag);
}

static int run_kind(struct slot *slot)
{
    struct volume *v = slot->tasks->volume;
    int r;

    switch (slot->kind) {
    case CONTROL_NOTHING:
        return 0;
    case CONTROL_FLUSH:
        return volume_flush(v, true);
    case CONTROL_DRAIN:
        return volume_drain(v);
    case CONTROL_COLLECT:
        return volume_collect(v);
    case CONTROL_DEFRAG:
        return defrag(slot);
    case CONTROL_GROW:
        r = volume_resize(v, slot->len);
        return r == 0 ? volume_drain(v) : r;
    case CONTROL_SHRINK:
    case CONTROL_CUT:
        return volume_shrink(v, slot->len, slot->kind == CONTROL_CUT);
    case CONTROL_FLATTEN:
        return volume_flatten(v);
    case CONTROL_KEEP:
        return volume_can_keep(v);
    }
    return -EINVAL;
}

static void run_slot(struct work *work)
{
    struct slot *slot = (struct slot *)((char *)work - offsetof(struct slot, work));
    struct tasks *t = slot->tasks;
    int r = run_kind(slot);

    scope_lock(&t->lock);
    slot->result = r;
    slot->state = DONE;
    pthread_cond_broadcast(&t->ended);
}

/* A free slot, or the one that has been done for longest. */
static struct slot *find_room_locked(struct tasks *t, bool keep)
{
    struct slot *best = NULL;

    for (unsigned i = keep ? KEEP_SLOT : 0; i < (keep ? KEEP_SLOT + 1 : SLOTS); i++) {
        struct slot *s = &t->slot[i];
        if (s->state != RUNNING && (!best || s->ticket < best->ticket))
            best = s;
    }
    return best;
}

static int start(struct tasks *t, struct control_task *task)
{
    bool keep = task->kind == CONTROL_KEEP;
    struct slot *slot;

    {
        scope_lock(&t->lock);
        slot = find_room_locked(t, keep);
        if (!slot)
            return -EBUSY;
        *slot = (struct slot){.work = {.run = run_slot},
                              .tasks = t,
                              .state = RUNNING,
                              .kind = (enum control_kind)task->kind,
                              .offset = task->offset,
                              .len = task->len,
                              .ticket = ++t->last_ticket};
        task->ticket = slot->ticket;
    }
    workers_run(keep ? t->keeper : t->workers, &slot->work);
    return 0;
}

static int await(struct tasks *t, struct control_task *task)
{
    int64_t until = clock_system.now_ms() + MIN(task->wait_ms, (uint32_t)WAIT_MAX_MS);

    scope_lock(&t->lock);
    for (bool in_time = true;;) {
        struct slot *slot = NULL;
        for (unsigned i = 0; i < ARRAY_SIZE(t->slot); i++)
            if (t->slot[i].state != FREE && t->slot[i].ticket == task->ticket)
                slot = &t->slot[i];
        if (!slot)
            return -EINVAL;
        if (slot->state == DONE || !in_time) {
            task->done = slot->state == DONE;
            task->result = task->done ? slot->result : 0;
            task->range_bytes = slot->defrag.bytes;
            task->gets_before = slot->defrag.gets_before;
            task->gets_after = slot->defrag.gets_after;
            return 0;
        }
        in_time = clock_system.wait_until(&t->ended, &t->lock, until);
    }
}

int tasks_step(struct tasks *t, struct control_task *task)
{
    struct volume_status status;
    int r = 0;

    task->done = 1;
    task->result = 0;
    if (task->kind > CONTROL_LAST)
        return -EINVAL;
    if (task->kind != CONTROL_NOTHING && task->ticket == 0)
        r = start(t, task);
    if (r == 0 && task->kind != CONTROL_NOTHING)
        r = await(t, task);
    volume_get_status(t->volume, &status);
    task->pid = (uint64_t)getpid();
    task->dirty_bytes = status.dirty_bytes;
    task->uploading_bytes = status.uploading_bytes;
    if (task->kind == CONTROL_FLATTEN)
        task->range_bytes = status.flatten_bytes;
    task->garbage_bytes =
        status.stored_bytes > status.live_bytes ? status.stored_bytes - status.live_bytes : 0;
    task->lost = status.state == VOLUME_FENCED || status.state == VOLUME_DAMAGED ||
                 status.state == VOLUME_FAILED;
    task->unreachable = status.state == VOLUME_STORE_UNREACHABLE;
    return r;
}

void tasks_free(struct tasks *t)
{
    if (!t)
        return;
    pthread_cond_destroy(&t->ended);
    pthread_mutex_destroy(&t->lock);
    free(t);
}
