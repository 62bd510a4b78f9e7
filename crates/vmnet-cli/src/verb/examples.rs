//! One of each thing with everything in it, and one with nothing that can be left out.

use super::lease::Addresses;
use super::network::Shown;
use super::scoped::Scoped;
use super::status::{Closeup, Overview};
use openvmnet::service::{
    BridgeMethod, Datapath, Forward, ForwardRule, Guest, Identity, Interface, Kind, Lease,
    LeaseState, Lifetime, MethodState, Mode, Network, NetworkConfiguration, Protocol, Reservation,
    Reserved, Scope, SharedInterface, SharedKind, Status,
};
use std::collections::BTreeMap;

/// When all this is seen.
pub(super) const NOW: u64 = 1_800_000_000;

const UUID: &str = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";
const BARE_UUID: &str = "01234567-89ab-4cde-8f01-23456789abcd";

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

pub(super) fn configuration() -> NetworkConfiguration {
    NetworkConfiguration {
        mode: Mode::Shared,
        name: text("lab"),
        uuid: text(UUID),
        subnet: text("10.77.0.0/24"),
        dhcp_first: text("10.77.0.2"),
        dhcp_last: text("10.77.0.254"),
        mtu: Some(9000),
        dhcp: Some(true),
        dns_proxy: Some(true),
        nat44: Some(true),
        ipv6: Some(true),
        ipv6_prefix: text("fd12:3456:789a:1::/64"),
        nat66: Some(true),
        router_advertisement: Some(true),
        dhcp6: Some(true),
        external_interface: text("eth0"),
        bridge_method: Some(BridgeMethod::Packet),
        domain: text("lab.internal"),
        resolvers: Some(vec!["10.0.0.53".to_owned(), "[fd00::53]:5353".to_owned()]),
        lease_seconds: Some(43_200),
        isolation: Some(false),
        host_loopback: Some(true),
        datapath: Some(Datapath::User),
        private: Some(false),
    }
}

pub(super) fn network() -> Network {
    Network {
        uuid: UUID.to_owned(),
        name: text("lab"),
        mode: Mode::Shared,
        lifetime: Lifetime::Kept,
        scope: Scope::User,
        subnet: text("10.77.0.0/24"),
        gateway: text("10.77.0.1"),
        dhcp_first: text("10.77.0.2"),
        dhcp_last: text("10.77.0.254"),
        mtu: 9000,
        dhcp: true,
        dns_proxy: true,
        nat44: true,
        ipv6_prefix: text("fd12:3456:789a:1::/64"),
        ipv6_gateway: text("fd12:3456:789a:1::1"),
        nat66: true,
        router_advertisement: true,
        dhcp6: true,
        external_interface: text("eth0"),
        bridge_method: Some(BridgeMethod::Packet),
        domain: "lab.internal".to_owned(),
        lease_seconds: 43_200,
        isolation: false,
        host_loopback: true,
        datapath: Datapath::Kernel,
        host_interface: text("vmnet0"),
        private: false,
        holders: 1,
        interfaces: 2,
        configuration: configuration(),
    }
}

pub(super) fn bare_network() -> Network {
    let mut configuration = NetworkConfiguration::new(Mode::Host);
    configuration.private = Some(true);
    Network {
        uuid: BARE_UUID.to_owned(),
        name: None,
        mode: Mode::Host,
        lifetime: Lifetime::Held,
        scope: Scope::User,
        subnet: None,
        gateway: None,
        dhcp_first: None,
        dhcp_last: None,
        mtu: 1500,
        dhcp: false,
        dns_proxy: false,
        nat44: false,
        ipv6_prefix: None,
        ipv6_gateway: None,
        nat66: false,
        router_advertisement: false,
        dhcp6: false,
        external_interface: None,
        bridge_method: None,
        domain: "vmnet.internal".to_owned(),
        lease_seconds: 86_400,
        isolation: false,
        host_loopback: false,
        datapath: Datapath::User,
        host_interface: None,
        private: true,
        holders: 1,
        interfaces: 0,
        configuration,
    }
}

pub(super) fn scoped<T>(row: T) -> Scoped<T> {
    Scoped::new(Scope::User, row)
}

pub(super) fn interface() -> Interface {
    Interface {
        interface: 7,
        network: UUID.to_owned(),
        network_name: text("lab"),
        kind: Kind::Stream,
        listener: Some(6),
        id: text("0b1d9f6e-2c1a-4b7e-9f0a-3d1c5e7f9a2b"),
        mac: text("52:54:00:12:34:56"),
        name: text("web"),
        address: text("10.77.0.2"),
        mtu: 9000,
        max_packet_size: 9014,
        isolated: false,
        virtio_header: false,
        tso: false,
        checksum_offload: false,
        pid: 4711,
    }
}

pub(super) fn bare_interface() -> Interface {
    Interface {
        interface: 12,
        network: BARE_UUID.to_owned(),
        network_name: None,
        kind: Kind::DgramListener,
        listener: None,
        id: None,
        mac: None,
        name: None,
        address: None,
        ..interface()
    }
}

pub(super) fn shared_interface() -> SharedInterface {
    SharedInterface {
        name: "eth1".to_owned(),
        kind: SharedKind::Ethernet,
        mac: "00:00:5e:00:53:01".to_owned(),
        mtu: 1500,
        up: true,
        bridge: text("br0"),
        method: Some(BridgeMethod::Bridge),
        methods: vec![method_state(), bare_method_state()],
    }
}

