/*
 * A program on the LAN of the host's interface that is its first argument: it finds the interface in the list, starts on it,
 * and speaks from the address that is its second argument to those behind it, which answer by ARP and ping.
 */
#include "../client.h"
#include "../conversation.h"

static interface_ref interface;

static void read_all(void) {
    for (;;) {
        static uint8_t buffer[2048];
        struct iovec iov = {buffer, sizeof buffer};
        struct vmpktdesc packet = {.vm_pkt_size = sizeof buffer, .vm_pkt_iov = &iov, .vm_pkt_iovcnt = 1, .vm_flags = 0};
        int count = 1;
        CHECK(vmnet_read(interface, &packet, &count) == VMNET_SUCCESS);
        if (count == 0) return;
        arrived(buffer, packet.vm_pkt_size);
    }
}

#ifdef __BLOCKS__
static void listen_to_events(dispatch_queue_t queue) {
    CHECK(vmnet_interface_set_event_callback(interface, VMNET_INTERFACE_PACKETS_AVAILABLE, queue,
                                             ^(interface_event_t mask, xpc_object_t event) {
                                                 (void)mask, (void)event;
                                                 read_all();
                                             }) == VMNET_SUCCESS);
}
#else
static void on_event(void *context, interface_event_t mask, xpc_object_t event) {
    (void)context, (void)mask, (void)event;
    read_all();
}

static void listen_to_events(dispatch_queue_t queue) {
    CHECK(vmnet_interface_set_event_callback_f(interface, VMNET_INTERFACE_PACKETS_AVAILABLE, queue, NULL, on_event) ==
          VMNET_SUCCESS);
}
#endif

static void send_frame(const uint8_t *frame, size_t length) { write_one(interface, frame, length); }

static bool is_listed(const char *name) {
    xpc_object_t list = vmnet_copy_shared_interface_list();
    CHECK(xpc_get_type(list) == XPC_TYPE_ARRAY);
    bool found = false;
    for (size_t i = 0; i < xpc_array_get_count(list); i++) {
        const char *one = xpc_array_get_string(list, i);
        CHECK(one != NULL && strcmp(one, "lo") != 0);
        found |= strcmp(one, name) == 0;
    }
    xpc_release(list);
    return found;
}

int main(int count, char **words) {
    CHECK(count > 3);
    CHECK(is_listed(words[1]));
    dispatch_queue_t queue = dispatch_queue_create("bridged", DISPATCH_QUEUE_SERIAL);
    xpc_object_t desc = description(VMNET_BRIDGED_MODE);
    xpc_dictionary_set_string(desc, vmnet_shared_interface_name_key, words[1]);
    struct started it = started(desc, queue);
    interface = it.interface;
    const char *mac = xpc_dictionary_get_string(it.parameters, vmnet_mac_address_key);
    CHECK(mac != NULL);
    CHECK(xpc_dictionary_get_uint64(it.parameters, vmnet_mtu_key) == 1500);
    /* Addresses are the LAN's business. */
    CHECK(xpc_dictionary_get_value(it.parameters, vmnet_start_address_key) == NULL);
    listen_to_events(queue);
    speak_as(mac);
    for (int i = 3; i < count; i++) {
        talk.found = talk.pinged = false;
        converse(send_frame, words[i], words[2], 0);
    }
    stop(interface, queue);
    xpc_release(it.parameters);
    dispatch_release(queue);
    return 0;
}
