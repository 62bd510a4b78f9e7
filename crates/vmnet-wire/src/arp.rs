//! Address resolution for IPv4 over Ethernet (RFC 826).

use core::net::Ipv4Addr;
use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::ethernet::{EtherType, Mac};

/// What an ARP packet says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Who has the target address?
    Request,
    /// The sender has its address.
    Reply,
    /// Anything else: RARP, InARP, rubbish.
    Other(u16),
}

/// An ARP packet for IPv4 over Ethernet: 28 bytes.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Packet {
    hardware: U16,
    protocol: U16,
    hardware_len: u8,
    protocol_len: u8,
    operation: U16,
    sender_mac: Mac,
    sender_ip: [u8; 4],
    target_mac: Mac,
    target_ip: [u8; 4],
}

impl Packet {
    /// Bytes of the packet.
    pub const LEN: usize = 28;

    /// A packet that asks for `target` on behalf of `sender`.
    #[must_use]
    pub fn request(sender_mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Self {
        Self::new(1, sender_mac, sender, Mac::ZERO, target)
    }

    /// A packet that tells `target` that `sender_mac` has the address `sender`.
    #[must_use]
    pub fn reply(sender_mac: Mac, sender: Ipv4Addr, target_mac: Mac, target: Ipv4Addr) -> Self {
        Self::new(2, sender_mac, sender, target_mac, target)
    }

    fn new(
        operation: u16,
        sender_mac: Mac,
        sender: Ipv4Addr,
        target_mac: Mac,
        target: Ipv4Addr,
    ) -> Self {
        Self {
            hardware: U16::new(1),
            protocol: U16::new(EtherType::IPV4.0),
            hardware_len: 6,
            protocol_len: 4,
            operation: U16::new(operation),
            sender_mac,
            sender_ip: sender.octets(),
            target_mac,
            target_ip: target.octets(),
        }
    }

    /// The packet after an Ethernet header; `None` if it is short or not about IPv4 over Ethernet.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<&Self> {
        let (packet, _padding) = Self::ref_from_prefix(bytes).ok()?;
        (packet.hardware.get() == 1
            && packet.protocol.get() == EtherType::IPV4.0
            && packet.hardware_len == 6
            && packet.protocol_len == 4)
            .then_some(packet)
    }

    /// What it says.
    #[must_use]
    pub fn operation(&self) -> Operation {
        match self.operation.get() {
            1 => Operation::Request,
            2 => Operation::Reply,
            other => Operation::Other(other),
        }
    }

    /// The MAC of who speaks.
    #[must_use]
    pub fn sender_mac(&self) -> Mac {
        self.sender_mac
    }

    /// The address of who speaks.
    #[must_use]
    pub fn sender(&self) -> Ipv4Addr {
        self.sender_ip.into()
    }

    /// The MAC of who is spoken to; zero in a request.
    #[must_use]
    pub fn target_mac(&self) -> Mac {
        self.target_mac
    }

    /// The address asked for.
    #[must_use]
    pub fn target(&self) -> Ipv4Addr {
        self.target_ip.into()
    }
}
