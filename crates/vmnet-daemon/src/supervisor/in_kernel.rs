//! Networks whose frames the kernel carries: a bridge with the host's addresses, taps as its members, and rules.
//!
//! The lane has the gateway's services, and guests that come by sockets and rings; one tap of the bridge leads to it, the
//! trunk. What is in the kernel is left there when the service is killed, and taken over by the next one: the bridge is known
//! by its mark, its members by their names.

use super::forward::Rule;
use super::{Supervisor, chain};
use crate::plan::Plan;
use crate::privileged::client::{Helper, HelperError};
use crate::privileged::name::{LinkName, Mark, Role};
use crate::privileged::request::{Link, Request, Why};
use openvmnet::service::{Datapath, ServiceError};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use uuid::Uuid;
use vmnet_linux::kernel::bridge::Bridge;
use vmnet_linux::kernel::nft::{Inet, Inet6, PREFIX, PortForward, Rules};
use vmnet_linux::kernel::route::Routes;
use vmnet_linux::kernel::sysctl;
use vmnet_linux::kernel::tap;
use vmnet_linux::lane::{
    self, Attachment, ForwardGuest, GuestAddresses, Handle, PortOptions, Protocol, gateway_mac,
    services_mac,
};
use vmnet_wire::ndp;

/// What a bridge of ours is for, and the tap that leads to us.
const BRIDGE: &str = "bridge";
const TRUNK: &str = "gateway";
/// What takes privileges.
const WHAT: &str = "the kernel datapath";
/// What a tap of a guest is for; a number follows.
const GUEST: &str = "guest";
/// Taps that a bridge may have.
const MEMBERS_MAX: u32 = 1000;
/// Queues of a guest's tap.
const QUEUES_MAX: u64 = 16;
/// Bridges that a host may have.
const BRIDGES_MAX: u32 = 10_000;

/// The kernel's part of a network.
#[derive(Debug)]
pub(super) struct InKernel {
    pub(super) bridge: LinkName,
    /// As they were last set, if they were.
    rules: Option<Rules>,
    plain: Rules,
}

/// Interfaces that forward for us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Forwarding {
    v4: BTreeSet<String>,
    v6: BTreeSet<String>,
    open: bool,
}

impl Supervisor {
    /// Interfaces whose addresses are no obstacle to a network: those of networks that run, which say so themselves, and
    /// what an earlier service has left of this one.
    pub(super) fn own_interfaces(&self, network: Uuid) -> Result<BTreeSet<String>, ServiceError> {
        let links = self.helper(WHAT)?.links().map_err(refused)?;
        let is_own = |link: &Link| {
            let mark = link.mark.as_ref().map(|mark| mark.network);
            mark.is_some_and(|mark| mark == network || self.networks.contains_key(&mark))
        };
        Ok(links
            .into_iter()
            .filter(is_own)
            .map(|link| link.name)
            .collect())
    }

    /// Makes the bridge of a network and the tap that leads to its lane, or takes over what is there. `None` where the kernel
    /// has no part.
    pub(super) fn begin_in_kernel(
        &self,
        plan: &Plan,
    ) -> Result<Option<(InKernel, OwnedFd)>, ServiceError> {
        if plan.datapath != Datapath::Kernel {
            return Ok(None);
        }
        let mut helper = self.helper(WHAT)?;
        let links = helper.links().map_err(refused)?;
        let role = |role: &str| mark(plan.uuid, role);
        let bridge = match links.iter().find(|link| link.mark == Some(role(BRIDGE))) {
            Some(there) => {
                tracing::info!(
                    bridge = there.name,
                    network = plan.label(),
                    "a bridge is taken over"
                );
                named(&there.name)?
            }
            None => free_name(&links)?,
        };
        let trunk = named(&format!("{bridge}-gw"))?;
        let plain = rules(plan, &bridge, &trunk);
        let wanted = wanted(plan, &plain);
        warn_of_bridged_rules();
        let made = (|| {
            let (name, mark) = (bridge.clone(), role(BRIDGE));
            helper.done(&Request::BridgeEstablish {
                name,
                mark,
                bridge: wanted,
            })?;
            // One that is left belongs to a lane that has ended.
            helper.delete_link(trunk.clone())?;
            let tap = helper.create_tap(trunk.clone(), role(TRUNK), false)?;
            helper.done(&Request::BridgeJoin {
                member: trunk.clone(),
                bridge: bridge.clone(),
                isolated: false,
                station: Some(plain.services),
            })?;
            Ok(tap)
        })();
        drop(helper);
        let kernel = InKernel {
            bridge,
            rules: None,
            plain,
        };
        match made {
            Ok(tap) => Ok(Some((kernel, tap))),
            Err(error) => {
                self.remove_from_kernel(&kernel);
                Err(refused(error))
            }
        }
    }

