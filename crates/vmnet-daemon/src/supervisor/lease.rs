//! Leases and reservations.

use super::keeper::seconds;
use super::{Supervisor, failed, not_stored, text};
use openvmnet::service::{Lease, LeaseState, Lifetime, Reservation, Reserved, ServiceError};
use std::collections::BTreeMap;
use std::net::IpAddr;
use uuid::Uuid;
use vmnet_core::gateway::register::ReserveError;
use vmnet_linux::lane::{self, ReserveRefused, Reservee};
use vmnet_wire::ethernet::Mac;

impl Supervisor {
    pub(crate) fn list_leases(&self, network: Option<&str>) -> Result<Vec<Lease>, ServiceError> {
        let mut all = Vec::new();
        for uuid in self.chosen(network)? {
            let running = self.running(uuid)?;
            let rows = running.handle.leases().into_iter();
            // What the owner of a guest calls it is its name in DNS, whatever it calls itself.
            let given: BTreeMap<Mac, &String> = self
                .interfaces_on(uuid)
                .filter_map(|(_, member)| Some((member.mac?, member.name.as_ref()?)))
                .collect();
            all.extend(rows.map(|row| {
                Lease {
                    network: uuid.to_string(),
                    network_name: running.plan.name.clone(),
                    address: row.address.to_string(),
                    mac: row.mac.to_string(),
                    client_id: row.client_id.as_deref().map(text::hex),
                    name: (given.get(&row.mac).copied().cloned())
                        .or(row.name)
                        .or(row.host_name),
                    state: match row.state {
                        lane::LeaseState::Bound => LeaseState::Bound,
                        lane::LeaseState::Expired => LeaseState::Expired,
                        lane::LeaseState::Released => LeaseState::Released,
                    },
                    expires: seconds(row.expires),
                    reserved: row.reserved,
                }
            }));
        }
        Ok(all)
    }

    pub(crate) fn release_lease(&self, network: &str, address: &str) -> Result<(), ServiceError> {
        let address = text::any_address(address)?;
        let running = self.running(self.find(network)?)?;
        if running.handle.release(address) {
            return Ok(());
        }
        Err(ServiceError::NotFound {
            reason: format!("nobody has a lease of {address} on {network}"),
        })
    }

    pub(crate) fn reserve_lease(
        &mut self,
        network: &str,
        reservation: &Reservation,
    ) -> Result<(), ServiceError> {
        let uuid = self.find(network)?;
        self.not_bridged(uuid, "reservations")?;
        let address = text::any_address(&reservation.address)?;
        // An IPv6 address can be written in many ways; it is kept in one.
        let reservation = &Reservation {
            address: address.to_string(),
            ..reservation.clone()
        };
        let before = self.reservation_for(uuid, &reservee(reservation)?, address);
        self.reserve(uuid, reservation)?;
        let running = self.running(uuid)?;
        if running.lifetime == Lifetime::Held {
            return Ok(());
        }
        let value = serde_json::to_value(reservation).map_err(|error| failed(&error))?;
        if let Err(error) = self
            .store
            .put_reservation(uuid, &reservation.address, &value)
        {
            // What was promised before still holds.
            let undone = match before {
                Some(before) => running
                    .handle
                    .reserve(reservee(reservation)?, before)
                    .is_ok(),
                None => running.handle.unreserve(address).is_some(),
            };
            if !undone {
                tracing::error!(%uuid, "a reservation that could not be written down is in force until the end");
            }
            return Err(not_stored(&error));
        }
        // A guest has one reserved address of each family: the one before is nobody's now.
        match before {
            Some(before) if before.to_string() != reservation.address => self
                .store
                .remove_reservation(uuid, &before.to_string())
                .map(drop)
                .map_err(|error| not_stored(&error)),
            _ => Ok(()),
        }
    }

    /// The address of the same family that is kept for a guest now.
    fn reservation_for(&self, network: Uuid, reservee: &Reservee, like: IpAddr) -> Option<IpAddr> {
        let all = self.running(network).ok()?.handle.reservations();
        all.into_iter()
            .filter(|(_, address)| address.is_ipv4() == like.is_ipv4())
            .find(|(other, _)| other == reservee)
            .map(|(_, address)| address)
    }

