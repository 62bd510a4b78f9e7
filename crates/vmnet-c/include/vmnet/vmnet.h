/*
 * vmnet: virtual networks for virtual machines, with the interface that macOS has.
 *
 * What takes a block is declared where the compiler knows blocks (clang -fblocks). Each such function has a twin, whose
 * name ends in _f, that takes a context and a function and means the same.
 *
 * Ports are in the host's byte order; addresses, masks and MACs are in network order.
 */
#ifndef VMNET_VMNET_H
#define VMNET_VMNET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <os/availability.h>
#include <vmnet/compiler.h>
#include <CoreFoundation/CoreFoundation.h>
#include <xpc/xpc.h>

VMNET_BEGIN_DECLS

VMNET_ASSUME_NONNULL_BEGIN

/* A MAC. Linux has struct ether_addr, which is the same six bytes by another name. */
typedef union vmnet_ether_addr {
    uint8_t octet[6];
    uint8_t ether_addr_octet[6];
} ether_addr_t;

/* Where an interface leads. */
VMNET_ENUM_BEGIN(operating_modes_t) {
    VMNET_HOST_MODE = 1000,    /* to the host, and to other interfaces in this mode */
    VMNET_SHARED_MODE = 1001,  /* also to the outside, through the host */
    VMNET_BRIDGED_MODE = 1002  /* to the LAN of one of the host's interfaces */
} VMNET_ENUM_END(operating_modes_t);

/* Where a network leads: host or shared. */
typedef operating_modes_t vmnet_mode_t;

/* What came of a call. */
VMNET_ENUM_BEGIN(vmnet_return_t) {
    VMNET_SUCCESS = 1000,
    VMNET_FAILURE = 1001,              /* for none of the other reasons */
    VMNET_MEM_FAILURE = 1002,          /* there is no memory */
    VMNET_INVALID_ARGUMENT = 1003,     /* an argument cannot be, or not with another */
    VMNET_SETUP_INCOMPLETE = 1004,     /* the interface has not started, or has been stopped */
    VMNET_INVALID_ACCESS = 1005,       /* permission is denied */
    VMNET_PACKET_TOO_BIG = 1006,       /* a packet is larger than the interface takes */
    VMNET_BUFFER_EXHAUSTED = 1007,     /* buffers have run out for the moment */
    VMNET_TOO_MANY_PACKETS = 1008,     /* more packets than one call takes */
    VMNET_SHARING_SERVICE_BUSY = 1009, /* what cannot be shared is in use */
    VMNET_NOT_AUTHORIZED = 1010        /* the caller may not */
} VMNET_ENUM_END(vmnet_return_t);

/* What has happened to an interface: bits. */
#if defined(__clang__) && !defined(__cplusplus) && __has_extension(cxx_strong_enums) && __has_attribute(flag_enum)
typedef enum __attribute__((__flag_enum__, __enum_extensibility__(open))) interface_event_t : uint32_t {
    VMNET_INTERFACE_PACKETS_AVAILABLE = 1 << 0 /* packets can be read */
} interface_event_t;
#else
typedef uint32_t interface_event_t;
enum {
    VMNET_INTERFACE_PACKETS_AVAILABLE = 1 << 0 /* packets can be read */
};
#endif

/* A packet, which is a whole Ethernet frame. */
struct vmpktdesc {
    size_t vm_pkt_size;       /* its bytes; before a read, those that there is room for */
    struct iovec *vm_pkt_iov; /* where they are */
    uint32_t vm_pkt_iovcnt;   /* in how many places */
    uint32_t vm_flags;        /* 0 */
};

typedef struct vmnet_interface *interface_ref;
typedef struct vmnet_network *vmnet_network_ref;
typedef struct vmnet_network_configuration *vmnet_network_configuration_ref;

#ifdef __BLOCKS__
typedef void (^vmnet_start_interface_completion_handler_t)(vmnet_return_t status,
                                                           xpc_object_t _Nullable interface_param);
typedef void (^vmnet_interface_event_callback_t)(interface_event_t event_mask, xpc_object_t event);
typedef void (^vmnet_interface_completion_handler_t)(vmnet_return_t status);
typedef void (^vmnet_interface_get_port_forwarding_rules_handler_t)(xpc_object_t _Nullable rules);
typedef void (^vmnet_interface_get_ip_port_forwarding_rules_handler_t)(xpc_object_t _Nullable rules);
#endif

