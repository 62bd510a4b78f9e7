//! Ports of the host that lead to guests.

use super::{Supervisor, chain, failed, not_stored, text};
use openvmnet::service::{Forward, ForwardRule, Guest, Lifetime, Protocol, ServiceError};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use uuid::Uuid;
use vmnet_linux::lane::{self, ForwardError, ForwardGuest, ForwardId, Label};

/// A rule and the listeners that are it.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) network: Uuid,
    /// It ends with this interface.
    interface: Option<u64>,
    rule: ForwardRule,
    listeners: Vec<ForwardId>,
    /// The same where the kernel carries the frames: what it is to do, and ports that nobody else is to have.
    pub(super) in_kernel: Vec<lane::Forward>,
    _reserved: Vec<OwnedFd>,
}

impl Supervisor {
    pub(crate) fn add_forward(
        &mut self,
        network: &str,
        interface: Option<u64>,
        rule: ForwardRule,
    ) -> Result<Forward, ServiceError> {
        self.not_bridged(self.find(network)?, "forwarded ports")?;
        let number = self.forward(network, interface, rule)?;
        self.forward_row(number).ok_or_else(|| no_forward(number))
    }

    /// Adds a rule, or finds the one that says the same (vmnet: adding a rule again succeeds).
    pub(super) fn forward(
        &mut self,
        network: &str,
        interface: Option<u64>,
        rule: ForwardRule,
    ) -> Result<u64, ServiceError> {
        let uuid = self.find(network)?;
        let rule = tidy(rule);
        // A rule to an interface is of no use without it, and its number may be another's one day.
        let interface = interface.or(rule.guest.interface);
        if let Some(interface) = interface {
            self.is_on(interface, uuid)?;
        }
        let same = self.forwards.iter().find(|(_, other)| {
            other.network == uuid && other.interface == interface && says_same(&other.rule, &rule)
        });
        if let Some((number, _)) = same {
            return Ok(*number);
        }
        self.free_ports(&rule)?;
        let guest = self.guest_of(uuid, interface, &rule.guest)?;
        let all = listeners(&rule, &guest)?;
        let running = self.running(uuid)?;
        let (mut listeners, mut in_kernel, mut reserved) = Default::default();
        if running.kernel.is_some() {
            check_in_kernel(&all)?;
            reserved = running.handle.reserve_all(&all).map_err(refused)?;
            in_kernel = all;
        } else {
            listeners = running.handle.forward_all(all).map_err(refused)?;
        }
        let stays = interface.is_none() && running.lifetime != Lifetime::Held;
        if stays && let Err(error) = self.write_down(uuid, &rule) {
            running.handle.remove_forwards(listeners);
            return Err(error);
        }
        let number = self.number();
        let added = Rule {
            network: uuid,
            interface,
            rule,
            listeners,
            in_kernel,
            _reserved: reserved,
        };
        self.forwards.insert(number, added);
        if let Err(error) = self.rule(uuid) {
            if let Some(refused) = self.forwards.remove(&number)
                && stays
                && let Err(error) = self.store.remove_forward(uuid, &key(&refused.rule))
            {
                tracing::error!(network = %uuid, %error, "a port that was refused may come back");
            }
            return Err(error);
        }
        Ok(number)
    }

    fn write_down(&self, network: Uuid, rule: &ForwardRule) -> Result<(), ServiceError> {
        let value = serde_json::to_value(rule).map_err(|error| failed(&error))?;
        self.store
            .put_forward(network, &key(rule), &value)
            .map_err(|error| not_stored(&error))
    }

    /// Writes down the rules of a network that is to stay.
    pub(super) fn keep_forwards(&self, network: Uuid) -> Result<(), ServiceError> {
        self.forwards
            .values()
            .filter(|rule| rule.network == network && rule.interface.is_none())
            .try_for_each(|rule| self.write_down(network, &rule.rule))
    }

    /// Adds again what was written down. A rule whose port is taken now is told and left.
    pub(super) fn restore_forwards(&mut self, network: Uuid) {
        for (key, value) in self.store.forwards(network) {
            let restored = serde_json::from_value(value)
                .map_err(|error| failed(&error))
                .and_then(|rule| self.forward(&network.to_string(), None, rule));
            if let Err(error) = restored {
                tracing::error!(%network, key, %error, "a port cannot be forwarded again");
            }
        }
    }

    /// No other rule of ours has one of these ports.
    fn free_ports(&mut self, rule: &ForwardRule) -> Result<(), ServiceError> {
        let overlapping = |this: &Self| {
            let mut all = this.forwards.iter();
            all.find(|(_, other)| overlap(&other.rule, rule))
                .map(|(number, _)| *number)
        };
        // The guest of its interface may have gone by itself.
        if let Some(other) = overlapping(self).and_then(|number| self.forwards.get(&number))
            && other.interface.is_some()
        {
            let network = other.network;
            self.prune(network);
            self.settle(network);
        }
        let taken =
            overlapping(self).and_then(|number| Some((number, self.forwards.get(&number)?)));
        match taken {
            None => Ok(()),
            Some((number, other)) => Err(ServiceError::InUse {
                reason: format!(
                    "forward {number} of the network {} has {} already: remove it (`vmnet forward remove {number}`), or choose another host port",
                    self.networks
                        .get(&other.network)
                        .map_or_else(|| other.network.to_string(), |it| it.plan.label()),
                    ports_of(&other.rule),
                ),
            }),
        }
    }

