//! A network that this process holds (`vmnet_network_ref`).

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use uuid::Uuid;

use crate::choice::Wanted;
use crate::client::Client;
use crate::configuration::NetworkConfiguration;
use crate::membership::Membership;
use crate::mode::OperatingMode;
use crate::service;
use crate::status::{Error, Status};

/// What a serialization begins with: a name, and the number of its layout.
const MAGIC: [u8; 8] = *b"openvmn\x01";

/// A network that this process holds: its subnet, its reservations and its rules are there as long as a clone of this, or
/// an interface on it, or another holder in another process. When the service is killed, the network comes back as it was.
///
/// ```no_run
/// use openvmnet::{Network, NetworkConfiguration, NetworkMode};
///
/// let network = Network::create(&NetworkConfiguration::new(NetworkMode::Shared))?;
/// let (host, mask) = network.ipv4_subnet().expect("a shared network has one");
/// println!("guests find the host at {host}, mask {mask}");
/// # Ok::<(), openvmnet::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Network {
    /// The connection that holds it.
    membership: Arc<Membership>,
    network: Arc<service::Network>,
}

/// A network's identity, to be given to other processes of this user (`vmnet_network_copy_serialization`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NetworkSerialization([u8; Self::LEN]);

impl NetworkSerialization {
    /// Bytes of one.
    pub const LEN: usize = 24;

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// The one made of these bytes.
    ///
    /// # Errors
    /// [`Status::InvalidArgument`]: they are none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let foreign = || Error::invalid("these bytes are no serialization of a network");
        let bytes: [u8; Self::LEN] = bytes.try_into().map_err(|_| foreign())?;
        if !bytes.starts_with(&MAGIC) {
            return Err(foreign());
        }
        Ok(Self(bytes))
    }

    fn of(uuid: Uuid) -> Self {
        let mut bytes = [0; Self::LEN];
        let (magic, id) = bytes.split_at_mut(MAGIC.len());
        magic.copy_from_slice(&MAGIC);
        id.copy_from_slice(uuid.as_bytes());
        Self(bytes)
    }

    fn uuid(&self) -> Uuid {
        let (_, id) = self.0.split_at(MAGIC.len());
        Uuid::from_slice(id).unwrap_or_default()
    }
}

impl Network {
    /// Makes a network and holds it (`vmnet_network_create`). The service is started if it does not run.
    ///
    /// # Errors
    /// [`Status::Failure`]: the subnet is taken or not private, an interface, a reservation or a port cannot be had, or the
    /// service cannot be reached. [`Status::NotAuthorized`]: it does not let this process in.
    pub fn create(configuration: &NetworkConfiguration) -> Result<Self, Error> {
        let asked = configuration.asked()?;
        let mut client = Client::connect_for(Wanted {
            network: None,
            privileges: asked.takes_privileges(),
        })?;
        let network = client
            .open_network(None, Some(asked))
            .map_err(failure_to_make)?;
        // What cannot be granted ends with the connection, and the network with it.
        for reservation in configuration.reservations() {
            client
                .reserve_lease(&network.uuid, reservation)
                .map_err(failure_to_make)?;
        }
        for rule in configuration.forwards() {
            client
                .add_forward(&network.uuid, None, rule.clone())
                .map_err(failure_to_make)?;
        }
        let held = Self::held(client, network)?;
        for reservation in configuration.reservations() {
            held.membership.promise_reservation(reservation);
        }
        for rule in configuration.forwards() {
            held.membership.promise_rule(rule);
        }
        Ok(held)
    }

    /// Holds a network that somebody else has made, by its name or UUID. Apple's API has no names.
    ///
    /// # Errors
    /// [`Status::Failure`]: there is none, or the service cannot be reached.
    pub fn open(name: &str) -> Result<Self, Error> {
        let mut client = Client::connect_for(Wanted {
            network: Some(name),
            privileges: None,
        })?;
        let network = client.open_network(Some(name), None)?;
        Self::held(client, network)
    }

    /// Holds a network that another process has serialized (`vmnet_network_create_with_serialization`): it then lives as
    /// long as one of them holds it.
    ///
    /// # Errors
    /// [`Status::Failure`]: nobody holds it any more, or the service cannot be reached.
    pub fn from_serialization(serialization: &NetworkSerialization) -> Result<Self, Error> {
        Self::open(&serialization.uuid().to_string())
    }

    fn held(client: Client, network: service::Network) -> Result<Self, Error> {
        let membership = Membership::new(client, network.clone())?;
        Ok(Self {
            membership,
            network: Arc::new(network),
        })
    }

    pub(crate) fn membership(&self) -> &Arc<Membership> {
        &self.membership
    }

    /// Its identity for another process (`vmnet_network_copy_serialization`). It is good while somebody holds the network.
    ///
    /// # Errors
    /// [`Status::Failure`]: the service named no UUID.
    pub fn serialize(&self) -> Result<NetworkSerialization, Error> {
        Ok(NetworkSerialization::of(self.uuid()?))
    }

    /// What it is known by.
    ///
    /// # Errors
    /// [`Status::Failure`]: the service named no UUID.
    pub fn uuid(&self) -> Result<Uuid, Error> {
        Uuid::try_parse(&self.network.uuid).map_err(|error| Error::new(Status::Failure, error))
    }

    /// Where it leads.
    #[must_use]
    pub fn mode(&self) -> OperatingMode {
        self.network.mode.into()
    }

    /// The largest packet, in bytes.
    #[must_use]
    pub fn mtu(&self) -> u16 {
        self.network.mtu
    }

    /// The host's IPv4 address on it, and the mask (`vmnet_network_get_ipv4_subnet`, which gives the host's address too).
    /// `None`: a private switch without the host.
    #[must_use]
    pub fn ipv4_subnet(&self) -> Option<(Ipv4Addr, Ipv4Addr)> {
        let host = self.network.gateway.as_deref()?.parse().ok()?;
        let (_, len) = self.network.subnet.as_deref()?.split_once('/')?;
        let len: u32 = len.parse().ok().filter(|len| *len <= 32)?;
        let mask = u32::MAX.checked_shl(32 - len).unwrap_or(0);
        Some((host, Ipv4Addr::from_bits(mask)))
    }

    /// The IPv6 prefix and its length (`vmnet_network_get_ipv6_prefix`). `None`: it has none.
    #[must_use]
    pub fn ipv6_prefix(&self) -> Option<(Ipv6Addr, u8)> {
        let (prefix, len) = self.network.ipv6_prefix.as_deref()?.split_once('/')?;
        Some((prefix.parse().ok()?, len.parse().ok()?))
    }

    /// All that the service says of it.
    #[must_use]
    pub fn description(&self) -> &service::Network {
        &self.network
    }
}

/// Whatever keeps a network from being made is a failure, unless the caller may not make any.
fn failure_to_make(error: crate::client::CallError) -> Error {
    let error = Error::from(error);
    match error.status() {
        Status::NotAuthorized => error,
        _ => error.as_failure(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serializations_come_back() {
        let uuid = Uuid::from_u128(0x2835_e074_9892_4a79_affb_7e41_d260_5678);
        let one = NetworkSerialization::of(uuid);
        let again = NetworkSerialization::from_bytes(one.as_bytes()).unwrap();
        assert_eq!((again, again.uuid()), (one, uuid));
        let mut other = *one.as_bytes();
        other[7] = 2;
        for bytes in [&other[..], &[], &one.as_bytes()[1..]] {
            let refused = NetworkSerialization::from_bytes(bytes).unwrap_err();
            assert_eq!(refused.status(), Status::InvalidArgument);
        }
    }
}
