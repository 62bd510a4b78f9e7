/* Each key, by what it does. */
#include <uuid/uuid.h>

#include "pair.h"

static dispatch_queue_t queue;

static const uint8_t ONE[6] = {2, 0, 0, 0, 0, 1}, TWO[6] = {2, 0, 0, 0, 0, 2};

static const char *text(struct started it, const char *key) { return xpc_dictionary_get_string(it.parameters, key); }

static uint64_t number(struct started it, const char *key) { return xpc_dictionary_get_uint64(it.parameters, key); }

static void end(struct started it) {
    if (it.status == VMNET_SUCCESS) stop(it.interface, queue);
    xpc_release(it.parameters);
}

/* A network of one's own, by its range. */
static xpc_object_t range(operating_modes_t mode, const char *start, const char *end) {
    xpc_object_t desc = description(mode);
    xpc_dictionary_set_string(desc, vmnet_start_address_key, start);
    xpc_dictionary_set_string(desc, vmnet_end_address_key, end);
    xpc_dictionary_set_string(desc, vmnet_subnet_mask_key, "255.255.255.0");
    return desc;
}

static void refused(xpc_object_t desc, vmnet_return_t status) {
    struct started it = start_on(NULL, desc, queue);
    xpc_release(desc);
    CHECK(it.status == status && it.parameters == NULL);
}

static void identities(void) {
    struct started it = started(description(VMNET_HOST_MODE), queue);
    uuid_t id;
    char mac[18], other[18];
    uuid_copy(id, xpc_dictionary_get_uuid(it.parameters, vmnet_interface_id_key));
    strcpy(mac, text(it, vmnet_mac_address_key));
    /* Another, as long as the first is there, has another. */
    struct started second = started(description(VMNET_HOST_MODE), queue);
    strcpy(other, text(second, vmnet_mac_address_key));
    CHECK(strcmp(mac, other) != 0);
    CHECK(uuid_compare(xpc_dictionary_get_uuid(second.parameters, vmnet_interface_id_key), id) != 0);
    end(second);
    /* Its MAC cannot be granted twice at once. */
    xpc_object_t desc = description(VMNET_HOST_MODE);
    xpc_dictionary_set_uuid(desc, vmnet_interface_id_key, id);
    refused(xpc_retain(desc), VMNET_FAILURE);
    end(it);
    it = started(desc, queue);
    CHECK(strcmp(text(it, vmnet_mac_address_key), mac) == 0);
    CHECK(uuid_compare(xpc_dictionary_get_uuid(it.parameters, vmnet_interface_id_key), id) == 0);
    end(it);
}

static void ranges(void) {
    xpc_object_t desc = range(VMNET_SHARED_MODE, "192.168.160.1", "192.168.160.100");
    xpc_dictionary_set_string(desc, vmnet_nat66_prefix_key, "fd2d:1b24:620:47::");
    xpc_dictionary_set_uint64(desc, vmnet_nat66_prefix_length_key, 64);
    xpc_dictionary_set_uint64(desc, vmnet_mtu_key, 1400);
    struct started it = started(desc, queue);
    CHECK(strcmp(text(it, vmnet_start_address_key), "192.168.160.1") == 0);
    CHECK(strcmp(text(it, vmnet_end_address_key), "192.168.160.100") == 0);
    CHECK(strcmp(text(it, vmnet_subnet_mask_key), "255.255.255.0") == 0);
    CHECK(strcmp(text(it, vmnet_nat66_prefix_key), "fd2d:1b24:620:47::") == 0);
    CHECK(number(it, vmnet_mtu_key) == 1400 && number(it, vmnet_max_packet_size_key) == 1414);
    CHECK(number(it, vmnet_read_max_packets_key) == 256 && number(it, vmnet_write_max_packets_key) == 256);
    /* Routers are told of by this prefix. */
    CHECK(FRAME(it.interface, 10, icmp6_type(length) == 134) != 0);
    uint8_t frame[1415] = {0xff};
    struct iovec iov = {frame, sizeof frame};
    struct vmpktdesc packet = {sizeof frame, &iov, 1, 0};
    int count = 1;
    CHECK(vmnet_write(it.interface, &packet, &count) == VMNET_PACKET_TOO_BIG);
    /* The last address of the pool is the end. */
    uint32_t address = 0, server = 0;
    uint8_t discover[DHCP_FRAME];
    dhcp(discover, ONE, 0, 0);
    write_one(it.interface, discover, sizeof discover);
    CHECK(FRAME(it.interface, 10, dhcp_answer(got, length, ONE, &address, &server) == 2) != 0);
    CHECK(address > 0xc0a8a001 && address <= 0xc0a8a064 && server == 0xc0a8a001);
    /* The subnet is of another mode already. */
    refused(range(VMNET_HOST_MODE, "192.168.160.1", "192.168.160.100"), VMNET_FAILURE);
    end(it);
}

