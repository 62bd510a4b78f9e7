//! What is answered to which message, in which state (RFC 2131 §4.3).
//!
//! | message | sent when | answer |
//! | --- | --- | --- |
//! | DISCOVER | the client has nothing | OFFER, held for a minute |
//! | REQUEST, option 54 | it chose an offer | ACK if it was ours and can be granted, else NAK |
//! | REQUEST, option 50 | it rebooted | ACK, NAK, or silence if the client is unknown |
//! | REQUEST, `ciaddr` | it renews or rebinds | ACK or NAK |
//! | DECLINE | somebody else has the address | none; the address rests |
//! | RELEASE | it leaves | none; the address is remembered for it |
//! | INFORM | it has an address of its own | ACK without an address |
//!
//! A renewal by a client that we do not know is granted if its address is free: there is no second server on
//! this network, so a restart without a store loses no guest.

use super::book::{Entry, Queue};
use super::config::{Config, ConfigError, MIN_LEASE};
use super::identity::{self, Client};
use super::lease::{Lease, LeaseChange, State};
use super::message::{self, Kind, Message};
use super::pool::Pool;
use super::reply::{self, Grant};
use super::{Answer, Drop, Outcome, Reply, Request, name};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use vmnet_wire::ethernet::Mac;

mod host;
mod stored;

pub use host::RestoreError;

/// How long an offer is held.
const OFFER_TIME: Duration = Duration::from_secs(60);
/// How long a declined address rests.
const DECLINE_TIME: Duration = Duration::from_secs(600);
/// Addresses that one MAC holds at most: firmware, boot loader and system may each have their own client id.
const MAX_PER_MAC: usize = 8;

/// A DHCP server for one network.
#[derive(Debug)]
pub struct Server {
    config: Config,
    pool: Pool,
}

