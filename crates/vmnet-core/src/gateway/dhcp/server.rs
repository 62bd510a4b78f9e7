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

use super::config::{Config, ConfigError, MIN_LEASE};
use super::message::{self, Kind, Message};
use super::reply::{self, Grant};
use super::{Answer, Drop, Lease, LeaseChange, Outcome, Reply, Request};
use crate::gateway::register::{self, HasRegister, Register, Station};
use crate::outbox::PortId;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

type Client = register::Client<Ipv4Addr>;

/// A DHCP server for one network.
#[derive(Debug)]
pub struct Server {
    config: Config,
    register: Register<Ipv4Addr>,
}

impl Server {
    /// A server without leases.
    ///
    /// # Errors
    /// The first setting that cannot work.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.check()?;
        let register = Register::new(config.range());
        Ok(Self { config, register })
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
        self.register.timeout(now)
    }

    /// When [`timeout`](Self::timeout) has something to do next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.register.next_deadline()
    }

    /// What is known of every address: live leases, offers, remembered leases and declined addresses.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.register.leases()
    }

    /// What is known of one address.
    #[must_use]
    pub fn lease(&self, address: Ipv4Addr) -> Option<&Lease> {
        self.register.lease(address)
    }

    /// The live lease with this name (one label, in lower case).
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Lease> {
        self.register.named(name)
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
        let client = self.client(&message, request.port);
        if message
            .server
            .is_some_and(|server| server != self.config.gateway)
        {
            if message.kind == Kind::Request {
                self.register.withdraw_offer(&client);
            }
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

    fn client(&self, message: &Message, port: Option<PortId>) -> Client {
        let host_name = (message.host_name.as_deref().and_then(register::label))
            .or_else(|| message.fqdn.as_deref().and_then(register::label_of_fqdn));
        let id = message.client_id.clone();
        let mac = message.chaddr;
        let station = Station { mac, port };
        self.register.client(id, None, station, host_name)
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
            .register
            .choose(client, message.requested)
            .ok_or(Drop::NoFreeAddress)?;
        self.check_share(client)?;
        self.register.offer(now, address, client, changes);
        let seconds = seconds(self.granted(message));
        let name = self.register.name_of(address, client);
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
        if !self.register.may_take(address, client) {
            return Ok(reply::nak(
                &self.config,
                message,
                "address is not available",
            ));
        }
        self.check_share(client)?;
        let granted = self.granted(message);
        self.register.bind(now, address, granted, client, changes);
        let seconds = seconds(granted);
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

    /// RFC 2131 §4.3.3.
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
        let had = self.register.decline(now, address, client, changes);
        had.then_some(()).ok_or(Drop::NoSuchLease)
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
        let had = self.register.release(now, address, client, changes);
        had.then_some(()).ok_or(Drop::NoSuchLease)
    }

    /// RFC 2131 §4.3.5. Clients that leave `ciaddr` empty are known by their packet's source.
    fn inform(&self, message: &Message, client: &Client, source: Ipv4Addr) -> Result<Reply, Drop> {
        let address = message.ciaddr.unwrap_or(source);
        if address.is_unspecified() {
            return Err(Drop::Malformed);
        }
        if !self.register.is_guest_address(address) {
            return Err(Drop::WrongNetwork);
        }
        let name = self.register.name_of(address, client);
        Ok(reply::informed(
            &self.config,
            message,
            address,
            name.as_deref(),
        ))
    }

    /// One MAC with many client ids does not get the whole pool.
    fn check_share(&self, client: &Client) -> Result<(), Drop> {
        let has = self.register.has_share(client);
        has.then_some(()).ok_or(Drop::TooManyAddresses)
    }

    /// How long the lease is: what the client asks for (option 51), neither too short nor longer than ours.
    fn granted(&self, message: &Message) -> Duration {
        let most = self.config.lease_time;
        let asked = message
            .lease_time
            .map(|seconds| Duration::from_secs(seconds.into()));
        asked.map_or(most, |asked| asked.clamp(MIN_LEASE, most))
    }
}

impl HasRegister<Ipv4Addr> for Server {
    fn register(&self) -> &Register<Ipv4Addr> {
        &self.register
    }

    fn register_mut(&mut self) -> &mut Register<Ipv4Addr> {
        &mut self.register
    }
}

/// A lease time for the wire.
fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