    fn guest_of(
        &self,
        network: Uuid,
        interface: Option<u64>,
        guest: &Guest,
    ) -> Result<ForwardGuest, ServiceError> {
        let of_port = |interface| {
            self.is_on(interface, network)?;
            self.guest_behind(interface)
        };
        match (&guest.address, &guest.mac, &guest.name, guest.interface) {
            (Some(address), None, None, None) => {
                // The datapath knows whose it can be, and says why not.
                Ok(ForwardGuest::Address(text::any_address(address)?))
            }
            (None, Some(mac), None, None) => Ok(ForwardGuest::Mac(text::mac(mac)?)),
            (None, None, Some(name), None) => {
                let name = text::guest_name(name)?;
                let label: Label = name
                    .parse()
                    .map_err(|_| invalid(format!("`{name}` is no guest name")))?;
                Ok(ForwardGuest::Name(label))
            }
            (None, None, None, Some(interface)) => of_port(interface),
            (None, None, None, None) => match interface {
                Some(interface) => of_port(interface),
                None => Err(invalid(
                    "say to whom the port leads: an address, a MAC or a name",
                )),
            },
            _ => Err(invalid(
                "say to whom the port leads in one way: an address, a MAC, a name or an interface",
            )),
        }
    }

    pub(crate) fn remove_forward(&mut self, forward: u64) -> Result<(), ServiceError> {
        let rule = self
            .forwards
            .get(&forward)
            .ok_or_else(|| no_forward(forward))?;
        if rule.interface.is_none() {
            self.store
                .remove_forward(rule.network, &key(&rule.rule))
                .map_err(|error| not_stored(&error))?;
        }
        if let Some(rule) = self.forwards.remove(&forward)
            && let Some(running) = self.networks.get(&rule.network)
        {
            running.handle.remove_forwards(rule.listeners);
            self.rule(rule.network)?;
        }
        Ok(())
    }

    /// Ends the rules that end with an interface.
    pub(super) fn end_forwards_of(&mut self, interface: u64) {
        let (ended, kept) = std::mem::take(&mut self.forwards)
            .into_iter()
            .partition(|(_, rule)| rule.interface == Some(interface));
        self.forwards = kept;
        for rule in ended.into_values() {
            if let Some(running) = self.networks.get(&rule.network) {
                running.handle.remove_forwards(rule.listeners);
            }
            if let Err(error) = self.rule(rule.network) {
                tracing::error!(network = %rule.network, %error, "ports of a guest that is gone lead nowhere");
            }
        }
    }

    pub(crate) fn list_forwards(
        &self,
        network: Option<&str>,
    ) -> Result<Vec<Forward>, ServiceError> {
        let networks = self.chosen(network)?;
        let rows = self
            .forwards
            .iter()
            .filter(|(_, rule)| networks.contains(&rule.network))
            .filter_map(|(number, _)| self.forward_row(*number));
        Ok(rows.collect())
    }

    fn forward_row(&self, number: u64) -> Option<Forward> {
        let rule = self.forwards.get(&number)?;
        let running = self.networks.get(&rule.network)?;
        Some(Forward {
            forward: number,
            network: rule.network.to_string(),
            network_name: running.plan.name.clone(),
            interface: rule.interface,
            rule: rule.rule.clone(),
        })
    }
}

/// What a rule is written down under.
fn key(rule: &ForwardRule) -> String {
    let protocol = name_of(rule.protocol);
    let except: Vec<u8> = rule
        .except
        .iter()
        .flat_map(|port| port.to_be_bytes())
        .collect();
    let except = Uuid::new_v5(&Uuid::NAMESPACE_OID, &except);
    format!(
        "{protocol} {} {} {} {except}",
        rule.address, rule.first, rule.last
    )
}

