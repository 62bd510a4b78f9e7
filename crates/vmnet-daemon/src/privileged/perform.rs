//! Requests that may be, carried out by `vmnet_linux::kernel`.

use super::check::{Bridging, Kernel, Permitted, mark_of};
use super::request::{Answer, Link, Refusal, Why};
use std::io;
use std::os::fd::OwnedFd;
use vmnet_linux::kernel::bridge::{self, BridgeError};
use vmnet_linux::kernel::bridging::{self, BridgingError};
use vmnet_linux::kernel::forwarding::{self, Wanted};
use vmnet_linux::kernel::link;
use vmnet_linux::kernel::nft::{self, generation, opening};
use vmnet_linux::kernel::nics::{self, Nic};
use vmnet_linux::kernel::route::RouteError;
use vmnet_linux::kernel::tap::{self, TapError};
use vmnet_linux::sys::lan_socket;

/// The kernel that this process runs on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Host;

impl Kernel for Host {
    fn link(&self, name: &str) -> Result<Option<link::Link>, Refusal> {
        link::find(name).map_err(refused_by_route)
    }

    fn nic(&self, name: &str) -> Result<Option<Nic>, Refusal> {
        let all = nics::all().map_err(refused_by_route)?;
        Ok(all.into_iter().find(|nic| nic.name == name))
    }
}

/// Does what is permitted; answers with the descriptor that stands beside the answer, if one does.
///
/// # Errors
/// The host refused.
pub fn perform(permitted: Permitted) -> Result<(Answer, Option<OwnedFd>), Refusal> {
    match permitted {
        Permitted::LinkList => {
            let links = link::list().map_err(refused_by_route)?;
            let links = links.into_iter().map(told).collect();
            Ok((Answer::Links(links), None))
        }
        Permitted::LinkDelete(index) => {
            if let Some(index) = index {
                link::delete(index).map_err(refused_by_route)?;
            }
            Ok((Answer::Done, None))
        }
        Permitted::LinkSweep => sweep().map(|()| (Answer::Done, None)),
        Permitted::TapCreate { name, mark, stays } => {
            let opened = tap::create(name.as_str(), &mark.to_string(), stays);
            Ok((Answer::Opened, Some(opened.map_err(refused_by_tap)?)))
        }
        Permitted::TapOpen(name) => {
            let opened = tap::open_queue(name.as_str());
            Ok((Answer::Opened, Some(opened.map_err(refused_by_tap)?)))
        }
        Permitted::BridgeEstablish { name, mark, bridge } => {
            let made = bridge::establish(name.as_str(), &mark.to_string(), &bridge);
            done(made.map_err(refused_by_bridge))
        }
        Permitted::BridgeJoin {
            member,
            bridge,
            isolated,
            station,
        } => {
            bridge::join(&member, &bridge, isolated).map_err(refused_by_bridge)?;
            let fixed = station.map_or(Ok(()), |station| bridge::fix(&member, station));
            done(fixed.map_err(refused_by_bridge))
        }
        Permitted::RulesSet(rules) => done(nft::apply(&rules).map_err(refused_by_host)),
        Permitted::RulesRemove(bridge) => {
            done(nft::remove(bridge.as_str()).map_err(refused_by_host))
        }
        Permitted::RulesGeneration => {
            let number = generation::generation().map_err(refused_by_host)?;
            Ok((Answer::Generation(number), None))
        }
        Permitted::Forwarding { v4, v6, open } => {
            let wanted = Wanted {
                v4: v4.into_iter().collect(),
                v6: v6.into_iter().collect(),
            };
            forwarding::follow(&wanted, forwarding::has_switch_each()).map_err(refused_by_host)?;
            let rules = if open {
                opening::open()
            } else {
                opening::close()
            };
            done(rules.map_err(refused_by_host))
        }
        Permitted::Bridging(nic, way) => {
            let opened = get_onto(&nic, way).map_err(refused_by_bridging)?;
            Ok((Answer::Opened, Some(opened)))
        }
    }
}

fn get_onto(nic: &Nic, way: Bridging) -> Result<OwnedFd, BridgingError> {
    match way {
        Bridging::Join(name, mark) => bridging::bridge::join(name.as_str(), &mark.to_string(), nic),
        Bridging::Macvtap(name, mark, mac) => {
            bridging::macvtap::create(name.as_str(), &mark.to_string(), nic, mac)
        }
        Bridging::Hostward(name, mark) => {
            bridging::hostward::open(name.as_str(), &mark.to_string(), nic)
        }
        Bridging::Socket(hears) => lan_socket::open(nic.index, nic.mac, hears)
            .map_err(|error| BridgingError::Setting("a packet socket", error)),
    }
}

fn done(outcome: Result<(), Refusal>) -> Result<(Answer, Option<OwnedFd>), Refusal> {
    outcome.map(|()| (Answer::Done, None))
}

fn refused_by_bridge(error: BridgeError) -> Refusal {
    match error {
        BridgeError::Route(error) => refused_by_route(error),
        BridgeError::Gone(_) => Refusal::new(Why::Missing, error.to_string()),
        BridgeError::Setting { .. } | BridgeError::Name(_) => refused_by_host(error),
    }
}

fn refused_by_host(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(Why::Host, error.to_string())
}

fn sweep() -> Result<(), Refusal> {
    for left in link::list().map_err(refused_by_route)? {
        if link::is_provisional(&left.name) {
            link::delete(left.index).map_err(refused_by_route)?;
            tracing::info!(
                link = left.name,
                "a link that was left half made is removed"
            );
        }
    }
    Ok(())
}

fn told(link: link::Link) -> Link {
    Link {
        mark: mark_of(&link),
        index: link.index,
        name: link.name,
        kind: link.kind,
        master: link.master,
        lower: link.lower,
        up: link.up,
    }
}

fn refused_by_route(error: RouteError) -> Refusal {
    let why = match &error {
        RouteError::Refused { source, .. } => why(source),
        RouteError::Socket(_) | RouteError::Answer(_) => Why::Host,
    };
    Refusal::new(why, error.to_string())
}

fn refused_by_tap(error: TapError) -> Refusal {
    let why = match &error {
        TapError::Busy(_) => Why::InUse,
        TapError::Missing(_) => Why::Missing,
        TapError::Other { source, .. } => why(source),
        _ => Why::Host,
    };
    Refusal::new(why, error.to_string())
}

fn refused_by_bridging(error: BridgingError) -> Refusal {
    match error {
        BridgingError::Route(error) => refused_by_route(error),
        BridgingError::Tap(error) => refused_by_tap(error),
        BridgingError::Setting(_, ref source) | BridgingError::Device(_, ref source) => {
            Refusal::new(why(source), error.to_string())
        }
        BridgingError::Foreign(_) => Refusal::new(Why::InUse, error.to_string()),
    }
}

fn why(error: &io::Error) -> Why {
    match error.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::ResourceBusy => Why::InUse,
        io::ErrorKind::NotFound => Why::Missing,
        _ => Why::Host,
    }
}
