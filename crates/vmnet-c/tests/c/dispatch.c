/* The part of libdispatch that programs of vmnet use. */
#include <dispatch/dispatch.h>
#include <signal.h>
#include <unistd.h>

#include "check.h"

enum { JOBS = 500 };

struct tally {
    int order[JOBS];
    int count;
    dispatch_semaphore_t done;
};

struct job {
    struct tally *tally;
    int number;
};

static void note(void *context) {
    struct job *job = context;
    /* No lock: the queue is serial. */
    job->tally->order[job->tally->count++] = job->number;
    if (job->tally->count == JOBS) dispatch_semaphore_signal(job->tally->done);
}

static void serial(void) {
    struct tally tally = {.done = dispatch_semaphore_create(0)};
    static struct job jobs[JOBS];
    dispatch_queue_t queue = dispatch_queue_create("serial", DISPATCH_QUEUE_SERIAL);
    CHECK(strcmp(dispatch_queue_get_label(queue), "serial") == 0);
    for (int i = 0; i < JOBS; i++) {
        jobs[i] = (struct job){&tally, i};
        dispatch_async_f(queue, &jobs[i], note);
    }
    /* Freed when its work is done, not before. */
    dispatch_release(queue);
    CHECK(dispatch_semaphore_wait(tally.done, DISPATCH_TIME_FOREVER) == 0);
    for (int i = 0; i < JOBS; i++) CHECK(tally.order[i] == i);
    dispatch_release(tally.done);
}

static void wait_and_signal(void *context) {
    dispatch_semaphore_t *pair = context;
    dispatch_semaphore_wait(pair[0], DISPATCH_TIME_FOREVER);
    dispatch_semaphore_signal(pair[1]);
}

static void signal_it(void *context) {
    dispatch_semaphore_signal((dispatch_semaphore_t)context);
}

static void concurrent(void) {
    dispatch_semaphore_t pair[2] = {dispatch_semaphore_create(0), dispatch_semaphore_create(0)};
    dispatch_queue_t queue = dispatch_queue_create(NULL, DISPATCH_QUEUE_CONCURRENT);
    /* The first waits for the second. */
    dispatch_async_f(queue, pair, wait_and_signal);
    dispatch_async_f(queue, pair[0], signal_it);
    CHECK(dispatch_semaphore_wait(pair[1], DISPATCH_TIME_FOREVER) == 0);
    dispatch_release(queue);

    dispatch_async_f(dispatch_get_global_queue(0, 0), pair, wait_and_signal);
    dispatch_async_f(dispatch_get_global_queue(DISPATCH_QUEUE_PRIORITY_HIGH, 0), pair[0], signal_it);
    CHECK(dispatch_semaphore_wait(pair[1], DISPATCH_TIME_FOREVER) == 0);
    CHECK(dispatch_semaphore_wait(pair[1], dispatch_time(DISPATCH_TIME_NOW, 20 * NSEC_PER_MSEC)) != 0);
    dispatch_release(pair[0]);
    dispatch_release(pair[1]);
}

static void count_up(void *context) {
    __atomic_add_fetch((int *)context, 1, __ATOMIC_SEQ_CST);
}

static void groups(void) {
    int count = 0;
    dispatch_group_t group = dispatch_group_create();
    dispatch_semaphore_t told = dispatch_semaphore_create(0);
    for (int i = 0; i < 50; i++) dispatch_group_async_f(group, dispatch_get_global_queue(0, 0), &count, count_up);
    CHECK(dispatch_group_wait(group, DISPATCH_TIME_FOREVER) == 0 && count == 50);
    dispatch_group_enter(group);
    dispatch_group_notify_f(group, dispatch_get_global_queue(0, 0), told, signal_it);
    CHECK(dispatch_group_wait(group, dispatch_time(DISPATCH_TIME_NOW, NSEC_PER_MSEC)) != 0);
    CHECK(dispatch_semaphore_wait(told, DISPATCH_TIME_NOW) != 0);
    dispatch_group_leave(group);
    CHECK(dispatch_semaphore_wait(told, DISPATCH_TIME_FOREVER) == 0);
    dispatch_release(group);
    dispatch_release(told);

    dispatch_once_t once = 0;
    for (int i = 0; i < 3; i++) dispatch_once_f(&once, &count, count_up);
    CHECK(count == 51);
    dispatch_sync_f(dispatch_get_global_queue(0, 0), &count, count_up);
    CHECK(count == 52);
}

struct watch {
    dispatch_source_t source;
    dispatch_semaphore_t seen, ended;
    uintptr_t data;
    int fd;
};

static void seen(void *context) {
    struct watch *watch = context;
    char bytes[64];
    watch->data += dispatch_source_get_data(watch->source);
    if (watch->fd >= 0) CHECK(read(watch->fd, bytes, sizeof bytes) > 0);
    dispatch_semaphore_signal(watch->seen);
}

static void ended(void *context) {
    struct watch *watch = context;
    dispatch_semaphore_signal(watch->ended);
}