    /// Gives a lane its trunk. If either cannot be, neither is.
    pub(super) fn enter_kernel(
        &mut self,
        started: Result<Handle, ServiceError>,
        prepared: Option<(InKernel, OwnedFd)>,
    ) -> Result<(Handle, Option<InKernel>), ServiceError> {
        let Some((kernel, tap)) = prepared else {
            return Ok((started?, None));
        };
        let joined = started.and_then(|handle| {
            let options = PortOptions {
                role: lane::Role::Trunk,
                ..PortOptions::default()
            };
            let attached = handle.attach(Attachment::Tap(tap), options);
            attached.map_err(|error| super::failed(&error))?;
            Ok(handle)
        });
        match joined {
            Ok(handle) => Ok((handle, Some(kernel))),
            Err(error) => {
                self.end_in_kernel(&kernel);
                Err(error)
            }
        }
    }

    /// Sets the rules of a network as they are to be now, if they are others.
    pub(super) fn rule(&mut self, network: Uuid) -> Result<(), ServiceError> {
        let Some(running) = self.networks.get(&network) else {
            return Ok(());
        };
        let Some(kernel) = &running.kernel else {
            return Ok(());
        };
        let mut rules = kernel.plain.clone();
        let all = self
            .forwards
            .values()
            .filter(|rule| rule.network == network);
        rules.forwards = forwards(all, &running.handle);
        rules.fixed = self.fixed_members(network);
        if kernel.rules.as_ref() != Some(&rules) {
            let request = Request::RulesSet {
                rules: Box::new(rules.clone()),
            };
            self.helper(WHAT)?.done(&request).map_err(refused)?;
            if let Some(kernel) = self
                .networks
                .get_mut(&network)
                .and_then(|it| it.kernel.as_mut())
            {
                kernel.rules = Some(rules);
            }
        }
        self.follow_forwarding()
    }

    /// Has those interfaces forward that networks need, and no others.
    fn follow_forwarding(&mut self) -> Result<(), ServiceError> {
        let mut wanted = Forwarding::default();
        let mut used: Option<Forwarding> = None;
        for kernel in self
            .networks
            .values()
            .filter_map(|running| running.kernel.as_ref())
        {
            wanted.open = true;
            let rules = kernel.rules.as_ref().unwrap_or(&kernel.plain);
            let leads = |v6: bool| rules.forwards.iter().any(|it| it.guest.is_ipv6() == v6);
            let v4 = rules.ipv4.is_some_and(|net| net.nat) || leads(false);
            let v6 = rules.ipv6.is_some_and(|net| net.nat) || leads(true);
            let by = match &rules.external {
                // Clients of forwarded ports come by any.
                Some(external) if rules.forwards.is_empty() => {
                    let one = BTreeSet::from([external.clone()]);
                    Forwarding {
                        v4: one.clone(),
                        v6: one,
                        open: true,
                    }
                }
                _ => match &used {
                    Some(used) => used.clone(),
                    None => used.insert(in_use()?).clone(),
                },
            };
            wanted.v4.extend(by.v4.into_iter().filter(|_| v4));
            wanted.v6.extend(by.v6.into_iter().filter(|_| v6));
        }
        if self.forwarding.as_ref() == Some(&wanted) {
            return Ok(());
        }
        let request = Request::Forwarding {
            v4: wanted.v4.iter().cloned().collect(),
            v6: wanted.v6.iter().cloned().collect(),
            open: wanted.open,
        };
        let done = self.helper(WHAT)?.done(&request).map_err(refused);
        // What has failed is asked for again while a network needs it.
        self.forwarding = (done.is_ok() || !wanted.open).then_some(wanted);
        done
    }