impl Server {
    /// A server without leases.
    ///
    /// # Errors
    /// The first setting that cannot work.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.check()?;
        let pool = Pool::new(&config);
        Ok(Self { config, pool })
    }

    /// Takes a datagram from a guest. Call it for every one that came to port 67.
    pub fn receive(&mut self, now: Instant, request: &Request<'_>) -> Answer {
        let mut changes = self.timeout(now);
        let outcome = match self.answer(now, request, &mut changes) {
            Ok(Some(reply)) => Outcome::Reply(reply),
            Ok(None) => Outcome::Noted,
            Err(cause) => Outcome::Dropped(cause),
        };
        Answer { outcome, changes }
    }

    /// Ends what has run out. Call it at [`next_deadline`](Self::next_deadline), or names of guests that
    /// left stay until the next message.
    pub fn timeout(&mut self, now: Instant) -> Vec<LeaseChange> {
        let mut changes = Vec::new();
        while let Some((_, address)) = self.pool.book().next().filter(|(at, _)| *at <= now) {
            let Some(mut entry) = self.pool.take(address) else {
                break;
            };
            match (entry.lease.state, entry.former.take()) {
                (State::Bound, _) => {
                    end(&mut entry, State::Expired, None);
                    changes.push(LeaseChange::Ended(entry.lease.clone()));
                    self.pool.put(entry);
                }
                (State::Offered, Some((state, ended))) => {
                    end(&mut entry, state, Some(ended));
                    self.pool.put(entry);
                }
                (State::Offered | State::Declined | State::Expired | State::Released, _) => {}
            }
        }
        changes
    }

    /// What is known of the addresses of one MAC.
    pub fn leases_of(&self, mac: Mac) -> impl Iterator<Item = &Lease> {
        self.pool.book().of(mac).map(|entry| &entry.lease)
    }

    /// When [`timeout`](Self::timeout) has something to do next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.pool.book().next().map(|(at, _)| at)
    }

    /// What is known of every address: live leases, offers, remembered leases and declined addresses.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.pool.book().leases()
    }

    /// What is known of one address.
    #[must_use]
    pub fn lease(&self, address: Ipv4Addr) -> Option<&Lease> {
        self.pool.book().get(address).map(|entry| &entry.lease)
    }

    /// The live lease with this name (one label, in lower case).
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Lease> {
        self.pool.book().named(name)
    }

    fn answer(
        &mut self,
        now: Instant,
        request: &Request<'_>,
        changes: &mut Vec<LeaseChange>,
    ) -> Result<Option<Reply>, Drop> {
        let to = request.ip_destination;
        if to != Ipv4Addr::BROADCAST && to != self.config.broadcast() && to != self.config.gateway {
            return Err(Drop::NotForUs);
        }
        let message = message::read(request.payload)?;
        if message.chaddr != request.ethernet_source {
            return Err(Drop::Impostor);
        }
        let client = self.client(&message);
        if message
            .server
            .is_some_and(|server| server != self.config.gateway)
        {
            self.withdraw_offer(&client, message.kind);
            return Err(Drop::NotForUs);
        }
        match message.kind {
            Kind::Discover => self.discover(now, &message, &client, changes).map(Some),
            Kind::Request => self.request(now, &message, &client, changes).map(Some),
            Kind::Decline => self.decline(now, &message, &client, changes).map(|()| None),
            Kind::Release => self.release(now, &message, &client, changes).map(|()| None),
            Kind::Inform => self.inform(&message, &client, request.ip_source).map(Some),
        }
    }

    fn client(&self, message: &Message) -> Client {
        let (id, mac) = (message.client_id.clone(), message.chaddr);
        let (key, own) = identity::resolve(self.pool.book(), id.as_deref(), mac);
        let host_name = (message.host_name.as_deref().and_then(name::label))
            .or_else(|| message.fqdn.as_deref().and_then(name::label_of_fqdn));
        let reserved = self
            .pool
            .reservations()
            .of(id.as_deref(), mac, host_name.as_deref());
        Client {
            key,
            own,
            mac,
            id,
            host_name,
            reserved,
        }
    }

    /// RFC 2131 §4.3.1.
    fn discover(
        &mut self,
        now: Instant,
        message: &Message,
        client: &Client,
        changes: &mut Vec<LeaseChange>,
    ) -> Result<Reply, Drop> {
        let address = self
            .pool
            .choose(client, message.requested)
            .ok_or(Drop::NoFreeAddress)?;
        self.check_share(client)?;
        let own = self.lease(address).filter(|_| client.own == Some(address));
        let live = own.is_some_and(|lease| lease.state == State::Bound);
        if !live {
            let former = self.clear(address, client, changes);
            let mut entry = written(client, address, State::Offered, now + OFFER_TIME);
            entry.former = former;
            self.pool.put(entry);
        }
        let seconds = seconds(self.granted(message));
        let name = self.name_of(address, client);
        Ok(reply::offer(
            &self.config,
            message,
            Grant {
                address,
                seconds,
                name: name.as_deref(),
            },
        ))
    }

    /// RFC 2131 §4.3.2: which REQUEST it is shows in what it carries.
    fn request(
        &mut self,
        now: Instant,
        message: &Message,
        client: &Client,
        changes: &mut Vec<LeaseChange>,
    ) -> Result<Reply, Drop> {
        let selecting = message.server.is_some();
        let address = match (message.ciaddr, message.requested) {
            (_, Some(requested)) if selecting => requested,
            (Some(ciaddr), _) => ciaddr,
            (None, Some(requested)) => requested,
            (None, None) => return Err(Drop::Malformed),
        };
        if !self.config.in_subnet(address) {
            return Ok(reply::nak(
                &self.config,
                message,
                "address is not of this network",
            ));
        }
        if !selecting && message.ciaddr.is_none() && client.own.is_none() {
            return Err(Drop::UnknownClient);
        }
        if !self.pool.may_take(address, client) {
            return Ok(reply::nak(
                &self.config,
                message,
                "address is not available",
            ));
        }
        self.check_share(client)?;
        let seconds = self.bind(now, address, message, client, changes);
        let name = self.lease(address).and_then(|lease| lease.name.as_deref());
        Ok(reply::ack(
            &self.config,
            message,
            Grant {
                address,
                seconds,
                name,
            },
        ))
    }

    /// RFC 2131 §4.3.3. The address rests; of too many that rest, the first is given again.
    fn decline(
        &mut self,
        now: Instant,
        message: &Message,
        client: &Client,
        changes: &mut Vec<LeaseChange>,
    ) -> Result<(), Drop> {
        let address = message
            .requested
            .or(message.ciaddr)
            .ok_or(Drop::Malformed)?;
        let mut entry = self.take_own(address, client, &[State::Bound, State::Offered])?;
        let (was, leased) = (entry.lease.state, was_leased(&entry));
        while self.pool.book().count(Queue::Declined) >= self.pool.max_declined() {
            let Some(rested) = self.pool.book().queue(Queue::Declined).next() else {
                break;
            };
            self.pool.take(rested);
        }
        end(&mut entry, State::Declined, Some(now + DECLINE_TIME));
        (entry.key, entry.former) = (None, None);
        if was == State::Bound {
            changes.push(LeaseChange::Ended(entry.lease.clone()));
        } else if leased {
            changes.push(LeaseChange::Forgotten(entry.lease.clone()));
        }
        self.pool.put(entry);
        Ok(())
    }

    /// RFC 2131 §4.3.4.
    fn release(
        &mut self,
        now: Instant,
        message: &Message,
        client: &Client,
        changes: &mut Vec<LeaseChange>,
    ) -> Result<(), Drop> {
        let address = message.ciaddr.ok_or(Drop::Malformed)?;
        let mut entry = self.take_own(address, client, &[State::Bound])?;
        end(&mut entry, State::Released, Some(now));
        changes.push(LeaseChange::Ended(entry.lease.clone()));
        self.pool.put(entry);
        Ok(())
    }

    /// RFC 2131 §4.3.5. Clients that leave `ciaddr` empty are known by their packet's source.
    fn inform(&self, message: &Message, client: &Client, source: Ipv4Addr) -> Result<Reply, Drop> {
        let address = message.ciaddr.unwrap_or(source);
        if address.is_unspecified() {
            return Err(Drop::Malformed);
        }
        if !self.config.is_guest_address(address) {
            return Err(Drop::WrongNetwork);
        }
        let name = self.name_of(address, client);
        Ok(reply::informed(
            &self.config,
            message,
            address,
            name.as_deref(),
        ))
    }

    /// Makes an address a client's, which `Pool::may_take` has allowed.
    fn bind(
        &mut self,
        now: Instant,
        address: Ipv4Addr,
        message: &Message,
        client: &Client,
        changes: &mut Vec<LeaseChange>,
    ) -> u32 {
        let granted = self.granted(message);
        let own = self.lease(address).filter(|_| client.own == Some(address));
        let held = own.filter(|lease| lease.state == State::Bound);
        // A client that asks for less than it has may leave earlier, but need not.
        let expires = held.map_or(now, |lease| lease.expires).max(now + granted);
        let told_before = own.and_then(|lease| lease.host_name.clone());
        let stored = (self.pool.book().get(address))
            .filter(|_| held.is_some())
            .and_then(|entry| entry.stored);
        let former = self.clear(address, client, changes);
        let mut entry = written(client, address, State::Bound, expires);
        (entry.stored, entry.former) = (stored, former);
        entry.lease.host_name = client.host_name.clone().or(told_before);
        entry.lease.name = self.free_name(entry.lease.host_name.as_deref());
        changes.push(LeaseChange::Bound(entry.lease.clone()));
        self.pool.put(entry);
        seconds(granted)
    }

    /// Takes out what is in the way of writing `address` down for `client`: what another had there, and what
    /// the client had elsewhere. Returns what the address was to this client, if it had leased it.
    fn clear(
        &mut self,
        address: Ipv4Addr,
        client: &Client,
        changes: &mut Vec<LeaseChange>,
    ) -> Option<(State, Instant)> {
        let mut former = None;
        for place in client
            .own
            .into_iter()
            .filter(|own| *own != address)
            .chain([address])
        {
            let Some(entry) = self.pool.take(place) else {
                continue;
            };
            if client.own == Some(address) && place == address {
                former = former_of(&entry);
            } else if was_leased(&entry) {
                changes.push(LeaseChange::Forgotten(entry.lease));
            }
        }
        former
    }

    /// Takes out a client's own entry, which must be in one of these states.
    fn take_own(
        &mut self,
        address: Ipv4Addr,
        client: &Client,
        states: &[State],
    ) -> Result<Entry, Drop> {
        let own = self.lease(address).filter(|_| client.own == Some(address));
        let held =
            own.is_some_and(|lease| states.contains(&lease.state) && lease.mac == client.mac);
        let entry = if held { self.pool.take(address) } else { None };
        entry.ok_or(Drop::NoSuchLease)
    }

    /// The client chose another server: what we offered is free again (RFC 2131 §4.3.2).
    fn withdraw_offer(&mut self, client: &Client, kind: Kind) {
        let offered = |address: &Ipv4Addr| {
            let own = self.lease(*address);
            own.is_some_and(|lease| lease.state == State::Offered && lease.mac == client.mac)
        };
        let Some(address) = client.own.filter(offered).filter(|_| kind == Kind::Request) else {
            return;
        };
        if let Some(mut entry) = self.pool.take(address)
            && let Some((state, ended)) = entry.former.take()
        {
            end(&mut entry, state, Some(ended));
            self.pool.put(entry);
        }
    }

    /// One MAC with many client ids does not get the whole pool.
    fn check_share(&self, client: &Client) -> Result<(), Drop> {
        let live = |state| matches!(state, State::Bound | State::Offered);
        let own = client
            .own
            .and_then(|own| self.lease(own))
            .is_some_and(|lease| live(lease.state));
        if !own && self.pool.book().held_by(client.mac) >= MAX_PER_MAC {
            return Err(Drop::TooManyAddresses);
        }
        Ok(())
    }

    /// How long the lease is: what the client asks for (option 51), neither too short nor longer than ours.
    fn granted(&self, message: &Message) -> Duration {
        let most = self.config.lease_time;
        let asked = message
            .lease_time
            .map(|seconds| Duration::from_secs(seconds.into()));
        asked.map_or(most, |asked| asked.clamp(MIN_LEASE, most))
    }

    /// The name a client has, or would get.
    fn name_of(&self, address: Ipv4Addr, client: &Client) -> Option<String> {
        let own = self.lease(address).filter(|_| client.own == Some(address));
        let has = own.and_then(|lease| lease.name.clone());
        has.or_else(|| self.free_name(client.host_name.as_deref()))
    }

    /// A name that no live lease has; the first to have one keeps it.
    fn free_name(&self, name: Option<&str>) -> Option<String> {
        name.filter(|name| self.named(name).is_none())
            .map(str::to_owned)
    }
}

