//! Which guest's address belongs to which MAC: what ARP and neighbour discovery know.
//!
//! Guests fill this table, and with IPv6 one may have as many addresses as it likes. So a MAC has a share, of which its
//! oldest address gives way, and a port has one that it does not exceed, however many MACs are behind it: so nobody fills
//! the table for others. Unreachability (RFC 4861 §7.3) is found without
//! timers: who uses an address that was silent for a while is told to ask for it, and an address that does not answer is
//! forgotten.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use vmnet_wire::ethernet::Mac;

use crate::outbox::PortId;

/// Guests' addresses that are remembered with their MAC.
const MAX: usize = 32_768;
/// Of one MAC.
const SHARE: usize = 16;
/// Of one port: enough for a nested network.
const PORT_SHARE: usize = 2048;
/// A neighbour that was silent for so long may have moved: it is asked for again.
const AGE: Duration = Duration::from_secs(300);
/// An IPv6 neighbour that was silent for so long is asked whether it is still there (RFC 4861 §10, `REACHABLE_TIME`).
const REACHABLE: Duration = Duration::from_secs(30);
/// How often it is asked, and how many times (RFC 4861 §10, `RETRANS_TIMER`, `MAX_UNICAST_SOLICIT`).
const PROBE: Duration = Duration::from_secs(1);
const PROBES_MAX: u8 = 3;
/// Addresses that are asked for at once while nobody is known to have them.
const ASKED_MAX: usize = 1024;
/// Aged addresses are looked for at most so often.
const SWEEP: Duration = Duration::from_secs(1);

/// Which address belongs to which MAC, and the other way round.
#[derive(Debug, Default)]
pub(crate) struct Neighbours {
    entries: HashMap<IpAddr, Entry>,
    stations: HashMap<Mac, Station>,
    /// Entries of the MACs behind each port.
    per_port: HashMap<PortId, usize>,
    /// A MAC speaks from another address than before.
    moved: bool,
    /// MACs whose IPv6 addresses are others than before.
    changed: BTreeSet<Mac>,
    swept: Option<Instant>,
    /// When addresses were last asked for that nobody is known to have.
    asked: HashMap<IpAddr, Instant>,
    /// When the old ones of these were last taken out.
    asked_since: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    mac: Mac,
    heard: Instant,
    /// Questions since then, and when the last one was asked.
    probes: u8,
    probed: Option<Instant>,
}

/// What is known of a MAC.
#[derive(Debug, Default)]
struct Station {
    /// Its entries, oldest first.
    addresses: Vec<IpAddr>,
    /// Behind which port it was when its last entry was written.
    port: Option<PortId>,
    /// From which address it spoke last.
    v4: Option<(Ipv4Addr, Instant)>,
    /// One of those that it speaks from, the same as long as it is heard.
    v6: Option<(Ipv6Addr, Instant)>,
}

/// A MAC, and the port behind which it is, if that is known.
pub(crate) type Place = (Mac, Option<PortId>);

impl Neighbours {
    /// `address` spoke from `place`.
    pub(crate) fn learn(&mut self, now: Instant, address: IpAddr, place: Place) {
        if self.enter(now, address, place) {
            self.speaks(now, address, place.0);
        }
    }

    /// A MAC is about to take an address, if nobody else has it (RFC 4862 §5.4): it may never speak from it unasked.
    pub(crate) fn suggest(&mut self, now: Instant, address: IpAddr, place: Place) {
        let others = |entry: &Entry| entry.mac != place.0 && is_young(now, entry.heard);
        if !self.entries.get(&address).is_some_and(others) {
            self.learn(now, address, place);
        }
    }

    /// An address is given to a MAC: whoever else spoke from it or wanted it has it no more.
    pub(crate) fn hand_over(&mut self, now: Instant, address: IpAddr, place: Place) {
        let others = |entry: &Entry| entry.mac != place.0;
        if self.entries.get(&address).is_some_and(others) {
            self.learn(now, address, place);
        }
    }

    /// The MAC that has an address.
    pub(crate) fn look_up(&self, now: Instant, address: IpAddr) -> Option<Mac> {
        let entry = self.entries.get(&address)?;
        is_young(now, entry.heard).then_some(entry.mac)
    }