fn name_of(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

fn invalid(reason: impl Into<String>) -> ServiceError {
    ServiceError::InvalidArgument {
        reason: reason.into(),
    }
}

fn no_forward(forward: u64) -> ServiceError {
    ServiceError::NotFound {
        reason: format!("there is no forward {forward}: `vmnet forward list` shows all"),
    }
}

/// The same rule, with its exceptions in order, each once, and none that excepts nothing: they are looked for by halving.
fn tidy(mut rule: ForwardRule) -> ForwardRule {
    rule.except
        .retain(|port| (rule.first..=rule.last).contains(port));
    rule.except.sort_unstable();
    rule.except.dedup();
    rule
}

fn excepts(rule: &ForwardRule, port: u16) -> bool {
    rule.except.binary_search(&port).is_ok()
}

/// The ports of a rule, for an error.
fn ports_of(rule: &ForwardRule) -> String {
    let ports = if rule.first == rule.last {
        format!("port {}", rule.first)
    } else {
        format!("ports {} to {}", rule.first, rule.last)
    };
    format!("the {} {ports} of {}", name_of(rule.protocol), rule.address)
}

/// Adding one adds nothing to the other. `0.0.0.0` was what no address meant before it was `::`: who says one or the other
/// says again what was said then.
fn says_same(one: &ForwardRule, other: &ForwardRule) -> bool {
    let is_any = |rule: &ForwardRule| {
        let address = rule.address.parse::<IpAddr>();
        address.is_ok_and(|address| address.is_unspecified())
    };
    let alike = ForwardRule {
        address: other.address.clone(),
        ..one.clone()
    };
    alike == *other
        && (one.address == other.address || is_any(one) && is_any(other) && meet(one, other))
}

/// Both listen on one address. `::` is for IPv4 too, unless the rule leads to an IPv6 address.
fn meet(one: &ForwardRule, other: &ForwardRule) -> bool {
    let (Ok(first), Ok(second)) = (
        one.address.parse::<IpAddr>(),
        other.address.parse::<IpAddr>(),
    ) else {
        return one.address == other.address;
    };
    let one_family = |rule: &ForwardRule| {
        let guest = rule.guest.address.as_deref().map(str::parse::<IpAddr>);
        matches!(guest, Some(Ok(IpAddr::V6(_))))
    };
    let covers = |all: IpAddr, rule: &ForwardRule, address: IpAddr| {
        all.is_unspecified()
            && (all.is_ipv4() == address.is_ipv4() || all.is_ipv6() && !one_family(rule))
    };
    first == second || covers(first, one, second) || covers(second, other, first)
}

/// Two rules need one port.
fn overlap(one: &ForwardRule, other: &ForwardRule) -> bool {
    one.protocol == other.protocol
        && meet(one, other)
        && one.first <= other.last
        && other.first <= one.last
        && (one.first.max(other.first)..=one.last.min(other.last))
            .any(|port| !excepts(one, port) && !excepts(other, port))
}

/// Each port of a rule as the datapath knows it.
fn listeners(rule: &ForwardRule, guest: &ForwardGuest) -> Result<Vec<lane::Forward>, ServiceError> {
    let address: IpAddr = rule
        .address
        .parse()
        .map_err(|_| invalid(format!("`{}` is no address of the host", rule.address)))?;
    if rule.first == 0 || rule.last < rule.first {
        return Err(invalid(format!(
            "ports {} to {} are no range: ports are 1 to 65535, the lower first",
            rule.first, rule.last
        )));
    }
    if rule.guest_port == 0
        || rule
            .guest_port
            .checked_add(rule.last - rule.first)
            .is_none()
    {
        return Err(invalid(format!(
            "the guest's ports begin at {} and end behind 65535, or begin at 0",
            rule.guest_port
        )));
    }
    let all: Vec<lane::Forward> = (rule.first..=rule.last)
        .filter(|port| !excepts(rule, *port))
        .map(|port| lane::Forward {
            protocol: match rule.protocol {
                Protocol::Tcp => lane::Protocol::Tcp,
                Protocol::Udp => lane::Protocol::Udp,
            },
            listen: SocketAddr::new(address, port),
            guest: *guest,
            guest_port: rule.guest_port + (port - rule.first),
        })
        .collect();
    if all.is_empty() {
        return Err(invalid("all ports of the range are excepted"));
    }
    Ok(all)
}

/// The kernel sends nothing from the loopback of IPv6 to a guest.
fn check_in_kernel(all: &[lane::Forward]) -> Result<(), ServiceError> {
    if all.iter().any(|one| one.listen.ip() == Ipv6Addr::LOCALHOST) {
        return Err(invalid(
            "the kernel forwards no port of ::1: take 127.0.0.1, or a network with the datapath `user`",
        ));
    }
    Ok(())
}

/// What the host said of a port, with its remedy.
fn refused(error: ForwardError) -> ServiceError {
    let reason = chain(&error);
    match error {
        ForwardError::InUse { .. } => ServiceError::InUse { reason },
        ForwardError::Privileged { .. } => ServiceError::NotAuthorized { reason },
        ForwardError::TooManyFiles { .. } => ServiceError::Exhausted { reason },
        ForwardError::NoAddress { .. }
        | ForwardError::NoGateway
        | ForwardError::NotAGuest(..)
        | ForwardError::NotInPrefix(..)
        | ForwardError::OtherFamily(_) => ServiceError::InvalidArgument { reason },
        ForwardError::Listen { .. } | ForwardError::Ended => ServiceError::Failed { reason },
    }
}
