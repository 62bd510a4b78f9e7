//! Rules in the kernel follow guests and the host's interfaces, and come back when somebody has flushed them.
//!
//! Others replace the host's rules as a whole (`nft -f` with `flush ruleset`), or chains in which rules of ours let our networks
//! pass (firewalld, ufw). Each change raises the ruleset's number, which costs nothing to ask for; only then it is looked what
//! is missing. Routes are looked at when the kernel says that some have changed: there may be a million. What cannot be done is
//! told once, and tried ever more rarely.

use super::Supervisor;
use super::in_kernel::{WHAT, refused};
use crate::privileged::request::Request;
use openvmnet::service::ServiceError;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use uuid::Uuid;
use vmnet_linux::kernel::events::{Events, Of};

/// How soon the host's rules are looked through again, where others change them all the time.
const THOROUGH: Duration = Duration::from_secs(2);
/// How soon the host's routes are looked through again, where they change all the time.
const ROUTES_REST: Duration = Duration::from_secs(1);
/// How long what has failed is let be, at first and at most.
const FIRST: Duration = Duration::from_millis(500);
const LAST: Duration = Duration::from_secs(60);

/// What is known of the host's rules, and of what could not be done.
#[derive(Debug, Default)]
pub(super) struct Looking {
    /// The number of the ruleset in which all of ours stood.
    generation: Option<u32>,
    looked: Option<Instant>,
    troubles: BTreeMap<Concern, Trouble>,
    routes: RoutesWatch,
}

/// Which networks' ways to the outside are by the host's routes as they are.
#[derive(Debug, Default)]
struct RoutesWatch {
    events: Option<Events>,
    /// Something has changed that is not followed yet.
    changed: bool,
    followed: Option<Instant>,
    current: BTreeSet<Uuid>,
}

impl RoutesWatch {
    /// Some have changed, or it cannot be known. Where they change all the time, they are followed now and then.
    fn note(&mut self, changed: bool, now: Instant) {
        self.changed |= changed;
        let rests = |followed: Instant| now < followed + ROUTES_REST;
        if self.changed && !self.followed.is_some_and(rests) {
            self.changed = false;
            self.followed = Some(now);
            self.current.clear();
        }
    }
}

/// What is looked after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Concern {
    Standing,
    Network(Uuid),
    Forwarding,
}

/// Something that goes on failing.
#[derive(Debug)]
struct Trouble {
    said: String,
    again: Instant,
    wait: Duration,
}

impl Looking {
    fn may_try(&self, concern: Concern, now: Instant) -> bool {
        let trouble = self.troubles.get(&concern);
        trouble.is_none_or(|trouble| now >= trouble.again)
    }

    /// Notes what came of a try: the error, if it is another than before.
    fn note(
        &mut self,
        concern: Concern,
        outcome: Result<(), ServiceError>,
        now: Instant,
    ) -> Option<ServiceError> {
        let Err(error) = outcome else {
            if self.troubles.remove(&concern).is_some() {
                tracing::info!(?concern, "the kernel follows again");
            }
            return None;
        };
        let before = self.troubles.get(&concern);
        let wait = before.map_or(FIRST, |trouble| (trouble.wait * 2).min(LAST));
        let said = error.reason().to_owned();
        let is_told = before.is_some_and(|trouble| trouble.said == said);
        let again = now + wait;
        self.troubles.insert(concern, Trouble { said, again, wait });
        (!is_told).then_some(error)
    }

    fn forget(&mut self, gone: impl Fn(Uuid) -> bool) {
        self.routes.current.retain(|network| !gone(*network));
        (self.troubles).retain(|concern, _| !matches!(concern, Concern::Network(it) if gone(*it)));
    }
}

impl Supervisor {
    /// From now on the kernel tells when the host's routes change.
    pub(crate) fn watch_routes(&mut self) {
        let events = Events::of(&[Of::Links, Of::Addresses, Of::Routes, Of::Rules]);
        self.looking.routes.events = events
            .inspect_err(|error| {
                tracing::warn!(%error, "the kernel does not tell when routes change: they are read each second");
            })
            .ok();
    }

    /// Has what guests send to the outside leave by the interface that was chosen, if one was, by its routes as they are now.
    pub(super) fn route_by(&mut self, network: Uuid) -> Result<(), ServiceError> {
        let kernel = self.running(network)?.kernel.as_ref();
        let Some((kernel, external)) = kernel.and_then(|it| Some((it, it.external()?))) else {
            return Ok(());
        };
        if self.looking.routes.current.contains(&network) {
            return Ok(());
        }
        let request = Request::RouteBy {
            bridge: kernel.bridge.clone(),
            external: Some(external.to_owned()),
        };
        self.helper(WHAT)?.done(&request).map_err(refused)?;
        self.looking.routes.current.insert(network);
        Ok(())
    }

