//! Requests that may be, carried out by `vmnet_linux::kernel`.

use super::check::{Bridging, Kernel, Permitted, mark_of};
use super::name::Mark;
use super::request::{Answer, Link, Refusal, Why};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use vmnet_linux::kernel::bridge::{self, BridgeError};
use vmnet_linux::kernel::bridging::{self, BridgingError};
use vmnet_linux::kernel::forwarding::{self, Wanted};
use vmnet_linux::kernel::link;
use vmnet_linux::kernel::nft::{self, NftError, Record, Rules, generation, opening};
use vmnet_linux::kernel::nics::{self, Nic};
use vmnet_linux::kernel::policy_routing;
use vmnet_linux::kernel::route::{Address, RouteError, Routes};
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

    fn addresses(&self) -> Result<Vec<Address>, Refusal> {
        let addresses = Routes::open().and_then(|mut routes| routes.addresses());
        addresses.map_err(refused_by_route)
    }

    fn links(&self) -> Result<Vec<link::Link>, Refusal> {
        link::list().map_err(refused_by_route)
    }
}

/// What this helper has written down in the host's rules last, should somebody flush them. All else is read off the kernel.
#[derive(Debug, Default)]
pub struct Written {
    record: Record,
    /// What an earlier helper has written down has been read.
    read: bool,
    /// Bridges whose rules this helper has set. They keep apart what is of none of our networks.
    carriers: BTreeSet<String>,
}

impl Written {
    /// What is switched on.
    fn record(&mut self) -> Result<&Record, NftError> {
        if !self.read {
            self.record = nft::forwarding::read()?;
            self.read = true;
        }
        Ok(&self.record)
    }
}

/// Does what is permitted; answers with the descriptor that stands beside the answer, if one does.
///
/// # Errors
/// The host refused.
pub fn perform(
    permitted: Permitted,
    written: &mut Written,
) -> Result<(Answer, Option<OwnedFd>), Refusal> {
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
            note_isolation(&member, isolated).map_err(refused_by_route)?;
            let fixed = station.map_or(Ok(()), |station| bridge::fix(&member, station));
            done(fixed.map_err(refused_by_bridge))
        }
        Permitted::RulesSet(rules) => done(set_rules(&rules, written)),
        Permitted::RulesRemove(bridge) => {
            let name = bridge.as_str();
            bridge::reach_from_loopback(name, false).map_err(refused_by_bridge)?;
            written.carriers.remove(name);
            let carriers = standing(&written.carriers).map_err(refused_by_host)?;
            let record = written.record().map_err(refused_by_host)?;
            done(nft::remove(name, record, &carriers).map_err(refused_by_host))
        }
        Permitted::RulesGeneration => {
            let number = generation::current().map_err(refused_by_host)?;
            Ok((Answer::Generation(number), None))
        }
        Permitted::RulesStanding => {
            let standing = nft::standing().map_err(refused_by_host)?;
            Ok((Answer::Standing(standing), None))
        }
        Permitted::RouteBy(bridge, external) => {
            let routed = policy_routing::follow(bridge.as_str(), external.as_deref());
            done(routed.map_err(refused_by_route))
        }
        Permitted::Forwarding { v4, v6, bridges } => {
            let wanted = Wanted {
                v4: v4.into_iter().collect(),
                v6: v6.into_iter().collect(),
            };
            let each = forwarding::has_switch_each();
            let carriers = standing(&written.carriers).map_err(refused_by_host)?;
            forwarding::follow(&wanted, each, &mut written.record, &carriers)
                .map_err(refused_by_host)?;
            written.read = true;
            let bridges = bridges.into_iter().map(String::from).collect();
            done(opening::follow(&bridges).map_err(refused_by_host))
        }
        Permitted::Bridging(nic, way) => {
            let opened = get_onto(&nic, way).map_err(refused_by_bridging)?;
            Ok((Answer::Opened, Some(opened)))
        }
    }
}

/// The loopback is opened to forwarded ports behind the rules that keep it from guests, and closed before they go.
fn set_rules(rules: &Rules, written: &mut Written) -> Result<(), Refusal> {
    let lets = rules.opens_loopback();
    if rules.loopback_open {
        bridge::keep_all_from_loopback(&rules.bridge).map_err(refused_by_bridge)?;
    }
    let reach = |lets| bridge::reach_from_loopback(&rules.bridge, lets).map_err(refused_by_bridge);
    if !lets {
        reach(false)?;
    }
    let isolates = rules.isolation || !rules.isolated.is_empty();
    let isolate = |on| {
        let of = |member: &str| rules.isolates(member);
        bridge::isolate(&rules.bridge, on, of).map_err(refused_by_bridge)
    };
    // One of the two always keeps members apart: the bridge before rules do no more, and rules before the bridge does no more.
    if isolates {
        isolate(true)?;
    }
    let others = standing(&written.carriers).map_err(refused_by_host)?;
    let record = written.record().map_err(refused_by_host)?;
    nft::apply(rules, record, &others).map_err(refused_by_host)?;
    written.carriers.insert(rules.bridge.clone());
    if isolates {
        isolate(false)?;
    }
    if lets { reach(true) } else { Ok(()) }
}

/// Those of these bridges whose rules are there: somebody may have removed them.
fn standing(bridges: &BTreeSet<String>) -> Result<BTreeSet<String>, NftError> {
    if bridges.is_empty() {
        return Ok(BTreeSet::new());
    }
    Ok(nft::standing()?.intersection(bridges).cloned().collect())
}

/// What the role of a member ends with that is apart from others.
const APART: &str = "-apart";

/// Notes at a member whether it is apart: rules alone may keep it so, and are not read when a service takes it over.
fn note_isolation(member: &link::Link, isolated: bool) -> Result<(), RouteError> {
    let Some(mut mark) = mark_of(member) else {
        return Ok(());
    };
    let role = mark.role.as_str();
    let plain = role.strip_suffix(APART).unwrap_or(role);
    let role = format!("{plain}{}", if isolated { APART } else { "" });
    match role.parse() {
        Ok(role) if role != mark.role => {
            mark.role = role;
            link::set_alias(member.index, &mark.to_string())
        }
        _ => Ok(()),
    }
}

/// Refuses a descriptor that is not that of this tap.
pub(super) fn is_behind(descriptor: &OwnedFd, member: &link::Link) -> Result<(), Refusal> {
    match tap::is_of(descriptor, &member.name) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Refusal::forbidden(format!(
            "the descriptor is not that of the tap {}",
            member.name
        ))),
        Err(error) => Err(Refusal::new(
            why(&error),
            format!("whose the tap {} is cannot be told: {error}", member.name),
        )),
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
    policy_routing::sweep().map_err(refused_by_route)?;
    for left in link::list().map_err(refused_by_route)? {
        if link::is_left_half_made(&left) {
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
    let mark = mark_of(&link);
    let is_apart = |mark: &Mark| mark.role.as_str().ends_with(APART);
    Link {
        isolated: link.isolated || mark.as_ref().is_some_and(is_apart),
        mark,
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
