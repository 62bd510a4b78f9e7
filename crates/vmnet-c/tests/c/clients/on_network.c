/*
 * In the manner of Code-Hex/vz and of Apple's containers: a network made from a configuration, and interfaces on it. The
 * network is let go of as soon as they have started. After the stop the interface is released like other objects.
 */
#include <uuid/uuid.h>

#include "../client.h"
#include "../conversation.h"

static interface_ref interface;
static bool with_header;

static void on_event(interface_event_t mask) {
    CHECK(mask == VMNET_INTERFACE_PACKETS_AVAILABLE);
    static uint8_t bytes[65600];
    for (;;) {
        struct iovec iov = {bytes, sizeof bytes};
        struct vmpktdesc packet = {sizeof bytes, &iov, 1, 0};
        int count = 1;
        CHECK(vmnet_read(interface, &packet, &count) == VMNET_SUCCESS);
        if (count == 0) return;
        size_t header = with_header ? 12 : 0;
        CHECK(packet.vm_pkt_size >= header + ETHERNET && iov.iov_len == packet.vm_pkt_size);
        arrived(bytes + header, packet.vm_pkt_size - header);
    }
}

static void send_frame(const uint8_t *frame, size_t length) {
    uint8_t bytes[2048] = {0};
    size_t header = with_header ? 12 : 0;
    memcpy(bytes + header, frame, length);
    write_one(interface, bytes, length + header);
}

static void listen_to_events(dispatch_queue_t queue) {
    CHECK(vmnet_interface_set_event_callback(interface, VMNET_INTERFACE_PACKETS_AVAILABLE, queue,
                                             ^(interface_event_t mask, xpc_object_t event) {
                                                 (void)event;
                                                 on_event(mask);
                                             }) == VMNET_SUCCESS);
}

/* The peer's interface, in this process: a network's are not found by their mode. */
static interface_ref peer;

static void answer_once(void) {
    static uint8_t bytes[65600], out[65600];
    for (;;) {
        struct iovec iov = {bytes, sizeof bytes};
        struct vmpktdesc packet = {sizeof bytes, &iov, 1, 0};
        int count = 1;
        CHECK(vmnet_read(peer, &packet, &count) == VMNET_SUCCESS);
        if (count == 0) return;
        if (get16(bytes + 12) != TYPE_PEER) continue;
        uint32_t answers = get32(bytes + ETHERNET + 4), length = get32(bytes + ETHERNET + 8);
        ethernet(out, bytes + 6, (const uint8_t *)"\x0a\x70\x65\x65\x72\x02", TYPE_PEER);
        put32(out + ETHERNET, get32(bytes + ETHERNET));
        for (uint32_t n = 0; n < answers; n++) {
            put32(out + ETHERNET + 4, n);
            for (uint32_t i = ETHERNET + 8; i < length; i++) out[i] = (uint8_t)(i + n);
            write_one(peer, out, length);
        }
    }
}

static vmnet_network_ref made(vmnet_mode_t mode, const char *address, bool dhcp) {
    vmnet_return_t status = VMNET_FAILURE;
    vmnet_network_configuration_ref config = vmnet_network_configuration_create(mode, &status);
    CHECK(config != NULL && status == VMNET_SUCCESS);
    struct in_addr subnet, mask;
    CHECK(inet_pton(AF_INET, address, &subnet) == 1 && inet_pton(AF_INET, "255.255.255.0", &mask) == 1);
    CHECK(vmnet_network_configuration_set_ipv4_subnet(config, &subnet, &mask) == VMNET_SUCCESS);
    if (!dhcp) vmnet_network_configuration_disable_dhcp(config);
    vmnet_network_ref network = vmnet_network_create(config, &status);
    CHECK(network != NULL && status == VMNET_SUCCESS);
    CFRelease(config);
    return network;
}

int main(void) {
    dispatch_queue_t queue = dispatch_queue_create("network", DISPATCH_QUEUE_SERIAL);
    vmnet_network_ref network = made(VMNET_HOST_MODE, "192.168.152.1", false);
    /* Nothing need be said. An id is ignored: both are random. */
    xpc_object_t desc = xpc_dictionary_create_empty();
    uuid_t id = {1, 2, 3, 4};
    xpc_dictionary_set_uuid(desc, vmnet_interface_id_key, id);
    struct started one = start_on(network, desc, queue);
    xpc_release(desc);
    CHECK(one.status == VMNET_SUCCESS);
    CHECK(xpc_dictionary_get_count(one.parameters) == 6);
    CHECK(uuid_compare(xpc_dictionary_get_uuid(one.parameters, vmnet_interface_id_key), id) != 0);
    CHECK(strlen(xpc_dictionary_get_string(one.parameters, vmnet_mac_address_key)) == 17);
    peer = one.interface;

    desc = xpc_dictionary_create_empty();
    xpc_dictionary_set_bool(desc, vmnet_enable_virtio_header_key, true);
    xpc_dictionary_set_bool(desc, vmnet_enable_tso_key, true);
    struct started two = start_on(network, desc, queue);
    CHECK(two.status == VMNET_SUCCESS);
    with_header = true;
    interface = two.interface;
    CHECK(xpc_dictionary_get_uint64(two.parameters, vmnet_max_packet_size_key) >= 65550);
    xpc_dictionary_set_bool(desc, vmnet_enable_checksum_offload_key, true);
    struct started refused = start_on(network, desc, queue);
    CHECK(refused.status == VMNET_INVALID_ARGUMENT && refused.parameters == NULL);
    xpc_release(desc);
    /* The interfaces keep it. */
    xpc_object_t serialization = vmnet_network_copy_serialization(network, NULL);
    CFRelease(network);
    network = vmnet_network_create_with_serialization(serialization, NULL);
    CHECK(network != NULL);
    CFRelease(network);

    listen_to_events(queue);
    speak_as(xpc_dictionary_get_string(two.parameters, vmnet_mac_address_key));
    dispatch_semaphore_t go_on = dispatch_semaphore_create(0);
    dispatch_source_t timer = dispatch_source_create(DISPATCH_SOURCE_TYPE_TIMER, 0, 0, queue);
    dispatch_source_set_timer(timer, DISPATCH_TIME_NOW, 5 * NSEC_PER_MSEC, 0);
    dispatch_source_set_event_handler(timer, ^{
        answer_once();
    });
    dispatch_resume(timer);
    converse(send_frame, "192.168.152.1", "192.168.152.9", 40);
    dispatch_source_set_cancel_handler(timer, ^{
        dispatch_semaphore_signal(go_on);
    });
    dispatch_source_cancel(timer);
    dispatch_semaphore_wait(go_on, DISPATCH_TIME_FOREVER);
    dispatch_release(timer);
    dispatch_release(go_on);

    stop(two.interface, queue);
    stop(one.interface, queue);
    /* With the last interface the network went, and its subnet is free when the stop is told. */
    CHECK(vmnet_network_create_with_serialization(serialization, NULL) == NULL);
    network = made(VMNET_SHARED_MODE, "192.168.152.1", true);
    CFRelease(network);
    xpc_release(serialization);

    /* Stopped interfaces are objects still, for those who release them. */
    int none = 0;
    CHECK(vmnet_read(two.interface, NULL, &none) != VMNET_SUCCESS);
    CFRelease(one.interface);
    CFRelease(two.interface);
    CFRelease(refused.interface);
    xpc_release(one.parameters);
    xpc_release(two.parameters);
    dispatch_release(queue);
    return 0;
}
