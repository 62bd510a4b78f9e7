//! Who leases addresses on a network, and why nobody did: the service knows better than a client that waited in vain.

use openvmnet::client::Client;
use openvmnet::service::{LeaseState, Mode, Network};
use std::net::Ipv4Addr;

/// Who is to lease an address.
pub(crate) struct LeaseGiver(Option<Network>);

impl LeaseGiver {
    /// That of a network of this process, or of the service.
    pub(super) fn of(network: Option<&Network>) -> Self {
        Self(network.cloned())
    }

    /// Why a guest that asked for long enough got nothing.
    pub(crate) fn why_nothing(&self) -> String {
        let Some(network) = &self.0 else {
            return "the network leased no address within ten seconds; --no-dhcp goes on without one"
                .to_owned();
        };
        let name = network.name.as_deref().unwrap_or(&network.uuid);
        if network.mode == Mode::Bridged {
            let lan = network.external_interface.as_deref().unwrap_or("the host");
            return format!(
                "no DHCP server on the LAN of {lan} answered within ten seconds; --no-dhcp goes on without a lease"
            );
        }
        if !network.dhcp {
            return format!(
                "the network {name} gives no addresses, and no guest on it did within ten seconds; --no-dhcp goes on without a lease"
            );
        }
        match taken(network) {
            Some(Taken { first, last, count }) => format!(
                "{}: `vmnet lease list {name}` shows by whom, `vmnet lease release {name} ADDRESS` frees one of a guest that is gone, and a network with a larger --subnet or --dhcp-range has more; --no-dhcp goes on without a lease",
                match count {
                    1 => format!("the only address of the network {name}, {first}, is taken"),
                    count => format!(
                        "all {count} addresses of the network {name}, {first} to {last}, are taken"
                    ),
                }
            ),
            None => format!(
                "the network {name} did not lease an address within ten seconds; --no-dhcp goes on without one"
            ),
        }
    }
}

/// Addresses none of which is free.
struct Taken {
    first: Ipv4Addr,
    last: Ipv4Addr,
    count: u32,
}

/// The pool of a network, if no address of it is free.
fn taken(network: &Network) -> Option<Taken> {
    let first: Ipv4Addr = network.dhcp_first.as_ref()?.parse().ok()?;
    let last: Ipv4Addr = network.dhcp_last.as_ref()?.parse().ok()?;
    let count = u32::from(last).checked_sub(u32::from(first))? + 1;
    let mut client = Client::connect_running_to(network.scope).ok()?;
    let leases = client.list_leases(Some(&network.uuid)).ok()?.leases;
    let reservations = client.list_reservations(Some(&network.uuid)).ok()?;
    let bound = leases.into_iter().filter_map(|lease| {
        let is_taken = lease.state == LeaseState::Bound || lease.reserved;
        is_taken.then_some(lease.address)
    });
    let reserved = (reservations.reservations.into_iter()).map(|one| one.reservation.address);
    let mut addresses: Vec<Ipv4Addr> = bound
        .chain(reserved)
        .filter_map(|address| address.parse().ok())
        .filter(|address| (first..=last).contains(address))
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    (u32::try_from(addresses.len()) == Ok(count)).then_some(Taken { first, last, count })
}