typedef void (*vmnet_start_interface_completion_handler_f_t)(void *_Nullable context, vmnet_return_t status,
                                                             xpc_object_t _Nullable interface_param);
typedef void (*vmnet_interface_event_callback_f_t)(void *_Nullable context, interface_event_t event_mask,
                                                   xpc_object_t event);
typedef void (*vmnet_interface_completion_handler_f_t)(void *_Nullable context, vmnet_return_t status);
typedef void (*vmnet_interface_get_port_forwarding_rules_handler_f_t)(void *_Nullable context,
                                                                      xpc_object_t _Nullable rules);
typedef void (*vmnet_interface_get_ip_port_forwarding_rules_handler_f_t)(void *_Nullable context,
                                                                         xpc_object_t _Nullable rules);

/* Names in dictionaries: D of what an interface is to be, N of one on a network, P of what it is, E of an event. */

extern const char *const vmnet_operation_mode_key;        /* D   uint64: operating_modes_t */
extern const char *const vmnet_shared_interface_name_key; /* D   string: the host's interface to bridge to */
extern const char *const vmnet_interface_id_key;          /* D P uuid: to have the same MAC again */
extern const char *const vmnet_mac_address_key;           /* P   string: the guest's MAC */
extern const char *const vmnet_allocate_mac_address_key;  /* D N bool: whether to make one; true without */
extern const char *const vmnet_mtu_key;                   /* D P uint64: the largest IP packet */
extern const char *const vmnet_max_packet_size_key;       /* P   uint64: the largest frame */
extern const char *const vmnet_read_max_packets_key;      /* P   uint64: the most packets of one read */
extern const char *const vmnet_write_max_packets_key;     /* P   uint64: the most packets of one write */
extern const char *const vmnet_start_address_key;         /* D P string: the host's address */
extern const char *const vmnet_end_address_key;           /* D P string: the last address of DHCP */
extern const char *const vmnet_subnet_mask_key;           /* D P string: the subnet's mask */
extern const char *const vmnet_nat66_prefix_key;          /* D P string: the IPv6 prefix */
extern const char *const vmnet_nat66_prefix_length_key;   /* D   uint64: 64 */
extern const char *const vmnet_network_identifier_key;    /* D   uuid: a private switch */
extern const char *const vmnet_host_ip_address_key;       /* D   string: the host's address on it */
extern const char *const vmnet_host_subnet_mask_key;      /* D   string: and its mask */
extern const char *const vmnet_host_ipv6_address_key;     /* D   string: the host's IPv6 address on it */
extern const char *const vmnet_enable_tso_key;            /* D N bool: TCP segments of up to 64 KiB */
extern const char *const vmnet_enable_isolation_key;      /* D N bool: no frames from and to other guests */
extern const char *const vmnet_enable_checksum_offload_key; /* D N bool: checksums are not the guest's work */
extern const char *const vmnet_enable_virtio_header_key;    /* D N bool: a virtio-net header before each frame */
extern const char *const vmnet_estimated_packets_available_key; /* E uint64: how many packets wait */

/*
 * Interfaces. Handlers run on their queue, once; if a function returns an error, its handler is not called. The functions
 * whose name ends in _f take no queue too: their handlers then run in a thread of the library.
 *
 * A start gives NULL for a NULL argument only; every other failure is told by its handler. The handle stays valid after the
 * interface has stopped; CFRelease gives back its memory.
 */

#ifdef __BLOCKS__
interface_ref _Nullable vmnet_start_interface(xpc_object_t interface_desc, dispatch_queue_t queue,
                                              vmnet_start_interface_completion_handler_t handler);
interface_ref _Nullable vmnet_interface_start_with_network(vmnet_network_ref network, xpc_object_t interface_desc,
                                                           dispatch_queue_t queue,
                                                           vmnet_start_interface_completion_handler_t start_block);
vmnet_return_t vmnet_interface_set_event_callback(interface_ref interface, interface_event_t event_mask,
                                                  dispatch_queue_t _Nullable queue,
                                                  vmnet_interface_event_callback_t _Nullable callback);
vmnet_return_t vmnet_stop_interface(interface_ref interface, dispatch_queue_t queue,
                                    vmnet_interface_completion_handler_t handler);
#endif
interface_ref _Nullable vmnet_start_interface_f(xpc_object_t interface_desc, dispatch_queue_t _Nullable queue,
                                                void *_Nullable context,
                                                vmnet_start_interface_completion_handler_f_t handler);
