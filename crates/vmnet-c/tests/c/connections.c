/* A broker and its clients: a named service in a process of its own, and connections to it. */
#include <sys/wait.h>
#include <unistd.h>
#include <vmnet/vmnet.h>

#include "check.h"

#define NAME "org.example.broker"

/* The broker: answers "acquire" with what it keeps, says how many peers have gone, and exits when told to. */

static int gone, unsent;

/* More than a message may have. */
static void set_too_much(xpc_object_t message) {
    size_t length = 17 << 20;
    void *bytes = calloc(1, length);
    xpc_dictionary_set_data(message, "bytes", bytes, length);
    free(bytes);
}

/* An error about one message, and no end of the connection. */
static void check_error(xpc_object_t event, const char *description) {
    CHECK(xpc_get_type(event) == XPC_TYPE_ERROR);
    CHECK(event != XPC_ERROR_CONNECTION_INVALID && event != XPC_ERROR_CONNECTION_INTERRUPTED);
    const char *said = xpc_dictionary_get_string(event, XPC_ERROR_KEY_DESCRIPTION);
    CHECK(strncmp(said, description, strlen(description)) == 0);
}

static void on_message(void *context, xpc_object_t event) {
    xpc_connection_t peer = context;
    if (xpc_get_type(event) == XPC_TYPE_ERROR && event != XPC_ERROR_CONNECTION_INVALID) {
        check_error(event, "Message not sent: it has more than 16 MiB");
        __atomic_add_fetch(&unsent, 1, __ATOMIC_SEQ_CST);
        return;
    }
    if (xpc_get_type(event) == XPC_TYPE_ERROR) {
        __atomic_add_fetch(&gone, 1, __ATOMIC_SEQ_CST);
        return;
    }
    CHECK(xpc_get_type(event) == XPC_TYPE_DICTIONARY);
    CHECK(xpc_dictionary_get_remote_connection(event) == peer);
    const char *command = xpc_dictionary_get_string(event, "command");
    xpc_object_t reply = xpc_dictionary_create_reply(event);
    if (reply == NULL) {
        if (command != NULL && strcmp(command, "exit") == 0) _Exit(0);
        return;
    }
    if (command != NULL && strcmp(command, "acquire") == 0) {
        xpc_object_t network = xpc_dictionary_create_empty();
        xpc_dictionary_set_data(network, "networkSerialization", "0123456789abcdef", 16);
        xpc_dictionary_set_value(reply, "network", network);
        xpc_release(network);
        int ends[2];
        CHECK(pipe(ends) == 0);
        CHECK(write(ends[1], "from the broker", 15) == 15);
        xpc_dictionary_set_fd(reply, "fd", ends[0]);
        close(ends[0]);
        close(ends[1]);
    } else if (command != NULL && strcmp(command, "too much") == 0) {
        set_too_much(reply);
    } else if (command != NULL && strcmp(command, "gone") == 0) {
        xpc_dictionary_set_int64(reply, "gone", __atomic_load_n(&gone, __ATOMIC_SEQ_CST));
        xpc_dictionary_set_int64(reply, "pid", xpc_connection_get_pid(peer));
        xpc_dictionary_set_int64(reply, "unsent", __atomic_load_n(&unsent, __ATOMIC_SEQ_CST));
    } else {
        xpc_dictionary_set_int64(reply, "error", 4);
    }
    xpc_connection_send_message(peer, reply);
    xpc_release(reply);
}

static void on_client(void *context, xpc_object_t event) {
    (void)context;
    CHECK(xpc_get_type(event) == XPC_TYPE_CONNECTION);
#ifdef __BLOCKS__
    xpc_connection_set_event_handler(event, ^(xpc_object_t message) { on_message(event, message); });
#else
    xpc_connection_set_event_handler_f(event, event, on_message);
#endif
    xpc_connection_resume(event);
}

static void broker(int ready) {
    xpc_connection_t listener =
        xpc_connection_create_mach_service(NAME, NULL, XPC_CONNECTION_MACH_SERVICE_LISTENER);
    xpc_connection_set_event_handler_f(listener, NULL, on_client);
    xpc_connection_resume(listener);
    CHECK(write(ready, "r", 1) == 1);
    for (;;) pause();
}

