/*
 * In the manner of ocaml-vmnet and of edigaryev/vmnet: port forwarding rules of both generations on a running interface.
 * Arrays of rules are retained in the handler and read after it. vm_flags is never set.
 */
#include "../client.h"
#include "../conversation.h"

static dispatch_semaphore_t done;
static vmnet_return_t result;
static xpc_object_t listed;

/* What came of a call whose handler was to come: its status, or that of the call itself. */
static vmnet_return_t came_of(vmnet_return_t returned) {
    if (returned != VMNET_SUCCESS) return returned;
    dispatch_semaphore_wait(done, DISPATCH_TIME_FOREVER);
    return result;
}

#ifdef __BLOCKS__
#define HANDLER                                \
    ^(vmnet_return_t status) {                 \
        result = status;                       \
        dispatch_semaphore_signal(done);       \
    }
#define LIST                                   \
    ^(xpc_object_t _Nullable rules) {          \
        listed = xpc_retain(rules);            \
        result = VMNET_SUCCESS;                \
        dispatch_semaphore_signal(done);       \
    }
#define CALL(function, ...) came_of(function(__VA_ARGS__))
#else
static void on_done(void *context, vmnet_return_t status) {
    CHECK(context == &done);
    result = status;
    dispatch_semaphore_signal(done);
}

static void on_listed(void *context, xpc_object_t rules) {
    listed = xpc_retain(rules);
    on_done(context, VMNET_SUCCESS);
}
#define HANDLER &done, on_done
#define LIST &done, on_listed
#define CALL(function, ...) came_of(function##_f(__VA_ARGS__))
#endif

#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

static unsigned ports[8], inner[8];

/* How many rules there are in what was listed, and their ports; the addresses are all the same. */
static size_t rules(bool old, uint8_t family, const void *expected) {
    size_t count = xpc_array_get_count(listed);
    for (size_t i = 0; i < count; i++) {
        uint8_t protocol = 0, address[16] = {0};
        uint16_t external = 0, internal = 0;
        xpc_object_t rule = xpc_array_get_value(listed, i);
        CHECK(xpc_get_type(rule) == XPC_TYPE_DICTIONARY);
        CHECK((old ? vmnet_port_forwarding_rule_get_details(rule, &protocol, &external, (struct in_addr *)address, &internal)
                   : vmnet_ip_port_forwarding_rule_get_details(rule, &protocol, &external, family, address, &internal)) ==
              VMNET_SUCCESS);
        CHECK(protocol == IPPROTO_TCP || protocol == IPPROTO_UDP);
        CHECK(memcmp(address, expected, family == AF_INET ? 4 : 16) == 0);
        /* The other family's details are not in it. */
        CHECK(vmnet_ip_port_forwarding_rule_get_details(rule, &protocol, &external, family == AF_INET ? AF_INET6 : AF_INET,
                                                        address, &internal) != VMNET_SUCCESS);
        ports[i] = external;
        inner[i] = internal;
    }
    xpc_release(listed);
    listed = NULL;
    return count;
}

