//! Headers of Ethernet, ARP, IP, ICMP, TCP and UDP: bytes to fields and back.
//!
//! No I/O, no clock, no allocation; no input makes it panic.
//!
//! | file | what |
//! | --- | --- |
//! | [`ethernet`] | frames and MAC addresses |
//! | [`arp`] | RFC 826 |
//! | [`ipv4`], [`ipv6`] | RFC 791, RFC 8200 |
//! | [`ip`] | what both families share: protocol numbers, address pairs, pseudo headers |
//! | [`icmpv4`], [`icmpv6`] | RFC 792, RFC 4443 |
//! | [`ndp`] | neighbour discovery and router advertisements, RFC 4861, RFC 8106 |
//! | [`tcp`], [`udp`] | RFC 9293, RFC 768 |
//! | [`checksum`] | RFC 1071, RFC 1624 |
//! | [`offload`] | the virtio-net header: what a frame's sender left to others |
//! | [`unfinished`] | whether what a sender says of a frame can be, and frames that say nothing of themselves |
//! | [`segment`] | that work, done in software for a port without offloads; and fragments |
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )
)]

pub mod arp;
pub mod checksum;
pub mod ethernet;
pub mod icmpv4;
pub mod icmpv6;
pub mod ip;
pub mod ipv4;
pub mod ipv6;
pub mod ndp;
pub mod offload;
pub mod segment;
pub mod tcp;
pub mod udp;
pub mod unfinished;
