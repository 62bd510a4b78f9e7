/*
 * In the manner of macos-vmnet's example and of VirtualBox: one packet for each event, and no look at what else waits. The
 * description asks for a host's network of one address, and for no MAC.
 */
#include "../client.h"
#include "../conversation.h"

static interface_ref interface;
static uint8_t buffer[1600];

static void on_event(interface_event_t mask) {
    CHECK(mask == VMNET_INTERFACE_PACKETS_AVAILABLE);
    struct iovec iov = {buffer, sizeof buffer};
    struct vmpktdesc packet = {.vm_pkt_size = sizeof buffer, .vm_pkt_iov = &iov, .vm_pkt_iovcnt = 1, .vm_flags = 0};
    int count = 1;
    CHECK(vmnet_read(interface, &packet, &count) == VMNET_SUCCESS);
    /* An event means that a packet can be read. */
    CHECK(count == 1);
    arrived(buffer, packet.vm_pkt_size);
}

#ifdef __BLOCKS__
static void listen_to_events(dispatch_queue_t queue) {
    CHECK(vmnet_interface_set_event_callback(interface, VMNET_INTERFACE_PACKETS_AVAILABLE, queue,
                                             ^(interface_event_t mask, xpc_object_t event) {
                                                 (void)event;
                                                 on_event(mask);
                                             }) == VMNET_SUCCESS);
}

static void print_list(xpc_object_t list) {
    CHECK(xpc_array_apply(list, ^bool(size_t index, xpc_object_t name) {
        printf("%zu: %s\n", index, xpc_string_get_string_ptr(name));
        return true;
    }));
}
#else
static void on_event_f(void *context, interface_event_t mask, xpc_object_t event) {
    (void)event;
    CHECK(context == buffer);
    on_event(mask);
}

static void listen_to_events(dispatch_queue_t queue) {
    CHECK(vmnet_interface_set_event_callback_f(interface, VMNET_INTERFACE_PACKETS_AVAILABLE, queue, buffer, on_event_f) ==
          VMNET_SUCCESS);
}

static void print_list(xpc_object_t list) { (void)xpc_array_get_count(list); }
#endif

static void send_frame(const uint8_t *frame, size_t length) { write_one(interface, frame, length); }

int main(void) {
    xpc_object_t list = vmnet_copy_shared_interface_list();
    CHECK(xpc_get_type(list) == XPC_TYPE_ARRAY);
    print_list(list);
    xpc_release(list);
    dispatch_queue_t queue = dispatch_queue_create("one", DISPATCH_QUEUE_SERIAL);
    xpc_object_t desc = description(VMNET_HOST_MODE);
    xpc_dictionary_set_string(desc, vmnet_start_address_key, "192.168.150.1");
    xpc_dictionary_set_string(desc, vmnet_end_address_key, "192.168.150.1");
    xpc_dictionary_set_string(desc, vmnet_subnet_mask_key, "255.255.255.0");
    xpc_dictionary_set_bool(desc, vmnet_allocate_mac_address_key, false);
    struct started it = started(desc, queue);
    interface = it.interface;
    char *text = xpc_copy_description(it.parameters);
    puts(text);
    free(text);
    /* Said as they were asked for. */
    CHECK(strcmp(xpc_dictionary_get_string(it.parameters, vmnet_start_address_key), "192.168.150.1") == 0);
    CHECK(strcmp(xpc_dictionary_get_string(it.parameters, vmnet_end_address_key), "192.168.150.1") == 0);
    CHECK(strcmp(xpc_dictionary_get_string(it.parameters, vmnet_subnet_mask_key), "255.255.255.0") == 0);
    CHECK(xpc_dictionary_get_value(it.parameters, vmnet_mac_address_key) == NULL);
    CHECK(xpc_dictionary_get_value(it.parameters, vmnet_interface_id_key) == NULL);
    CHECK(xpc_dictionary_get_value(it.parameters, vmnet_nat66_prefix_key) == NULL);
    listen_to_events(queue);
    speak_as(NULL);
    converse(send_frame, "192.168.150.1", "192.168.150.77", 150);
    stop(interface, queue);
    xpc_release(it.parameters);
    dispatch_release(queue);
    return 0;
}