static const char *self;

static pid_t start_broker(void) {
    int ready[2];
    char byte;
    CHECK(pipe(ready) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        /* As a program of its own: threads of this one are not in the child. */
        char end[16];
        snprintf(end, sizeof end, "%d", ready[1]);
        execl(self, self, end, (char *)NULL);
        _Exit(1);
    }
    close(ready[1]);
    CHECK(read(ready[0], &byte, 1) == 1);
    close(ready[0]);
    return pid;
}

/* The client. */

struct events {
    int interrupted, invalid, unsent;
};

static void on_event(void *context, xpc_object_t event) {
    struct events *events = context;
    if (event == XPC_ERROR_CONNECTION_INTERRUPTED) __atomic_add_fetch(&events->interrupted, 1, __ATOMIC_SEQ_CST);
    if (event == XPC_ERROR_CONNECTION_INVALID) __atomic_add_fetch(&events->invalid, 1, __ATOMIC_SEQ_CST);
    if (event != XPC_ERROR_CONNECTION_INTERRUPTED && event != XPC_ERROR_CONNECTION_INVALID) {
        check_error(event, "Message not sent: it has more than 64 descriptors");
        __atomic_add_fetch(&events->unsent, 1, __ATOMIC_SEQ_CST);
    }
}

static void wait_for(int *count, int wanted) {
    for (int i = 0; i < 2000 && __atomic_load_n(count, __ATOMIC_SEQ_CST) < wanted; i++) usleep(10000);
    CHECK(__atomic_load_n(count, __ATOMIC_SEQ_CST) == wanted);
}

static xpc_connection_t connect_to(struct events *events) {
    xpc_connection_t connection = xpc_connection_create_mach_service(NAME, NULL, 0);
    xpc_connection_set_event_handler_f(connection, events, on_event);
    xpc_connection_resume(connection);
    return connection;
}

static xpc_object_t ask(xpc_connection_t connection, const char *command) {
    xpc_object_t message = xpc_dictionary_create_empty();
    xpc_dictionary_set_string(message, "command", command);
    xpc_object_t reply = xpc_connection_send_message_with_reply_sync(connection, message);
    xpc_release(message);
    return reply;
}

static void tell(xpc_connection_t connection, const char *command) {
    xpc_object_t message = xpc_dictionary_create_empty();
    xpc_dictionary_set_string(message, "command", command);
    xpc_connection_send_message(connection, message);
    xpc_release(message);
}

static void acquire(xpc_connection_t connection) {
    xpc_object_t reply = ask(connection, "acquire");
    CHECK(xpc_get_type(reply) == XPC_TYPE_DICTIONARY);
    size_t length = 0;
    xpc_object_t network = xpc_dictionary_get_dictionary(reply, "network");
    CHECK(memcmp(xpc_dictionary_get_data(network, "networkSerialization", &length), "0123456789abcdef", 16) == 0);
    CHECK(length == 16);
    char text[32];
    int fd = xpc_dictionary_dup_fd(reply, "fd");
    CHECK(read(fd, text, sizeof text) == 15 && memcmp(text, "from the broker", 15) == 0);
    close(fd);
    xpc_release(reply);
}

/* What cannot be sent is an error for its sender, and the connection goes on. */
static void send_too_much(xpc_connection_t connection, struct events *events) {
    xpc_object_t message = xpc_dictionary_create_empty();
    set_too_much(message);
    xpc_object_t reply = xpc_connection_send_message_with_reply_sync(connection, message);
    check_error(reply, "Message not sent: it has more than 16 MiB");
    xpc_release(reply);
    xpc_release(message);
    acquire(connection);

    message = xpc_dictionary_create_empty();
    for (int i = 0; i < 65; i++) {
        char key[16];
        snprintf(key, sizeof key, "fd %d", i);
        xpc_dictionary_set_fd(message, key, STDERR_FILENO);
    }
    xpc_connection_send_message(connection, message);
    xpc_release(message);
    wait_for(&events->unsent, 1);
    acquire(connection);

    /* An answer that cannot be sent: both sides know. */
    reply = ask(connection, "too much");
    check_error(reply, "Not answered");
    xpc_release(reply);
    int64_t unsent = 0;
    for (int i = 0; i < 2000 && unsent == 0; i++) {
        reply = ask(connection, "gone");
        unsent = xpc_dictionary_get_int64(reply, "unsent");
        xpc_release(reply);
    }
    CHECK(unsent == 1);
    CHECK(events->invalid == 0 && events->interrupted == 0);
}

