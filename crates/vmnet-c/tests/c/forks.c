/* A child without exec: connections of its parent give it errors and do not keep it waiting; its own work. */
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xpc/xpc.h>

#include "check.h"
#include "child.h"

static void on_message(void *context, xpc_object_t event) {
    (void)context;
    if (xpc_get_type(event) != XPC_TYPE_DICTIONARY) return;
    xpc_object_t reply = xpc_dictionary_create_reply(event);
    if (reply == NULL) return;
    xpc_dictionary_set_int64(reply, "twice", 2 * xpc_dictionary_get_int64(event, "number"));
    xpc_connection_send_message(xpc_dictionary_get_remote_connection(event), reply);
    xpc_release(reply);
}

static void on_client(void *context, xpc_object_t event) {
    if (xpc_get_type(event) != XPC_TYPE_CONNECTION) return;
    xpc_connection_set_event_handler_f(event, context, on_message);
    xpc_connection_resume(event);
}

static void ignored(void *context, xpc_object_t event) {
    (void)context;
    (void)event;
}

static xpc_connection_t connected(void) {
    xpc_connection_t client = xpc_connection_create_mach_service("forks", NULL, 0);
    xpc_connection_set_event_handler_f(client, NULL, ignored);
    xpc_connection_resume(client);
    return client;
}

static xpc_object_t asked(xpc_connection_t client, int64_t number) {
    xpc_object_t message = xpc_dictionary_create_empty();
    xpc_dictionary_set_int64(message, "number", number);
    xpc_object_t reply = xpc_connection_send_message_with_reply_sync(client, message);
    xpc_release(message);
    return reply;
}

static void answers(xpc_connection_t client, int64_t number) {
    xpc_object_t reply = asked(client, number);
    CHECK(xpc_dictionary_get_int64(reply, "twice") == 2 * number);
    xpc_release(reply);
}

static int told[2];

static void on_reply(void *context, xpc_object_t reply) {
    CHECK(context == told && reply == XPC_ERROR_CONNECTION_INVALID);
    CHECK(write(told[1], "", 1) == 1);
}

static void child(xpc_connection_t parents) {
    alarm(60);
    CHECK(asked(parents, 1) == XPC_ERROR_CONNECTION_INVALID);
    xpc_object_t message = xpc_dictionary_create_empty();
    xpc_connection_send_message(parents, message);
    xpc_connection_send_message_with_reply_f(parents, message, NULL, told, on_reply);
    char byte;
    CHECK(read(told[0], &byte, 1) == 1);
    xpc_release(message);
    CHECK(xpc_connection_get_pid(parents) == 0);
    xpc_connection_cancel(parents);
    xpc_release(parents);

    xpc_connection_t own = connected();
    for (int i = 0; i < 50; i++) answers(own, i);
    xpc_connection_cancel(own);
    xpc_release(own);
    succeed();
}

static void *busy(void *client) {
    for (int i = 0; i < 200; i++) answers(client, i);
    return NULL;
}

int main(void) {
    CHECK(pipe(told) == 0);
    xpc_connection_t service = xpc_connection_create_mach_service("forks", NULL, XPC_CONNECTION_MACH_SERVICE_LISTENER);
    xpc_connection_set_event_handler_f(service, NULL, on_client);
    xpc_connection_resume(service);
    xpc_connection_t client = connected();
    answers(client, 21);
    /* While another thread is in the middle of something. */
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, busy, client) == 0);
    pid_t pids[10];
    for (int i = 0; i < 10; i++) {
        pids[i] = fork();
        CHECK(pids[i] >= 0);
        if (pids[i] == 0) child(client);
    }
    pthread_join(thread, NULL);
    for (int i = 0; i < 10; i++) {
        int how = 1;
        CHECK(waitpid(pids[i], &how, 0) == pids[i] && succeeded(how));
    }
    /* The parent's are as they were. */
    answers(client, 22);
    xpc_connection_cancel(client);
    xpc_release(client);
    xpc_connection_cancel(service);
    xpc_release(service);
    return 0;
}