static void first_generation(interface_ref interface, struct in_addr guest) {
    CHECK(CALL(vmnet_interface_get_port_forwarding_rules, interface, LIST) == VMNET_SUCCESS && listed == NULL);
    CHECK(CALL(vmnet_interface_remove_port_forwarding_rule, interface, IPPROTO_TCP, 18080, HANDLER) != VMNET_SUCCESS);
    CHECK(CALL(vmnet_interface_add_port_forwarding_rule, interface, IPPROTO_TCP, 18080, guest, 80, HANDLER) == VMNET_SUCCESS);
    CHECK(CALL(vmnet_interface_add_port_forwarding_rule, interface, IPPROTO_UDP, 18053, guest, 53, HANDLER) == VMNET_SUCCESS);
    CHECK(CALL(vmnet_interface_get_port_forwarding_rules, interface, LIST) == VMNET_SUCCESS);
    CHECK(rules(true, AF_INET, &guest) == 2);
    CHECK(ports[0] + ports[1] == 18080 + 18053 && inner[0] + inner[1] == 80 + 53);
    /* They are also those of the second. */
    CHECK(CALL(vmnet_interface_get_ip_port_forwarding_rules, interface, AF_INET, LIST) == VMNET_SUCCESS);
    CHECK(rules(false, AF_INET, &guest) == 2);
    CHECK(CALL(vmnet_interface_remove_port_forwarding_rule, interface, IPPROTO_TCP, 18080, HANDLER) == VMNET_SUCCESS);
    CHECK(CALL(vmnet_interface_remove_port_forwarding_rule, interface, IPPROTO_UDP, 18053, HANDLER) == VMNET_SUCCESS);
    CHECK(CALL(vmnet_interface_get_port_forwarding_rules, interface, LIST) == VMNET_SUCCESS && listed == NULL);
}

static void second_generation(interface_ref interface, struct in_addr guest, struct in6_addr guest6) {
    CHECK(CALL(vmnet_interface_remove_ip_port_forwarding_rule, interface, IPPROTO_TCP, 18081, AF_INET, HANDLER) !=
          VMNET_SUCCESS);
    CHECK(CALL(vmnet_interface_add_ip_port_forwarding_rule, interface, IPPROTO_TCP, 18081, AF_INET, &guest, 81, HANDLER) ==
          VMNET_SUCCESS);
    /* The same again is no other rule; another guest's is refused. */
    CHECK(CALL(vmnet_interface_add_ip_port_forwarding_rule, interface, IPPROTO_TCP, 18081, AF_INET, &guest, 81, HANDLER) ==
          VMNET_SUCCESS);
    CHECK(CALL(vmnet_interface_add_ip_port_forwarding_rule, interface, IPPROTO_TCP, 18081, AF_INET, &guest, 82, HANDLER) ==
          VMNET_FAILURE);
    CHECK(CALL(vmnet_interface_get_ip_port_forwarding_rules, interface, AF_INET6, LIST) == VMNET_SUCCESS && listed == NULL);
    CHECK(CALL(vmnet_interface_add_ip_port_forwarding_rule, interface, IPPROTO_UDP, 18082, AF_INET6, &guest6, 82, HANDLER) ==
          VMNET_SUCCESS);
    CHECK(CALL(vmnet_interface_get_ip_port_forwarding_rules, interface, AF_INET, LIST) == VMNET_SUCCESS);
    CHECK(rules(false, AF_INET, &guest) == 1 && ports[0] == 18081 && inner[0] == 81);
    CHECK(CALL(vmnet_interface_get_ip_port_forwarding_rules, interface, AF_INET6, LIST) == VMNET_SUCCESS);
    CHECK(rules(false, AF_INET6, &guest6) == 1 && ports[0] == 18082 && inner[0] == 82);
    CHECK(CALL(vmnet_interface_remove_ip_port_forwarding_rule, interface, IPPROTO_TCP, 18099, AF_INET, HANDLER) !=
          VMNET_SUCCESS);
    CHECK(CALL(vmnet_interface_remove_ip_port_forwarding_rule, interface, IPPROTO_UDP, 18082, AF_INET6, HANDLER) ==
          VMNET_SUCCESS);
    /* Neither TCP nor UDP, no family, no address, no port: refused. */
    CHECK(CALL(vmnet_interface_add_ip_port_forwarding_rule, interface, IPPROTO_ICMP, 1, AF_INET, &guest, 81, HANDLER) ==
          VMNET_INVALID_ARGUMENT);
    CHECK(CALL(vmnet_interface_add_ip_port_forwarding_rule, interface, IPPROTO_TCP, 1, AF_UNIX, &guest, 81, HANDLER) ==
          VMNET_INVALID_ARGUMENT);
    CHECK(CALL(vmnet_interface_add_ip_port_forwarding_rule, interface, IPPROTO_TCP, 1, AF_INET, NULL, 81, HANDLER) ==
          VMNET_INVALID_ARGUMENT);
}

