//! Networks that take privileges, beside what is made by hand.

use super::Better::{Higher, Lower};
use super::{Experiment, Family, RATE, Row, TIME, row};
use crate::privileged::{Load, Method, Network, Part};
use Family::{V4, V6};

const KERNEL: Network = Network::Kernel;
const BRIDGE: Network = Network::Bridged(Method::Bridge);
const PACKET: Network = Network::Bridged(Method::Packet);
const MACVTAP: Network = Network::Bridged(Method::Macvtap);

const fn of(network: Network, load: Load) -> Experiment {
    Experiment::Privileged(Part { network, load })
}

const fn tcp(network: Network, by: Family, up: bool, streams: usize) -> Experiment {
    of(network, Load::Tcp { by, up, streams })
}

const fn rr(network: Network, by: Family) -> Experiment {
    of(network, Load::RequestResponse(by))
}

const fn connections(network: Network, by: Family) -> Experiment {
    of(network, Load::Connections(by))
}

pub(super) static ROWS: [Row; 30] = [
    row(
        "kernel_tcp_up_1",
        "Kernel: TCP up, 1 stream",
        RATE,
        Higher,
        tcp(KERNEL, V4, true, 1),
    ),
    row(
        "kernel_tcp_down_1",
        "Kernel: TCP down, 1 stream",
        RATE,
        Higher,
        tcp(KERNEL, V4, false, 1),
    ),
    row(
        "kernel_tcp_up_8",
        "Kernel: TCP up, 8 streams",
        RATE,
        Higher,
        tcp(KERNEL, V4, true, 8),
    ),
    row(
        "kernel_tcp_down_8",
        "Kernel: TCP down, 8 streams",
        RATE,
        Higher,
        tcp(KERNEL, V4, false, 8),
    ),
    row(
        "kernel_rr_p50",
        "Kernel: Request/response, p50",
        TIME,
        Lower,
        rr(KERNEL, V4),
    ),
    row(
        "kernel_connections",
        "Kernel: New connections",
        ("/s", 0),
        Higher,
        connections(KERNEL, V4),
    ),
    row(
        "kernel_tcp6_up_1",
        "Kernel: TCP up, 1 stream, IPv6",
        RATE,
        Higher,
        tcp(KERNEL, V6, true, 1),
    ),
    row(
        "kernel_tcp6_down_1",
        "Kernel: TCP down, 1 stream, IPv6",
        RATE,
        Higher,
        tcp(KERNEL, V6, false, 1),
    ),
    row(
        "kernel_tcp6_up_8",
        "Kernel: TCP up, 8 streams, IPv6",
        RATE,
        Higher,
        tcp(KERNEL, V6, true, 8),
    ),
    row(
        "kernel_tcp6_down_8",
        "Kernel: TCP down, 8 streams, IPv6",
        RATE,
        Higher,
        tcp(KERNEL, V6, false, 8),
    ),
    row(
        "kernel_rr6_p50",
        "Kernel: Request/response, p50, IPv6",
        TIME,
        Lower,
        rr(KERNEL, V6),
    ),
    row(
        "kernel_connections6",
        "Kernel: New connections, IPv6",
        ("/s", 0),
        Higher,
        connections(KERNEL, V6),
    ),
    row(
        "bridge_tcp_up_1",
        "Bridged by bridge: TCP up, 1 stream",
        RATE,
        Higher,
        tcp(BRIDGE, V4, true, 1),
    ),
    row(
        "bridge_tcp_down_1",
        "Bridged by bridge: TCP down, 1 stream",
        RATE,
        Higher,
        tcp(BRIDGE, V4, false, 1),
    ),
    row(
        "bridge_tcp_up_8",
        "Bridged by bridge: TCP up, 8 streams",
        RATE,
        Higher,
        tcp(BRIDGE, V4, true, 8),
    ),
    row(
        "bridge_tcp_down_8",
        "Bridged by bridge: TCP down, 8 streams",
        RATE,
        Higher,
        tcp(BRIDGE, V4, false, 8),
    ),
    row(
        "bridge_rr_p50",
        "Bridged by bridge: Request/response, p50",
        TIME,
        Lower,
        rr(BRIDGE, V4),
    ),
    row(
        "bridge_connections",
        "Bridged by bridge: New connections",
        ("/s", 0),
        Higher,
        connections(BRIDGE, V4),
    ),
    row(
        "packet_tcp_up_1",
        "Bridged by packet: TCP up, 1 stream",
        RATE,
        Higher,
        tcp(PACKET, V4, true, 1),
    ),
    row(
        "packet_tcp_down_1",
        "Bridged by packet: TCP down, 1 stream",
        RATE,
        Higher,
        tcp(PACKET, V4, false, 1),
    ),
    row(
        "packet_tcp_up_8",
        "Bridged by packet: TCP up, 8 streams",
        RATE,
        Higher,
        tcp(PACKET, V4, true, 8),
    ),
    row(
        "packet_tcp_down_8",
        "Bridged by packet: TCP down, 8 streams",
        RATE,
        Higher,
        tcp(PACKET, V4, false, 8),
    ),
    row(
        "packet_rr_p50",
        "Bridged by packet: Request/response, p50",
        TIME,
        Lower,
        rr(PACKET, V4),
    ),
    row(
        "packet_connections",
        "Bridged by packet: New connections",
        ("/s", 0),
        Higher,
        connections(PACKET, V4),
    ),
    row(
        "macvtap_tcp_up_1",
        "Bridged by macvtap: TCP up, 1 stream",
        RATE,
        Higher,
        tcp(MACVTAP, V4, true, 1),
    ),
    row(
        "macvtap_tcp_down_1",
        "Bridged by macvtap: TCP down, 1 stream",
        RATE,
        Higher,
        tcp(MACVTAP, V4, false, 1),
    ),
    row(
        "macvtap_tcp_up_8",
        "Bridged by macvtap: TCP up, 8 streams",
        RATE,
        Higher,
        tcp(MACVTAP, V4, true, 8),
    ),
    row(
        "macvtap_tcp_down_8",
        "Bridged by macvtap: TCP down, 8 streams",
        RATE,
        Higher,
        tcp(MACVTAP, V4, false, 8),
    ),
    row(
        "macvtap_rr_p50",
        "Bridged by macvtap: Request/response, p50",
        TIME,
        Lower,
        rr(MACVTAP, V4),
    ),
    row(
        "macvtap_connections",
        "Bridged by macvtap: New connections",
        ("/s", 0),
        Higher,
        connections(MACVTAP, V4),
    ),
];
