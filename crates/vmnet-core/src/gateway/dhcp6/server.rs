//! What is answered to which message, in which state (RFC 8415 §18.3).
//!
//! | message | sent when | answer |
//! | --- | --- | --- |
//! | SOLICIT | the client has nothing | ADVERTISE, held for a minute; REPLY if it asks for rapid commit |
//! | REQUEST | it chose our offer | REPLY with addresses |
//! | CONFIRM | it may have moved to another link | REPLY whether its addresses are of this one |
//! | RENEW, REBIND | half of its time is over, or most of it | REPLY with more time, or with what it has instead |
//! | RELEASE | it leaves | REPLY; its addresses are remembered for it |
//! | DECLINE | somebody else has its address | REPLY; the address rests |
//! | INFORMATION-REQUEST | it has addresses of its own | REPLY with settings |
//!
//! All of them are sent to all servers. What is sent to the gateway alone is answered by "use multicast", or not at all.

use super::association::{Case, Client, refused};
use super::config::{Config, ConfigError};
use super::message::{self, Kind, Message, Of};
use super::reply::{Draft, Granted, Told, Verdict};
use super::{Answer, CLIENT_PORT, Drop, Lease, LeaseChange, Outcome, Reply, Request, register};
use crate::gateway::register::{HasRegister, Register, Station};
use std::net::Ipv6Addr;
use std::time::Instant;

/// A DHCPv6 server for one network.
#[derive(Debug)]
pub struct Server {
    config: Config,
    register: Register<Ipv6Addr>,
}

