//! What becomes of one address that a message asks for (RFC 8415 §18.3).

use super::config::Config;
use super::message::{Association, Of};
use super::reply::{Granted, Told};
use super::{LeaseChange, register};
use crate::gateway::register::Register;
use std::net::Ipv6Addr;
use std::time::Instant;

pub(super) type Client = register::Client<Ipv6Addr>;

/// One association of one client, and the register that decides about it.
pub(super) struct Case<'a> {
    pub(super) now: Instant,
    pub(super) config: &'a Config,
    pub(super) register: &'a mut Register<Ipv6Addr>,
    pub(super) changes: &'a mut Vec<LeaseChange>,
    pub(super) client: &'a Client,
    pub(super) association: &'a Association,
    /// Those that the client told with it.
    pub(super) addresses: &'a [Ipv6Addr],
}

impl Case<'_> {
    /// SOLICIT (§18.3.1): an address held for a minute.
    pub(super) fn offer(self) -> Granted {
        match self.choose() {
            Some(address) => {
                self.register
                    .offer(self.now, address, self.client, self.changes);
                self.with(vec![(address, self.config.seconds())], None)
            }
            None => self.with(Vec::new(), Some(Told::NoAddress)),
        }
    }

    /// REQUEST (§18.3.2). The client takes what it was offered. If it is from another network, it is told so.
    pub(super) fn take(self) -> Granted {
        if self.is_foreign() {
            return self.with(Vec::new(), Some(Told::NotOnLink));
        }
        self.take_any()
    }

    /// A SOLICIT that is answered at once, whose addresses are mere wishes; what is not to be had is made up for by
    /// another.
    pub(super) fn take_any(mut self) -> Granted {
        let wanted = self.wanted();
        match wanted.or_else(|| self.choose()) {
            Some(address) if self.register.has_share(self.client) => {
                let lease = self.bind(address);
                self.with(vec![lease], None)
            }
            _ => self.with(Vec::new(), Some(Told::NoAddress)),
        }
    }

    /// RENEW and REBIND (§18.3.4, §18.3.5). Who is unknown gets what it has if nobody else has it: there is no second server,
    /// so a restart without a store loses no guest. What a client may not keep ends, and it gets another in the same
    /// answer.
    pub(super) fn extend(mut self) -> Granted {
        let wanted = self.wanted();
        let chosen = wanted.or_else(|| self.choose());
        let granted = chosen.filter(|_| self.register.has_share(self.client));
        let mut addresses: Vec<_> = granted
            .map(|address| self.bind(address))
            .into_iter()
            .collect();
        let over = self.addresses.iter().filter(|told| Some(**told) != granted);
        addresses.extend(over.map(|told| (*told, 0)));
        if addresses.is_empty() {
            return self.with(addresses, Some(Told::NoBinding));
        }
        self.with(addresses, None)
    }

    /// RELEASE (§18.3.6). `None`: there is nothing to say of it.
    pub(super) fn release(self) -> Option<Granted> {
        self.each(|register, now, address, client, changes| {
            register.release(now, address, client, changes)
        })
    }

    /// DECLINE (§18.3.7): the address rests. `None`: there is nothing to say of it.
    pub(super) fn decline(self) -> Option<Granted> {
        self.each(|register, now, address, client, changes| {
            register.decline(now, address, client, changes)
        })
    }

    fn each(
        self,
        end: impl Fn(&mut Register<Ipv6Addr>, Instant, Ipv6Addr, &Client, &mut Vec<LeaseChange>) -> bool,
    ) -> Option<Granted> {
        let is_known = self.client.own.is_some();
        for address in self.addresses {
            end(self.register, self.now, *address, self.client, self.changes);
        }
        (!is_known).then(|| self.with(Vec::new(), Some(Told::NoBinding)))
    }

    /// The first of the addresses that the client told which it may have.
    fn wanted(&self) -> Option<Ipv6Addr> {
        let may = |address: &Ipv6Addr| self.register.may_take(*address, self.client);
        self.addresses.iter().copied().find(may)
    }

    fn choose(&self) -> Option<Ipv6Addr> {
        let wish = self.addresses.first().copied();
        let address = self.register.choose(self.client, wish)?;
        self.register.has_share(self.client).then_some(address)
    }

    /// A client that came from another network told its address there.
    fn is_foreign(&self) -> bool {
        let prefix = self.config.prefix;
        self.addresses
            .iter()
            .any(|address| !prefix.contains(*address))
    }

    fn bind(&mut self, address: Ipv6Addr) -> (Ipv6Addr, u32) {
        let granted = self.config.lease_time;
        self.register
            .bind(self.now, address, granted, self.client, self.changes);
        (address, self.config.seconds())
    }

    fn with(&self, addresses: Vec<(Ipv6Addr, u32)>, told: Option<Told>) -> Granted {
        Granted {
            iaid: self.association.iaid,
            of: self.association.of.clone(),
            addresses,
            told,
        }
    }
}

/// What is not given here at all.
pub(super) fn refused(association: &Association) -> Option<Granted> {
    let told = match association.of {
        Of::Address(_) => return None,
        Of::Temporary => Told::NoAddress,
        Of::Prefixes => Told::NoPrefix,
    };
    Some(Granted {
        iaid: association.iaid,
        of: association.of.clone(),
        addresses: Vec::new(),
        told: Some(told),
    })
}
