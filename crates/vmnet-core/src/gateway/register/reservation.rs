//! Addresses that the host keeps for one guest, inside the pool or beside it.

use super::Address;
use super::lease::Lease;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use vmnet_wire::ethernet::Mac;

/// For whom an address is kept. If several match one guest, the first of this list wins.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reservee {
    /// The guest with this client id (option 61, its type byte included; in DHCPv6 the DUID).
    ClientId(Vec<u8>),
    /// The guest with this MAC address.
    Mac(Mac),
    /// The guest that calls itself so. A guest chooses its name: no defence against a hostile one.
    Name(String),
}

impl Reservee {
    /// Whether a lease is of the guest that is meant.
    pub(super) fn is_holder<A>(&self, lease: &Lease<A>) -> bool {
        match self {
            Self::ClientId(id) => lease.client_id.as_ref() == Some(id),
            Self::Mac(mac) => lease.mac == *mac,
            Self::Name(name) => lease.host_name.as_ref() == Some(name),
        }
    }
}

/// For people: what kind of thing it is and its value.
impl fmt::Display for Reservee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientId(id) => {
                f.write_str("client id ")?;
                id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::Mac(mac) => write!(f, "{mac}"),
            Self::Name(name) => write!(f, "name {name}"),
        }
    }
}

/// Why an address cannot be reserved; the caller's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReserveError {
    /// Nobody gives addresses here.
    #[error("this network gives no such addresses: its DHCP is off")]
    NoServer,
    /// Not an address a guest can have.
    #[error(
        "{0} is no guest's address: choose one of the network that is not the gateway's, the network's or the broadcast"
    )]
    NotAGuestAddress(IpAddr),
    /// A guest that it is not for has it now.
    #[error(
        "{0} is leased by {1}{name}, which the reservation is not for; wait until that guest gives it up, or release it",
        name = .2.as_ref().map(|name| format!(" ({name})")).unwrap_or_default()
    )]
    Held(IpAddr, Mac, Option<String>),
    /// Kept for another guest.
    #[error("{0} is reserved for {1}; remove that reservation first")]
    Taken(IpAddr, Reservee),
    /// A name that is no DNS label, or one that means the gateway.
    #[error("{0:?} cannot be a guest's name: use letters, digits and hyphens")]
    Name(String),
    /// As many reservations as a subnet can have.
    #[error("there are {0} reservations already; remove one first")]
    TooMany(usize),
}

/// All reservations.
#[derive(Debug)]
pub(super) struct Reservations<A> {
    by_address: BTreeMap<A, Reservee>,
    by_reservee: BTreeMap<Reservee, A>,
}

impl<A> Default for Reservations<A> {
    fn default() -> Self {
        Self {
            by_address: BTreeMap::new(),
            by_reservee: BTreeMap::new(),
        }
    }
}

impl<A: Address> Reservations<A> {
    /// Keeps `address` for `reservee`, and returns the address that was kept for it before.
    pub(super) fn insert(&mut self, reservee: Reservee, address: A) -> Option<A> {
        let before = self.remove(&reservee);
        self.by_address.insert(address, reservee.clone());
        self.by_reservee.insert(reservee, address);
        before
    }

    /// Keeps nothing for `reservee` any more.
    pub(super) fn remove(&mut self, reservee: &Reservee) -> Option<A> {
        let address = self.by_reservee.remove(reservee)?;
        self.by_address.remove(&address);
        Some(address)
    }

    /// For whom an address is kept.
    pub(super) fn holder(&self, address: A) -> Option<&Reservee> {
        self.by_address.get(&address)
    }

    /// What is kept for a guest.
    pub(super) fn of(&self, id: Option<&[u8]>, mac: Mac, name: Option<&str>) -> Option<A> {
        let id = id.map(|id| Reservee::ClientId(id.to_vec()));
        let name = name.map(|name| Reservee::Name(name.to_owned()));
        let keys = [id, Some(Reservee::Mac(mac)), name];
        keys.iter()
            .flatten()
            .find_map(|key| self.by_reservee.get(key).copied())
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.by_address.len()
    }

    /// All of them, by address.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Reservee, A)> {
        self.by_address
            .iter()
            .map(|(address, reservee)| (reservee, *address))
    }
}
