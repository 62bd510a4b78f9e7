//! Taps on the bridge of a network that the kernel carries: made for a VMM, made members, and ended.

use super::Supervisor;
use super::in_kernel::{GUEST, WHAT, mark, named, refused};
use crate::privileged::client::HelperError;
use crate::privileged::name::{LinkName, Mark};
use crate::privileged::request::{Link, Request, Why};
use openvmnet::service::ServiceError;
use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, OwnedFd};
use uuid::Uuid;
use vmnet_linux::kernel::tap;

/// Taps that a bridge may have.
const MEMBERS_MAX: u32 = 1000;
/// Queues of a guest's tap.
const QUEUES_MAX: u64 = 16;

impl Supervisor {
    /// Makes a tap for a guest of a network, which is no member of its bridge yet, and opens so many queues of it.
    pub(crate) fn open_tap(
        &mut self,
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
        // A name is given again when its tap has gone, with its interface.
        self.prune(network);
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
        if self.members(network).any(|(other, _)| *other == member) {
            return Err(ServiceError::InUse {
                reason: format!("the tap {name} is an interface already: open another"),
            });
        }
        let request = Request::BridgeJoin {
            member: member.clone(),
            bridge,
            isolated,
            station: None,
        };
        let joined = helper.join(&request, tap.as_fd());
        joined.map(|()| member).map_err(|error| match error {
            HelperError::Refused(refusal) if refusal.why == Why::Forbidden => {
                ServiceError::InvalidArgument {
                    reason: refusal.reason,
                }
            }
            error => refused(error),
        })
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
}
