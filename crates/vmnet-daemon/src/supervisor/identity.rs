//! Who is who: ids and the MACs that belong to them, and names, each of which one interface may have (vmnet:
//! `vmnet_interface_id_key`).

use super::{Supervisor, not_stored, text};
use crate::store::StoreError;
use openvmnet::service::{Identity, InterfaceOptions, Kind, ServiceError};
use uuid::Uuid;
use vmnet_linux::lane::gateway_mac;
use vmnet_wire::ethernet::Mac;

/// The MAC of an interface, and the id that it belongs to.
type Given = (Option<Uuid>, Option<Mac>);

impl Supervisor {
    /// Forgets an id that was made for an interface that did not start: nobody was told of it.
    pub(super) fn forget_unused(&self, options: &InterfaceOptions, id: Option<Uuid>) {
        if options.id.is_none()
            && let Some(id) = id
            && let Err(error) = self.store.forget_identity(id)
        {
            tracing::warn!(%id, %error, "an id that nobody has could not be forgotten");
        }
    }

    /// The MAC that the interface is to have: the caller's, the one of its id, a fresh one, or none.
    pub(super) fn identify(
        &mut self,
        network: Uuid,
        options: &InterfaceOptions,
    ) -> Result<Given, ServiceError> {
        let id = options.id.as_deref().map(text::uuid).transpose()?;
        let mac = options.mac.as_deref().map(text::mac).transpose()?;
        let several = matches!(options.kind, Kind::StreamListener | Kind::DgramListener);
        if several && (id.is_some() || mac.is_some()) {
            return Err(ServiceError::InvalidArgument {
                reason: "several guests come by a listening socket: they have no one MAC or id"
                    .to_owned(),
            });
        }
        if let Some(id) = id {
            self.free_id(id)?;
        }
        // Before the id is adopted with it: what is refused shall leave nothing behind.
        if let Some(mac) = mac {
            self.not_the_networks(network, mac)?;
            self.free_mac(network, mac)?;
        }
        let allocate = options.allocate_mac.unwrap_or(true);
        let given = match (id, mac) {
            (None, None) if several || !allocate => (None, None),
            (None, Some(mac)) => (None, Some(mac)),
            (None, None) => {
                let (id, mac) = self.store.fresh().map_err(|error| not_stored(&error))?;
                (Some(id), Some(mac))
            }
            (Some(id), wanted) => (Some(id), Some(self.adopt(id, wanted)?)),
        };
        if let Some(mac) = given.1 {
            self.free_mac(network, mac)?;
        }
        Ok(given)
    }

    /// The MAC that belongs to an id.
    fn adopt(&self, id: Uuid, wanted: Option<Mac>) -> Result<Mac, ServiceError> {
        let granted = match wanted {
            Some(wanted) => self.store.adopt(id, wanted),
            None => self.store.adopt_fresh(id),
        };
        let mac = granted.map_err(|error| match error {
            StoreError::MacTaken { .. } => ServiceError::InUse {
                reason: error.to_string(),
            },
            other => not_stored(&other),
        })?;
        match wanted {
            Some(wanted) if wanted != mac => Err(ServiceError::InUse {
                reason: format!(
                    "the MAC {mac} belongs to the id {id}, not {wanted}: leave the MAC out, or forget the id first"
                ),
            }),
            _ => Ok(mac),
        }
    }

    fn free_id(&mut self, id: Uuid) -> Result<(), ServiceError> {
        // Its guest may have gone by itself, on whichever network it was.
        let on = self
            .interface_of(id)
            .and_then(|number| self.interfaces.get(&number))
            .map(|member| member.network);
        if let Some(network) = on {
            self.prune(network);
            self.settle(network);
        }
        match self.interface_of(id) {
            None => Ok(()),
            Some(interface) => Err(ServiceError::InUse {
                reason: format!("interface {interface} has the id {id} already: it must end first"),
            }),
        }
    }

    /// Refuses a MAC with which a guest would never hear an answer.
    fn not_the_networks(&self, network: Uuid, mac: Mac) -> Result<(), ServiceError> {
        let plan = &self.running(network)?.plan;
        let reason = match &plan.bridged {
            Some(bridged) if Mac(bridged.nic.mac) == mac => format!(
                "{mac} is the MAC of {}, on whose LAN the guests are: choose another",
                bridged.nic.name
            ),
            None if gateway_mac(plan.ipv4, plan.ipv6) == mac => {
                format!("{mac} is the MAC of the network's gateway: choose another")
            }
            _ => return Ok(()),
        };
        Err(ServiceError::InvalidArgument { reason })
    }

    fn free_mac(&self, network: Uuid, mac: Mac) -> Result<(), ServiceError> {
        let taken = self
            .interfaces_on(network)
            .find(|(_, member)| member.mac == Some(mac));
        match taken {
            None => Ok(()),
            Some((interface, member)) => Err(ServiceError::InUse {
                reason: format!(
                    "interface {interface} of process {} has the MAC {mac} on this network: it must end first",
                    member.pid
                ),
            }),
        }
    }

    pub(super) fn free_name(&self, network: Uuid, name: &str) -> Result<(), ServiceError> {
        let taken = self
            .interfaces_on(network)
            .find(|(_, member)| member.name.as_deref() == Some(name));
        match taken {
            None => Ok(()),
            Some((_, member)) => Err(ServiceError::InUse {
                reason: format!(
                    "a guest named {name} is on this network already, of process {}: choose another name",
                    member.pid
                ),
            }),
        }
    }

    /// The interface that has an id.
    pub(super) fn interface_of(&self, id: Uuid) -> Option<u64> {
        self.interfaces
            .iter()
            .find(|(_, member)| member.id == Some(id))
            .map(|(number, _)| *number)
    }

    pub(crate) fn list_identities(&self) -> Vec<Identity> {
        let all = self.store.identities().into_iter();
        all.map(|(id, identity)| Identity {
            id: id.to_string(),
            mac: identity.mac.to_string(),
            created: identity.created,
            last_used: identity.last_used,
            interface: self.interface_of(id),
        })
        .collect()
    }

    pub(crate) fn forget_identity(&mut self, id: &str) -> Result<(), ServiceError> {
        let id = text::uuid(id)?;
        let networks: Vec<Uuid> = self.networks.keys().copied().collect();
        for network in networks {
            self.prune(network);
            self.settle(network);
        }
        if let Some(interface) = self.interface_of(id) {
            return Err(ServiceError::InUse {
                reason: format!("interface {interface} has the id {id}: it must end first"),
            });
        }
        match self.store.forget_identity(id) {
            Ok(true) => Ok(()),
            Ok(false) => Err(ServiceError::NotFound {
                reason: format!("there is no id {id}: `vmnet identity list` shows all"),
            }),
            Err(error) => Err(not_stored(&error)),
        }
    }
}