interface_ref _Nullable vmnet_interface_start_with_network_f(vmnet_network_ref network, xpc_object_t interface_desc,
                                                             dispatch_queue_t _Nullable queue,
                                                             void *_Nullable context,
                                                             vmnet_start_interface_completion_handler_f_t handler);
vmnet_return_t vmnet_interface_set_event_callback_f(interface_ref interface, interface_event_t event_mask,
                                                    dispatch_queue_t _Nullable queue, void *_Nullable context,
                                                    vmnet_interface_event_callback_f_t _Nullable callback);
vmnet_return_t vmnet_stop_interface_f(interface_ref interface, dispatch_queue_t _Nullable queue,
                                      void *_Nullable context, vmnet_interface_completion_handler_f_t handler);

/* Neither waits. The count goes in as what there is, and comes out as what was read or written. */
vmnet_return_t vmnet_read(interface_ref interface, struct vmpktdesc *packets, int *pktcnt);
vmnet_return_t vmnet_write(interface_ref interface, struct vmpktdesc *packets, int *pktcnt);

/* Names of the host's interfaces that can be bridged to: an array that the caller releases. */
xpc_object_t _Nullable vmnet_copy_shared_interface_list(void);

/*
 * Port forwarding rules of interfaces. They end with the interface.
 */

#ifdef __BLOCKS__
vmnet_return_t vmnet_interface_add_ip_port_forwarding_rule(interface_ref interface, uint8_t protocol,
                                                           uint16_t external_port, uint8_t address_family,
                                                           const void *internal_address, uint16_t internal_port,
                                                           vmnet_interface_completion_handler_t _Nullable handler);
vmnet_return_t vmnet_interface_remove_ip_port_forwarding_rule(interface_ref interface, uint8_t protocol,
                                                              uint16_t external_port, uint8_t address_family,
                                                              vmnet_interface_completion_handler_t _Nullable handler);
vmnet_return_t vmnet_interface_get_ip_port_forwarding_rules(
    interface_ref interface, uint8_t address_family,
    vmnet_interface_get_ip_port_forwarding_rules_handler_t handler);
#endif
vmnet_return_t vmnet_interface_add_ip_port_forwarding_rule_f(interface_ref interface, uint8_t protocol,
                                                             uint16_t external_port, uint8_t address_family,
                                                             const void *internal_address, uint16_t internal_port,
                                                             void *_Nullable context,
                                                             vmnet_interface_completion_handler_f_t _Nullable handler);
vmnet_return_t vmnet_interface_remove_ip_port_forwarding_rule_f(
    interface_ref interface, uint8_t protocol, uint16_t external_port, uint8_t address_family,
    void *_Nullable context, vmnet_interface_completion_handler_f_t _Nullable handler);
vmnet_return_t vmnet_interface_get_ip_port_forwarding_rules_f(
    interface_ref interface, uint8_t address_family, void *_Nullable context,
    vmnet_interface_get_ip_port_forwarding_rules_handler_f_t handler);

vmnet_return_t vmnet_ip_port_forwarding_rule_get_details(xpc_object_t rule, uint8_t *protocol,
                                                         uint16_t *external_port, uint8_t address_family,
                                                         void *internal_address, uint16_t *internal_port);

/* The first generation, IPv4 only. */

#ifdef __BLOCKS__
VMNET_DEPRECATED("use vmnet_interface_add_ip_port_forwarding_rule")
vmnet_return_t vmnet_interface_add_port_forwarding_rule(interface_ref interface, uint8_t protocol,
                                                        uint16_t external_port, struct in_addr internal_address,
                                                        uint16_t internal_port,
                                                        vmnet_interface_completion_handler_t _Nullable handler);
VMNET_DEPRECATED("use vmnet_interface_remove_ip_port_forwarding_rule")
vmnet_return_t vmnet_interface_remove_port_forwarding_rule(interface_ref interface, uint8_t protocol,
                                                           uint16_t external_port,
                                                           vmnet_interface_completion_handler_t _Nullable handler);
VMNET_DEPRECATED("use vmnet_interface_get_ip_port_forwarding_rules")
vmnet_return_t vmnet_interface_get_port_forwarding_rules(interface_ref interface,
                                                         vmnet_interface_get_port_forwarding_rules_handler_t handler);
#endif
VMNET_DEPRECATED("use vmnet_interface_add_ip_port_forwarding_rule_f")
vmnet_return_t vmnet_interface_add_port_forwarding_rule_f(interface_ref interface, uint8_t protocol,
                                                          uint16_t external_port, struct in_addr internal_address,
                                                          uint16_t internal_port, void *_Nullable context,
                                                          vmnet_interface_completion_handler_f_t _Nullable handler);