static void private_switches(void) {
    uuid_t mine, others;
    uuid_generate_random(mine);
    uuid_generate_random(others);
    struct started it[3];
    for (int i = 0; i < 3; i++) {
        xpc_object_t desc = description(VMNET_HOST_MODE);
        xpc_dictionary_set_uuid(desc, vmnet_network_identifier_key, i < 2 ? mine : others);
        it[i] = started(desc, queue);
        /* The host is not there, and nobody gives addresses. */
        CHECK(text(it[i], vmnet_start_address_key) == NULL && text(it[i], vmnet_subnet_mask_key) == NULL);
    }
    uint8_t frame[60] = {0};
    ethernet(frame, BROADCAST, ONE, TYPE_PEER);
    write_one(it[0].interface, frame, sizeof frame);
    CHECK(FRAME(it[1].interface, 10, get16(got + 12) == TYPE_PEER) == 60);
    CHECK(next_frame(it[2].interface, 0.2) == 0);
    uint8_t discover[DHCP_FRAME];
    dhcp(discover, ONE, 0, 0);
    write_one(it[0].interface, discover, sizeof discover);
    CHECK(next_frame(it[0].interface, 0.3) == 0);
    for (int i = 0; i < 3; i++) end(it[i]);

    /* With an address the host is. */
    uuid_generate_random(mine);
    xpc_object_t desc = description(VMNET_HOST_MODE);
    xpc_dictionary_set_uuid(desc, vmnet_network_identifier_key, mine);
    xpc_dictionary_set_string(desc, vmnet_host_ip_address_key, "10.91.7.1");
    xpc_dictionary_set_string(desc, vmnet_host_subnet_mask_key, "255.255.255.0");
    struct started host = started(desc, queue);
    CHECK(strcmp(text(host, vmnet_start_address_key), "10.91.7.1") == 0);
    uint8_t arp[ARP_FRAME];
    arp_request(arp, ONE, 0x0a5b0709, 0x0a5b0701);
    write_one(host.interface, arp, sizeof arp);
    CHECK(FRAME(host.interface, 10, get16(got + 12) == TYPE_ARP && get16(got + 20) == 2) != 0);
    end(host);

    /* One without the other, or without a switch of its own, cannot be. */
    desc = description(VMNET_HOST_MODE);
    xpc_dictionary_set_uuid(desc, vmnet_network_identifier_key, mine);
    xpc_dictionary_set_string(desc, vmnet_host_ip_address_key, "10.91.7.1");
    refused(desc, VMNET_INVALID_ARGUMENT);
    desc = description(VMNET_HOST_MODE);
    xpc_dictionary_set_string(desc, vmnet_host_ipv6_address_key, "fd00:5::1");
    refused(desc, VMNET_INVALID_ARGUMENT);

    uuid_generate_random(mine);
    desc = description(VMNET_HOST_MODE);
    xpc_dictionary_set_uuid(desc, vmnet_network_identifier_key, mine);
    xpc_dictionary_set_string(desc, vmnet_host_ipv6_address_key, "fd00:5::1");
    host = started(desc, queue);
    /* Who has fd00:5::1? */
    static const uint8_t solicitation[] = {
        0x33, 0x33, 0xff, 0, 0, 1, 2, 0, 0, 0, 0, 1, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255,
        0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0, 1,
        0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 1,
        135, 0, 0, 0, 0, 0, 0, 0, 0xfd, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 0, 0, 0, 0, 1};
    uint8_t asked[sizeof solicitation];
    memcpy(asked, solicitation, sizeof asked);
    uint32_t pseudo = 58 + 32;
    for (int i = 22; i < 54; i += 2) pseudo += get16(asked + i);
    put16(asked + 56, sum(asked + 54, 32, pseudo));
    write_one(host.interface, asked, sizeof asked);
    CHECK(FRAME(host.interface, 10, icmp6_type(length) == 136) != 0);
    end(host);
}

