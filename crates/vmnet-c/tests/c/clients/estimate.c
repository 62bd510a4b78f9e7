/*
 * In the manner of socket_vmnet: one interface for many guests. Each event reads exactly as many packets as it estimates, in
 * pieces of 32, and returns. Nobody asks whether the start gave NULL; stopping leaves the callback where it is.
 */
#include <uuid/uuid.h>

#include "../client.h"
#include "../conversation.h"

enum { PIECE = 32 };

static interface_ref interface;
static dispatch_queue_t guests;
static uint8_t bytes[PIECE][2048];
static size_t longest;

static void read_piece(int count) {
    struct vmpktdesc packets[PIECE];
    struct iovec iov[PIECE];
    for (int i = 0; i < count; i++) {
        iov[i] = (struct iovec){bytes[i], longest};
        packets[i] = (struct vmpktdesc){longest, &iov[i], 1, 0};
    }
    int got = count;
    CHECK(vmnet_read(interface, packets, &got) == VMNET_SUCCESS);
    /* The estimate was of what is there. */
    CHECK(got == count);
    for (int i = 0; i < got; i++) {
        CHECK(iov[i].iov_len > 12 && packets[i].vm_flags == 0);
        arrived(bytes[i], packets[i].vm_pkt_size);
    }
}

static void on_event(interface_event_t mask, xpc_object_t event) {
    CHECK(mask == VMNET_INTERFACE_PACKETS_AVAILABLE && xpc_get_type(event) == XPC_TYPE_DICTIONARY);
    xpc_object_t value = xpc_dictionary_get_value(event, vmnet_estimated_packets_available_key);
    CHECK(xpc_get_type(value) == XPC_TYPE_UINT64);
    uint64_t estimate = xpc_uint64_get_value(value);
    CHECK(estimate >= 1);
    for (uint64_t i = 0; i < estimate / PIECE; i++) read_piece(PIECE);
    if (estimate % PIECE) read_piece((int)(estimate % PIECE));
}

static void send_frame(const uint8_t *frame, size_t length) { write_one(interface, frame, length); }

int main(void) {
    /* Two guests by one interface, each with a MAC that is not the interface's. */
    guests = dispatch_queue_create("guests", DISPATCH_QUEUE_CONCURRENT);
    dispatch_queue_t queue = dispatch_queue_create("host", DISPATCH_QUEUE_SERIAL);
    xpc_object_t desc = description(VMNET_SHARED_MODE);
    uuid_t id;
    uuid_generate_random(id);
    xpc_dictionary_set_uuid(desc, vmnet_interface_id_key, id);
    /* Of bridged mode; harmless in this one. */
    xpc_dictionary_set_string(desc, vmnet_shared_interface_name_key, "en0");
    struct started it = start_on(NULL, desc, queue);
    CHECK(it.status == VMNET_SUCCESS);
    interface = it.interface;
    CHECK(uuid_compare(xpc_dictionary_get_uuid(it.parameters, vmnet_interface_id_key), id) == 0);
    longest = xpc_dictionary_get_uint64(it.parameters, vmnet_max_packet_size_key);
    (void)vmnet_interface_set_event_callback(interface, VMNET_INTERFACE_PACKETS_AVAILABLE, queue,
                                             ^(interface_event_t mask, xpc_object_t event) {
                                                 on_event(mask, event);
                                             });
    const char *gateway = xpc_dictionary_get_string(it.parameters, vmnet_start_address_key);
    speak_as("02:00:5e:00:00:01");
    converse(send_frame, gateway, NULL, 333);
    speak_as("02:00:5e:00:00:02");
    talk.lease = 0;
    talk.found = talk.pinged = false;
    converse(send_frame, gateway, NULL, 33);
    stop(interface, queue);
    xpc_release(desc);
    xpc_release(it.parameters);
    dispatch_release(queue);
    dispatch_release(guests);
    return 0;
}