VMNET_DEPRECATED("use vmnet_interface_remove_ip_port_forwarding_rule_f")
vmnet_return_t vmnet_interface_remove_port_forwarding_rule_f(interface_ref interface, uint8_t protocol,
                                                             uint16_t external_port, void *_Nullable context,
                                                             vmnet_interface_completion_handler_f_t _Nullable handler);
VMNET_DEPRECATED("use vmnet_interface_get_ip_port_forwarding_rules_f")
vmnet_return_t vmnet_interface_get_port_forwarding_rules_f(
    interface_ref interface, void *_Nullable context,
    vmnet_interface_get_port_forwarding_rules_handler_f_t handler);

VMNET_DEPRECATED("use vmnet_ip_port_forwarding_rule_get_details")
vmnet_return_t vmnet_port_forwarding_rule_get_details(xpc_object_t rule, uint8_t *protocol, uint16_t *external_port,
                                                      struct in_addr *internal_address, uint16_t *internal_port);

/*
 * What a network is to be. Made configurations and networks are released by CFRelease. A status may be NULL; it is
 * written on success too.
 */

vmnet_network_configuration_ref _Nullable vmnet_network_configuration_create(
    vmnet_mode_t mode, vmnet_return_t *_Nullable status) CF_RETURNS_RETAINED;

void vmnet_network_configuration_disable_nat44(vmnet_network_configuration_ref config);
void vmnet_network_configuration_disable_nat66(vmnet_network_configuration_ref config);
void vmnet_network_configuration_disable_dhcp(vmnet_network_configuration_ref config);
void vmnet_network_configuration_disable_dns_proxy(vmnet_network_configuration_ref config);
void vmnet_network_configuration_disable_router_advertisement(vmnet_network_configuration_ref config);

/* Shared networks only. */
vmnet_return_t vmnet_network_configuration_set_external_interface(vmnet_network_configuration_ref config,
                                                                  const char *ifname);
/* The host's address in the subnet; or the subnet's own, and the host gets the next. */
vmnet_return_t vmnet_network_configuration_set_ipv4_subnet(vmnet_network_configuration_ref config,
                                                           const struct in_addr *subnet_addr,
                                                           const struct in_addr *subnet_mask);
/* In fd00::/8, with a length of 64. */
vmnet_return_t vmnet_network_configuration_set_ipv6_prefix(vmnet_network_configuration_ref config,
                                                           const struct in6_addr *prefix, uint8_t prefix_len);
vmnet_return_t vmnet_network_configuration_set_mtu(vmnet_network_configuration_ref config, uint32_t mtu);
vmnet_return_t vmnet_network_configuration_add_dhcp_reservation(vmnet_network_configuration_ref config,
                                                                const ether_addr_t *client,
                                                                const struct in_addr *reservation);
/* The guest's port comes before the host's, unlike in the functions of interfaces. */
vmnet_return_t vmnet_network_configuration_add_port_forwarding_rule(vmnet_network_configuration_ref config,
                                                                    uint8_t protocol, sa_family_t address_family,
                                                                    uint16_t internal_port, uint16_t external_port,
                                                                    const void *internal_address);

/*
 * Networks. One lives as long as somebody holds a reference of it, here or in another process, or an interface is on it.
 */

vmnet_network_ref _Nullable vmnet_network_create(vmnet_network_configuration_ref config,
                                                 vmnet_return_t *_Nullable status) CF_RETURNS_RETAINED;

/* A dictionary that can be sent to other processes of this user, also inside another. */
xpc_object_t _Nullable vmnet_network_copy_serialization(vmnet_network_ref network, vmnet_return_t *_Nullable status);
vmnet_network_ref _Nullable vmnet_network_create_with_serialization(
    xpc_object_t network, vmnet_return_t *_Nullable status) CF_RETURNS_RETAINED;

/* The host's address on the network, and the mask. */
void vmnet_network_get_ipv4_subnet(vmnet_network_ref network, struct in_addr *subnet, struct in_addr *mask);
/* A length of 0 means that there is no IPv6. */
void vmnet_network_get_ipv6_prefix(vmnet_network_ref network, struct in6_addr *prefix, uint8_t *prefix_len);

VMNET_ASSUME_NONNULL_END

VMNET_END_DECLS

#endif
