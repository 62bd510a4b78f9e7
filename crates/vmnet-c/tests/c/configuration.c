/* What networks can be configured to be: vmnet_network_configuration_... */
#include <arpa/inet.h>
#include <vmnet/vmnet.h>

#include "check.h"

static struct in_addr v4(const char *text) {
    struct in_addr address;
    CHECK(inet_pton(AF_INET, text, &address) == 1);
    return address;
}

static vmnet_return_t subnet(vmnet_network_configuration_ref config, const char *address, const char *mask) {
    struct in_addr a = v4(address), m = v4(mask);
    return vmnet_network_configuration_set_ipv4_subnet(config, &a, &m);
}

static vmnet_return_t prefix(vmnet_network_configuration_ref config, const char *text, uint8_t length) {
    struct in6_addr address;
    CHECK(inet_pton(AF_INET6, text, &address) == 1);
    return vmnet_network_configuration_set_ipv6_prefix(config, &address, length);
}

static void creation(void) {
    vmnet_return_t status = 7;
    for (uint32_t mode = 998; mode < 1005; mode++) {
        vmnet_network_configuration_ref config = vmnet_network_configuration_create((vmnet_mode_t)mode, &status);
        bool good = mode == VMNET_SHARED_MODE || mode == VMNET_HOST_MODE;
        CHECK((config != NULL) == good);
        CHECK(status == (good ? VMNET_SUCCESS : VMNET_INVALID_ARGUMENT));
        if (config != NULL) CFRelease(config);
    }
}

static void setters(vmnet_network_configuration_ref config) {
    vmnet_network_configuration_disable_nat44(config);
    vmnet_network_configuration_disable_nat66(config);
    vmnet_network_configuration_disable_dhcp(config);
    vmnet_network_configuration_disable_dns_proxy(config);
    vmnet_network_configuration_disable_router_advertisement(config);

    CHECK(vmnet_network_configuration_set_external_interface(config, "eth0") == VMNET_SUCCESS);
    CHECK(vmnet_network_configuration_set_external_interface(config, "") == VMNET_INVALID_ARGUMENT);
    CHECK(vmnet_network_configuration_set_external_interface(config, "\xff") == VMNET_INVALID_ARGUMENT);
    CHECK(vmnet_network_configuration_set_external_interface(config, "a-name-of-16-let") == VMNET_INVALID_ARGUMENT);

    CHECK(subnet(config, "192.168.105.0", "255.255.255.0") == VMNET_SUCCESS);
    CHECK(subnet(config, "192.168.105.1", "255.255.255.0") == VMNET_SUCCESS);
    CHECK(subnet(config, "192.168.105.1", "255.0.255.0") == VMNET_INVALID_ARGUMENT);
    CHECK(subnet(config, "192.168.105.1", "255.255.255.255") == VMNET_INVALID_ARGUMENT);
    CHECK(subnet(config, "192.168.105.255", "255.255.255.0") == VMNET_INVALID_ARGUMENT);

    CHECK(prefix(config, "fd12:3456:789a:1::1", 64) == VMNET_SUCCESS);
    CHECK(prefix(config, "fd12:3456:789a:1::", 64) == VMNET_SUCCESS);
    CHECK(prefix(config, "fd12:3456:789a:1::", 48) == VMNET_INVALID_ARGUMENT);
    CHECK(prefix(config, "2001:db8::", 64) == VMNET_INVALID_ARGUMENT);

    CHECK(vmnet_network_configuration_set_mtu(config, 1500) == VMNET_SUCCESS);
    CHECK(vmnet_network_configuration_set_mtu(config, 0) == VMNET_INVALID_ARGUMENT);
    CHECK(vmnet_network_configuration_set_mtu(config, 70000) == VMNET_INVALID_ARGUMENT);

    const ether_addr_t mac = {{0x0a, 0xd6, 0x36, 0xc1, 0xea, 0xf3}}, group = {{0x01, 0, 0x5e, 0, 0, 1}};
    struct in_addr address = v4("192.168.105.9"), outside = v4("192.168.106.9");
    CHECK(vmnet_network_configuration_add_dhcp_reservation(config, &mac, &outside) == VMNET_INVALID_ARGUMENT);
    CHECK(vmnet_network_configuration_add_dhcp_reservation(config, &group, &address) == VMNET_INVALID_ARGUMENT);
    CHECK(vmnet_network_configuration_add_dhcp_reservation(config, &mac, &address) == VMNET_SUCCESS);
    CHECK(vmnet_network_configuration_add_dhcp_reservation(config, &mac, &address) == VMNET_INVALID_ARGUMENT);

    /* The guest's port comes first. */
    CHECK(vmnet_network_configuration_add_port_forwarding_rule(config, IPPROTO_TCP, AF_INET, 22, 2222, &address) ==
          VMNET_SUCCESS);
    CHECK(vmnet_network_configuration_add_port_forwarding_rule(config, IPPROTO_TCP, AF_INET, 22, 2223, &address) ==
          VMNET_SUCCESS);
    CHECK(vmnet_network_configuration_add_port_forwarding_rule(config, IPPROTO_TCP, AF_INET, 23, 2222, &address) ==
          VMNET_INVALID_ARGUMENT);
    CHECK(vmnet_network_configuration_add_port_forwarding_rule(config, IPPROTO_ICMP, AF_INET, 22, 2224, &address) ==
          VMNET_INVALID_ARGUMENT);
    CHECK(vmnet_network_configuration_add_port_forwarding_rule(config, IPPROTO_UDP, AF_UNIX, 22, 2224, &address) ==
          VMNET_INVALID_ARGUMENT);
    struct in6_addr guest = IN6ADDR_LOOPBACK_INIT;
    CHECK(vmnet_network_configuration_add_port_forwarding_rule(config, IPPROTO_UDP, AF_INET6, 53, 2222, &guest) ==
          VMNET_SUCCESS);
}