static void store(void *context, xpc_object_t reply) {
    xpc_object_t *place = context;
    __atomic_store_n(place, xpc_retain(reply), __ATOMIC_SEQ_CST);
}

int main(int argc, char **argv) {
    CHECK(getenv("XDG_RUNTIME_DIR") != NULL);
    self = argv[0];
    if (argc > 1) broker(atoi(argv[1]));
    pid_t pid = start_broker();

    struct events events = {0}, others = {0};
    xpc_connection_t connection = connect_to(&events);
    CHECK(strcmp(xpc_connection_get_name(connection), NAME) == 0);
    acquire(connection);
    CHECK(xpc_connection_get_pid(connection) == pid);
    CHECK(xpc_connection_get_euid(connection) == geteuid());
    xpc_object_t reply = ask(connection, "nonsense");
    CHECK(xpc_dictionary_get_int64(reply, "error") == 4);
    xpc_release(reply);

    send_too_much(connection, &events);

    /* A client that goes is seen by the broker. */
    xpc_connection_t other = connect_to(&others);
    acquire(other);
    xpc_connection_cancel(other);
    wait_for(&others.invalid, 1);
    xpc_release(other);
    int64_t seen = 0;
    for (int i = 0; i < 2000 && seen == 0; i++) {
        reply = ask(connection, "gone");
        seen = xpc_dictionary_get_int64(reply, "gone");
        CHECK(xpc_dictionary_get_int64(reply, "pid") == getpid());
        xpc_release(reply);
    }
    CHECK(seen == 1);

    /* An answer on its own time. */
    xpc_object_t late = NULL;
    xpc_object_t message = xpc_dictionary_create_empty();
    xpc_connection_send_message_with_reply_f(connection, message, NULL, &late, store);
    xpc_release(message);
    for (int i = 0; i < 2000 && __atomic_load_n(&late, __ATOMIC_SEQ_CST) == NULL; i++) usleep(10000);
    CHECK(late != NULL && xpc_dictionary_get_int64(late, "error") == 4);
    xpc_release(late);

    /* A second broker of the name is none. */
    struct events refused = {0};
    xpc_connection_t second = xpc_connection_create_mach_service(NAME, NULL, XPC_CONNECTION_MACH_SERVICE_LISTENER);
    xpc_connection_set_event_handler_f(second, &refused, on_event);
    xpc_connection_resume(second);
    wait_for(&refused.invalid, 1);
    xpc_release(second);

    /* The broker ends, and comes back under the same connection. */
    tell(connection, "exit");
    CHECK(waitpid(pid, NULL, 0) == pid);
    wait_for(&events.interrupted, 1);
    pid = start_broker();
    acquire(connection);
    CHECK(xpc_connection_get_pid(connection) == pid);

    /* It ends for good. */
    tell(connection, "exit");
    CHECK(waitpid(pid, NULL, 0) == pid);
    wait_for(&events.interrupted, 2);
    CHECK(events.invalid == 0);
    reply = ask(connection, "acquire");
    CHECK(reply == XPC_ERROR_CONNECTION_INVALID);
    xpc_release(reply);
    wait_for(&events.invalid, 1);
    xpc_release(connection);

    CHECK(xpc_connection_create_mach_service(NULL, NULL, 0) == NULL);
    xpc_connection_t outside = xpc_connection_create_mach_service("../vmnet.sock", NULL, 0);
    xpc_connection_resume(outside);
    CHECK(ask(outside, "acquire") == XPC_ERROR_CONNECTION_INVALID);
    xpc_release(outside);
    return 0;
}
