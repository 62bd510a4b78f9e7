/* Networks are what they were configured to be, as a guest sees it. */
#include <fcntl.h>
#include <sys/socket.h>

#include "pair.h"

static dispatch_queue_t queue;
static const uint8_t GUEST[6] = {2, 0, 0, 0, 0, 9};
enum { HOST = 0xc0a8a201, GUEST_ADDRESS = 0xc0a8a232 }; /* 192.168.162.1, .50 */

static vmnet_network_configuration_ref configuration(vmnet_mode_t mode) {
    vmnet_network_configuration_ref config = vmnet_network_configuration_create(mode, NULL);
    struct in_addr subnet = {htonl(HOST - 1)}, mask = {htonl(0xffffff00)};
    CHECK(vmnet_network_configuration_set_ipv4_subnet(config, &subnet, &mask) == VMNET_SUCCESS);
    return config;
}

/* An interface on the network, which lives as long. */
static struct started on(vmnet_network_configuration_ref config) {
    vmnet_return_t status;
    vmnet_network_ref network = vmnet_network_create(config, &status);
    CHECK(network != NULL && status == VMNET_SUCCESS);
    struct in_addr subnet, mask;
    vmnet_network_get_ipv4_subnet(network, &subnet, &mask);
    CHECK(ntohl(subnet.s_addr) == HOST && ntohl(mask.s_addr) == 0xffffff00);
    xpc_object_t desc = xpc_dictionary_create_empty();
    struct started it = start_on(network, desc, queue);
    CHECK(it.status == VMNET_SUCCESS);
    xpc_release(desc);
    CFRelease(network);
    CFRelease(config);
    return it;
}

static void end(struct started it) {
    stop(it.interface, queue);
    xpc_release(it.parameters);
}

/* The address that DHCP offers, or 0. */
static uint32_t offered(interface_ref interface, double within) {
    uint32_t address = 0, server = 0;
    uint8_t frame[DHCP_FRAME];
    dhcp(frame, GUEST, 0, 0);
    write_one(interface, frame, sizeof frame);
    return FRAME(interface, within, dhcp_answer(got, length, GUEST, &address, &server) == 2) != 0 ? address : 0;
}

static void gateway_mac(interface_ref interface, uint8_t *mac) {
    uint8_t arp[ARP_FRAME];
    arp_request(arp, GUEST, GUEST_ADDRESS, HOST);
    write_one(interface, arp, sizeof arp);
    CHECK(FRAME(interface, 10, get16(got + 12) == TYPE_ARP && get16(got + 20) == 2) != 0);
    memcpy(mac, got + 22, 6);
}

/* A datagram from the guest. */
static void say(interface_ref interface, uint32_t to, unsigned port, const void *bytes, size_t count) {
    uint8_t frame[256] = {0}, *udp = frame + ETHERNET + 20, mac[6];
    gateway_mac(interface, mac);
    ethernet(frame, mac, GUEST, TYPE_IPV4);
    ipv4(frame, ETHERNET + 28 + count, 17, GUEST_ADDRESS, to);
    put16(udp, 5555);
    put16(udp + 2, port);
    put16(udp + 4, 8 + (unsigned)count);
    memcpy(udp + 8, bytes, count);
    write_one(interface, frame, ETHERNET + 28 + count);
}

static bool is_udp_from(unsigned port) {
    return get16(got + 12) == TYPE_IPV4 && got[ETHERNET + 9] == 17 && get16(got + ETHERNET + 20) == port;
}

static bool answers_dns(interface_ref interface, double within) {
    static const char question[] = "\1\2\1\0\0\1\0\0\0\0\0\0\7gateway\5vmnet\10internal\0\0\1\0\1";
    say(interface, HOST, 53, question, sizeof question - 1);
    return FRAME(interface, within, is_udp_from(53)) != 0;
}

/* Is there a router? Said from an address of the link. */
static void solicit(interface_ref interface) {
    static const uint8_t question[] = {
        0x33, 0x33, 0, 0, 0, 2, 2, 0, 0, 0, 0, 9, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 58, 255,
        0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0, 9,
        0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 133, 0, 0, 0, 0, 0, 0, 0};
    uint8_t frame[sizeof question];
    memcpy(frame, question, sizeof frame);
    uint32_t pseudo = 58 + 8;
    for (int i = 22; i < 54; i += 2) pseudo += get16(frame + i);
    put16(frame + 56, sum(frame + 54, 8, pseudo));
    write_one(interface, frame, sizeof frame);
}