    /// The IPv4 address from which a MAC spoke last.
    pub(crate) fn address_of(&self, now: Instant, mac: Mac) -> Option<Ipv4Addr> {
        let (address, heard) = self.stations.get(&mac)?.v4?;
        is_young(now, heard).then_some(address)
    }

    /// An IPv6 address of a MAC that others can answer to: none of the link alone.
    pub(crate) fn address6_of(&self, now: Instant, mac: Mac) -> Option<Ipv6Addr> {
        let station = self.stations.get(&mac)?;
        let known = station.v6.filter(|(_, heard)| is_young(now, *heard));
        known.map(|(address, _)| address).or_else(|| {
            let heard = |address: &IpAddr| self.entries.get(address).map(|entry| entry.heard);
            let global = station
                .addresses
                .iter()
                .filter_map(|address| match address {
                    IpAddr::V6(v6) if is_global(*v6) => Some((heard(address)?, *v6)),
                    _ => None,
                });
            let young = global.filter(|(heard, _)| is_young(now, *heard));
            young.max().map(|(_, address)| address)
        })
    }

    /// The one of them that was heard last, however long ago: whoever uses it has to ask where it is.
    pub(crate) fn aged6_of(&self, mac: Mac) -> Option<Ipv6Addr> {
        let addresses = self.stations.get(&mac)?.addresses.iter();
        let global = addresses.filter_map(|address| match address {
            IpAddr::V6(v6) if is_global(*v6) => Some((self.entries.get(address)?.heard, *v6)),
            _ => None,
        });
        global.max().map(|(_, address)| address)
    }

    /// The IPv6 addresses of a MAC that others can answer to, the one that [`address6_of`](Self::address6_of) names first.
    pub(crate) fn addresses6_of(&self, now: Instant, mac: Mac) -> Vec<Ipv6Addr> {
        let first = self.address6_of(now, mac);
        let station = self.stations.get(&mac);
        let all = station.into_iter().flat_map(|station| &station.addresses);
        let others = all.filter_map(|address| match address {
            IpAddr::V6(v6) if is_global(*v6) => {
                let heard = self.entries.get(address)?.heard;
                (is_young(now, heard) && first != Some(*v6)).then_some(*v6)
            }
            _ => None,
        });
        first.into_iter().chain(others).collect()
    }

    /// MACs whose IPv6 addresses are others than before, since the last question.
    pub(crate) fn take_changed(&mut self) -> BTreeSet<Mac> {
        core::mem::take(&mut self.changed)
    }

    /// An address is about to be used that was silent for a while: it is to be asked for. If it never answers, it is
    /// forgotten.
    pub(crate) fn wants_probe(&mut self, now: Instant, address: IpAddr) -> bool {
        let Some(entry) = self.entries.get_mut(&address) else {
            return false;
        };
        let waits = |since: Instant, wait| now.saturating_duration_since(since) < wait;
        if waits(entry.heard, REACHABLE) || entry.probed.is_some_and(|at| waits(at, PROBE)) {
            return false;
        }
        if entry.probes >= PROBES_MAX {
            self.forget(address);
            return false;
        }
        (entry.probes, entry.probed) = (entry.probes + 1, Some(now));
        true
    }

    /// An address is to be asked for that nobody is known to have: at most once a second (RFC 4861 §7.2.2, RFC 1122
    /// §2.3.2.1). While very many are asked for, others have to wait.
    pub(crate) fn wants_question(&mut self, now: Instant, address: IpAddr) -> bool {
        let lately = |at: &Instant| now.saturating_duration_since(*at) < PROBE;
        if self.asked.get(&address).is_some_and(lately) {
            return false;
        }
        if self.asked.len() >= ASKED_MAX && !self.asked.contains_key(&address) {
            if self.asked_since.is_some_and(|since| lately(&since)) {
                return false;
            }
            self.asked.retain(|_, at| lately(at));
            self.asked_since = Some(now);
            if self.asked.len() >= ASKED_MAX {
                return false;
            }
        }
        self.asked.insert(address, now);
        true
    }