static void nulls(vmnet_network_configuration_ref config) {
    vmnet_network_configuration_ref none = NULL;
    struct in_addr address = v4("10.0.0.1");
    vmnet_network_configuration_disable_nat44(none);
    CHECK(vmnet_network_configuration_set_mtu(none, 1500) == VMNET_INVALID_ARGUMENT);
    CHECK(vmnet_network_configuration_set_external_interface(config, NULL) == VMNET_INVALID_ARGUMENT);
    CHECK(vmnet_network_configuration_set_ipv4_subnet(config, NULL, &address) == VMNET_INVALID_ARGUMENT);
    CHECK(vmnet_network_configuration_set_ipv4_subnet(config, &address, NULL) == VMNET_INVALID_ARGUMENT);
    CHECK(vmnet_network_configuration_set_ipv6_prefix(config, NULL, 64) == VMNET_INVALID_ARGUMENT);
    CHECK(vmnet_network_configuration_add_dhcp_reservation(config, NULL, NULL) == VMNET_INVALID_ARGUMENT);
    CHECK(vmnet_network_configuration_add_port_forwarding_rule(config, 6, AF_INET, 1, 1, NULL) ==
          VMNET_INVALID_ARGUMENT);
    vmnet_return_t status = VMNET_SUCCESS;
    CHECK(vmnet_network_create(none, &status) == NULL && status == VMNET_INVALID_ARGUMENT);
    CHECK(vmnet_network_create(none, NULL) == NULL);
    CHECK(vmnet_network_create_with_serialization(NULL, &status) == NULL && status == VMNET_INVALID_ARGUMENT);
    CHECK(vmnet_network_copy_serialization(NULL, &status) == NULL && status == VMNET_INVALID_ARGUMENT);
    struct in6_addr prefix;
    uint8_t length = 9;
    memset(&prefix, 0xff, sizeof prefix);
    vmnet_network_get_ipv6_prefix(NULL, &prefix, &length);
    CHECK(length == 0 && IN6_IS_ADDR_UNSPECIFIED(&prefix));
    vmnet_network_get_ipv6_prefix(NULL, NULL, NULL);
    vmnet_network_get_ipv4_subnet(NULL, &address, NULL);
    CHECK(address.s_addr == 0);
    CFRelease(NULL);
    CHECK(CFRetain(NULL) == NULL);
}

static void serializations(void) {
    vmnet_return_t status = VMNET_SUCCESS;
    xpc_object_t foreign = xpc_dictionary_create_empty();
    CHECK(vmnet_network_create_with_serialization(foreign, &status) == NULL && status == VMNET_INVALID_ARGUMENT);
    xpc_dictionary_set_data(foreign, "networkSerialization", "short", 5);
    CHECK(vmnet_network_create_with_serialization(foreign, &status) == NULL && status == VMNET_INVALID_ARGUMENT);
    xpc_dictionary_set_string(foreign, "networkSerialization", "text");
    CHECK(vmnet_network_create_with_serialization(foreign, &status) == NULL && status == VMNET_INVALID_ARGUMENT);
    xpc_release(foreign);
    CHECK(vmnet_network_create_with_serialization(XPC_BOOL_TRUE, &status) == NULL);
    CHECK(status == VMNET_INVALID_ARGUMENT);
}

int main(void) {
    creation();
    vmnet_return_t status = VMNET_FAILURE;
    vmnet_network_configuration_ref config = vmnet_network_configuration_create(VMNET_SHARED_MODE, &status);
    CHECK(config != NULL && status == VMNET_SUCCESS);
    CHECK(CFRetain(config) == config);
    CFRelease(config);
    setters(config);
    nulls(config);
    CFRelease(config);
    config = vmnet_network_configuration_create(VMNET_HOST_MODE, NULL);
    CHECK(vmnet_network_configuration_set_external_interface(config, "eth0") == VMNET_INVALID_ARGUMENT);
    CFRelease(config);
    serializations();
    return 0;
}
