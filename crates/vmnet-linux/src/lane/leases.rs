//! Leases stored before they are acknowledged and put back at start, addresses reserved and released.
//!
//! A [`LeaseKeeper`] is called on the lane's thread and must return at once: it hands the batch to the thread
//! that writes. Whoever wrote it tells by the [`Receipt`]. Until then the guests of the batch wait, and what comes
//! meanwhile makes up the next one. What order and which repetitions mean is in the core's `register/ledger.rs`. Each family of addresses
//! has batches of its own.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant, SystemTime};

use vmnet_core::Network;
use vmnet_core::gateway::register::{self, Lease, State, StoreTicket};
use vmnet_wire::ethernet::Mac;

use crate::lane::datapath::Lane;
use crate::lane::execute::Hand;
use crate::lane::handle::{Command, Handle, Line};
use crate::lane::wall_clock::WallClock;

pub use vmnet_core::gateway::register::Reservee;

/// A lease that outlives this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRecord {
    /// The address.
    pub address: IpAddr,
    /// Whose it is or was.
    pub mac: Mac,
    /// The guest's client id (option 61, its type byte included), or its DUID.
    pub client_id: Option<Vec<u8>>,
    /// Which of a guest's IPv6 addresses it is (IAID).
    pub iaid: Option<u32>,
    /// What the guest calls itself.
    pub host_name: Option<String>,
    /// Where the lease stands.
    pub state: LeaseState,
    /// When it ends, or has ended.
    pub expires: SystemTime,
}

/// Where a lease stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LeaseState {
    /// A guest has it.
    Bound,
    /// Was not renewed in time; remembered for its guest until another one needs the address.
    Expired,
    /// Was given back; remembered likewise.
    Released,
}

/// What a store is to have of one address from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseWrite {
    /// This lease, instead of another of its address.
    Put(LeaseRecord),
    /// Nothing.
    Remove(IpAddr),
}

/// Where leases are stored: a function that takes a batch, hands it to whoever writes, and returns at once.
///
/// A batch is stored as a whole or not at all, and names each address once. Batches of one family come one after the
/// other: the next when the [`Receipt`] of the last has been used.
pub struct LeaseKeeper(Box<dyn FnMut(Vec<LeaseWrite>, Receipt) + Send>);

impl LeaseKeeper {
    /// Calls `store` on the lane's thread.
    pub fn new(store: impl FnMut(Vec<LeaseWrite>, Receipt) + Send + 'static) -> Self {
        Self(Box::new(store))
    }
}

impl fmt::Debug for LeaseKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LeaseKeeper")
    }
}

/// Tells the lane what became of a batch, from any thread. Dropped, it says that the batch was not stored.
#[derive(Debug)]
#[must_use = "a receipt that is dropped says that the leases were not stored"]
pub struct Receipt {
    ticket: StoreTicket,
    line: Line,
    stored: bool,
}

impl Receipt {
    /// `stored`: the batch will be there after any crash. If not, it may be there or not: its guests are not
    /// acknowledged, and it comes again.
    pub fn done(mut self, stored: bool) {
        self.stored = stored;
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        let (ticket, stored) = (self.ticket, self.stored);
        self.line
            .tell(Command::Leases(LeaseCommand::Stored(ticket, stored)));
    }
}

/// A lease, as it stands now.
#[derive(Debug, Clone)]
pub struct LeaseRow {
    /// The address.
    pub address: IpAddr,
    /// Whose it is or was.
    pub mac: Mac,
    /// The guest's name, if it has one; only while the lease runs.
    pub name: Option<String>,
    /// Until it ends; zero if it has ended.
    pub expires_in: Duration,
    /// When it ends or has ended, by the clock on the wall.
    pub expires: SystemTime,
    /// Where it stands.
    pub state: LeaseState,
    /// The guest's client id, or its DUID.
    pub client_id: Option<Vec<u8>>,
    /// What the guest calls itself.
    pub host_name: Option<String>,
    /// The address is kept for one guest.
    pub reserved: bool,
}

/// An address could not be reserved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReserveRefused {
    /// It cannot be a guest's, or another guest has it or is to have it.
    #[error(transparent)]
    Conflict(#[from] register::ReserveError),
    /// The lane has ended.
    #[error("the network has ended")]
    Ended,
}

/// What is asked of a lane about leases.
pub(super) enum LeaseCommand {
    Stored(StoreTicket, bool),
    Rows(SyncSender<Vec<LeaseRow>>),
    Release(IpAddr, SyncSender<bool>),
    Reserve(Reservee, IpAddr, SyncSender<Result<(), ReserveRefused>>),
    Unreserve(IpAddr, SyncSender<Option<Reservee>>),
    Reservations(SyncSender<Vec<(Reservee, IpAddr)>>),
}

impl Handle {
    /// The leases that run, and those that are remembered, by address.
    #[must_use]
    pub fn leases(&self) -> Vec<LeaseRow> {
        self.ask(|answer| Command::Leases(LeaseCommand::Rows(answer)))
            .unwrap_or_default()
    }

    /// Ends a lease now, or forgets one that has ended: the address is free. Answers whether there was one. A guest
    /// that still uses the address is not told, and refused when it renews, if another has it by then.
    pub fn release(&self, address: IpAddr) -> bool {
        self.ask(|answer| Command::Leases(LeaseCommand::Release(address, answer)))
            .unwrap_or_default()
    }

