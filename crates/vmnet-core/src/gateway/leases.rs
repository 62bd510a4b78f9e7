//! Leases of the DHCP servers in the network: who is answered when, which names follow them.
//!
//! With a ledger an acknowledgement waits until the store has its lease, and the name follows then. Names
//! of leases that end go at once. Both families are alike: a [`Leasing`] each.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use vmnet_wire::ethernet::Mac;

use crate::drop::Drop;
use crate::gateway::guest_names::GuestNames;
use crate::gateway::register::{
    Address, Answer, HasRegister, Lease, LeaseChange, LeaseWrite, Ledger, Outcome, Register, Reply,
    ReserveError, Reservee, RestoreError, State, StoreTicket,
};
use crate::gateway::services::{DnsProxy, Services};
use crate::gateway::{dhcp, dhcp6};
use crate::link::Link;
use crate::outbox::Action;

/// A server, and what the store has of its leases.
#[derive(Debug)]
pub(crate) struct Leasing<S, A> {
    pub(crate) server: S,
    /// `None`: leases are acknowledged at once and stored nowhere.
    ledger: Option<Ledger<A>>,
}

/// Names, lent to a [`Leasing`].
struct Naming<'a> {
    names: &'a mut GuestNames,
    dns: &'a mut DnsProxy,
}

/// Lends the names of services beside their servers.
macro_rules! naming {
    ($self:ident) => {
        &mut Naming {
            names: &mut $self.names,
            dns: &mut $self.dns,
        }
    };
}

impl<S: HasRegister<A>, A: Address> Leasing<S, A> {
    pub(crate) fn new(server: S, store_leases: bool) -> Self {
        Self {
            server,
            ledger: store_leases.then(Ledger::default),
        }
    }

    /// What is known of addresses.
    pub(crate) fn register(&self) -> &Register<A> {
        self.server.register()
    }

    /// When a failed batch is to be tried again.
    fn next_deadline(&self) -> Option<Instant> {
        self.ledger.as_ref().and_then(Ledger::next_deadline)
    }

    /// The server has answered. Answers what is to be sent now.
    fn answered<D>(
        &mut self,
        names: &mut Naming<'_>,
        link: &mut Link<'_>,
        answer: Answer<A, D>,
        cause: Drop,
    ) -> Option<Reply<A>> {
        self.note(names, link, &answer.changes);
        let bound = answer
            .changes
            .into_iter()
            .filter_map(|change| match change {
                LeaseChange::Bound(lease) => Some(lease),
                LeaseChange::Ended(_) | LeaseChange::Forgotten(_) => None,
            });
        let leases: Vec<Lease<A>> = bound.collect();
        match answer.outcome {
            Outcome::Reply(reply) => match &mut self.ledger {
                Some(ledger) if !leases.is_empty() => {
                    if ledger.hold(link.now, leases, reply) {
                        link.drop(Drop::LeaseWaited);
                    }
                    None
                }
                _ => Some(reply),
            },
            Outcome::Noted => None,
            Outcome::Dropped(_) => {
                link.drop(cause);
                None
            }
        }
    }

    /// The store has a batch, or may not have it. Answers what is to be sent now.
    fn stored(
        &mut self,
        names: &mut Naming<'_>,
        link: &mut Link<'_>,
        ticket: StoreTicket,
        stored: bool,
    ) -> Vec<Reply<A>> {
        let Some(ledger) = &mut self.ledger else {
            return Vec::new();
        };
        let settled = ledger.settle(link.now, &mut self.server, ticket, stored);
        for lease in &settled.bound {
            bound(names, link, lease);
        }
        self.note(names, link, &settled.ended);
        (0..settled.refused).for_each(|_| link.drop(Drop::LeaseNotStored));
        (0..settled.late).for_each(|_| link.drop(Drop::LeaseWaited));
        settled.replies
    }

    /// Ends leases whose time is over. Answers whether any has ended.
    fn timeout(&mut self, names: &mut Naming<'_>, link: &mut Link<'_>) -> bool {
        let ended = self.server.register_mut().timeout(link.now);
        self.note(names, link, &ended);
        !ended.is_empty()
    }

    /// Ends a lease at once, or forgets one that has ended. Answers whether there was one.
    fn release(&mut self, names: &mut Naming<'_>, link: &mut Link<'_>, address: A) -> bool {
        let forgotten = self.server.register_mut().forget(address);
        let changes: Vec<_> = forgotten.into_iter().collect();
        self.note(names, link, &changes);
        !changes.is_empty()
    }

