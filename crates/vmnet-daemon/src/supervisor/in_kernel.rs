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
use std::os::fd::{AsFd as _, OwnedFd};
use uuid::Uuid;
use vmnet_linux::kernel::bridge::Bridge;
use vmnet_linux::kernel::nft::{Inet, Inet6, PREFIX, PortForward, Rules};
use vmnet_linux::kernel::route::{Address, Routes, link_index};
use vmnet_linux::kernel::sysctl;
use vmnet_linux::lane::{
    self, Attachment, ForwardGuest, GuestAddresses, Handle, PortOptions, Protocol, gateway_mac,
    services_mac,
};
use vmnet_wire::ndp;

/// What a bridge of ours is for, and the tap that leads to us.
const BRIDGE: &str = "bridge";
const TRUNK: &str = "gateway";
/// What takes privileges.
pub(super) const WHAT: &str = "the kernel datapath";
/// What a tap of a guest is for; a number follows.
pub(super) const GUEST: &str = "guest";
/// Bridges that a host may have.
const BRIDGES_MAX: u32 = 10_000;

/// The kernel's part of a network.
#[derive(Debug)]
pub(super) struct InKernel {
    pub(super) bridge: LinkName,
    /// As they were last set, if they were.
    pub(super) rules: Option<Rules>,
    plain: Rules,
    /// An earlier service has made the bridge, and guests may be on it: it outlives a start that fails.
    adopted: bool,
    /// Members that were there before us: guests of a service that was killed, which may come again.
    left: Vec<Left>,
}

/// A member that was there before us.
#[derive(Debug, Clone)]
struct Left {
    name: String,
    isolated: bool,
}

/// Interfaces that forward for us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Forwarding {
    v4: BTreeSet<String>,
    v6: BTreeSet<String>,
    /// Their numbers: one that has gone and come back has another.
    numbers: BTreeSet<u32>,
    bridges: BTreeSet<LinkName>,
}