    /// Asks for forwarding once more, and for our networks to pass: others may have changed what there was.
    pub(super) fn follow_forwarding_anew(&mut self) {
        self.forwarding = None;
        if let Err(error) = self.follow_forwarding() {
            tracing::error!(%error, "forwarding cannot follow");
        }
    }

    /// Looks whether guests have moved, or the host has other interfaces. To be called now and then.
    pub(crate) fn look_at_kernel(&mut self) {
        let all: Vec<Uuid> = self
            .networks
            .iter()
            .filter(|(_, running)| running.kernel.is_some())
            .map(|(uuid, _)| *uuid)
            .collect();
        for network in all {
            if let Err(error) = self.rule(network) {
                tracing::error!(%network, %error, "rules cannot follow");
            }
        }
        // An earlier service may have left something switched on.
        if let Err(error) = self.follow_forwarding() {
            tracing::error!(%error, "forwarding cannot follow");
        }
    }

    /// Makes a tap for a guest of a network, which is no member of its bridge yet, and opens so many queues of it.
    pub(crate) fn open_tap(
        &self,
        network: &str,
        queues: Option<u64>,
    ) -> Result<(String, Vec<OwnedFd>), ServiceError> {
        let queues = queues.unwrap_or(1);
        if !(1..=QUEUES_MAX).contains(&queues) {
            return Err(ServiceError::InvalidArgument {
                reason: format!("a tap has 1 to {QUEUES_MAX} queues, not {queues}"),
            });
        }
        let network = self.find(network)?;
        let bridge = self.bridge_of(network)?;
        let mut helper = self.helper(WHAT)?;
        let links = helper.links().map_err(refused)?;
        let taken: BTreeSet<&str> = links.iter().map(|link| link.name.as_str()).collect();
        let free = (0..MEMBERS_MAX).map(|number| (number, format!("{bridge}-{number}")));
        let mut free = free.filter(|(_, name)| !taken.contains(name.as_str()));
        let (number, name) = free.next().ok_or_else(|| ServiceError::Exhausted {
            reason: format!("the bridge {bridge} has {MEMBERS_MAX} members: end some"),
        })?;
        let mark = mark(network, &format!("{GUEST}-{number}"));
        let link = named(&name)?;
        let first = helper.create_tap(link.clone(), mark, false);
        let mut all = vec![first.map_err(refused)?];
        for _ in 1..queues {
            // It ends with its queues, if one cannot be had.
            all.push(helper.open_tap(link.clone()).map_err(refused)?);
        }
        Ok((name, all))
    }

    fn bridge_of(&self, network: Uuid) -> Result<LinkName, ServiceError> {
        let running = self.running(network)?;
        let kernel = running.kernel.as_ref().ok_or_else(|| ServiceError::InvalidArgument {
            reason: format!(
                "the service carries the frames of the network {}: there is no bridge to have a tap on",
                running.plan.label()
            ),
        })?;
        Ok(kernel.bridge.clone())
    }

    /// Makes a tap that this service or an earlier one has made for a guest of this network a member of its bridge.
    pub(super) fn join_bridge(
        &self,
        network: Uuid,
        tap: &OwnedFd,
        isolated: bool,
    ) -> Result<LinkName, ServiceError> {
        let bridge = self.bridge_of(network)?;
        let isolated = isolated || self.running(network)?.plan.isolation;
        let name = tap::name_of(tap).map_err(|error| super::failed(&error))?;
        let mut helper = self.helper(WHAT)?;
        let links = helper.links().map_err(refused)?;
        let is_it = |link: &&Link| {
            let mark = link.mark.as_ref();
            let for_guest =
                |mark: &Mark| mark.network == network && mark.role.as_str().starts_with(GUEST);
            link.name == name && mark.is_some_and(for_guest)
        };
        if !links.iter().any(|link| is_it(&link)) {
            return Err(ServiceError::InvalidArgument {
                reason: format!("{name} is no tap that the service has made for this network"),
            });
        }
        let member = named(&name)?;
        let request = Request::BridgeJoin {
            member: member.clone(),
            bridge,
            isolated,
            station: None,
        };
        helper.done(&request).map_err(refused)?;
        Ok(member)
    }