    /// Puts stored leases back, with their names. Those that are refused are taken out of the store with the
    /// next batch.
    fn restore(
        &mut self,
        names: &mut Naming<'_>,
        leases: Vec<Lease<A>>,
    ) -> Vec<(IpAddr, RestoreError)> {
        let refused = self.server.register_mut().restore_all(leases);
        if let Some(ledger) = &mut self.ledger {
            refused
                .iter()
                .for_each(|(address, _)| ledger.refuse(*address));
        }
        let restored = self.server.register().leases();
        for lease in restored.filter(|lease| lease.state == State::Bound) {
            let address = lease.address.into();
            (names.names).set(names.dns, address, lease.mac, lease.name.as_deref());
            names.names.restored(address);
        }
        let any = |(address, error): (A, RestoreError)| (address.into(), error);
        refused.into_iter().map(any).collect()
    }

    /// What changes bring with them.
    fn note(&mut self, names: &mut Naming<'_>, link: &mut Link<'_>, changes: &[LeaseChange<A>]) {
        for change in changes {
            if let Some(ledger) = &mut self.ledger {
                ledger.note(change);
            }
            match change {
                LeaseChange::Bound(lease) if self.ledger.is_none() => bound(names, link, lease),
                LeaseChange::Bound(_) => {}
                LeaseChange::Ended(lease) | LeaseChange::Forgotten(lease) => {
                    names.names.remove(names.dns, lease.address.into());
                    names.names.stale(lease.mac);
                }
            }
        }
    }

    /// What is to be stored now goes out.
    fn write(&mut self, link: &mut Link<'_>) {
        let Some(ledger) = &mut self.ledger else {
            return;
        };
        if let Some((ticket, writes)) = ledger.write(link.now, &self.server) {
            let writes = writes.iter().map(LeaseWrite::any).collect();
            link.out.push(Action::StoreLeases { ticket, writes });
        }
    }
}

/// A lease is acknowledged. A port's own name wins over what its guest calls itself.
fn bound<A: Address>(names: &mut Naming<'_>, link: &mut Link<'_>, lease: &Lease<A>) {
    let address = lease.address.into();
    if address.is_ipv4() {
        link.learn(address, lease.mac);
    } else {
        let place = (lease.mac, link.port_at(lease.mac));
        link.neighbours.hand_over(link.now, address, place);
    }
    let port = link.port_of(lease.mac);
    let given = port
        .and_then(|(_, port)| port.name.as_deref())
        .or_else(|| names.names.given(lease.mac))
        .map(str::to_owned);
    let name = given.as_deref().or(lease.name.as_deref());
    names.names.set(names.dns, address, lease.mac, name);
}

impl Services {
    /// A DHCP message of a guest. Answers whether there is a server to take it.
    pub(crate) fn receive_dhcp(
        &mut self,
        link: &mut Link<'_>,
        request: &dhcp::Request<'_>,
    ) -> bool {
        let Some(dhcp) = &mut self.dhcp else {
            return false;
        };
        let answer = dhcp.server.receive(link.now, request);
        let reply = dhcp.answered(naming!(self), link, answer, Drop::Dhcp);
        dhcp.write(link);
        reply.iter().for_each(|reply| self.send_dhcp(link, reply));
        true
    }

    /// A DHCPv6 message of a guest. Answers whether there is a server to take it.
    pub(crate) fn receive_dhcp6(
        &mut self,
        link: &mut Link<'_>,
        request: &dhcp6::Request<'_>,
    ) -> bool {
        let Some(dhcp6) = &mut self.dhcp6 else {
            return false;
        };
        let answer = dhcp6.server.receive(link.now, request);
        let reply = dhcp6.answered(naming!(self), link, answer, Drop::Dhcp6);
        dhcp6.write(link);
        reply.iter().for_each(|reply| self.send_dhcp6(link, reply));
        true
    }

    /// The store has a batch of leases, or may not have it.
    pub(crate) fn leases_stored(&mut self, link: &mut Link<'_>, ticket: StoreTicket, stored: bool) {
        // A batch is of one family, and unknown to the other.
        if let Some(dhcp) = &mut self.dhcp {
            let replies = dhcp.stored(naming!(self), link, ticket, stored);
            dhcp.write(link);
            replies.iter().for_each(|reply| self.send_dhcp(link, reply));
        }
        if let Some(dhcp6) = &mut self.dhcp6 {
            let replies = dhcp6.stored(naming!(self), link, ticket, stored);
            dhcp6.write(link);
            replies
                .iter()
                .for_each(|reply| self.send_dhcp6(link, reply));
        }
    }

    /// Ends leases whose time is over, and tries again what could not be stored. Answers whether any has ended.
    pub(super) fn timeout_leases(&mut self, link: &mut Link<'_>) -> bool {
        let mut ended = false;
        if let Some(dhcp) = &mut self.dhcp {
            ended |= dhcp.timeout(naming!(self), link);
            dhcp.write(link);
        }
        if let Some(dhcp6) = &mut self.dhcp6 {
            ended |= dhcp6.timeout(naming!(self), link);
            dhcp6.write(link);
        }
        ended
    }