    /// Keeps an address for a guest, of the pool or beside it, from the guest's next message on: one that has
    /// another address is refused when it renews, and moves. A guest's earlier reservation of the same family is replaced.
    ///
    /// # Errors
    /// See [`ReserveRefused`].
    pub fn reserve(&self, reservee: Reservee, address: IpAddr) -> Result<(), ReserveRefused> {
        self.ask(|answer| Command::Leases(LeaseCommand::Reserve(reservee, address, answer)))
            .unwrap_or(Err(ReserveRefused::Ended))
    }

    /// Takes the reservation of an address back, and returns for whom it was. A lease of it goes on.
    pub fn unreserve(&self, address: IpAddr) -> Option<Reservee> {
        self.ask(|answer| Command::Leases(LeaseCommand::Unreserve(address, answer)))
            .flatten()
    }

    /// All reservations, by address.
    #[must_use]
    pub fn reservations(&self) -> Vec<(Reservee, IpAddr)> {
        self.ask(|answer| Command::Leases(LeaseCommand::Reservations(answer)))
            .unwrap_or_default()
    }
}

impl Lane {
    pub(super) fn obey_leases(&mut self, command: LeaseCommand) {
        match command {
            LeaseCommand::Stored(ticket, stored) => {
                if !stored {
                    tracing::warn!("leases could not be stored, and are not acknowledged");
                }
                self.network
                    .leases_stored(self.now, ticket, stored, &mut self.out);
                self.carry_out(Hand::EMPTY);
            }
            LeaseCommand::Rows(answer) => {
                let _gone = answer.send(self.lease_rows());
            }
            LeaseCommand::Release(address, answer) => {
                let released = self.network.release_lease(self.now, address, &mut self.out);
                self.carry_out(Hand::EMPTY);
                let _gone = answer.send(released);
            }
            LeaseCommand::Reserve(reservee, address, answer) => {
                let reserved = self.network.reserve(reservee, address);
                let _gone = answer.send(reserved.map_err(ReserveRefused::from));
            }
            LeaseCommand::Unreserve(address, answer) => {
                let _gone = answer.send(self.network.unreserve(address));
            }
            LeaseCommand::Reservations(answer) => {
                let reservations = self.network.reservations();
                let _gone = answer.send(reservations.map(|(who, at)| (who.clone(), at)).collect());
            }
        }
    }

    pub(super) fn store_leases(
        &mut self,
        ticket: StoreTicket,
        writes: Vec<register::LeaseWrite<IpAddr>>,
    ) {
        let receipt = Receipt {
            ticket,
            line: self.inbox.line.clone(),
            stored: false,
        };
        let clock = WallClock::at(self.now);
        let writes = writes
            .into_iter()
            .filter_map(|write| match write {
                register::LeaseWrite::Put(lease) => record(&clock, &lease).map(LeaseWrite::Put),
                register::LeaseWrite::Remove(address) => Some(LeaseWrite::Remove(address)),
            })
            .collect();
        if let Some(keeper) = &mut self.lease_keeper {
            (keeper.0)(writes, receipt);
        }
    }

    fn lease_rows(&self) -> Vec<LeaseRow> {
        let clock = WallClock::at(self.now);
        let reserved: BTreeSet<IpAddr> = self.network.reservations().map(|(_, at)| at).collect();
        let row = |lease: Lease<IpAddr>| {
            let record = record(&clock, &lease)?;
            Some(LeaseRow {
                address: lease.address,
                mac: lease.mac,
                name: lease.name,
                expires_in: lease.expires.saturating_duration_since(self.now),
                expires: record.expires,
                state: record.state,
                client_id: record.client_id,
                host_name: record.host_name,
                reserved: reserved.contains(&lease.address),
            })
        };
        let v4 = self.network.leases().map(Lease::any);
        let v6 = self.network.leases6().map(Lease::any);
        v4.chain(v6).filter_map(row).collect()
    }
}

/// Reservations and stored leases of a network that starts.
pub(super) fn put_back(
    network: &mut Network,
    now: Instant,
    lease_time: Duration,
    reservations: Vec<(Reservee, IpAddr)>,
    records: Vec<LeaseRecord>,
) {
    for (reservee, address) in reservations {
        if let Err(error) = network.reserve(reservee, address) {
            tracing::warn!(%error, "a reservation is skipped");
        }
    }
    let clock = WallClock::at(now);
    let leases = records.into_iter().map(|record| {
        // One that has ended cannot end later, and one that runs not later than one that begins now.
        let (state, most) = match record.state {
            LeaseState::Bound => (State::Bound, lease_time),
            LeaseState::Expired => (State::Expired, Duration::ZERO),
            LeaseState::Released => (State::Released, Duration::ZERO),
        };
        Lease {
            address: record.address,
            mac: record.mac,
            client_id: record.client_id,
            iaid: record.iaid,
            host_name: record.host_name,
            name: None,
            expires: clock.instant(record.expires, most),
            state,
        }
    });
    for (_, error) in network.restore_leases(leases.collect()) {
        tracing::warn!(%error, "a stored lease is skipped");
    }
}

/// A lease as it is stored; offers and declined addresses are not.
fn record(clock: &WallClock, lease: &Lease<IpAddr>) -> Option<LeaseRecord> {
    let state = match lease.state {
        State::Bound => LeaseState::Bound,
        State::Expired => LeaseState::Expired,
        State::Released => LeaseState::Released,
        State::Offered | State::Declined => return None,
    };
    Some(LeaseRecord {
        address: lease.address,
        mac: lease.mac,
        client_id: lease.client_id.clone(),
        iaid: lease.iaid,
        host_name: lease.host_name.clone(),
        state,
        expires: clock.date(lease.expires),
    })
}
