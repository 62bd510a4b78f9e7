//! Networks whose frames the kernel carries: a bridge with the host's addresses, taps as its members, and rules.
//!
//! The lane has the gateway's services, and guests that come by sockets and rings; one tap of the bridge leads to it, the
//! trunk. What is in the kernel is left there when the service is killed, and taken over by the next one: the bridge is known
//! by its mark, its members by their names.
//!
//! | file | what |
//! | --- | --- |
//! | `desired` | what a network is to be in the kernel |
//! | `forwarding` | which interfaces of the host forward packets |

mod desired;
mod forwarding;

use super::interface::{Member, Place};
use super::{Supervisor, chain};
use crate::plan::Plan;
use crate::privileged::client::{Helper, HelperError};
use crate::privileged::name::{LinkName, Mark, Role};
use crate::privileged::request::{Link, Request, Why};
use openvmnet::service::{Datapath, ServiceError};
use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, OwnedFd};
use uuid::Uuid;
use vmnet_linux::kernel::nft::{PREFIX, Rules};
use vmnet_linux::kernel::{bridge, link, sysctl};
use vmnet_linux::lane::{self, Attachment, Handle, PortOptions};

pub(super) use forwarding::Forwarding;

use desired::{forwards, rules, wanted};

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
            isolated: it.isolated,
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
        let behind = self.interfaces_on(network).map(|(_, member)| member);
        let is_behind = |member: &Member| !matches!(member.place, Place::Member(_));
        rules.isolated_behind = behind.filter(|it| is_behind(it)).any(|it| it.isolated);
        let link = link::find(kernel.bridge.as_str()).map_err(|error| super::failed(&error))?;
        rules.bridged_pass = link.as_ref().is_some_and(|it| it.bridged_pass) || bridged_pass();
        let own = |bridge: &str| !rules.opens_loopback() && bridge::is_open(bridge);
        rules.loopback_open = bridge::is_open("all") || own(kernel.bridge.as_str());
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

/// Whether bridged packets pass the rules of routed ones, of either family, on all bridges.
fn bridged_pass() -> bool {
    ["iptables", "ip6tables"].iter().any(|rules| {
        let value = sysctl::read(&format!("net.bridge.bridge-nf-call-{rules}"));
        value.is_some_and(|value| value != "0")
    })
}

#[cfg(test)]
mod tests;