/// An entry for a client.
fn written(client: &Client, address: Ipv4Addr, state: State, expires: Instant) -> Entry {
    let lease = Lease {
        address,
        mac: client.mac,
        client_id: client.id.clone(),
        host_name: client.host_name.clone(),
        name: None,
        expires,
        state,
    };
    Entry {
        lease,
        key: Some(client.key.clone()),
        former: None,
        stored: None,
    }
}

/// Ends a lease or an offer: it has no name any more.
fn end(entry: &mut Entry, state: State, at: Option<Instant>) {
    entry.lease.state = state;
    entry.lease.expires = at.unwrap_or(entry.lease.expires);
    entry.lease.name = None;
    entry.stored = None;
}

/// What an entry is again if an offer of it is not taken, or its lease not stored.
fn former_of(entry: &Entry) -> Option<(State, Instant)> {
    match entry.lease.state {
        State::Expired | State::Released => Some((entry.lease.state, entry.lease.expires)),
        State::Offered | State::Bound => entry.former,
        State::Declined => None,
    }
}

/// Whether callers have heard of this lease: an offer alone is not worth a word.
fn was_leased(entry: &Entry) -> bool {
    match entry.lease.state {
        State::Bound | State::Expired | State::Released => true,
        State::Offered => entry.former.is_some(),
        State::Declined => false,
    }
}

/// A lease time for the wire.
fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
