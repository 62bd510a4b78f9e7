//! Which interfaces of the host forward packets: those by which packets of networks come, as long as there are such networks.

use super::{WHAT, refused};
use crate::privileged::name::LinkName;
use crate::privileged::request::{Link, Request};
use crate::supervisor::Supervisor;
use openvmnet::service::ServiceError;
use std::collections::BTreeSet;
use std::net::IpAddr;
use vmnet_linux::kernel::route::{Address, Routes, link_index};

/// Interfaces that forward for us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::supervisor) struct Forwarding {
    pub(super) v4: BTreeSet<String>,
    pub(super) v6: BTreeSet<String>,
    /// Their numbers: one that has gone and come back has another.
    numbers: BTreeSet<u32>,
    bridges: BTreeSet<LinkName>,
}

impl Supervisor {
    /// Has those interfaces forward that networks need, and no others.
    pub(in crate::supervisor) fn follow_forwarding(&mut self) -> Result<(), ServiceError> {
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
}

/// Interfaces of the host by which packets of each family come: those with an address that others than the link know. Asked
/// for every half second, so routes are none of its concern: there may be a million.
fn in_use(links: &[Link]) -> Result<Forwarding, ServiceError> {
    let addresses = Routes::open().and_then(|mut routes| routes.addresses());
    let addresses = addresses.map_err(|error| crate::supervisor::failed(&error))?;
    Ok(used(links, &addresses))
}

pub(super) fn used(links: &[Link], addresses: &[Address]) -> Forwarding {
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