    /// Keeps an address, without writing it down.
    pub(super) fn reserve(
        &self,
        network: Uuid,
        reservation: &Reservation,
    ) -> Result<(), ServiceError> {
        let address = text::any_address(&reservation.address)?;
        let running = self.running(network)?;
        let (is_on, server) = match address {
            IpAddr::V4(_) => (running.plan.dhcp.is_some(), "DHCP"),
            IpAddr::V6(_) => (running.plan.dhcp6, "DHCPv6"),
        };
        if !is_on {
            return Err(ServiceError::InvalidArgument {
                reason: format!(
                    "the network {} gives no such addresses: its {server} is off",
                    running.plan.label()
                ),
            });
        }
        let reserved = running.handle.reserve(reservee(reservation)?, address);
        reserved.map_err(|error| {
            let reason = super::chain(&error);
            match error {
                ReserveRefused::Ended => ServiceError::Failed { reason },
                ReserveRefused::Conflict(conflict) => match conflict {
                    ReserveError::Held(..) | ReserveError::Taken(..) => {
                        ServiceError::InUse { reason }
                    }
                    ReserveError::TooMany(_) => ServiceError::Exhausted { reason },
                    ReserveError::NoServer
                    | ReserveError::NotAGuestAddress(_)
                    | ReserveError::Name(_) => ServiceError::InvalidArgument { reason },
                },
            }
        })
    }

    pub(crate) fn unreserve_lease(&self, network: &str, address: &str) -> Result<(), ServiceError> {
        let uuid = self.find(network)?;
        let address = text::any_address(address)?;
        let running = self.running(uuid)?;
        let all = running.handle.reservations();
        if !all.iter().any(|(_, other)| *other == address) {
            return Err(ServiceError::NotFound {
                reason: format!("{address} is not reserved on {network}"),
            });
        }
        self.store
            .remove_reservation(uuid, &address.to_string())
            .map_err(|error| not_stored(&error))?;
        running.handle.unreserve(address);
        Ok(())
    }

    pub(crate) fn list_reservations(
        &self,
        network: Option<&str>,
    ) -> Result<Vec<Reserved>, ServiceError> {
        let mut all = Vec::new();
        for uuid in self.chosen(network)? {
            let running = self.running(uuid)?;
            let rows = running.handle.reservations().into_iter();
            all.extend(rows.map(|(reservee, address)| Reserved {
                network: uuid.to_string(),
                network_name: running.plan.name.clone(),
                reservation: describe(&reservee, address),
            }));
        }
        Ok(all)
    }

    /// The reservations of a network that were written down.
    pub(super) fn stored_reservations(&self, network: Uuid) -> Vec<(Reservee, IpAddr)> {
        let stored = self.store.reservations(network).into_iter();
        let read = |value| -> Result<(Reservee, IpAddr), ServiceError> {
            let reservation: Reservation =
                serde_json::from_value(value).map_err(|error| failed(&error))?;
            Ok((
                reservee(&reservation)?,
                text::any_address(&reservation.address)?,
            ))
        };
        stored
            .filter_map(|(key, value)| match read(value) {
                Ok(read) => Some(read),
                Err(error) => {
                    tracing::error!(%network, key, %error, "a stored reservation cannot be read");
                    None
                }
            })
            .collect()
    }

    /// Writes down the reservations of a network that is to stay.
    pub(super) fn keep_reservations(&self, network: Uuid) -> Result<(), ServiceError> {
        for (reservee, address) in self.running(network)?.handle.reservations() {
            let value = serde_json::to_value(describe(&reservee, address))
                .map_err(|error| failed(&error))?;
            self.store
                .put_reservation(network, &address.to_string(), &value)
                .map_err(|error| not_stored(&error))?;
        }
        Ok(())
    }
}

/// For whom a reservation is.
fn reservee(reservation: &Reservation) -> Result<Reservee, ServiceError> {
    match (&reservation.mac, &reservation.client_id, &reservation.name) {
        (Some(mac), None, None) => Ok(Reservee::Mac(text::mac(mac)?)),
        (None, Some(id), None) => Ok(Reservee::ClientId(text::from_hex(id)?)),
        (None, None, Some(name)) => Ok(Reservee::Name(text::guest_name(name)?)),
        _ => Err(ServiceError::InvalidArgument {
            reason: "say for whom the address is in one way: a MAC, a client id or a name"
                .to_owned(),
        }),
    }
}

fn describe(reservee: &Reservee, address: IpAddr) -> Reservation {
    let mut reservation = Reservation {
        address: address.to_string(),
        mac: None,
        client_id: None,
        name: None,
    };
    match reservee {
        Reservee::Mac(mac) => reservation.mac = Some(mac.to_string()),
        Reservee::ClientId(id) => reservation.client_id = Some(text::hex(id)),
        Reservee::Name(name) => reservation.name = Some(name.clone()),
    }
    reservation
}
