//! Are two messages from the same guest?
//!
//! A guest is its client id (option 61; RFC 2131 §4.2, DUIDs of RFC 4361), or its MAC address if it
//! sends none. In DHCPv6 it is its DUID and the number of the address it wants (IAID, RFC 8415 §12). Two exceptions make that safe among virtual machines:
//!
//! - **Clones.** Copies of one disk image share a machine id and so a DUID. While a lease of a client id
//!   is live, the same id from another MAC is another guest, or two of them would get one address.
//! - **Boot stages.** Firmware and initramfs often send no client id and the system after them one. A
//!   message without an id is from the same guest as one with an id and the same MAC.

use super::Address;
use super::book::Book;
use super::lease::State;
use crate::outbox::PortId;
use vmnet_wire::ethernet::Mac;

/// Longest client id that is taken; a DUID has at most 130 bytes, RFC 4361 adds 5.
pub(in crate::gateway) const MAX_CLIENT_ID: usize = 200;

/// To whom a lease belongs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// A guest without a client id.
    Mac(Mac),
    /// A client id.
    Id(Vec<u8>),
    /// A client id that somebody else used first.
    IdOn(Vec<u8>, Mac),
}

impl Key {
    /// A number that is the same in every run, to start the search for an address at: a guest gets its
    /// address again from a server that has forgotten everything. FNV-1a, then a finishing mix. Guests
    /// that aim at one number gain nothing, since the search goes on from there by words of 64.
    pub(super) fn place(&self) -> u64 {
        let (id, mac): (&[u8], Option<Mac>) = match self {
            Self::Mac(mac) => (&[], Some(*mac)),
            Self::Id(id) => (id, None),
            Self::IdOn(id, mac) => (id, Some(*mac)),
        };
        let mac = mac.map(|mac| mac.0);
        let bytes = id.iter().chain(mac.iter().flatten());
        let fnv = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mixed = (fnv ^ (fnv >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed ^ (mixed >> 33)
    }
}

/// Where a message came from.
#[derive(Debug, Clone, Copy)]
pub(in crate::gateway) struct Station {
    pub(in crate::gateway) mac: Mac,
    /// `None`: a place of many guests, each of which counts for itself.
    pub(in crate::gateway) port: Option<PortId>,
}

/// Who sent a message.
#[derive(Debug)]
pub(in crate::gateway) struct Client<A> {
    /// The guest.
    pub(super) key: Key,
    /// The address the book has for it.
    pub(in crate::gateway) own: Option<A>,
    /// Where it is.
    pub(super) station: Station,
    /// As it calls itself: option 61, or its DUID.
    pub(super) id: Option<Vec<u8>>,
    /// Which of its addresses is meant, in DHCPv6.
    pub(super) iaid: Option<u32>,
    /// What it calls itself, made a label.
    pub(super) host_name: Option<String>,
    /// The address the host keeps for it.
    pub(in crate::gateway) reserved: Option<A>,
}

/// The key of a guest, and the address the book has for it.
pub(super) fn resolve<A: Address>(book: &Book<A>, id: Option<&[u8]>, mac: Mac) -> (Key, Option<A>) {
    let Some(id) = id else {
        let key = Key::Mac(mac);
        let address = book.find(&key).or_else(|| book.any_of(mac));
        return (key, address);
    };
    let clone = Key::IdOn(id.to_vec(), mac);
    if let Some(address) = book.find(&clone) {
        return (clone, Some(address));
    }
    let key = Key::Id(id.to_vec());
    let known = book.find(&key).and_then(|address| book.get(address));
    match known.map(|entry| &entry.lease) {
        None => (key, book.find(&Key::Mac(mac))),
        Some(lease) if lease.mac == mac || is_over(lease.state) => (key, Some(lease.address)),
        Some(_) => (clone, book.find(&Key::Mac(mac))),
    }
}

/// The key of a guest whose lease is put back, in whichever order that happens: leases that stood beside each other
/// find place again. The error is the address that this very guest has already.
pub(super) fn restored<A: Address>(book: &Book<A>, id: Option<&[u8]>, mac: Mac) -> Result<Key, A> {
    let key = match id {
        None => Key::Mac(mac),
        Some(id) => {
            let key = Key::Id(id.to_vec());
            let first = book.find(&key).and_then(|address| book.get(address));
            match first {
                Some(entry) if entry.lease.mac != mac => Key::IdOn(id.to_vec(), mac),
                _ => key,
            }
        }
    };
    book.find(&key).map_or(Ok(key), Err)
}

fn is_over(state: State) -> bool {
    match state {
        State::Offered | State::Bound => false,
        State::Expired | State::Released | State::Declined => true,
    }
}