static void as_it_comes(void) {
    vmnet_network_configuration_ref config = configuration(VMNET_SHARED_MODE);
    struct in6_addr prefix, got_prefix;
    uint8_t length = 0;
    CHECK(inet_pton(AF_INET6, "fd12:3456:789a:1::1", &prefix) == 1);
    CHECK(vmnet_network_configuration_set_ipv6_prefix(config, &prefix, 64) == VMNET_SUCCESS);
    CHECK(vmnet_network_configuration_set_mtu(config, 1400) == VMNET_SUCCESS);
    ether_addr_t client;
    memcpy(client.octet, GUEST, 6);
    struct in_addr reserved = {htonl(GUEST_ADDRESS + 20)}, guest = {htonl(GUEST_ADDRESS)};
    CHECK(vmnet_network_configuration_add_dhcp_reservation(config, &client, &reserved) == VMNET_SUCCESS);
    CHECK(vmnet_network_configuration_add_port_forwarding_rule(config, IPPROTO_TCP, AF_INET, 81, 18091, &guest) ==
          VMNET_SUCCESS);
    vmnet_network_ref network = vmnet_network_create(config, NULL);
    CHECK(network != NULL);
    vmnet_network_get_ipv6_prefix(network, &got_prefix, &length);
    CHECK(length == 64 && memcmp(&got_prefix, &prefix, 8) == 0);
    CFRelease(network);
    struct started it = on(config);
    CHECK(xpc_dictionary_get_uint64(it.parameters, vmnet_mtu_key) == 1400);
    CHECK(xpc_dictionary_get_uint64(it.parameters, vmnet_max_packet_size_key) == 1414);
    /* Routers are told of, with a lifetime. */
    CHECK(FRAME(it.interface, 10, icmp6_type(length) == 134) != 0);
    CHECK(get16(got + ETHERNET + 40 + 6) > 0);
    CHECK(offered(it.interface, 10) == GUEST_ADDRESS + 20);
    CHECK(answers_dns(it.interface, 10));

    /* A client of the host's port reaches the guest. */
    int client_socket = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(18091), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    CHECK(fcntl(client_socket, F_SETFL, O_NONBLOCK) == 0);
    connect(client_socket, (struct sockaddr *)&address, sizeof address);
    CHECK(FRAME(it.interface, 10, is_tcp(length) && get16(got + ETHERNET + 22) == 81) != 0);
    CHECK(get32(got + ETHERNET + 16) == GUEST_ADDRESS && (got[ETHERNET + 33] & 2) != 0);
    close(client_socket);
    end(it);
}

static void without(void) {
    vmnet_network_configuration_ref config = configuration(VMNET_SHARED_MODE);
    vmnet_network_configuration_disable_dhcp(config);
    vmnet_network_configuration_disable_dns_proxy(config);
    vmnet_network_configuration_disable_router_advertisement(config);
    vmnet_network_configuration_disable_nat44(config);
    struct started it = on(config);
    CHECK(FRAME(it.interface, 0.5, icmp6_type(length) == 134) == 0);
    CHECK(offered(it.interface, 0.5) == 0);
    CHECK(!answers_dns(it.interface, 0.5));
    /* There is no way to the outside, and that is said. */
    say(it.interface, 0xcb007109, 9, "x", 1);
    CHECK(FRAME(it.interface, 10, get16(got + 12) == TYPE_IPV4 && got[ETHERNET + 9] == 1 && got[ETHERNET + 20] == 3 &&
                                      got[ETHERNET + 21] == 13) != 0);
    end(it);

    /* Without NAT66 no router is one. */
    config = configuration(VMNET_SHARED_MODE);
    vmnet_network_configuration_disable_nat66(config);
    it = on(config);
    solicit(it.interface);
    CHECK(FRAME(it.interface, 10, icmp6_type(length) == 134) != 0);
    CHECK(get16(got + ETHERNET + 40 + 6) == 0);
    end(it);
}

static void by_another_way(void) {
    vmnet_return_t status;
    vmnet_network_configuration_ref config = configuration(VMNET_SHARED_MODE);
    CHECK(vmnet_network_configuration_set_external_interface(config, "lo") == VMNET_SUCCESS);
    vmnet_network_ref network = vmnet_network_create(config, &status);
    CHECK(network != NULL);
    CFRelease(network);
    CFRelease(config);
    config = configuration(VMNET_HOST_MODE);
    CHECK(vmnet_network_configuration_set_external_interface(config, "lo") != VMNET_SUCCESS);
    CFRelease(config);
}

int main(void) {
    queue = dispatch_queue_create("configured", DISPATCH_QUEUE_SERIAL);
    as_it_comes();
    without();
    by_another_way();
    dispatch_release(queue);
    return 0;
}
