//! Which networks there are, who holds them, and what is on them. One thread, one call after the other: no call sees
//! another half done.
//!
//! | file | what |
//! | --- | --- |
//! | `bridged` | ways onto LANs of the host |
//! | `network` | networks that are made, joined, and end |
//! | `interface` | places on networks |
//! | `identity` | who has which id, MAC and name |
//! | `forward` | ports of the host |
//! | `lease` | leases and reservations |
//! | `holder` | connections, and what ends with them |
//! | `kept` | networks that stay, and those of them that cannot be started |
//! | `leftover` | what an earlier service has left in the kernel |
//! | `looking` | rules in the kernel that follow, and come back |
//! | `in_kernel` | networks whose frames the kernel carries |
//! | `taps` | guests' taps on the bridges of these |
//! | `keeper` | leases on their way to the store |

mod bridged;
mod forward;
mod holder;
mod identity;
mod in_kernel;
mod interface;
mod keeper;
mod kept;
mod lease;
mod leftover;
mod looking;
mod network;
mod taps;

#[cfg(test)]
mod tests;

use crate::plan::text;
use crate::privileged::client::Helper;
use crate::store::{Store, StoreError};
use holder::Holder;
use openvmnet::service::{NetworkConfiguration, Scope, ServiceError, Status};
use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use uuid::Uuid;

pub(crate) use holder::ConnectionId;
pub(crate) use kept::Configured;

/// What the service says of itself.
#[derive(Debug, Clone)]
pub(crate) struct About {
    pub(crate) scope: Scope,
    pub(crate) socket: PathBuf,
    pub(crate) store: Option<PathBuf>,
    pub(crate) configuration: Option<PathBuf>,
    pub(crate) started: Instant,
}

/// Everything that the service knows.
pub(crate) struct Supervisor {
    about: About,
    store: Store,
    /// What does what takes privileges; the machine's service alone has it.
    helper: Option<RefCell<Helper>>,
    /// By this lanes tell that guests have moved, where rules in the kernel have to follow them.
    moved: Option<Arc<UnixDatagram>>,
    /// What was last asked for about forwarding.
    forwarding: Option<in_kernel::Forwarding>,
    /// Something of an earlier service is in use by a VMM, and removed when that ends.
    leftovers_wait: bool,
    looking: looking::Looking,
    /// Networks whose bridges an earlier service has left, and that could not be started again.
    left_alone: BTreeSet<Uuid>,
    networks: BTreeMap<Uuid, network::Running>,
    failed: BTreeMap<Uuid, kept::Failed>,
    /// Networks of the configuration file, by name, whose turn to start is to come.
    awaited: BTreeMap<Uuid, String>,
    interfaces: BTreeMap<u64, interface::Member>,
    forwards: BTreeMap<u64, forward::Rule>,
    holders: BTreeMap<ConnectionId, Holder>,
    /// The last number that was given.
    last: u64,
}

impl Supervisor {
    /// A service without networks.
    pub(crate) fn new(about: About, store: Store, helper: Option<Helper>) -> Self {
        Self {
            about,
            store,
            helper: helper.map(RefCell::new),
            moved: None,
            forwarding: None,
            leftovers_wait: false,
            looking: looking::Looking::default(),
            left_alone: BTreeSet::new(),
            networks: BTreeMap::new(),
            failed: BTreeMap::new(),
            awaited: BTreeMap::new(),
            interfaces: BTreeMap::new(),
            forwards: BTreeMap::new(),
            holders: BTreeMap::new(),
            last: 0,
        }
    }

    /// Refuses what takes privileges where there are none.
    fn may(&self, configuration: &NetworkConfiguration) -> Result<(), ServiceError> {
        match configuration.takes_privileges() {
            Some(what) if self.helper.is_none() => Err(not_privileged(what)),
            _ => Ok(()),
        }
    }

    /// The helper, for what takes privileges: `what` in words for people.
    fn helper(&self, what: &str) -> Result<RefMut<'_, Helper>, ServiceError> {
        let helper = self.helper.as_ref().ok_or_else(|| not_privileged(what))?;
        Ok(helper.borrow_mut())
    }

    /// Whether there was a helper that is gone.
    pub(crate) fn helper_has_ended(&mut self) -> bool {
        self.helper
            .as_mut()
            .is_some_and(|helper| helper.get_mut().has_ended())
    }

    pub(crate) fn status(&self) -> Status {
        let show = |path: &PathBuf| path.display().to_string();
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            scope: self.about.scope,
            uptime_seconds: self.about.started.elapsed().as_secs(),
            socket: show(&self.about.socket),
            store: self.about.store.as_ref().map(show),
            configuration: self.about.configuration.as_ref().map(show),
            networks: count(self.networks.len()),
            interfaces: count(self.interfaces.len()),
            connections: count(self.holders.len()),
        }
    }

    /// Has lanes tell of guests that move, where rules in the kernel have to follow them: the socket to wait at. To be called
    /// before the first network; `None` where nothing has to follow.
    pub(crate) fn watch_moves(&mut self) -> io::Result<Option<UnixDatagram>> {
        if self.helper.is_none() {
            return Ok(None);
        }
        let (told, watched) = UnixDatagram::pair()?;
        told.set_nonblocking(true)?;
        watched.set_nonblocking(true)?;
        self.moved = Some(Arc::new(told));
        Ok(Some(watched))
    }

    /// A number that nothing had before.
    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// The network with this name or UUID.
    fn find(&self, network: &str) -> Result<Uuid, ServiceError> {
        self.look_up(network).ok_or_else(|| {
            self.why_failed(network)
                .unwrap_or_else(|| ServiceError::NotFound {
                    reason: format!(
                        "there is no network {network}: `vmnet network list` shows all"
                    ),
                })
        })
    }

    fn look_up(&self, network: &str) -> Option<Uuid> {
        let named = self
            .networks
            .values()
            .find(|running| running.plan.name.as_deref() == Some(network))
            .map(|running| running.plan.uuid);
        named.or_else(|| {
            let uuid = Uuid::try_parse(network).ok()?;
            self.networks.contains_key(&uuid).then_some(uuid)
        })
    }

    /// The network that is meant, or all.
    fn chosen(&self, network: Option<&str>) -> Result<Vec<Uuid>, ServiceError> {
        match network {
            Some(network) => Ok(vec![self.find(network)?]),
            None => Ok(self.networks.keys().copied().collect()),
        }
    }

    fn running(&self, network: Uuid) -> Result<&network::Running, ServiceError> {
        self.networks
            .get(&network)
            .ok_or_else(|| ServiceError::NotFound {
                reason: format!("the network {network} has ended"),
            })
    }
}

/// A user's service has no privileges.
fn not_privileged(what: &str) -> ServiceError {
    ServiceError::NotAuthorized {
        reason: format!(
            "{what} takes privileges, which only the machine's service has: ask it (`vmnet --system`), or have root start it (`vmnet daemon --system`)"
        ),
    }
}

/// What must stay could not be written.
fn not_stored(error: &StoreError) -> ServiceError {
    ServiceError::StoreFailed {
        reason: error.to_string(),
    }
}

fn failed(error: &dyn std::error::Error) -> ServiceError {
    ServiceError::Failed {
        reason: chain(error),
    }
}

/// An error and what caused it, on one line; a cause that the error names itself is not said twice.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !said.contains(&more) {
            said = format!("{said}: {more}");
        }
        cause = error.source();
    }
    said
}

/// The interface with this number.
fn no_interface(interface: u64) -> ServiceError {
    ServiceError::NotFound {
        reason: format!("there is no interface {interface}: `vmnet interface list` shows all"),
    }
}
