//! The key of a flow, the same for both families, and the index over all flows.

use core::hash::{BuildHasher, Hash, Hasher};
use core::net::{IpAddr, SocketAddr};
use std::hash::RandomState;

use hashbrown::HashTable;
use vmnet_wire::ip::Protocol;
use zerocopy::{Immutable, IntoBytes};

use crate::outbox::SocketId;

/// What tells flows apart on the guest side: the guest's address and port, and its peer's as the guest
/// knows it. Flows that speak to many (UDP mappings, echo) have no peer: all zero.
///
/// IPv4 addresses are written as IPv4-mapped ones. Guests choose all of it, so the index
/// hashes it with a secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct Key {
    guest: [u8; 16],
    peer: [u8; 16],
    guest_port: u16,
    peer_port: u16,
    protocol: u16,
}

impl Key {
    /// A flow between two.
    pub(crate) fn new(protocol: Protocol, guest: SocketAddr, peer: SocketAddr) -> Self {
        Self {
            guest: octets(guest.ip()),
            peer: octets(peer.ip()),
            guest_port: guest.port(),
            peer_port: peer.port(),
            protocol: u16::from(protocol.0),
        }
    }

    /// A flow between a guest and whoever it speaks to.
    pub(crate) fn mapping(protocol: Protocol, guest: SocketAddr) -> Self {
        Self {
            guest: octets(guest.ip()),
            peer: [0; 16],
            guest_port: guest.port(),
            peer_port: 0,
            protocol: u16::from(protocol.0),
        }
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.as_bytes());
    }
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// Which flow has a key.
#[derive(Debug, Default)]
pub(crate) struct Index {
    table: HashTable<(Key, SocketId)>,
    hasher: RandomState,
}

impl Index {
    pub(crate) fn look_up(&self, key: &Key) -> Option<SocketId> {
        let hash = self.hasher.hash_one(key);
        self.table
            .find(hash, |(other, _)| other == key)
            .map(|(_, id)| *id)
    }

    pub(crate) fn insert(&mut self, key: Key, id: SocketId) {
        let hash = self.hasher.hash_one(key);
        let hasher = &self.hasher;
        self.table
            .insert_unique(hash, (key, id), |(key, _)| hasher.hash_one(key));
    }

    pub(crate) fn remove(&mut self, key: &Key) {
        let hash = self.hasher.hash_one(key);
        if let Ok(entry) = self.table.find_entry(hash, |(other, _)| other == key) {
            entry.remove();
        }
    }

    /// A number that nobody outside can foresee, the same for the same key (RFC 6528).
    pub(crate) fn secret_of(&self, key: &Key) -> u64 {
        self.hasher.hash_one((key, "initial sequence number"))
    }
}