    /// When leases end, or are tried to be stored again.
    pub(super) fn leases_deadline(&self) -> Option<Instant> {
        let v4 = self.dhcp.iter();
        let v6 = self.dhcp6.iter();
        v4.flat_map(|dhcp| [dhcp.server.next_deadline(), dhcp.next_deadline()])
            .chain(v6.flat_map(|dhcp| [dhcp.server.next_deadline(), dhcp.next_deadline()]))
            .flatten()
            .min()
    }

    /// Ends a lease at once, or forgets one that has ended. Answers whether there was one.
    pub(crate) fn release_lease(&mut self, link: &mut Link<'_>, address: IpAddr) -> bool {
        match (address, &mut self.dhcp, &mut self.dhcp6) {
            (IpAddr::V4(address), Some(dhcp), _) => {
                let released = dhcp.release(naming!(self), link, address);
                dhcp.write(link);
                released
            }
            (IpAddr::V6(address), _, Some(dhcp6)) => {
                let released = dhcp6.release(naming!(self), link, address);
                dhcp6.write(link);
                released
            }
            _ => false,
        }
    }

    /// Puts stored leases back, with their names. Those that are refused are the answer, and are taken out of the store in
    /// time. While a server is off, its leases stay in the store.
    pub(crate) fn restore_leases(
        &mut self,
        leases: Vec<Lease<IpAddr>>,
    ) -> Vec<(IpAddr, RestoreError)> {
        let (v4, v6): (Vec<_>, Vec<_>) = leases
            .into_iter()
            .partition(|lease| lease.address.is_ipv4());
        let mut refused = Vec::new();
        if let Some(dhcp) = &mut self.dhcp {
            refused.extend(dhcp.restore(naming!(self), of_family(&v4)));
        }
        if let Some(dhcp6) = &mut self.dhcp6 {
            refused.extend(dhcp6.restore(naming!(self), of_family(&v6)));
        }
        refused
    }

    /// Keeps an address for a guest.
    pub(crate) fn reserve(
        &mut self,
        reservee: Reservee,
        address: IpAddr,
    ) -> Result<(), ReserveError> {
        match (address, &mut self.dhcp, &mut self.dhcp6) {
            (IpAddr::V4(address), Some(dhcp), _) => {
                dhcp.server.register_mut().reserve(reservee, address)
            }
            (IpAddr::V6(address), _, Some(dhcp6)) => {
                dhcp6.server.register_mut().reserve(reservee, address)
            }
            _ => Err(ReserveError::NoServer),
        }
    }

    /// Takes the reservation of an address back. Answers for whom it was.
    pub(crate) fn unreserve(&mut self, address: IpAddr) -> Option<Reservee> {
        match address {
            IpAddr::V4(address) => (self.dhcp.as_mut()?.server.register_mut()).unreserve(address),
            IpAddr::V6(address) => (self.dhcp6.as_mut()?.server.register_mut()).unreserve(address),
        }
    }

    /// All reservations, by address.
    pub(crate) fn reservations(&self) -> impl Iterator<Item = (&Reservee, IpAddr)> {
        let v4 = self
            .dhcp
            .iter()
            .flat_map(|dhcp| dhcp.register().reservations());
        let v6 = self
            .dhcp6
            .iter()
            .flat_map(|dhcp| dhcp.register().reservations());
        let v4 = v4.map(|(reservee, address)| (reservee, IpAddr::V4(address)));
        v4.chain(v6.map(|(reservee, address)| (reservee, IpAddr::V6(address))))
    }

    /// A guest that is at no port of ours has a name from its owner, or no longer; its leases are called so at once.
    pub(crate) fn give_name(&mut self, mac: Mac, name: Option<String>) {
        fn called<A: Address>(lease: &Lease<A>) -> (IpAddr, Option<String>) {
            (lease.address.into(), lease.name.clone())
        }
        let v4 = self.dhcp.iter().flat_map(|dhcp| {
            let leases = dhcp.register().leases_of(mac);
            leases
                .filter(|lease| lease.state == State::Bound)
                .map(called)
        });
        let v6 = self.dhcp6.iter().flat_map(|dhcp| {
            let leases = dhcp.register().leases_of(mac);
            leases
                .filter(|lease| lease.state == State::Bound)
                .map(called)
        });
        let bound: Vec<(IpAddr, Option<String>)> = v4.chain(v6).collect();
        for (address, own) in bound {
            let name = name.as_deref().or(own.as_deref());
            self.names.set(&mut self.dns, address, mac, name);
        }
        self.names.give(mac, name);
    }