/* Without a handler, and nobody hears what came of it. */
static void silently(interface_ref interface, struct in_addr guest) {
#ifdef __BLOCKS__
    CHECK(vmnet_interface_add_ip_port_forwarding_rule(interface, IPPROTO_TCP, 18083, AF_INET, &guest, 83, NULL) ==
          VMNET_SUCCESS);
#else
    CHECK(vmnet_interface_add_ip_port_forwarding_rule_f(interface, IPPROTO_TCP, 18083, AF_INET, &guest, 83, NULL, NULL) ==
          VMNET_SUCCESS);
#endif
    /* Calls are done in their order. */
    CHECK(CALL(vmnet_interface_get_ip_port_forwarding_rules, interface, AF_INET, LIST) == VMNET_SUCCESS);
    CHECK(rules(false, AF_INET, &guest) == 2);
}

static void not_rules(void) {
    uint8_t protocol, address[16];
    uint16_t external, internal;
    xpc_object_t objects[] = {NULL, xpc_dictionary_create_empty(), xpc_array_create_empty(), xpc_string_create("rule")};
    for (int i = 0; i < 4; i++) {
        CHECK(vmnet_ip_port_forwarding_rule_get_details(objects[i], &protocol, &external, AF_INET, address, &internal) ==
              VMNET_INVALID_ARGUMENT);
        CHECK(vmnet_port_forwarding_rule_get_details(objects[i], &protocol, &external, (struct in_addr *)address,
                                                     &internal) == VMNET_INVALID_ARGUMENT);
        xpc_release(objects[i]);
    }
}

/* A guest is one of the host's subnet. */
static void all(interface_ref interface, struct in_addr host, struct in6_addr guest6) {
    guest6.s6_addr[15] = 5;
    struct in_addr guest = {htonl(ntohl(host.s_addr) + 49)};
    first_generation(interface, guest);
    second_generation(interface, guest, guest6);
    silently(interface, guest);
}

int main(void) {
    done = dispatch_semaphore_create(0);
    static dispatch_queue_t queue;
    queue = dispatch_queue_create("rules", DISPATCH_QUEUE_SERIAL);
    not_rules();
    static struct started it;
    it = started(description(VMNET_SHARED_MODE), queue);
    struct in_addr host, mask;
    struct in6_addr prefix;
    uint8_t length;
    CHECK(inet_pton(AF_INET6, xpc_dictionary_get_string(it.parameters, vmnet_nat66_prefix_key), &prefix) == 1);
    CHECK(inet_pton(AF_INET, xpc_dictionary_get_string(it.parameters, vmnet_start_address_key), &host) == 1);
    all(it.interface, host, prefix);
    stop(it.interface, queue);
    /* The rules went with the interface: their ports can be had again, also by one on a network. */
    vmnet_return_t status;
    vmnet_network_configuration_ref config = vmnet_network_configuration_create(VMNET_SHARED_MODE, &status);
    vmnet_network_ref network = vmnet_network_create(config, &status);
    CHECK(network != NULL && status == VMNET_SUCCESS);
    CFRelease(config);
    vmnet_network_get_ipv4_subnet(network, &host, &mask);
    vmnet_network_get_ipv6_prefix(network, &prefix, &length);
    xpc_object_t desc = xpc_dictionary_create_empty();
    xpc_release(it.parameters);
    it = start_on(network, desc, queue);
    CFRelease(network);
    CHECK(it.status == VMNET_SUCCESS);
    all(it.interface, host, prefix);
    xpc_release(desc);
    xpc_release(it.parameters);
    dispatch_release(done);
    /* Never stopped: the process's end is the stop. */
    return 0;
}