    /// Ends a tap, and what the rules say of it.
    pub(super) fn leave_bridge(&mut self, network: Uuid, member: LinkName) {
        let ended = self
            .helper(WHAT)
            .and_then(|mut helper| helper.delete_link(member).map_err(refused));
        if let Err(error) = ended.and_then(|()| self.rule(network)) {
            tracing::warn!(%network, %error, "a tap stays");
        }
    }

    /// Takes a network out of the kernel.
    pub(super) fn end_in_kernel(&mut self, kernel: &InKernel) {
        self.remove_from_kernel(kernel);
        if let Err(error) = self.follow_forwarding() {
            tracing::warn!(%error, "forwarding cannot be given back");
        }
    }

    fn remove_from_kernel(&self, kernel: &InKernel) {
        let Ok(mut helper) = self.helper(WHAT) else {
            return;
        };
        if let Err(error) = remove(&mut helper, &kernel.bridge) {
            tracing::warn!(bridge = %kernel.bridge, %error, "a bridge stays");
        }
    }
}

/// Removes a bridge with its members and rules.
pub(super) fn remove(helper: &mut Helper, bridge: &LinkName) -> Result<(), HelperError> {
    let members = format!("{bridge}-");
    for link in helper.links()? {
        if link.mark.is_some()
            && link.name.starts_with(&members)
            && let Ok(name) = link.name.parse()
        {
            helper.delete_link(name)?;
        }
    }
    helper.done(&Request::RulesRemove {
        bridge: bridge.clone(),
    })?;
    helper.delete_link(bridge.clone())
}

/// Where bridged packets pass the rules of routed ones, the kernel bridges what a forwarded port turns back to the bridge that
/// it came from, and a member gets nothing back that came from it. The setting is the host's, and others need it.
fn warn_of_bridged_rules() {
    let is_on = |setting| sysctl::read(setting).is_some_and(|value| value == "1");
    for setting in [
        "net.bridge.bridge-nf-call-iptables",
        "net.bridge.bridge-nf-call-ip6tables",
    ] {
        if is_on(setting) {
            tracing::warn!(
                "guests do not reach forwarded ports of the host that lead to guests, all others do: `sysctl {setting}=0` changes that, if no program here (as Docker) needs it"
            );
        }
    }
}

pub(super) fn refused(error: HelperError) -> ServiceError {
    let reason = chain(&error);
    match error {
        HelperError::Refused(refusal) if refusal.why == Why::InUse => {
            ServiceError::InUse { reason }
        }
        _ => ServiceError::Failed { reason },
    }
}

fn named(name: &str) -> Result<LinkName, ServiceError> {
    name.parse().map_err(|_| ServiceError::Failed {
        reason: format!("{name} cannot be the name of an interface of ours: somebody renamed it"),
    })
}

fn mark(network: Uuid, role: &str) -> Mark {
    let role: Role = role
        .parse()
        .unwrap_or_else(|_| unreachable!("roles are words"));
    Mark { network, role }
}

/// The first name for a bridge that nobody has, nor a member of.
fn free_name(links: &[Link]) -> Result<LinkName, ServiceError> {
    let taken = |name: &str| {
        let members = format!("{name}-");
        links
            .iter()
            .any(|link| link.name == name || link.name.starts_with(&members))
    };
    let free = (0..BRIDGES_MAX)
        .map(|number| format!("{PREFIX}{number}"))
        .find(|name| !taken(name));
    let free = free.ok_or_else(|| ServiceError::Exhausted {
        reason: format!("there are {BRIDGES_MAX} bridges already"),
    })?;
    named(&free)
}

/// The bridge of a network.
fn wanted(plan: &Plan, rules: &Rules) -> Bridge {
    let v4 = rules
        .ipv4
        .map(|net| (IpAddr::V4(net.gateway), net.prefix_len));
    let v6 = rules
        .ipv6
        .into_iter()
        .flat_map(|net| [net.gateway, net.link_local]);
    Bridge {
        mac: rules.host,
        mtu: plan.mtu,
        addresses: v4
            .into_iter()
            .chain(v6.map(|it| (IpAddr::V6(it), 64)))
            .collect(),
        // Where nothing may pass, rules say so to who tries.
        forwards: true,
    }
}

