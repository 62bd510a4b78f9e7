//! Ports of the host that lead to guests (vmnet: `vmnet_interface_add_ip_port_forwarding_rule` and its family).

use std::net::IpAddr;

use super::Interface;
use crate::client::{CallError, Client};
use crate::configuration::rule;
use crate::membership::lock;
use crate::service::{Forward, ForwardRule, Protocol, ServiceError};
use crate::status::{Error, Status};

/// A port of the host, and where it leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PortForwardingRule {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The host's port, on all its addresses.
    pub external_port: u16,
    /// The guest.
    pub internal_address: IpAddr,
    /// The guest's port.
    pub internal_port: u16,
}

/// IPv4 or IPv6. Each has rules of its own: one port may lead to a guest by each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressFamily {
    /// IPv4.
    Inet,
    /// IPv6.
    Inet6,
}

impl AddressFamily {
    fn of(address: IpAddr) -> Self {
        if address.is_ipv4() {
            Self::Inet
        } else {
            Self::Inet6
        }
    }
}

impl PortForwardingRule {
    /// What a rule of the service says, if it could be one of ours: one port, on all addresses, to an address.
    fn of(forward: &Forward) -> Option<Self> {
        let rule = &forward.rule;
        let address: IpAddr = rule.guest.address.as_deref()?.parse().ok()?;
        let listens: IpAddr = rule.address.parse().ok()?;
        (rule.first == rule.last && listens.is_unspecified()).then_some(Self {
            protocol: rule.protocol,
            external_port: rule.first,
            internal_address: address,
            internal_port: rule.guest_port,
        })
    }
}

impl Interface {
    /// Forwards a port of the host to a guest. The rule is the interface's, and ends with it; of an interface that was
    /// started on a network it is the network's. To add a rule again changes nothing.
    ///
    /// # Errors
    /// [`Status::InvalidArgument`]: a port is zero, or the address is no guest's here. [`Status::Failure`]: the port has
    /// another rule, or is in use on the host. [`Status::SetupIncomplete`]: the interface is stopped.
    pub fn add_port_forwarding_rule(&self, added: &PortForwardingRule) -> Result<(), Error> {
        if added.external_port == 0 || added.internal_port == 0 {
            return Err(Error::invalid("port 0 is no port"));
        }
        let membership = self.membership()?;
        let rule = rule(
            added.protocol,
            added.internal_port,
            added.external_port,
            added.internal_address,
        );
        // A service that is killed right behind its answer must find it with us.
        let is_new = self.note(&rule);
        let added = membership.call(|client, network| {
            let rule = rule.clone();
            client.add_forward(network, self.owner(), rule).map(drop)
        });
        if added.is_err() && is_new {
            self.forget(|one| *one == rule);
        }
        added
    }

    /// The service is to have this rule, also the next one. Whether that is new.
    fn note(&self, rule: &ForwardRule) -> bool {
        let mut service = lock(&self.shared.service);
        let Some(at) = &mut *service else {
            return false;
        };
        if at.by_network {
            return at.membership.promise_rule(rule);
        }
        let is_new = !at.rules.contains(rule);
        if is_new {
            at.rules.push(rule.clone());
        }
        is_new
    }

    fn forget(&self, gone: impl Fn(&ForwardRule) -> bool) {
        if let Some(at) = &mut *lock(&self.shared.service) {
            at.rules.retain(|rule| !gone(rule));
            at.membership.forget_rule(gone);
        }
    }

    /// Forwards a port no longer. Connections that came by it go on.
    ///
    /// # Errors
    /// [`Status::Failure`]: there is no such rule. [`Status::SetupIncomplete`]: the interface is stopped.
    pub fn remove_port_forwarding_rule(
        &self,
        protocol: Protocol,
        external_port: u16,
        family: AddressFamily,
    ) -> Result<(), Error> {
        let membership = self.membership()?;
        let removed = membership.call(|client, network| {
            let all = rules(client, network, self.owner())?;
            let found = all.into_iter().find(|(_, rule)| {
                (rule.protocol, rule.external_port) == (protocol, external_port)
                    && AddressFamily::of(rule.internal_address) == family
            });
            match found {
                Some((number, _)) => client.remove_forward(number).map(|()| true),
                None => Ok(false),
            }
        });
        match removed {
            Ok(true) => {
                let is_it = |rule: &ForwardRule| {
                    let to = rule.guest.address.as_deref().and_then(|it| it.parse().ok());
                    (rule.protocol, rule.first) == (protocol, external_port)
                        && to.is_some_and(|it| AddressFamily::of(it) == family)
                };
                self.forget(is_it);
                Ok(())
            }
            Ok(false) => Err(Error::new(
                Status::Failure,
                format!("the host's port {external_port} has no such rule"),
            )),
            Err(error) => Err(error),
        }
    }

    /// The rules: of the interface, or of the network that it was started on.
    ///
    /// # Errors
    /// [`Status::SetupIncomplete`]: the interface is stopped. [`Status::Failure`]: the service is gone.
    pub fn port_forwarding_rules(
        &self,
        family: AddressFamily,
    ) -> Result<Vec<PortForwardingRule>, Error> {
        let membership = self.membership()?;
        let all = membership.call(|client, network| rules(client, network, self.owner()))?;
        let rules = all.into_iter().map(|(_, rule)| rule);
        Ok(rules
            .filter(|rule| AddressFamily::of(rule.internal_address) == family)
            .collect())
    }
}

fn rules(
    client: &mut Client,
    network: &str,
    owner: Option<u64>,
) -> Result<Vec<(u64, PortForwardingRule)>, CallError> {
    let all = match client.list_forwards(Some(network)) {
        Err(CallError::Refused(ServiceError::NotFound { .. })) => return Ok(Vec::new()),
        all => all?,
    };
    let ours = all
        .forwards
        .iter()
        .filter(|forward| forward.interface == owner);
    Ok(ours
        .filter_map(|forward| Some((forward.forward, PortForwardingRule::of(forward)?)))
        .collect())
}
