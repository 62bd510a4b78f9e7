/* Events of connections on queues of the program's libdispatch: on their thread, and one after the other. */
#include <vmnet/vmnet.h>

#include "check.h"

enum { MESSAGES = 300 };

struct state {
    dispatch_queue_t queue;
    dispatch_semaphore_t done;
    int running, count;
};

static void on_message(void *context, xpc_object_t event) {
    struct state *state = context;
    if (xpc_get_type(event) != XPC_TYPE_DICTIONARY) return;
    CHECK(__atomic_add_fetch(&state->running, 1, __ATOMIC_SEQ_CST) == 1);
    CHECK(xpc_dictionary_get_int64(event, "number") == state->count);
    int count = ++state->count;
    CHECK(__atomic_sub_fetch(&state->running, 1, __ATOMIC_SEQ_CST) == 0);
    if (count == MESSAGES) dispatch_semaphore_signal(state->done);
}

static void on_client(void *context, xpc_object_t event) {
    struct state *state = context;
    if (xpc_get_type(event) != XPC_TYPE_CONNECTION) return;
    xpc_connection_set_target_queue(event, state->queue);
    xpc_connection_set_event_handler_f(event, state, on_message);
    xpc_connection_resume(event);
}

static void ended(void *context, xpc_object_t event) {
    struct state *state = context;
    if (event == XPC_ERROR_CONNECTION_INVALID) dispatch_semaphore_signal(state->done);
}

static void run(dispatch_queue_t queue) {
    struct state state = {queue, dispatch_semaphore_create(0), 0, 0};
    xpc_connection_t listener = xpc_connection_create(NULL, queue);
    xpc_connection_set_event_handler_f(listener, &state, on_client);
    xpc_connection_activate(listener);
    xpc_endpoint_t endpoint = xpc_endpoint_create(listener);
    CHECK(xpc_get_type(endpoint) == XPC_TYPE_ENDPOINT);
    xpc_connection_t client = xpc_connection_create_from_endpoint(endpoint);
    xpc_release(endpoint);
    xpc_connection_set_target_queue(client, queue);
    xpc_connection_set_event_handler_f(client, &state, ended);
    xpc_connection_activate(client);
    for (int i = 0; i < MESSAGES; i++) {
        xpc_object_t message = xpc_dictionary_create_empty();
        xpc_dictionary_set_int64(message, "number", i);
        xpc_connection_send_message(client, message);
        xpc_release(message);
    }
    CHECK(dispatch_semaphore_wait(state.done, dispatch_time(DISPATCH_TIME_NOW, 60 * NSEC_PER_SEC)) == 0);
    xpc_connection_cancel(client);
    CHECK(dispatch_semaphore_wait(state.done, dispatch_time(DISPATCH_TIME_NOW, 60 * NSEC_PER_SEC)) == 0);
    xpc_release(client);
    xpc_connection_cancel(listener);
    CHECK(xpc_endpoint_create(listener) == NULL);
    xpc_release(listener);
    dispatch_release(state.done);
}

int main(void) {
    dispatch_queue_t serial = dispatch_queue_create("events", DISPATCH_QUEUE_SERIAL);
    run(serial);
    dispatch_release(serial);
    run(dispatch_get_global_queue(0, 0));
    return 0;
}
