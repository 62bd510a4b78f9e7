//! Ports in shared memory.

use super::Better::{Higher, Lower, Neither};
use super::Experiment::Ports;
use super::{RATE, Row, row};
use crate::ports;

pub(super) static ROWS: [Row; 35] = [
    row(
        "rings_split_64",
        "Ring to ring, split, 64 bytes",
        ("Mpps", 2),
        Higher,
        Ports(ports::Part::Rings {
            len: 64,
            packed: false,
        }),
    ),
    row(
        "rings_split_64_thread",
        "  network's thread, a frame",
        ("ns", 0),
        Lower,
        Ports(ports::Part::Rings {
            len: 64,
            packed: false,
        }),
    ),
    row(
        "rings_split_64_of_copy",
        "  share of a plain copy's speed",
        ("x", 2),
        Neither,
        Ports(ports::Part::Rings {
            len: 64,
            packed: false,
        }),
    ),
    row(
        "rings_split_64_wakes",
        "  notifications, a frame",
        ("", 4),
        Neither,
        Ports(ports::Part::Rings {
            len: 64,
            packed: false,
        }),
    ),
    row(
        "rings_split_1500",
        "Ring to ring, split, 1500 bytes",
        RATE,
        Higher,
        Ports(ports::Part::Rings {
            len: 1500,
            packed: false,
        }),
    ),
    row(
        "rings_split_1500_thread",
        "  network's thread, a frame",
        ("ns", 0),
        Lower,
        Ports(ports::Part::Rings {
            len: 1500,
            packed: false,
        }),
    ),
    row(
        "rings_split_1500_of_copy",
        "  share of a plain copy's speed",
        ("x", 2),
        Neither,
        Ports(ports::Part::Rings {
            len: 1500,
            packed: false,
        }),
    ),
    row(
        "rings_split_1500_wakes",
        "  notifications, a frame",
        ("", 4),
        Neither,
        Ports(ports::Part::Rings {
            len: 1500,
            packed: false,
        }),
    ),
    row(
        "rings_split_65549",
        "Ring to ring, split, 64 KiB",
        RATE,
        Higher,
        Ports(ports::Part::Rings {
            len: ports::LARGE,
            packed: false,
        }),
    ),
    row(
        "rings_split_65549_thread",
        "  network's thread, a frame",
        ("ns", 0),
        Lower,
        Ports(ports::Part::Rings {
            len: ports::LARGE,
            packed: false,
        }),
    ),
    row(
        "rings_split_65549_of_copy",
        "  share of a plain copy's speed",
        ("x", 2),
        Higher,
        Ports(ports::Part::Rings {
            len: ports::LARGE,
            packed: false,
        }),
    ),
    row(
        "rings_split_65549_wakes",
        "  notifications, a frame",
        ("", 4),
        Neither,
        Ports(ports::Part::Rings {
            len: ports::LARGE,
            packed: false,
        }),
    ),
    row(
        "rings_packed_64",
        "Ring to ring, packed, 64 bytes",
        ("Mpps", 2),
        Higher,
        Ports(ports::Part::Rings {
            len: 64,
            packed: true,
        }),
    ),
    row(
        "rings_packed_64_thread",
        "  network's thread, a frame",
        ("ns", 0),
        Lower,
        Ports(ports::Part::Rings {
            len: 64,
            packed: true,
        }),
    ),
    row(
        "rings_packed_64_of_copy",
        "  share of a plain copy's speed",
        ("x", 2),
        Neither,
        Ports(ports::Part::Rings {
            len: 64,
            packed: true,
        }),
    ),
    row(
        "rings_packed_64_wakes",
        "  notifications, a frame",
        ("", 4),
        Neither,
        Ports(ports::Part::Rings {
            len: 64,
            packed: true,
        }),
    ),
    row(
        "rings_packed_1500",
        "Ring to ring, packed, 1500 bytes",
        RATE,
        Higher,
        Ports(ports::Part::Rings {
            len: 1500,
            packed: true,
        }),
    ),
    row(
        "rings_packed_1500_thread",
        "  network's thread, a frame",
        ("ns", 0),
        Lower,
        Ports(ports::Part::Rings {
            len: 1500,
            packed: true,
        }),
    ),
    row(
        "rings_packed_1500_of_copy",
        "  share of a plain copy's speed",
        ("x", 2),
        Neither,
        Ports(ports::Part::Rings {
            len: 1500,
            packed: true,
        }),
    ),
    row(
        "rings_packed_1500_wakes",
        "  notifications, a frame",
        ("", 4),
        Neither,
        Ports(ports::Part::Rings {
            len: 1500,
            packed: true,
        }),
    ),
    row(
        "rings_packed_65549",
        "Ring to ring, packed, 64 KiB",
        RATE,
        Higher,
        Ports(ports::Part::Rings {
            len: ports::LARGE,
            packed: true,
        }),
    ),
    row(
        "rings_packed_65549_thread",
        "  network's thread, a frame",
        ("ns", 0),
        Lower,
        Ports(ports::Part::Rings {
            len: ports::LARGE,
            packed: true,
        }),
    ),
    row(
        "rings_packed_65549_of_copy",
        "  share of a plain copy's speed",
        ("x", 2),
        Higher,
        Ports(ports::Part::Rings {
            len: ports::LARGE,
            packed: true,
        }),
    ),
    row(
        "rings_packed_65549_wakes",
        "  notifications, a frame",
        ("", 4),
        Neither,
        Ports(ports::Part::Rings {
            len: ports::LARGE,
            packed: true,
        }),
    ),
    row(
        "instructions_64",
        "Instructions a frame, 64 bytes",
        ("", 0),
        Lower,
        Ports(ports::Part::Instructions { len: 64 }),
    ),
    row(
        "instructions_1500",
        "Instructions a frame, 1500 bytes",
        ("", 0),
        Lower,
        Ports(ports::Part::Instructions { len: 1500 }),
    ),
    row(
        "instructions_65549",
        "Instructions a frame, 64 KiB",
        ("", 0),
        Lower,
        Ports(ports::Part::Instructions { len: ports::LARGE }),
    ),
    row(
        "testpmd_64",
        "DPDK's generator, 64 bytes",
        ("Mpps", 3),
        Higher,
        Ports(ports::Part::Testpmd { len: 64 }),
    ),
    row(
        "testpmd_64_dpdk",
        "  the same by DPDK's net_vhost",
        ("Mpps", 3),
        Neither,
        Ports(ports::Part::Testpmd { len: 64 }),
    ),
    row(
        "testpmd_1500",
        "DPDK's generator, 1500 bytes",
        ("Mpps", 3),
        Higher,
        Ports(ports::Part::Testpmd { len: 1500 }),
    ),
    row(
        "testpmd_1500_dpdk",
        "  the same by DPDK's net_vhost",
        ("Mpps", 3),
        Neither,
        Ports(ports::Part::Testpmd { len: 1500 }),
    ),
    row(
        "nat_up_1",
        "Shared memory, TCP up, 1 flow",
        RATE,
        Higher,
        Ports(ports::Part::Nat { up: true, flows: 1 }),
    ),
    row(
        "nat_down_1",
        "Shared memory, TCP down, 1 flow",
        RATE,
        Higher,
        Ports(ports::Part::Nat {
            up: false,
            flows: 1,
        }),
    ),
    row(
        "nat_up_8",
        "Shared memory, TCP up, 8 flows",
        RATE,
        Higher,
        Ports(ports::Part::Nat { up: true, flows: 8 }),
    ),
    row(
        "nat_down_8",
        "Shared memory, TCP down, 8 flows",
        RATE,
        Higher,
        Ports(ports::Part::Nat {
            up: false,
            flows: 8,
        }),
    ),
];
