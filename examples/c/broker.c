/*
 * A network that two programs share. The broker makes it and holds it as long as somebody is connected; the others ask for
 * it by the name of the broker's service, and start interfaces on it.
 *
 *   cc broker.c -o broker $(pkg-config --cflags --libs vmnet vmnet-dispatch)
 *   ./broker serve org.example.network       in one terminal
 *   ./broker join org.example.network        in two others: each hears the other's greeting, and ends
 */
#define _DEFAULT_SOURCE /* usleep, also with -std=c11 */
#include <dispatch/dispatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <vmnet/vmnet.h>

static const char GREETING[] = "good day";
enum { ETHERNET = 14, GREETING_FRAME = ETHERNET + sizeof GREETING };

static void fail(const char *what, unsigned status) {
    fprintf(stderr, "%s: status %u (with VMNET_DEBUG=1 it says why)\n", what, status);
    exit(1);
}

/* ---- the broker ---- */

static vmnet_network_ref network;
static int users;

static void make_network(void) {
    vmnet_return_t status;
    vmnet_network_configuration_ref config = vmnet_network_configuration_create(VMNET_SHARED_MODE, &status);
    if (config == NULL) fail("the configuration", status);
    network = vmnet_network_create(config, &status);
    CFRelease(config);
    if (network == NULL) fail("the network", status);
}

static void on_message(void *context, xpc_object_t event) {
    (void)context;
    if (event == XPC_ERROR_CONNECTION_INVALID) {
        if (--users == 0) {
            /* With its last user the network goes, and the broker too. */
            CFRelease(network);
            exit(0);
        }
        return;
    }
    xpc_object_t reply = xpc_dictionary_create_reply(event);
    if (reply == NULL) return;
    vmnet_return_t status;
    xpc_object_t serialization = vmnet_network_copy_serialization(network, &status);
    xpc_dictionary_set_value(reply, "network", serialization);
    xpc_release(serialization);
    xpc_connection_send_message(xpc_dictionary_get_remote_connection(event), reply);
    xpc_release(reply);
}

static void on_client(void *context, xpc_object_t client) {
    (void)context;
    if (xpc_get_type(client) == XPC_TYPE_ERROR) {
        fprintf(stderr, "%s\n", xpc_dictionary_get_string(client, XPC_ERROR_KEY_DESCRIPTION));
        exit(1);
    }
    users++;
    xpc_connection_set_target_queue(client, dispatch_get_main_queue());
    xpc_connection_set_event_handler_f(client, NULL, on_message);
    xpc_connection_resume(client);
}

static void serve(const char *name) {
    make_network();
    xpc_connection_t listener = xpc_connection_create_mach_service(name, dispatch_get_main_queue(),
                                                                   XPC_CONNECTION_MACH_SERVICE_LISTENER);
    xpc_connection_set_event_handler_f(listener, NULL, on_client);
    xpc_connection_resume(listener);
    printf("ready\n");
    fflush(stdout);
    dispatch_main();
}

/* ---- the others ---- */

static dispatch_semaphore_t done;
static unsigned result;
static uint8_t mac[6];

static void on_started(void *context, vmnet_return_t status, xpc_object_t parameters) {
    (void)context;
    result = status;
    if (status == VMNET_SUCCESS) {
        const char *text = xpc_dictionary_get_string(parameters, vmnet_mac_address_key);
        sscanf(text, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &mac[0], &mac[1], &mac[2], &mac[3], &mac[4], &mac[5]);
    }
    dispatch_semaphore_signal(done);
}

static void on_stopped(void *context, vmnet_return_t status) {
    (void)context;
    result = status;
    dispatch_semaphore_signal(done);
}

static void ignored(void *context, xpc_object_t event) {
    (void)context;
    (void)event;
}

/* Says its greeting. One that has heard another's says it once more, since the other may have come later. */
static void greet(interface_ref interface) {
    uint8_t frame[GREETING_FRAME];
    memset(frame, 0xff, 6);
    memcpy(frame + 6, mac, 6);
    frame[12] = 0x88;
    frame[13] = 0xb5;
    memcpy(frame + ETHERNET, GREETING, sizeof GREETING);
    struct iovec iov = {frame, sizeof frame};
    struct vmpktdesc packet = {sizeof frame, &iov, 1, 0};
    int count = 1;
    vmnet_return_t status = vmnet_write(interface, &packet, &count);
    if (status != VMNET_SUCCESS) fail("vmnet_write", status);
}

static bool heard(interface_ref interface) {
    uint8_t frame[2048];
    for (;;) {
        struct iovec iov = {frame, sizeof frame};
        struct vmpktdesc packet = {sizeof frame, &iov, 1, 0};
        int count = 1;
        vmnet_return_t status = vmnet_read(interface, &packet, &count);
        if (status != VMNET_SUCCESS) fail("vmnet_read", status);
        if (count == 0) return false;
        if (packet.vm_pkt_size == GREETING_FRAME && memcmp(frame + ETHERNET, GREETING, sizeof GREETING) == 0) return true;
    }
}

static int join(const char *name) {
    xpc_connection_t broker = xpc_connection_create_mach_service(name, NULL, 0);
    xpc_connection_set_event_handler_f(broker, NULL, ignored);
    xpc_connection_resume(broker);
    xpc_object_t question = xpc_dictionary_create_empty();
    xpc_object_t reply = xpc_connection_send_message_with_reply_sync(broker, question);
    xpc_release(question);
    vmnet_return_t status;
    vmnet_network_ref shared =
        vmnet_network_create_with_serialization(xpc_dictionary_get_value(reply, "network"), &status);
    xpc_release(reply);
    if (shared == NULL) fail("the broker's network", status);

    done = dispatch_semaphore_create(0);
    dispatch_queue_t queue = dispatch_queue_create("join", DISPATCH_QUEUE_SERIAL);
    xpc_object_t desc = xpc_dictionary_create_empty();
    interface_ref interface = vmnet_interface_start_with_network_f(shared, desc, queue, NULL, on_started);
    xpc_release(desc);
    dispatch_semaphore_wait(done, DISPATCH_TIME_FOREVER);
    if (result != VMNET_SUCCESS) fail("the interface", result);
    /* The interface holds it now. */
    CFRelease(shared);

    do {
        greet(interface);
        usleep(20000);
    } while (!heard(interface));
    greet(interface);
    printf("somebody else is here\n");
    vmnet_stop_interface_f(interface, queue, NULL, on_stopped);
    dispatch_semaphore_wait(done, DISPATCH_TIME_FOREVER);
    xpc_connection_cancel(broker);
    xpc_release(broker);
    dispatch_release(queue);
    dispatch_release(done);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "serve") == 0) serve(argv[2]);
    if (argc == 3 && strcmp(argv[1], "join") == 0) return join(argv[2]);
    fprintf(stderr, "usage: broker serve|join SERVICE\n");
    return 2;
}