/// What is done with each association of a message.
type Deed = fn(Case<'_>) -> Option<Granted>;

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

    /// Takes a datagram from a guest. Call it for every one that came to port 547.
    pub fn receive(&mut self, now: Instant, request: &Request<'_>) -> Answer {
        let mut changes = self.timeout(now);
        let outcome = match self.answer(now, request, &mut changes) {
            Ok(payload) => Outcome::Reply(Reply {
                mac: request.ethernet_source,
                address: request.source,
                port: CLIENT_PORT,
                payload,
            }),
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
    pub fn lease(&self, address: Ipv6Addr) -> Option<&Lease> {
        self.register.lease(address)
    }

    fn answer(
        &mut self,
        now: Instant,
        request: &Request<'_>,
        changes: &mut Vec<LeaseChange>,
    ) -> Result<Vec<u8>, Drop> {
        let source = request.source;
        if !source.is_unicast_link_local() && !self.config.prefix.contains(source) {
            return Err(Drop::BadSource);
        }
        let message = message::read(request.payload)?;
        let (mac, port) = (request.ethernet_source, request.port);
        let station = Station { mac, port };
        self.check(&message, station)?;
        if request.to_one {
            return self.unicast(&message);
        }
        let draft = match message.kind {
            Kind::Solicit => self.solicit(now, &message, station, changes),
            Kind::Request => self.each(now, &message, station, changes, |case| Some(case.take())),
            Kind::Renew | Kind::Rebind => {
                self.each(now, &message, station, changes, |case| Some(case.extend()))
            }
            Kind::Confirm => return self.confirm(&message),
            Kind::Release => self.end(now, &message, station, changes, |case| case.release()),
            Kind::Decline => self.end(now, &message, station, changes, |case| case.decline()),
            Kind::InformationRequest => Draft {
                settings: true,
                ..Draft::reply(&message)
            },
        };
        let name = self.name(&message, &draft.granted, station);
        let name = name.as_deref();
        Ok(Draft { name, ..draft }.write(&self.config))
    }

    /// What a message must have and may not have (§16).
    fn check(&mut self, message: &Message, station: Station) -> Result<(), Drop> {
        let is_ours = |server: &Vec<u8>| *server == self.config.duid();
        let (client, server) = (message.client.is_some(), message.server.as_ref());
        let valid = match message.kind {
            Kind::Solicit | Kind::Confirm | Kind::Rebind => client && server.is_none(),
            Kind::Request | Kind::Renew | Kind::Release | Kind::Decline => {
                client && server.is_some()
            }
            Kind::InformationRequest => message.associations.is_empty(),
        };
        if !valid {
            return Err(Drop::Invalid);
        }
        if server.is_none_or(is_ours) {
            return Ok(());
        }
        // The client chose another server: what we offered is free again.
        if message.kind == Kind::Request {
            for association in &message.associations {
                let client = self.client(message, association.iaid, station);
                self.register.withdraw_offer(&client);
            }
        }
        Err(Drop::NotForUs)
    }

    /// §16, §18.3.2 and following: nobody was allowed to ask the gateway alone.
    fn unicast(&self, message: &Message) -> Result<Vec<u8>, Drop> {
        match message.kind {
            Kind::Solicit | Kind::Confirm | Kind::Rebind | Kind::InformationRequest => {
                Err(Drop::Unicast)
            }
            Kind::Request | Kind::Renew | Kind::Release | Kind::Decline => {
                let told = Some(Told::UseMulticast);
                let draft = Draft {
                    told,
                    ..Draft::reply(message)
                };
                Ok(draft.write(&self.config))
            }
        }
    }

    /// §18.3.1. A client that asks for it has its addresses at once, since nobody else could offer any; if there are none,
    /// it gets the usual answer.
    fn solicit<'a>(
        &mut self,
        now: Instant,
        message: &'a Message,
        station: Station,
        changes: &mut Vec<LeaseChange>,
    ) -> Draft<'a> {
        if message.rapid_commit {
            let draft = self.each(now, message, station, changes, |case| Some(case.take_any()));
            let has_any = |granted: &Granted| !granted.addresses.is_empty();
            if draft.granted.iter().any(has_any) {
                let rapid_commit = true;
                return Draft {
                    rapid_commit,
                    ..draft
                };
            }
        }
        let verdict = Verdict::Advertise;
        let draft = self.each(now, message, station, changes, |case| Some(case.offer()));
        Draft { verdict, ..draft }
    }

    /// §18.3.3.
    fn confirm(&self, message: &Message) -> Result<Vec<u8>, Drop> {
        let mut addresses = (message.associations.iter())
            .filter_map(|association| match &association.of {
                Of::Address(addresses) => Some(addresses),
                Of::Temporary | Of::Prefixes => None,
            })
            .flatten()
            .peekable();
        addresses.peek().ok_or(Drop::NothingToConfirm)?;
        let on_link = addresses.all(|address| self.config.prefix.contains(*address));
        let told = if on_link {
            Told::Success
        } else {
            Told::NotOnLink
        };
        let told = Some(told);
        let draft = Draft {
            told,
            ..Draft::reply(message)
        };
        Ok(draft.write(&self.config))
    }

    /// RELEASE and DECLINE: a word on the whole, and on what the client does not have.
    fn end<'a>(
        &mut self,
        now: Instant,
        message: &'a Message,
        station: Station,
        changes: &mut Vec<LeaseChange>,
        deed: Deed,
    ) -> Draft<'a> {
        Draft {
            told: Some(Told::Success),
            settings: false,
            ..self.each(now, message, station, changes, deed)
        }
    }

    /// Does something with each association, and says what came of it.
    fn each<'a>(
        &mut self,
        now: Instant,
        message: &'a Message,
        station: Station,
        changes: &mut Vec<LeaseChange>,
        deed: Deed,
    ) -> Draft<'a> {
        let mut granted: Vec<Granted> = Vec::new();
        for association in &message.associations {
            let Of::Address(addresses) = &association.of else {
                granted.extend(refused(association));
                continue;
            };
            let mut client = self.client(message, association.iaid, station);
            // What is kept for a guest is one address, of the first association.
            let given = granted.iter().flat_map(|granted| &granted.addresses);
            let given: Vec<_> = given.map(|(address, _)| *address).collect();
            client.reserved = client.reserved.filter(|kept| !given.contains(kept));
            let case = Case {
                now,
                config: &self.config,
                register: &mut self.register,
                changes,
                client: &client,
                association,
                addresses,
            };
            granted.extend(deed(case));
        }
        Draft {
            granted,
            settings: true,
            ..Draft::reply(message)
        }
    }

    fn client(&self, message: &Message, iaid: u32, station: Station) -> Client {
        let host_name = message.fqdn.as_ref();
        let host_name = host_name.and_then(|(_, name)| register::label_of_wire_name(name));
        let id = message.client.clone();
        self.register.client(id, Some(iaid), station, host_name)
    }

    /// The name that the guest has by its first address, or would get.
    fn name(&self, message: &Message, granted: &[Granted], station: Station) -> Option<String> {
        let first = granted
            .iter()
            .find(|granted| !granted.addresses.is_empty())?;
        let (address, _) = first.addresses.first()?;
        let client = self.client(message, first.iaid, station);
        self.register.name_of(*address, &client)
    }
}

impl HasRegister<Ipv6Addr> for Server {
    fn register(&self) -> &Register<Ipv6Addr> {
        &self.register
    }

    fn register_mut(&mut self) -> &mut Register<Ipv6Addr> {
        &mut self.register
    }
}

#[cfg(test)]
mod tests;