/// The rules of a network without ports.
fn rules(plan: &Plan, bridge: &LinkName, trunk: &LinkName) -> Rules {
    let host = gateway_mac(plan.ipv4, plan.ipv6);
    Rules {
        bridge: bridge.to_string(),
        trunk: trunk.to_string(),
        host: host.0,
        services: services_mac(host).0,
        ipv4: plan.ipv4.map(|ipv4| Inet {
            network: ipv4.subnet().network(),
            prefix_len: ipv4.subnet().prefix_len(),
            gateway: ipv4.gateway(),
            nat: plan.nat44,
        }),
        ipv6: plan.ipv6.map(|prefix| Inet6 {
            network: prefix.network(),
            gateway: prefix.gateway(),
            link_local: ndp::link_local(host),
            nat: plan.nat66,
        }),
        serves: plan.dhcp.is_some() || plan.nat44 || plan.ipv6.is_some(),
        dns: plan.dns_proxy,
        isolation: plan.isolation,
        external: plan.external_interface.clone(),
        fixed: Vec::new(),
        forwards: Vec::new(),
    }
}

/// Where forwarded ports lead now.
fn forwards<'a>(all: impl Iterator<Item = &'a Rule>, handle: &Handle) -> Vec<PortForward> {
    let all: Vec<_> = all.flat_map(|rule| &rule.in_kernel).collect();
    let mut guests: Vec<ForwardGuest> = Vec::new();
    for forward in &all {
        if !guests.contains(&forward.guest) {
            guests.push(forward.guest);
        }
    }
    if guests.is_empty() {
        return Vec::new();
    }
    let addresses = handle.addresses_of(guests.clone());
    let of = |guest: &ForwardGuest| -> GuestAddresses {
        let at = guests.iter().position(|other| other == guest);
        at.and_then(|at| addresses.get(at))
            .copied()
            .unwrap_or_default()
    };
    let mut found = BTreeMap::new();
    for forward in all {
        let (v4, v6) = of(&forward.guest);
        let listen = forward.listen.ip();
        // `::` is for both families.
        let v4 = v4
            .filter(|_| listen.is_ipv4() || listen.is_unspecified())
            .map(IpAddr::V4);
        let v6 = v6.filter(|_| listen.is_ipv6()).map(IpAddr::V6);
        for guest in v4.into_iter().chain(v6) {
            let one = PortForward {
                tcp: forward.protocol == Protocol::Tcp,
                address: Some(listen).filter(|address| !address.is_unspecified()),
                port: forward.listen.port(),
                guest,
                guest_port: forward.guest_port,
            };
            found.insert((one.tcp, guest.is_ipv6(), one.address, one.port), one);
        }
    }
    found.into_values().collect()
}

/// Interfaces of the host by which packets of each family come.
fn in_use() -> Result<Forwarding, ServiceError> {
    let taken = Routes::open().and_then(|mut routes| routes.taken());
    let taken = taken.map_err(|error| super::failed(&error))?;
    let mut used = Forwarding::default();
    for one in taken.into_iter().filter(|one| one.is_address) {
        let Some(name) = one
            .interface
            .filter(|name| name != "lo" && !name.starts_with(PREFIX))
        else {
            continue;
        };
        let family = if one.network.is_ipv4() {
            &mut used.v4
        } else {
            &mut used.v6
        };
        family.insert(name);
    }
    Ok(used)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str) -> Link {
        Link {
            index: 1,
            name: name.to_owned(),
            mark: None,
            kind: None,
            master: None,
            lower: None,
            up: true,
        }
    }

    #[test]
    fn a_bridge_gets_a_name_that_nobody_has() {
        let free = |names: &[&str]| {
            let links: Vec<Link> = names.iter().map(|name| link(name)).collect();
            free_name(&links).unwrap().to_string()
        };
        assert_eq!(free(&["lo", "eth0"]), "vmnet0");
        assert_eq!(free(&["vmnet0", "vmnet1-gw", "vmnet3"]), "vmnet2");
    }
}