    /// Guests at no port of ours to which their owner gave a name.
    pub(crate) fn given_names(&self) -> impl Iterator<Item = (Mac, &str)> {
        self.names.all_given()
    }

    /// A guest is heard behind a port with this name. If its leases were restored, the port's name wins over its own
    /// now; all other leases had their port when they were given.
    pub(crate) fn greet(&mut self, mac: Mac, name: Option<&str>) {
        self.names.stale(mac);
        let Some(name) = name.filter(|_| self.names.awaits()) else {
            return;
        };
        let v4 = self
            .dhcp
            .as_ref()
            .and_then(|dhcp| dhcp.register().bound_to(mac));
        let v6 = self
            .dhcp6
            .as_ref()
            .and_then(|dhcp| dhcp.register().bound_to(mac));
        for address in [v4.map(IpAddr::V4), v6.map(IpAddr::V6)]
            .into_iter()
            .flatten()
        {
            if self.names.heard(address) {
                self.names.set(&mut self.dns, address, mac, Some(name));
            }
        }
    }

    /// Names follow the addresses that guests have made for themselves.
    pub(crate) fn follow_names(&mut self, link: &mut Link<'_>) {
        let mut macs = link.neighbours.take_changed();
        macs.append(&mut self.names.take_stale());
        // First what is no more: an address may have gone from one to another.
        for mac in &macs {
            self.names.forget_learnt(&mut self.dns, *mac);
        }
        for mac in macs {
            let addresses = self.addresses_without_name(link, mac);
            if !addresses.is_empty()
                && let Some(name) = self.name_of(link, mac)
            {
                let addresses = addresses.into_iter().map(IpAddr::V6);
                self.names.learn(&mut self.dns, mac, &name, addresses);
            }
        }
    }

    /// IPv6 addresses of a guest: leased, and of its own making.
    fn addresses_without_name(&self, link: &Link<'_>, mac: Mac) -> Vec<Ipv6Addr> {
        let Some(prefix) = link.gateway.ipv6 else {
            return Vec::new();
        };
        let is_bound = |lease: &&dhcp6::Lease| lease.state == State::Bound;
        let leases = self
            .dhcp6
            .iter()
            .flat_map(|dhcp6| dhcp6.register().leases_of(mac));
        let mut addresses: Vec<_> = leases.filter(is_bound).map(|lease| lease.address).collect();
        for address in link.neighbours.addresses6_of(link.now, mac) {
            let lease = (self.dhcp6.as_ref()).and_then(|dhcp6| dhcp6.register().lease(address));
            let anothers = lease.filter(is_bound).is_some_and(|lease| lease.mac != mac);
            if prefix.contains(address) && !anothers && !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }

    /// The name of a guest: its port's, or that of an address it has leased.
    fn name_of(&self, link: &Link<'_>, mac: Mac) -> Option<String> {
        let port = link.port_of(mac);
        let given = port.and_then(|(_, port)| port.name.as_deref());
        if let Some(given) = given.or_else(|| self.names.given(mac)) {
            return Some(given.to_owned());
        }
        let v4 = self
            .dhcp
            .iter()
            .flat_map(|dhcp| dhcp.register().leases_of(mac));
        let v6 = self
            .dhcp6
            .iter()
            .flat_map(|dhcp| dhcp.register().leases_of(mac));
        let addresses = v4
            .filter(|lease| lease.state == State::Bound)
            .map(|lease| IpAddr::V4(lease.address))
            .chain(
                v6.filter(|lease| lease.state == State::Bound)
                    .map(|lease| IpAddr::V6(lease.address)),
            );
        let mut names = addresses.filter_map(|address| self.dns.0.name_of(address));
        names.next().map(str::to_owned)
    }

    fn send_dhcp(&self, link: &mut Link<'_>, reply: &dhcp::Reply) {
        let to = SocketAddr::new(IpAddr::V4(reply.address), reply.port);
        self.send(link, reply.mac, dhcp::SERVER_PORT, to, &reply.payload);
    }

    fn send_dhcp6(&self, link: &mut Link<'_>, reply: &dhcp6::Reply) {
        let to = SocketAddr::new(IpAddr::V6(reply.address), reply.port);
        self.send(link, reply.mac, dhcp6::SERVER_PORT, to, &reply.payload);
    }
}

/// Leases with addresses of one family; they have no others.
fn of_family<A: Address>(leases: &[Lease<IpAddr>]) -> Vec<Lease<A>> {
    let of = |lease: &Lease<IpAddr>| Some(lease.at(A::of(lease.address)?));
    leases.iter().filter_map(of).collect()
}