static void begin(struct watch *watch, dispatch_source_type_t type, uintptr_t handle, dispatch_queue_t queue) {
    watch->source = dispatch_source_create(type, handle, 0, queue);
    CHECK(watch->source != NULL && dispatch_source_get_handle(watch->source) == handle);
    watch->seen = dispatch_semaphore_create(0);
    watch->ended = dispatch_semaphore_create(0);
    watch->data = 0;
    dispatch_set_context(watch->source, watch);
    dispatch_source_set_event_handler_f(watch->source, seen);
    dispatch_source_set_cancel_handler_f(watch->source, ended);
}

static void end(struct watch *watch) {
    dispatch_source_cancel(watch->source);
    CHECK(dispatch_source_testcancel(watch->source) != 0);
    CHECK(dispatch_semaphore_wait(watch->ended, DISPATCH_TIME_FOREVER) == 0);
    dispatch_release(watch->source);
    dispatch_release(watch->seen);
    dispatch_release(watch->ended);
}

static void sources(void) {
    dispatch_queue_t queue = dispatch_queue_create("sources", DISPATCH_QUEUE_SERIAL);
    struct watch watch = {.fd = -1};

    begin(&watch, DISPATCH_SOURCE_TYPE_TIMER, 0, queue);
    dispatch_source_set_timer(watch.source, dispatch_time(DISPATCH_TIME_NOW, NSEC_PER_MSEC), 2 * NSEC_PER_MSEC, 0);
    CHECK(dispatch_semaphore_wait(watch.seen, dispatch_time(DISPATCH_TIME_NOW, 20 * NSEC_PER_MSEC)) != 0);
    dispatch_resume(watch.source);
    for (int i = 0; i < 5; i++) CHECK(dispatch_semaphore_wait(watch.seen, DISPATCH_TIME_FOREVER) == 0);
    end(&watch);
    CHECK(watch.data >= 5);

    /* A program ignores a signal, and has a source for it. */
    signal(SIGTERM, SIG_IGN);
    begin(&watch, DISPATCH_SOURCE_TYPE_SIGNAL, SIGTERM, queue);
    dispatch_activate(watch.source);
    kill(getpid(), SIGTERM);
    CHECK(dispatch_semaphore_wait(watch.seen, DISPATCH_TIME_FOREVER) == 0 && watch.data == 1);
    end(&watch);
    kill(getpid(), SIGTERM);

    int ends[2];
    CHECK(pipe(ends) == 0);
    watch.fd = ends[0];
    begin(&watch, DISPATCH_SOURCE_TYPE_READ, (uintptr_t)ends[0], queue);
    dispatch_resume(watch.source);
    for (int i = 0; i < 3; i++) {
        CHECK(write(ends[1], "hello", 5) == 5);
        CHECK(dispatch_semaphore_wait(watch.seen, DISPATCH_TIME_FOREVER) == 0);
    }
    CHECK(watch.data == 15);
    end(&watch);
    close(ends[0]);
    close(ends[1]);
    CHECK(dispatch_source_create(DISPATCH_SOURCE_TYPE_READ, (uintptr_t)ends[0], 0, queue) == NULL);
    dispatch_release(queue);
}

static void finish(void *context) {
    CHECK(*(int *)context == 1);
    _Exit(0);
}

static void on_main(void *context) {
    count_up(context);
    dispatch_after_f(dispatch_time(DISPATCH_TIME_NOW, NSEC_PER_MSEC), dispatch_get_main_queue(), context, finish);
}

#ifdef __BLOCKS__
static void blocks(void) {
    dispatch_queue_t queue = dispatch_queue_create("blocks", DISPATCH_QUEUE_SERIAL);
    __block int value = 1;
    dispatch_async(queue, ^{ value *= 10; });
    dispatch_async(queue, ^{ value += 5; });
    dispatch_sync(queue, ^{ value *= 2; });
    CHECK(value == 30);
    dispatch_semaphore_t done = dispatch_semaphore_create(0);
    dispatch_source_t timer = dispatch_source_create(DISPATCH_SOURCE_TYPE_TIMER, 0, 0, queue);
    dispatch_source_set_timer(timer, DISPATCH_TIME_NOW, DISPATCH_TIME_FOREVER, 0);
    dispatch_source_set_event_handler(timer, ^{
        value += (int)dispatch_source_get_data(timer);
        dispatch_source_cancel(timer);
    });
    dispatch_source_set_cancel_handler(timer, ^{ dispatch_semaphore_signal(done); });
    dispatch_resume(timer);
    CHECK(dispatch_semaphore_wait(done, DISPATCH_TIME_FOREVER) == 0 && value == 31);
    dispatch_release(timer);
    dispatch_release(done);
    dispatch_release(queue);
}
#endif

int main(void) {
    serial();
    concurrent();
    groups();
    sources();
#ifdef __BLOCKS__
    blocks();
#endif
    static int ran;
    dispatch_async_f(dispatch_get_main_queue(), &ran, on_main);
    dispatch_main();
}