impl InKernel {
    /// The only interface by which guests reach the outside, if one was chosen.
    pub(super) fn external(&self) -> Option<&str> {
        self.plain.external.as_deref()
    }
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
        &mut self,
        plan: &Plan,
    ) -> Result<Option<(InKernel, OwnedFd)>, ServiceError> {
        if plan.datapath != Datapath::Kernel {
            return Ok(None);
        }
        self.forget_route(plan.uuid);
        let mut helper = self.helper(WHAT)?;
        let links = helper.links().map_err(refused)?;
        let role = |role: &str| mark(plan.uuid, role);
        let there = links.iter().find(|link| link.mark == Some(role(BRIDGE)));
        let adopted = there.is_some();
        let bridge = match there {
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
            let join = Request::BridgeJoin {
                member: trunk.clone(),
                bridge: bridge.clone(),
                isolated: false,
                station: Some(plain.services),
            };
            helper.join(&join, tap.as_fd())?;
            Ok(tap)
        })();
        drop(helper);
        let members = format!("{bridge}-");
        let is_member = |link: &&Link| link.mark.is_some() && link.name.starts_with(&members);
        let left = links.iter().filter(is_member).map(|it| Left {
            name: it.name.clone(),
            // Where rules alone have kept members apart, the kernel does not know which.
            isolated: it.isolated || bridged_pass(),
        });
        let kernel = InKernel {
            left: left.collect(),
            adopted,
            bridge,
            rules: None,
            plain,
        };
        match made {
            Ok(tap) => Ok(Some((kernel, tap))),
            Err(error) => {
                self.undo_in_kernel(plan.uuid, &kernel);
                Err(refused(error))
            }
        }
    }

    /// Gives a lane its trunk. If either cannot be, neither is.
    pub(super) fn enter_kernel(
        &mut self,
        network: Uuid,
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
                self.undo_in_kernel(network, &kernel);
                Err(error)
            }
        }
    }

    /// Sets the rules of a network as they are to be now, if they are others, and has interfaces forward as it needs.
    pub(super) fn rule(&mut self, network: Uuid) -> Result<(), ServiceError> {
        let running = self.networks.get(&network);
        if running.is_none_or(|running| running.kernel.is_none()) {
            return Ok(());
        }
        self.set_rules(network)?;
        self.follow_forwarding()
    }

    /// Sets the rules of a network as they are to be now, if they are others.
    pub(super) fn set_rules(&mut self, network: Uuid) -> Result<(), ServiceError> {
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
        rules.members = self.members_of(network, kernel);
        rules.isolated = self.isolated_members(network, kernel);
        rules.bridged_pass = bridged_pass();
        let others = self.networks.iter().filter(|(uuid, _)| **uuid != network);
        rules.others = others
            .filter_map(|(_, other)| Some(other.kernel.as_ref()?.bridge.to_string()))
            .collect();
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
        self.route_by(network)
    }

    /// Every member of a network's bridge, in order.
    fn members_of(&self, network: Uuid, kernel: &InKernel) -> Vec<String> {
        let own = self.members(network).map(|(name, _)| name.to_string());
        let left = kernel.left.iter().map(|it| it.name.clone());
        let trunk = [kernel.plain.trunk.clone()];
        let all: BTreeSet<String> = own.chain(left).chain(trunk).collect();
        all.into_iter().collect()
    }

    /// Members that are apart from all others, in order.
    fn isolated_members(&self, network: Uuid, kernel: &InKernel) -> Vec<String> {
        let mut isolated = BTreeSet::new();
        if kernel.plain.isolation {
            return Vec::new();
        }
        let left = kernel.left.iter().filter(|left| left.isolated);
        isolated.extend(left.map(|left| left.name.clone()));
        // Who has come again, or has a name that is free since, says itself what it is to be.
        for (name, member) in self.members(network) {
            if member.isolated {
                isolated.insert(name.to_string());
            } else {
                isolated.remove(name.as_str());
            }
        }
        isolated.into_iter().collect()
    }

    /// Has those interfaces forward that networks need, and no others.
    pub(super) fn follow_forwarding(&mut self) -> Result<(), ServiceError> {
        let mut wanted = Forwarding::default();
        let mut used: Option<Forwarding> = None;
        for kernel in self
            .networks
            .values()
            .filter_map(|running| running.kernel.as_ref())
        {
            wanted.bridges.insert(kernel.bridge.clone());
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
                        ..Forwarding::default()
                    }
                }
                _ => match &used {
                    Some(used) => used.clone(),
                    None => {
                        let links = self.helper(WHAT)?.links().map_err(refused)?;
                        used.insert(in_use(&links)?).clone()
                    }
                },
            };
            wanted.v4.extend(by.v4.into_iter().filter(|_| v4));
            wanted.v6.extend(by.v6.into_iter().filter(|_| v6));
        }
        let all = wanted.v4.union(&wanted.v6);
        wanted.numbers = all.filter_map(|name| link_index(name).ok()).collect();
        // Guests of a network that could not be started again still use what was switched on for it.
        if wanted.bridges.is_empty() && !self.left_alone.is_empty()
            || self.forwarding.as_ref() == Some(&wanted)
        {
            return Ok(());
        }
        let request = Request::Forwarding {
            v4: wanted.v4.iter().cloned().collect(),
            v6: wanted.v6.iter().cloned().collect(),
            bridges: wanted.bridges.iter().cloned().collect(),
        };
        let done = self.helper(WHAT)?.done(&request).map_err(refused);
        // What has failed is asked for again while a network needs it.
        self.forwarding = (done.is_ok() || wanted.bridges.is_empty()).then_some(wanted);
        done
    }

    /// Takes back what a start that failed has made. Its tap goes with its descriptor; a bridge that was there before is left to
    /// those who are on it, with its rules and forwarding, until the network can be started again.
    pub(super) fn undo_in_kernel(&mut self, network: Uuid, kernel: &InKernel) {
        if kernel.adopted {
            self.left_alone.insert(network);
        } else {
            self.end_in_kernel(kernel);
        }
    }

    /// Removes what an earlier service has left of a network that is not to be started again.
    pub(super) fn remove_left_alone(&mut self, network: Uuid) {
        if !self.left_alone.remove(&network) {
            return;
        }
        let removed = self.helper(WHAT).and_then(|mut helper| {
            let links = helper.links().map_err(refused)?;
            let wanted = Some(mark(network, BRIDGE));
            match links.iter().find(|link| link.mark == wanted) {
                Some(bridge) => remove(&mut helper, &named(&bridge.name)?).map_err(refused),
                None => Ok(()),
            }
        });
        if let Err(error) = removed.and_then(|()| self.follow_forwarding()) {
            tracing::warn!(%network, %error, "what an earlier service has left stays");
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
    helper.done(&Request::RouteBy {
        bridge: bridge.clone(),
        external: None,
    })?;
    helper.delete_link(bridge.clone())
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

pub(super) fn named(name: &str) -> Result<LinkName, ServiceError> {
    name.parse().map_err(|_| ServiceError::Failed {
        reason: format!("{name} cannot be the name of an interface of ours: somebody renamed it"),
    })
}

pub(super) fn mark(network: Uuid, role: &str) -> Mark {
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
        isolated: Vec::new(),
        bridged_pass: false,
        external: plan.external_interface.clone(),
        others: Vec::new(),
        members: Vec::new(),
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

/// Whether bridged packets pass the rules of routed ones, of either family.
fn bridged_pass() -> bool {
    ["iptables", "ip6tables"].iter().any(|rules| {
        let value = sysctl::read(&format!("net.bridge.bridge-nf-call-{rules}"));
        value.is_some_and(|value| value != "0")
    })
}

/// Interfaces of the host by which packets of each family come: those with an address that others than the link know. Asked
/// for every half second, so routes are none of its concern: there may be a million.
fn in_use(links: &[Link]) -> Result<Forwarding, ServiceError> {
    let addresses = Routes::open().and_then(|mut routes| routes.addresses());
    let addresses = addresses.map_err(|error| super::failed(&error))?;
    Ok(used(links, &addresses))
}

fn used(links: &[Link], addresses: &[Address]) -> Forwarding {
    let mut used = Forwarding::default();
    for one in addresses {
        let link = links.iter().find(|link| link.index == one.link);
        let Some(link) = link.filter(|link| link.name != "lo" && link.mark.is_none()) else {
            continue;
        };
        let family = match one.address {
            IpAddr::V4(_) => &mut used.v4,
            IpAddr::V6(address) if address.is_unicast_link_local() => continue,
            IpAddr::V6(_) => &mut used.v6,
        };
        family.insert(link.name.clone());
    }
    used
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
            isolated: false,
        }
    }

    #[test]
    fn packets_come_by_all_interfaces_with_an_address_but_ours() {
        let own = Link {
            index: 3,
            mark: Some(mark(Uuid::from_u128(7), BRIDGE)),
            ..link("vmnet0")
        };
        let at = |index, name| Link {
            index,
            ..link(name)
        };
        // Called as ours are, and somebody else's.
        let links = [
            at(1, "lo"),
            at(2, "eth0"),
            own,
            at(4, "vmnet8"),
            at(5, "wg0"),
        ];
        let addresses: Vec<Address> = [
            (1, "127.0.0.1", 8),
            (2, "10.0.0.7", 24),
            (2, "fe80::7", 64),
            (3, "192.168.64.1", 24),
            (4, "172.16.8.1", 24),
            (5, "2001:db8::5", 64),
            (9, "10.9.9.9", 24),
        ]
        .into_iter()
        .map(|(link, address, prefix_len)| Address {
            link,
            address: address.parse().unwrap(),
            prefix_len,
        })
        .collect();
        let used = used(&links, &addresses);
        let names = |set: BTreeSet<String>| set.into_iter().collect::<Vec<_>>();
        assert_eq!(names(used.v4), ["eth0", "vmnet8"]);
        assert_eq!(names(used.v6), ["wg0"]);
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
