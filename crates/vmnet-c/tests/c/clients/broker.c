/*
 * In the manner of vmnet-broker: one process makes networks and gives them to others, by name; it keeps each as long as
 * somebody who acquired it is connected. The others start interfaces on them.
 *
 *   broker SERVICE          the broker
 *   broker SERVICE client   a program that acquires the network "shared", starts an interface, and speaks
 */
#include <signal.h>

#include "../client.h"
#include "../conversation.h"

enum { NOT_FOUND = 5, CREATE_FAILURE = 6 };

static vmnet_network_ref shared;
static unsigned users;

static xpc_object_t acquire(const char *name, int64_t *error) {
    vmnet_return_t status;
    if (name == NULL || strcmp(name, "shared") != 0) {
        *error = NOT_FOUND;
        return NULL;
    }
    if (shared == NULL) {
        vmnet_network_configuration_ref config = vmnet_network_configuration_create(VMNET_SHARED_MODE, &status);
        CHECK(config != NULL && status == VMNET_SUCCESS);
        shared = vmnet_network_create(config, &status);
        CFRelease(config);
        *error = CREATE_FAILURE;
        if (shared == NULL) return NULL;
        struct in_addr subnet, mask;
        struct in6_addr prefix;
        uint8_t length;
        vmnet_network_get_ipv4_subnet(shared, &subnet, &mask);
        vmnet_network_get_ipv6_prefix(shared, &prefix, &length);
        CHECK(ntohl(mask.s_addr) == 0xffffff00 && (ntohl(subnet.s_addr) & 0xff) == 1 && length == 64);
    }
    return vmnet_network_copy_serialization(shared, &status);
}

static void on_request(xpc_connection_t peer, xpc_object_t message) {
    const char *command = xpc_dictionary_get_string(message, "command");
    CHECK(command != NULL && strcmp(command, "acquire") == 0);
    CHECK(xpc_connection_get_pid(peer) > 0);
    int64_t error = 0;
    xpc_object_t network = acquire(xpc_dictionary_get_string(message, "network_name"), &error);
    xpc_object_t reply = xpc_dictionary_create_reply(message);
    if (network != NULL) {
        xpc_dictionary_set_value(reply, "network", network);
        xpc_release(network);
    } else {
        xpc_dictionary_set_int64(reply, "error", error);
    }
    xpc_connection_send_message(peer, reply);
    xpc_release(reply);
}

static void serve(const char *service) {
    dispatch_queue_t queue = dispatch_get_main_queue();
    xpc_connection_t listener =
        xpc_connection_create_mach_service(service, queue, XPC_CONNECTION_MACH_SERVICE_LISTENER);
    xpc_connection_set_event_handler(listener, ^(xpc_object_t peer) {
        if (xpc_get_type(peer) == XPC_TYPE_ERROR) {
            fprintf(stderr, "%s\n", xpc_dictionary_get_string(peer, XPC_ERROR_KEY_DESCRIPTION));
            exit(1);
        }
        users++;
        xpc_transaction_begin();
        xpc_connection_set_target_queue(peer, queue);
        xpc_connection_set_event_handler(peer, ^(xpc_object_t event) {
            if (xpc_get_type(event) == XPC_TYPE_DICTIONARY) {
                on_request(peer, event);
            } else if (event == XPC_ERROR_CONNECTION_INVALID) {
                xpc_transaction_end();
                if (--users != 0) return;
                /* The last one went, and the network with it. */
                CFRelease(shared);
                exit(0);
            }
        });
        xpc_connection_resume(peer);
    });
    xpc_connection_resume(listener);
    dispatch_source_t term = dispatch_source_create(DISPATCH_SOURCE_TYPE_SIGNAL, SIGTERM, 0, queue);
    signal(SIGTERM, SIG_IGN);
    dispatch_source_set_event_handler(term, ^{
        if (users == 0) exit(0);
    });
    dispatch_resume(term);
    puts("ready");
    fflush(stdout);
    dispatch_main();
}

static xpc_object_t ask(xpc_connection_t connection, const char *name) {
    xpc_object_t message = xpc_dictionary_create_empty();
    xpc_dictionary_set_string(message, "command", "acquire");
    xpc_dictionary_set_string(message, "network_name", name);
    xpc_object_t reply = xpc_connection_send_message_with_reply_sync(connection, message);
    xpc_release(message);
    CHECK(xpc_get_type(reply) == XPC_TYPE_DICTIONARY);
    return reply;
}

static interface_ref interface;

static void send_frame(const uint8_t *frame, size_t length) { write_one(interface, frame, length); }

static int client(const char *service) {
    dispatch_queue_t queue = dispatch_queue_create("client", DISPATCH_QUEUE_SERIAL);
    xpc_connection_t connection = xpc_connection_create_mach_service(service, NULL, 0);
    xpc_connection_set_event_handler(connection, ^(xpc_object_t event) {
        CHECK(xpc_get_type(event) == XPC_TYPE_ERROR);
    });
    xpc_connection_resume(connection);
    xpc_object_t reply = ask(connection, "another");
    CHECK(xpc_dictionary_get_int64(reply, "error") == NOT_FOUND);
    xpc_release(reply);
    reply = ask(connection, "shared");
    vmnet_return_t status;
    vmnet_network_ref network =
        vmnet_network_create_with_serialization(xpc_dictionary_get_value(reply, "network"), &status);
    CHECK(network != NULL && status == VMNET_SUCCESS);
    xpc_release(reply);
    struct in_addr subnet, mask;
    char gateway[INET_ADDRSTRLEN];
    vmnet_network_get_ipv4_subnet(network, &subnet, &mask);
    CHECK(inet_ntop(AF_INET, &subnet, gateway, sizeof gateway) != NULL);
    xpc_object_t desc = xpc_dictionary_create_empty();
    struct started it = start_on(network, desc, queue);
    xpc_release(desc);
    CFRelease(network);
    CHECK(it.status == VMNET_SUCCESS);
    interface = it.interface;
    CHECK(vmnet_interface_set_event_callback(interface, VMNET_INTERFACE_PACKETS_AVAILABLE, queue,
                                             ^(interface_event_t mask_of_events, xpc_object_t event) {
                                                 (void)mask_of_events;
                                                 (void)event;
                                                 static uint8_t bytes[2048];
                                                 struct iovec iov = {bytes, sizeof bytes};
                                                 struct vmpktdesc packet = {sizeof bytes, &iov, 1, 0};
                                                 int count = 1;
                                                 CHECK(vmnet_read(interface, &packet, &count) == VMNET_SUCCESS);
                                                 if (count == 1) arrived(bytes, packet.vm_pkt_size);
                                             }) == VMNET_SUCCESS);
    speak_as(xpc_dictionary_get_string(it.parameters, vmnet_mac_address_key));
    converse(send_frame, gateway, NULL, 0);
    stop(interface, queue);
    xpc_release(it.parameters);
    xpc_connection_cancel(connection);
    xpc_release(connection);
    dispatch_release(queue);
    return 0;
}

int main(int argc, char **argv) {
    CHECK(argc == 2 || argc == 3);
    if (argc == 3) return client(argv[1]);
    serve(argv[1]);
}