    /// A network begins or ends: what is known of its way to the outside is so no more.
    pub(super) fn forget_route(&mut self, network: Uuid) {
        self.looking.routes.current.remove(&network);
    }

    /// Looks whether guests have moved, the host has other interfaces, or somebody has flushed rules. To be called now and then.
    pub(crate) fn look_at_kernel(&mut self) {
        let all: Vec<Uuid> = self
            .networks
            .iter()
            .filter(|(_, running)| running.kernel.is_some())
            .map(|(uuid, _)| *uuid)
            .collect();
        self.looking.forget(|network| !all.contains(&network));
        let events = self.looking.routes.events.as_ref();
        let changed = events.is_none_or(Events::were_told);
        self.looking.routes.note(changed, Instant::now());
        if !all.is_empty() {
            self.look_after(Concern::Standing);
        }
        for network in all {
            self.look_after(Concern::Network(network));
        }
        // An earlier service may have left something switched on.
        self.look_after(Concern::Forwarding);
    }

    fn look_after(&mut self, concern: Concern) {
        if !self.looking.may_try(concern, Instant::now()) {
            return;
        }
        let outcome = match concern {
            Concern::Standing => self.look_at_rules(),
            Concern::Network(network) => self.set_rules(network),
            Concern::Forwarding => self.follow_forwarding(),
        };
        if let Some(error) = self.looking.note(concern, outcome, Instant::now()) {
            tracing::error!(?concern, %error, "the kernel cannot follow");
        }
    }

    /// Has rules set again that are gone.
    fn look_at_rules(&mut self) -> Result<(), ServiceError> {
        let generation = self.helper(WHAT)?.rules_generation().map_err(refused)?;
        let soon = |looked: Instant| looked.elapsed() < THOROUGH;
        if self.looking.generation == Some(generation) || self.looking.looked.is_some_and(soon) {
            return Ok(());
        }
        self.looking.looked = Some(Instant::now());
        let standing = self.helper(WHAT)?.rules_standing().map_err(refused)?;
        let mut all_stand = true;
        for running in self.networks.values_mut() {
            let Some(kernel) = &mut running.kernel else {
                continue;
            };
            if kernel.rules.is_some() && !standing.contains(kernel.bridge.as_str()) {
                tracing::warn!(
                    network = running.plan.label(),
                    "somebody has removed the network's rules: they are set again"
                );
                kernel.rules = None;
                all_stand = false;
            }
        }
        // What is missing there the helper finds itself, and changes nothing where nothing is.
        self.forwarding = None;
        self.follow_forwarding()?;
        // What was changed meanwhile, by us or by others, has another number: it is looked at once more.
        self.looking.generation = Some(generation).filter(|_| all_stand);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_followed_at_once_and_then_once_a_second() {
        let network = Uuid::from_u128(1);
        let mut routes = RoutesWatch::default();
        let start = Instant::now();
        let mut follows = |after: u64, changed| {
            routes.note(changed, start + Duration::from_millis(after));
            routes.current.insert(network)
        };
        assert!(follows(0, false), "it has none yet");
        assert!(!follows(100, false));
        assert!(follows(200, true));
        assert!(!follows(300, true), "they change all the time");
        assert!(!follows(400, false));
        assert!(follows(1300, false), "what had to wait");
        assert!(!follows(9000, false));
        assert!(follows(9001, true));
    }

    #[test]
    fn what_goes_on_failing_is_told_once_and_tried_ever_more_rarely() {
        let mut looking = Looking::default();
        let concern = Concern::Network(Uuid::from_u128(1));
        let fail = |reason: &str| {
            Err(ServiceError::Failed {
                reason: reason.to_owned(),
            })
        };
        let start = Instant::now();
        let (mut now, mut tries, mut told) = (start, 0, 0);
        while now < start + Duration::from_secs(3600) {
            if looking.may_try(concern, now) {
                tries += 1;
                told += usize::from(looking.note(concern, fail("nft is gone"), now).is_some());
            }
            now += FIRST;
        }
        assert_eq!(told, 1);
        assert!((60..80).contains(&tries), "{tries}");
        assert!(looking.may_try(Concern::Forwarding, now), "that is another");
        // Another reason is news, and so is the same after it went well.
        now += LAST;
        assert!(looking.note(concern, fail("no rights"), now).is_some());
        assert!(looking.note(concern, Ok(()), now).is_none());
        assert!(looking.may_try(concern, now));
        assert!(looking.note(concern, fail("no rights"), now).is_some());
        looking.forget(|network| network == Uuid::from_u128(1));
        assert!(looking.may_try(concern, now));
    }
}