/* What is left unfinished by one is finished for another, who did not ask for offloads. */
static void offloads(void) {
    xpc_object_t desc = range(VMNET_HOST_MODE, "192.168.161.1", "192.168.161.254");
    xpc_dictionary_set_bool(desc, vmnet_enable_tso_key, true);
    xpc_dictionary_set_bool(desc, vmnet_enable_checksum_offload_key, true);
    struct started it = started(desc, queue);
    CHECK(number(it, vmnet_max_packet_size_key) == 65550 && number(it, vmnet_mtu_key) == 1500);
    struct started plain = started(range(VMNET_HOST_MODE, "192.168.161.1", "192.168.161.254"), queue);
    static uint8_t frame[70000];
    size_t length = tcp(frame, TWO, ONE, 0xc0a8a10a, 0xc0a8a10b, 700);
    write_one(it.interface, frame, length);
    CHECK(FRAME(plain.interface, 10, is_tcp(length)) == ETHERNET + 40 + 700);
    CHECK(tcp_is_right());
    length = tcp(frame, TWO, ONE, 0xc0a8a10a, 0xc0a8a10b, 20000);
    write_one(it.interface, frame, length);
    size_t payload = 0;
    while (payload < 20000) {
        size_t piece = FRAME(plain.interface, 10, is_tcp(length));
        CHECK(piece > ETHERNET + 40 && piece <= 1514 && tcp_is_right());
        CHECK(memcmp(got + ETHERNET + 40, frame + ETHERNET + 40 + payload, piece - ETHERNET - 40) == 0);
        payload += piece - ETHERNET - 40;
    }
    CHECK(payload == 20000);
    /* The same between two who did. */
    desc = range(VMNET_HOST_MODE, "192.168.161.1", "192.168.161.254");
    xpc_dictionary_set_bool(desc, vmnet_enable_tso_key, true);
    xpc_dictionary_set_bool(desc, vmnet_enable_checksum_offload_key, true);
    struct started large = started(desc, queue);
    write_one(it.interface, frame, length = tcp(frame, TWO, ONE, 0xc0a8a10a, 0xc0a8a10b, 20000));
    CHECK(FRAME(large.interface, 10, is_tcp(length)) == ETHERNET + 40 + 20000);
    CHECK(memcmp(got + ETHERNET + 40, frame + ETHERNET + 40, 20000) == 0);
    end(large);
    end(plain);
    end(it);
}

static void bridges(void) {
    refused(description(VMNET_BRIDGED_MODE), VMNET_INVALID_ARGUMENT);
    xpc_object_t desc = description(VMNET_BRIDGED_MODE);
    xpc_dictionary_set_string(desc, vmnet_shared_interface_name_key, "eth0");
    xpc_dictionary_set_uint64(desc, vmnet_mtu_key, 1500);
    refused(desc, VMNET_INVALID_ARGUMENT);
    /* A LAN is not a user's to join. */
    desc = description(VMNET_BRIDGED_MODE);
    xpc_dictionary_set_string(desc, vmnet_shared_interface_name_key, "eth0");
    refused(desc, VMNET_NOT_AUTHORIZED);
}

int main(void) {
    queue = dispatch_queue_create("keys", DISPATCH_QUEUE_SERIAL);
    identities();
    ranges();
    private_switches();
    offloads();
    bridges();
    dispatch_release(queue);
    return 0;
}
