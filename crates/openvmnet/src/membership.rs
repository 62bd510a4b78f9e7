//! A connection to the service that holds a network, and comes back when the service was killed: with the network as it was,
//! its reservations and rules, and the interfaces that were started by it.

use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use vmnet_virtio::fork::ForkMark;

use crate::client::{CallError, Client};
use crate::interface;
use crate::keeper;
use crate::service::{ForwardRule, Network, Reservation, ServiceError};
use crate::status::{Error, Status};

/// The first pause between two tries to come back, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest one.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long letting go of a network may take, before the end of the connection does it.
const LEAVES_WITHIN: Duration = Duration::from_secs(2);

/// A network of the service, held by a connection of our own.
#[derive(Debug)]
pub(crate) struct Membership {
    connected: Mutex<Connected>,
    /// What is behind the lock is not waited for by who only looks whether the service has gone.
    line: Mutex<Line>,
    interfaces: Mutex<Vec<Weak<interface::Shared>>>,
    promises: Mutex<Promises>,
    mark: ForkMark,
}

#[derive(Debug)]
struct Connected {
    client: Client,
    network: Network,
}

/// The connection, seen from outside.
#[derive(Debug)]
struct Line {
    stream: Arc<UnixStream>,
    /// The service has gone: when to look for it again, and the pause after that.
    lost: Option<(Instant, Duration)>,
}

/// What the network has from us, for as long as it lives.
#[derive(Debug, Default)]
struct Promises {
    reservations: Vec<Reservation>,
    rules: Vec<ForwardRule>,
}

impl Membership {
    /// Holds what this connection has opened.
    ///
    /// # Errors
    /// There is no memory.
    pub(crate) fn new(client: Client, network: Network) -> Result<Arc<Self>, Error> {
        let mark = ForkMark::new().map_err(|error| Error::new(Status::MemFailure, error))?;
        let made = Arc::new(Self {
            line: Mutex::new(Line {
                stream: client.stream(),
                lost: None,
            }),
            connected: Mutex::new(Connected { client, network }),
            interfaces: Mutex::default(),
            promises: Mutex::default(),
            mark,
        });
        keeper::keep(&made).map_err(|error| Error::new(Status::MemFailure, error))?;
        Ok(made)
    }

    /// Asks the service something: the one that runs now, if it was killed meanwhile.
    ///
    /// # Errors
    /// It refuses, or cannot be had; or this is a child of the process whose network it is.
    pub(crate) fn call<T>(
        &self,
        mut ask: impl FnMut(&mut Client, &str) -> Result<T, CallError>,
    ) -> Result<T, Error> {
        if !self.mark.is_original() {
            return Err(in_a_child());
        }
        let mut connected = lock(&self.connected);
        let Connected { client, network } = &mut *connected;
        match ask(client, &network.uuid) {
            Err(CallError::Gone) => {}
            answered => return Ok(answered?),
        }
        self.rejoin(&mut connected)?;
        let Connected { client, network } = &mut *connected;
        Ok(ask(client, &network.uuid)?)
    }

    /// Has an interface come back with the network.
    pub(crate) fn add_interface(&self, interface: &Arc<interface::Shared>) {
        let mut interfaces = lock(&self.interfaces);
        interfaces.retain(|one| one.strong_count() > 0);
        interfaces.push(Arc::downgrade(interface));
        drop(interfaces);
        keeper::look_again();
    }

    /// Keeps in mind that the network has a reservation from us.
    pub(crate) fn promise_reservation(&self, reservation: Reservation) {
        lock(&self.promises).reservations.push(reservation);
    }

    /// Keeps in mind that the network has a rule from us. Whether that is new.
    pub(crate) fn promise_rule(&self, rule: &ForwardRule) -> bool {
        let rules = &mut lock(&self.promises).rules;
        let is_new = !rules.contains(rule);
        if is_new {
            rules.push(rule.clone());
        }
        is_new
    }

    /// A rule of the network that there is no more.
    pub(crate) fn forget_rule(&self, gone: impl Fn(&ForwardRule) -> bool) {
        lock(&self.promises).rules.retain(|rule| !gone(rule));
    }

    // ---- coming back -------------------------------------------------------------------------

    /// What hangs up when the service goes; none while it is looked for.
    pub(crate) fn stream(&self) -> Option<Arc<UnixStream>> {
        let line = lock(&self.line);
        line.lost.is_none().then(|| Arc::clone(&line.stream))
    }

    /// The interfaces that are there.
    pub(crate) fn interfaces(&self) -> Vec<Arc<interface::Shared>> {
        let interfaces = lock(&self.interfaces);
        interfaces.iter().filter_map(Weak::upgrade).collect()
    }

    /// The service has gone.
    pub(crate) fn lost(&self) {
        lock(&self.line)
            .lost
            .get_or_insert_with(|| (Instant::now(), FIRST_PAUSE));
    }

    /// When the service is to be looked for, if it has gone.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        lock(&self.line).lost.map(|(at, _)| at)
    }

    /// Looks for the service that has gone.
    pub(crate) fn try_again(&self) {
        let mut connected = lock(&self.connected);
        if lock(&self.line).lost.is_none() {
            return;
        }
        if let Err(error) = self.rejoin(&mut connected) {
            tracing::warn!(%error, "the service has gone; looking for it again");
            let mut line = lock(&self.line);
            if let Some((at, pause)) = &mut line.lost {
                *at = Instant::now() + *pause;
                *pause = (*pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    /// Joins the network again, with everything.
    fn rejoin(&self, connected: &mut Connected) -> Result<(), Error> {
        let mut client = Client::connect_to(connected.network.scope)?;
        let was = &connected.network;
        let network = match client.open_network(Some(&was.uuid), None) {
            Err(CallError::Refused(ServiceError::NotFound { .. })) => {
                client.open_network(Some(&was.uuid), Some(was.pinned()))
            }
            opened => opened,
        }?;
        let stream = client.stream();
        *connected = Connected { client, network };
        *lock(&self.line) = Line { stream, lost: None };
        self.keep_promises(connected);
        for interface in self.interfaces() {
            let Connected { client, network } = connected;
            if let Err(error) = interface.rejoin(client, network) {
                tracing::warn!(%error, "an interface cannot come back");
                interface.give_up();
            }
        }
        tracing::info!(network = connected.network.uuid, "joined a network again");
        keeper::look_again();
        Ok(())
    }

    fn keep_promises(&self, connected: &mut Connected) {
        let promises = lock(&self.promises);
        let Connected { client, network } = connected;
        for reservation in &promises.reservations {
            if let Err(error) = client.reserve_lease(&network.uuid, reservation.clone()) {
                tracing::warn!(%error, "an address cannot be reserved again");
            }
        }
        for rule in &promises.rules {
            if let Err(error) = client.add_forward(&network.uuid, None, rule.clone()) {
                tracing::warn!(%error, "a port cannot be forwarded again");
            }
        }
    }
}

impl Drop for Membership {
    /// Lets go of the network, and waits for that: its addresses are free then.
    fn drop(&mut self) {
        if !self.mark.is_original() {
            // The connection is the parent's too.
            return;
        }
        let connected = self
            .connected
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        let Connected { client, network } = connected;
        if let Err(error) = client.leave(&network.uuid, LEAVES_WITHIN) {
            tracing::debug!(%error, "leaving a network");
        }
    }
}

/// What belongs to a parent is not there in its children.
pub(crate) fn in_a_child() -> Error {
    Error::new(
        Status::SetupIncomplete,
        "it belongs to the process that this one was forked from: make another here",
    )
}

/// Whoever panicked with the lock left nothing half done here.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