    /// Whether a MAC speaks from another address than before, since the last question.
    pub(crate) fn take_moved(&mut self) -> bool {
        core::mem::take(&mut self.moved)
    }

    /// Writes down who has an address; answers whether there was room.
    fn enter(&mut self, now: Instant, address: IpAddr, (mac, port): Place) -> bool {
        if let Some(entry) = self.entries.get_mut(&address) {
            let before = core::mem::replace(&mut entry.mac, mac);
            (entry.heard, entry.probes, entry.probed) = (now, 0, None);
            if before != mac {
                self.leave(before, address);
                self.join((mac, port), address);
            }
            return true;
        }
        if !self.has_room(port) {
            self.sweep(now);
            if !self.has_room(port) {
                return false;
            }
        }
        let entry = Entry {
            mac,
            heard: now,
            probes: 0,
            probed: None,
        };
        self.entries.insert(address, entry);
        self.join((mac, port), address);
        true
    }

    fn has_room(&self, port: Option<PortId>) -> bool {
        let had = port.and_then(|port| self.per_port.get(&port));
        self.entries.len() < MAX && had.is_none_or(|had| *had < PORT_SHARE)
    }

    /// So many entries more are of a port, or fewer.
    fn count(&mut self, port: Option<PortId>, change: isize) {
        let Some(port) = port else { return };
        let had = self.per_port.entry(port).or_default();
        *had = had.saturating_add_signed(change);
        if *had == 0 {
            self.per_port.remove(&port);
        }
    }

    fn speaks(&mut self, now: Instant, address: IpAddr, mac: Mac) {
        let Some(station) = self.stations.get_mut(&mac) else {
            return;
        };
        match address {
            IpAddr::V4(address) => {
                let before = station.v4.replace((address, now));
                self.moved |= before.is_none_or(|(before, _)| before != address);
            }
            // Guests speak from several at once; rules are not to follow every packet.
            IpAddr::V6(address) if is_global(address) => match &mut station.v6 {
                Some((known, heard)) if *known == address => *heard = now,
                Some((_, heard)) if is_young(now, *heard) => {}
                place => {
                    *place = Some((address, now));
                    self.moved = true;
                    self.changed.insert(mac);
                }
            },
            IpAddr::V6(_) => {}
        }
    }

    fn join(&mut self, (mac, port): Place, address: IpAddr) {
        if address.is_ipv6() {
            self.changed.insert(mac);
        }
        let station = self.stations.entry(mac).or_default();
        // Where it is now, all that it has counts.
        let before = core::mem::replace(&mut station.port, port);
        let had = isize::try_from(station.addresses.len()).unwrap_or(isize::MAX);
        station.addresses.push(address);
        let mut more = 1;
        if station.addresses.len() > SHARE {
            // That which rules follow stays.
            let kept = station.v6.map(|(address, _)| IpAddr::V6(address));
            let oldest = station
                .addresses
                .iter()
                .position(|address| Some(*address) != kept);
            let oldest = station.addresses.remove(oldest.unwrap_or(0));
            self.entries.remove(&oldest);
            more = 0;
        }
        self.count(before, -had);
        self.count(port, had + more);
    }

    /// An address is not that of `mac` any more.
    fn leave(&mut self, mac: Mac, address: IpAddr) {
        if address.is_ipv6() {
            self.changed.insert(mac);
        }
        let Some(station) = self.stations.get_mut(&mac) else {
            return;
        };
        let had = station.addresses.len();
        station.addresses.retain(|other| *other != address);
        let (fewer, port) = (had - station.addresses.len(), station.port);
        if station.v6.is_some_and(|(v6, _)| IpAddr::V6(v6) == address) {
            station.v6 = None;
            self.moved = true;
        }
        if station.addresses.is_empty() {
            self.stations.remove(&mac);
        }
        self.count(port, -isize::try_from(fewer).unwrap_or(0));
    }

    fn forget(&mut self, address: IpAddr) {
        if let Some(entry) = self.entries.remove(&address) {
            self.leave(entry.mac, address);
        }
    }