pub(super) fn bare_shared_interface() -> SharedInterface {
    SharedInterface {
        name: "wlan0".to_owned(),
        kind: SharedKind::Wifi,
        bridge: None,
        method: None,
        methods: vec![method_state()],
        ..shared_interface()
    }
}

pub(super) fn method_state() -> MethodState {
    MethodState {
        method: BridgeMethod::Macvtap,
        usable: false,
        reason: text("its access point takes frames from one MAC alone"),
    }
}

pub(super) fn bare_method_state() -> MethodState {
    MethodState {
        method: BridgeMethod::Bridge,
        usable: true,
        reason: None,
    }
}

pub(super) fn identity() -> Identity {
    Identity {
        id: "0b1d9f6e-2c1a-4b7e-9f0a-3d1c5e7f9a2b".to_owned(),
        mac: "52:54:00:12:34:56".to_owned(),
        created: NOW - 30 * 86_400,
        last_used: NOW - 65,
        interface: Some(7),
    }
}

pub(super) fn bare_identity() -> Identity {
    Identity {
        interface: None,
        ..identity()
    }
}

pub(super) fn forward() -> Forward {
    Forward {
        forward: 3,
        network: UUID.to_owned(),
        network_name: text("lab"),
        interface: Some(7),
        rule: ForwardRule {
            protocol: Protocol::Tcp,
            address: "0.0.0.0".to_owned(),
            first: 8000,
            last: 8009,
            except: vec![8001, 8002, 8003, 8007],
            guest: guest(),
            guest_port: 80,
        },
    }
}

pub(super) fn bare_forward() -> Forward {
    Forward {
        forward: 4,
        network: BARE_UUID.to_owned(),
        network_name: None,
        interface: None,
        rule: ForwardRule {
            protocol: Protocol::Udp,
            address: "::1".to_owned(),
            first: 5353,
            last: 5353,
            except: Vec::new(),
            guest: Guest {
                mac: text("52:54:00:12:34:56"),
                ..nobody()
            },
            guest_port: 53,
        },
    }
}

/// No guest is known by all of these at once; the schema knows all of them.
pub(super) fn guest() -> Guest {
    Guest {
        address: text("10.77.0.2"),
        mac: text("52:54:00:12:34:56"),
        name: text("web"),
        interface: Some(7),
    }
}

pub(super) fn nobody() -> Guest {
    Guest {
        address: None,
        mac: None,
        name: None,
        interface: None,
    }
}

pub(super) fn lease() -> Lease {
    Lease {
        network: UUID.to_owned(),
        network_name: text("lab"),
        address: "10.77.0.10".to_owned(),
        mac: "52:54:00:12:34:56".to_owned(),
        client_id: text("01525400123456"),
        name: text("web"),
        state: LeaseState::Bound,
        expires: NOW + 43_000,
        reserved: true,
    }
}

pub(super) fn bare_lease() -> Lease {
    Lease {
        network_name: None,
        address: "10.77.0.11".to_owned(),
        mac: "52:54:00:00:00:11".to_owned(),
        client_id: None,
        name: None,
        state: LeaseState::Expired,
        expires: NOW - 3 * 86_400,
        reserved: false,
        ..lease()
    }
}

/// No guest is known by all of these at once; the schema knows all of them.
pub(super) fn reservation() -> Reservation {
    Reservation {
        address: "10.77.0.10".to_owned(),
        mac: text("52:54:00:12:34:56"),
        client_id: text("01525400123456"),
        name: text("web"),
    }
}

pub(super) fn bare_reservation() -> Reservation {
    Reservation {
        address: "10.77.0.12".to_owned(),
        mac: None,
        client_id: None,
        name: None,
    }
}

pub(super) fn reserved() -> Reserved {
    Reserved {
        network: UUID.to_owned(),
        network_name: text("lab"),
        reservation: reservation(),
    }
}

pub(super) fn bare_reserved() -> Reserved {
    Reserved {
        network_name: None,
        ..reserved()
    }
}

pub(super) fn status() -> Status {
    Status {
        version: "0.1.0".to_owned(),
        pid: 4242,
        scope: Scope::User,
        uptime_seconds: 90_061,
        socket: "/run/user/1000/vmnet/vmnet.sock".to_owned(),
        store: text("/home/u/.local/state/vmnet/store.redb"),
        configuration: text("/home/u/.config/vmnet/vmnet.toml"),
        networks: 1,
        interfaces: 2,
        connections: 3,
    }
}

pub(super) fn bare_status() -> Status {
    Status {
        store: None,
        configuration: None,
        ..status()
    }
}

pub(super) fn overview() -> Overview {
    Overview {
        service: Some(status()),
        machine: Some(status()),
        networks: vec![network()],
    }
}

pub(super) fn closeup() -> Closeup {
    Closeup {
        service: status(),
        network: network(),
        interfaces: vec![scoped(interface())],
        forwards: vec![scoped(forward())],
        leases: vec![scoped(lease())],
        reservations: vec![scoped(reserved())],
    }
}

pub(super) fn addresses() -> Addresses {
    Addresses {
        leases: vec![scoped(lease())],
        reservations: vec![scoped(reserved())],
    }
}

pub(super) fn shown() -> Shown {
    Shown {
        network: network(),
        counters: Some(BTreeMap::from([("drop-spoofed".to_owned(), 7)])),
    }
}

pub(super) fn bare_shown() -> Shown {
    Shown {
        network: bare_network(),
        counters: None,
    }
}
