/*
 * In the manner of xhyve: buffers lie in pieces, as a guest's ring gives them, for reading and for writing. The callback reads,
 * and nothing is ever stopped: the process just ends.
 */
#include <uuid/uuid.h>

#include "../client.h"
#include "../conversation.h"

enum { PIECES = 5 };

static interface_ref interface;

static void on_event(interface_event_t mask) {
    CHECK(mask == VMNET_INTERFACE_PACKETS_AVAILABLE);
    static uint8_t bytes[2048];
    static const size_t lengths[PIECES] = {10, 4, 0, 486, 1014};
    for (;;) {
        struct iovec iov[PIECES];
        uint8_t *at = bytes;
        for (int i = 0; i < PIECES; at += lengths[i] + 1, i++) iov[i] = (struct iovec){at, lengths[i]};
        struct vmpktdesc packet = {.vm_pkt_size = 1514, .vm_pkt_iov = iov, .vm_pkt_iovcnt = PIECES};
        memset(bytes, 0xee, sizeof bytes);
        packet.vm_flags = 0;
        int count = 1;
        CHECK(vmnet_read(interface, &packet, &count) == VMNET_SUCCESS);
        if (count == 0) return;
        uint8_t frame[1514];
        size_t done = 0;
        for (int i = 0; i < PIECES; i++) {
            size_t rest = packet.vm_pkt_size - done, some = rest < lengths[i] ? rest : lengths[i];
            memcpy(frame + done, iov[i].iov_base, some);
            done += some;
            CHECK(iov[i].iov_len == lengths[i]);
            /* Nothing was written behind a piece. */
            CHECK(((uint8_t *)iov[i].iov_base)[lengths[i]] == 0xee);
        }
        CHECK(done == packet.vm_pkt_size);
        arrived(frame, done);
    }
}

#ifdef __BLOCKS__
static void listen_to_events(dispatch_queue_t queue) {
    CHECK(vmnet_interface_set_event_callback(interface, VMNET_INTERFACE_PACKETS_AVAILABLE, queue,
                                             ^(interface_event_t mask, xpc_object_t event) {
                                                 (void)event;
                                                 on_event(mask);
                                             }) == VMNET_SUCCESS);
}
#else
static void on_event_f(void *context, interface_event_t mask, xpc_object_t event) {
    (void)context;
    (void)event;
    on_event(mask);
}

static void listen_to_events(dispatch_queue_t queue) {
    CHECK(vmnet_interface_set_event_callback_f(interface, VMNET_INTERFACE_PACKETS_AVAILABLE, queue, NULL, on_event_f) ==
          VMNET_SUCCESS);
}
#endif

static void send_frame(const uint8_t *frame, size_t length) {
    uint8_t head[10], rest[2048];
    memcpy(head, frame, sizeof head);
    memcpy(rest, frame + sizeof head, length - sizeof head);
    struct iovec iov[] = {{head, 6}, {head + 6, 4}, {NULL, 0}, {rest, length - sizeof head}};
    struct vmpktdesc packet = {.vm_pkt_size = length, .vm_pkt_iov = iov, .vm_pkt_iovcnt = 4, .vm_flags = 0};
    int count = 1;
    CHECK(vmnet_write(interface, &packet, &count) == VMNET_SUCCESS && count == 1);
}

int main(void) {
    static dispatch_queue_t queue;
    queue = dispatch_queue_create("tap", DISPATCH_QUEUE_SERIAL);
    xpc_object_t desc = description(VMNET_SHARED_MODE);
    uuid_t id;
    uuid_generate_random(id);
    xpc_dictionary_set_uuid(desc, vmnet_interface_id_key, id);
    static struct started it;
    it = started(desc, queue);
    interface = it.interface;
    unsigned part[6];
    const char *mac = xpc_dictionary_get_string(it.parameters, vmnet_mac_address_key);
    CHECK(sscanf(mac, "%x:%x:%x:%x:%x:%x", part, part + 1, part + 2, part + 3, part + 4, part + 5) == 6);
    CHECK((part[0] & 3) == 2 && strlen(mac) == 17);
    CHECK(xpc_dictionary_get_uint64(it.parameters, vmnet_mtu_key) == 1500);
    CHECK(xpc_dictionary_get_uint64(it.parameters, vmnet_max_packet_size_key) == 1514);
    listen_to_events(queue);
    speak_as(mac);
    converse(send_frame, xpc_dictionary_get_string(it.parameters, vmnet_start_address_key), NULL, 120);
    return 0;
}
