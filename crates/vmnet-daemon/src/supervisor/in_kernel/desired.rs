//! What a network is to be in the kernel, by its plan and its forwarded ports: its bridge, and its rules.

use crate::plan::Plan;
use crate::privileged::name::LinkName;
use crate::supervisor::forward::Rule;
use std::collections::BTreeMap;
use std::net::IpAddr;
use vmnet_linux::kernel::bridge::Bridge;
use vmnet_linux::kernel::nft::{Inet, Inet6, PortForward, Rules};
use vmnet_linux::lane::{
    ForwardGuest, GuestAddresses, Handle, Protocol, gateway_mac, services_mac,
};
use vmnet_wire::ndp;

/// The bridge of a network.
pub(super) fn wanted(plan: &Plan, rules: &Rules) -> Bridge {
    let v4 = rules
        .ipv4
        .map(|net| (IpAddr::V4(net.gateway), net.prefix_len));
    let v6 = rules
        .ipv6
        .into_iter()
        .flat_map(|net| [net.gateway, net.link_local]);
    Bridge {
        mac: rules.host,
        mtu: plan.mtu,
        addresses: v4
            .into_iter()
            .chain(v6.map(|it| (IpAddr::V6(it), 64)))
            .collect(),
        // Where nothing may pass, rules say so to who tries.
        forwards: true,
    }
}

/// The rules of a network without ports.
pub(super) fn rules(plan: &Plan, bridge: &LinkName, trunk: &LinkName) -> Rules {
    let host = gateway_mac(plan.ipv4, plan.ipv6);
    Rules {
        bridge: bridge.to_string(),
        trunk: trunk.to_string(),
        host: host.0,
        services: services_mac(host).0,
        ipv4: plan.ipv4.map(|ipv4| Inet {
            network: ipv4.subnet().network(),
            prefix_len: ipv4.subnet().prefix_len(),
            gateway: ipv4.gateway(),
            nat: plan.nat44,
        }),
        ipv6: plan.ipv6.map(|prefix| Inet6 {
            network: prefix.network(),
            gateway: prefix.gateway(),
            link_local: ndp::link_local(host),
            nat: plan.nat66,
        }),
        serves: plan.dhcp.is_some() || plan.nat44 || plan.ipv6.is_some(),
        dns: plan.dns_proxy,
        isolation: plan.isolation,
        isolated: Vec::new(),
        isolated_behind: false,
        bridged_pass: false,
        loopback_open: false,
        external: plan.external_interface.clone(),
        others: Vec::new(),
        members: Vec::new(),
        fixed: Vec::new(),
        forwards: Vec::new(),
    }
}

/// Where forwarded ports lead now.
pub(super) fn forwards<'a>(
    all: impl Iterator<Item = &'a Rule>,
    handle: &Handle,
) -> Vec<PortForward> {
    let all: Vec<_> = all.flat_map(|rule| &rule.in_kernel).collect();
    let mut guests: Vec<ForwardGuest> = Vec::new();
    for forward in &all {
        if !guests.contains(&forward.guest) {
            guests.push(forward.guest);
        }
    }
    if guests.is_empty() {
        return Vec::new();
    }
    let addresses = handle.addresses_of(guests.clone());
    let of = |guest: &ForwardGuest| -> GuestAddresses {
        let at = guests.iter().position(|other| other == guest);
        at.and_then(|at| addresses.get(at))
            .copied()
            .unwrap_or_default()
    };
    let mut found = BTreeMap::new();
    for forward in all {
        let (v4, v6) = of(&forward.guest);
        let listen = forward.listen.ip();
        // `::` is for both families.
        let v4 = v4
            .filter(|_| listen.is_ipv4() || listen.is_unspecified())
            .map(IpAddr::V4);
        let v6 = v6.filter(|_| listen.is_ipv6()).map(IpAddr::V6);
        for guest in v4.into_iter().chain(v6) {
            let one = PortForward {
                tcp: forward.protocol == Protocol::Tcp,
                address: Some(listen).filter(|address| !address.is_unspecified()),
                port: forward.listen.port(),
                guest,
                guest_port: forward.guest_port,
            };
            found.insert((one.tcp, guest.is_ipv6(), one.address, one.port), one);
        }
    }
    found.into_values().collect()
}