    fn sweep(&mut self, now: Instant) {
        let lately = |swept| now.saturating_duration_since(swept) < SWEEP;
        if self.swept.is_some_and(lately) {
            return;
        }
        self.swept = Some(now);
        let old: Vec<IpAddr> = self
            .entries
            .iter()
            .filter(|(_, entry)| !is_young(now, entry.heard))
            .map(|(address, _)| *address)
            .collect();
        old.into_iter().for_each(|address| self.forget(address));
    }
}

fn is_young(now: Instant, heard: Instant) -> bool {
    now.saturating_duration_since(heard) < AGE
}

fn is_global(address: Ipv6Addr) -> bool {
    !address.is_unicast_link_local()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(number: u16) -> Mac {
        let [a, b] = number.to_be_bytes();
        Mac([2, 0, 0, 0, a, b])
    }

    fn at(mac: Mac) -> Place {
        (mac, None)
    }

    fn v6(number: u16) -> IpAddr {
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number))
    }

    #[test]
    fn a_mac_with_many_addresses_loses_its_own() {
        let now = Instant::now();
        let mut neighbours = Neighbours::default();
        neighbours.learn(now, v6(9999), at(mac(2)));
        for number in 0..1000 {
            neighbours.learn(now, v6(number), at(mac(1)));
        }
        assert_eq!(neighbours.entries.len(), SHARE + 1);
        assert_eq!(neighbours.look_up(now, v6(9999)), Some(mac(2)));
        assert_eq!(neighbours.look_up(now, v6(999)), Some(mac(1)));
        assert_eq!(neighbours.look_up(now, v6(1)), None);
        // That which rules follow stays.
        assert_eq!(neighbours.look_up(now, v6(0)), Some(mac(1)));
    }

    #[test]
    fn a_full_table_keeps_what_it_has_and_forgets_what_has_aged() {
        let now = Instant::now();
        let mut neighbours = Neighbours::default();
        let count = u32::try_from(MAX).unwrap();
        let address =
            |number: u32| IpAddr::V6(Ipv6Addr::from_bits(0xfd00 << 112 | u128::from(number)));
        for number in 0..count + 10 {
            let [_, _, a, b] = (number / 16).to_be_bytes();
            neighbours.learn(now, address(number), at(mac(u16::from_be_bytes([a, b]))));
        }
        assert_eq!(neighbours.entries.len(), MAX);
        assert_eq!(neighbours.look_up(now, address(count)), None);
        let later = now + AGE;
        neighbours.learn(later, address(count), at(mac(1)));
        assert_eq!(neighbours.look_up(later, address(count)), Some(mac(1)));
        assert_eq!(
            (neighbours.entries.len(), neighbours.stations.len()),
            (1, 1)
        );
    }

    #[test]
    fn a_port_with_many_macs_leaves_room_for_others() {
        let now = Instant::now();
        let mut neighbours = Neighbours::default();
        let mut ports = slotmap::SlotMap::<PortId, ()>::with_key();
        let (hostile, other) = (ports.insert(()), ports.insert(()));
        let address =
            |number: u32| IpAddr::V6(Ipv6Addr::from_bits(0xfd00 << 112 | u128::from(number)));
        for number in 0..40_000_u32 {
            let [_, _, a, b] = (number / 8).to_be_bytes();
            let place = (mac(u16::from_be_bytes([a, b])), Some(hostile));
            neighbours.learn(now, address(number), place);
        }
        assert_eq!(neighbours.entries.len(), PORT_SHARE);
        // What is known of it is renewed, what is new of it is not remembered, and others are.
        neighbours.learn(now + AGE / 2, address(0), (mac(0), Some(hostile)));
        let place = (mac(60_000), Some(other));
        neighbours.learn(now, address(50_000), place);
        assert_eq!(neighbours.look_up(now, address(50_000)), Some(place.0));
        // A MAC that moves takes its share along, and one that loses an address has room for another.
        neighbours.learn(now, address(50_000), (mac(0), Some(hostile)));
        assert_eq!(neighbours.per_port.get(&other), None);
        neighbours.learn(now, address(50_001), (mac(0), Some(other)));
        assert_eq!(neighbours.per_port.get(&other), Some(&10));
        assert_eq!(neighbours.per_port.get(&hostile), Some(&(PORT_SHARE - 8)));
        // What has aged makes room.
        for number in 80_000..80_008 {
            neighbours.learn(now, address(number), (mac(200), Some(hostile)));
        }
        neighbours.learn(now + 2 * AGE, address(70_000), (mac(9), Some(hostile)));
        assert_eq!(neighbours.per_port.get(&hostile), Some(&1));
        assert_eq!(
            (neighbours.entries.len(), neighbours.per_port.len()),
            (1, 1)
        );
    }

    #[test]
    fn questions_are_few_and_their_memory_is_small() {
        let now = Instant::now();
        let mut neighbours = Neighbours::default();
        let asked = (0..5000).filter(|n| neighbours.wants_question(now, v6(*n)));
        assert_eq!(asked.count(), ASKED_MAX);
        assert_eq!(neighbours.asked.len(), ASKED_MAX);
        assert!(!neighbours.wants_question(now + PROBE / 2, v6(0)));
        assert!(neighbours.wants_question(now + PROBE, v6(0)));
        assert!(neighbours.wants_question(now + PROBE, v6(4999)));
        assert_eq!(neighbours.asked.len(), 2);
    }

    #[test]
    fn the_address_that_rules_follow_is_not_every_packets() {
        let now = Instant::now();
        let mut neighbours = Neighbours::default();
        let link_local = "fe80::1".parse().unwrap();
        neighbours.learn(now, link_local, at(mac(1)));
        assert!(!neighbours.take_moved());
        assert_eq!(neighbours.address6_of(now, mac(1)), None);
        let of = |number| match v6(number) {
            IpAddr::V6(address) => Some(address),
            IpAddr::V4(_) => None,
        };
        neighbours.learn(now, v6(1), at(mac(1)));
        assert!(neighbours.take_moved());
        neighbours.learn(now, v6(2), at(mac(1)));
        neighbours.learn(now, v6(1), at(mac(1)));
        assert!(!neighbours.take_moved());
        assert_eq!(neighbours.address6_of(now, mac(1)), of(1));
        // Another takes it: the next best is taken.
        neighbours.learn(now, v6(1), at(mac(2)));
        assert!(neighbours.take_moved());
        assert_eq!(neighbours.address6_of(now, mac(1)), of(2));
        assert_eq!(neighbours.address6_of(now, mac(2)), of(1));
        // What somebody wants but another has stays where it is.
        neighbours.suggest(now, v6(1), at(mac(1)));
        assert_eq!(neighbours.look_up(now, v6(1)), Some(mac(2)));
        neighbours.suggest(now, v6(5), at(mac(3)));
        assert_eq!(neighbours.address6_of(now, mac(3)), of(5));
    }

    #[test]
    fn silent_neighbours_are_asked_and_then_forgotten() {
        let start = Instant::now();
        let mut neighbours = Neighbours::default();
        neighbours.learn(start, v6(1), at(mac(1)));
        let then = |ms| start + REACHABLE + Duration::from_millis(ms);
        assert!(!neighbours.wants_probe(start + REACHABLE / 2, v6(1)));
        for (ms, wanted) in [
            (0, true),
            (999, false),
            (1000, true),
            (2000, true),
            (2500, false),
        ] {
            assert_eq!(neighbours.wants_probe(then(ms), v6(1)), wanted, "{ms}");
            assert_eq!(neighbours.look_up(then(ms), v6(1)), Some(mac(1)));
        }
        assert!(!neighbours.wants_probe(then(3000), v6(1)));
        assert_eq!(neighbours.look_up(then(3000), v6(1)), None);
        // An answer in time keeps it.
        neighbours.learn(start, v6(1), at(mac(1)));
        assert!(neighbours.wants_probe(then(0), v6(1)));
        neighbours.learn(then(500), v6(1), at(mac(1)));
        assert!(!neighbours.wants_probe(then(4000), v6(1)));
        assert_eq!(neighbours.look_up(then(4000), v6(1)), Some(mac(1)));
    }
}
