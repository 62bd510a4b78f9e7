/* Sizes, offsets and constants, as programs for macOS have them; checked where they are compiled. */
#include <vmnet/vmnet.h>

#ifdef __cplusplus
#define SAME(a, b) static_assert((a) == (b), #a " is " #b)
#else
#define SAME(a, b) _Static_assert((a) == (b), #a " is " #b)
#endif

SAME(sizeof(struct vmpktdesc), 24u);
SAME(offsetof(struct vmpktdesc, vm_pkt_size), 0u);
SAME(offsetof(struct vmpktdesc, vm_pkt_iov), 8u);
SAME(offsetof(struct vmpktdesc, vm_pkt_iovcnt), 16u);
SAME(offsetof(struct vmpktdesc, vm_flags), 20u);
SAME(sizeof(operating_modes_t), 4u);
SAME(sizeof(vmnet_mode_t), 4u);
SAME(sizeof(vmnet_return_t), 4u);
SAME(sizeof(interface_event_t), 4u);
SAME(sizeof(ether_addr_t), 6u);
SAME(sizeof(uuid_t), 16u);
SAME(sizeof(interface_ref), sizeof(void *));
SAME(sizeof(vmnet_network_ref), sizeof(void *));
SAME(sizeof(vmnet_network_configuration_ref), sizeof(void *));
SAME((int)VMNET_HOST_MODE, 1000);
SAME((int)VMNET_SHARED_MODE, 1001);
SAME((int)VMNET_BRIDGED_MODE, 1002);
SAME((int)VMNET_SUCCESS, 1000);
SAME((int)VMNET_FAILURE, 1001);
SAME((int)VMNET_MEM_FAILURE, 1002);
SAME((int)VMNET_INVALID_ARGUMENT, 1003);
SAME((int)VMNET_SETUP_INCOMPLETE, 1004);
SAME((int)VMNET_INVALID_ACCESS, 1005);
SAME((int)VMNET_PACKET_TOO_BIG, 1006);
SAME((int)VMNET_BUFFER_EXHAUSTED, 1007);
SAME((int)VMNET_TOO_MANY_PACKETS, 1008);
SAME((int)VMNET_SHARING_SERVICE_BUSY, 1009);
SAME((int)VMNET_NOT_AUTHORIZED, 1010);
SAME((int)VMNET_INTERFACE_PACKETS_AVAILABLE, 1);

/* Used, not only declared: each has the type that callers expect. */
vmnet_return_t use(interface_ref interface, vmnet_network_ref network, xpc_object_t object, dispatch_queue_t queue,
                   void *context, vmnet_interface_completion_handler_f_t done,
                   vmnet_interface_event_callback_f_t event, vmnet_start_interface_completion_handler_f_t started,
                   vmnet_interface_get_ip_port_forwarding_rules_handler_f_t rules);
vmnet_return_t use(interface_ref interface, vmnet_network_ref network, xpc_object_t object, dispatch_queue_t queue,
                   void *context, vmnet_interface_completion_handler_f_t done,
                   vmnet_interface_event_callback_f_t event, vmnet_start_interface_completion_handler_f_t started,
                   vmnet_interface_get_ip_port_forwarding_rules_handler_f_t rules) {
    struct vmpktdesc packet;
    struct in_addr v4 = {0};
    uint8_t protocol;
    uint16_t port;
    int count = 1;
    vmnet_start_interface_f(object, queue, context, started);
    vmnet_interface_start_with_network_f(network, object, queue, context, started);
    vmnet_interface_set_event_callback_f(interface, VMNET_INTERFACE_PACKETS_AVAILABLE, queue, context, event);
    vmnet_read(interface, &packet, &count);
    vmnet_write(interface, &packet, &count);
    vmnet_interface_add_ip_port_forwarding_rule_f(interface, IPPROTO_TCP, 80, AF_INET, &v4, 80, context, done);
    vmnet_interface_remove_ip_port_forwarding_rule_f(interface, IPPROTO_TCP, 80, AF_INET, context, done);
    vmnet_interface_get_ip_port_forwarding_rules_f(interface, AF_INET, context, rules);
    vmnet_ip_port_forwarding_rule_get_details(object, &protocol, &port, AF_INET, &v4, &port);
    xpc_release(vmnet_copy_shared_interface_list());
#ifdef __BLOCKS__
    vmnet_start_interface(object, queue, ^(vmnet_return_t status, xpc_object_t _Nullable parameters) {
        (void)status;
        (void)parameters;
    });
    vmnet_interface_start_with_network(network, object, queue, ^(vmnet_return_t status, xpc_object_t parameters) {
        (void)status;
        (void)parameters;
    });
    vmnet_interface_set_event_callback(interface, VMNET_INTERFACE_PACKETS_AVAILABLE, NULL, NULL);
    vmnet_interface_set_event_callback(interface, VMNET_INTERFACE_PACKETS_AVAILABLE, queue,
                                       ^(interface_event_t mask, xpc_object_t what) {
                                           (void)mask;
                                           (void)xpc_dictionary_get_uint64(what, vmnet_estimated_packets_available_key);
                                       });
    vmnet_interface_add_ip_port_forwarding_rule(interface, IPPROTO_UDP, 53, AF_INET, &v4, 53, NULL);
    vmnet_interface_get_ip_port_forwarding_rules(interface, AF_INET6, ^(xpc_object_t _Nullable some) {
        (void)xpc_array_get_count(some);
    });
    vmnet_stop_interface(interface, queue, ^(vmnet_return_t status) { (void)status; });
#endif
    return vmnet_stop_interface_f(interface, queue, context, done);
}
