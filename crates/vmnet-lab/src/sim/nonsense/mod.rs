//! Any sequence of events, read from bytes: frames, what happened to sockets that are or are not, time, ports and rules.
//! Whatever it is, the core must not panic, must keep its promises, and must come to rest.
//!
//! | file | what |
//! | --- | --- |
//! | `bytes` | the bytes that decide |
//! | `mode` | what the network is configured to be |
//! | `frames`, `frames6` | frames of guests |
//! | `host` | sockets, ports and rules |
//! | `execute` | what the core wants done, and what it promised |

mod bytes;
mod execute;
mod frames;
mod frames6;
mod host;
mod mode;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use vmnet_core::gateway::dns::QueryId;
use vmnet_core::gateway::register::StoreTicket;
use vmnet_core::{Event, ForwardId, Network, Outbox, Port, PortId, SocketId};

use crate::sim::contract::Contract;
use crate::sim::nonsense::bytes::Bytes;
use crate::sim::nonsense::mode::Mode;

const FLOWS_MAX: usize = 24;
const RULES_MAX: usize = 4;

/// Lets the core suffer what the bytes say.
///
/// # Panics
/// If the core breaks a promise.
pub fn run(bytes: &[u8]) {
    let mut nonsense = Nonsense::new(Bytes(bytes));
    while !nonsense.bytes.0.is_empty() {
        nonsense.step();
        nonsense.settle();
    }
    nonsense.end();
}

/// A guest's address and port, and its peer's.
type Pair = (Ipv4Addr, u16, Ipv4Addr, u16);

struct Nonsense<'a> {
    bytes: Bytes<'a>,
    mode: Mode,
    now: Instant,
    network: Network,
    out: Outbox,
    contract: Contract,
    ports: Vec<PortId>,
    sockets: Vec<SocketId>,
    queries: Vec<QueryId>,
    /// A batch of leases that was answered.
    stored: Option<StoreTicket>,
    /// The one that is under way.
    storing: Option<StoreTicket>,
    rules: Vec<ForwardId>,
    whole: Vec<(PortId, Vec<u8>)>,
    hand: Vec<u8>,
    /// What the core expects next of a guest's connection, and has sent.
    seen: HashMap<Pair, (u32, u32)>,
    actions: usize,
}

impl<'a> Nonsense<'a> {
    fn new(mut bytes: Bytes<'a>) -> Self {
        let now = Instant::now();
        let mode = Mode::read(&mut bytes);
        let config = mode.config(&mut bytes, FLOWS_MAX);
        let mut network = Network::new(now, &config).expect("a network");
        network.set_outside(Some(IpAddr::V4([10, 0, 0, 99].into())));
        network.set_outside6(mode.v6.then(|| "2001:db8::99".parse().expect("an address")));
        network.set_resolvers(now, &["10.0.0.53:53".parse().expect("an address")]);
        let mut nonsense = Self {
            bytes,
            mode,
            now,
            network,
            out: Outbox::new(),
            contract: Contract::default(),
            ports: Vec::new(),
            sockets: vec![SocketId::default()],
            queries: vec![QueryId::from(0)],
            stored: None,
            storing: None,
            rules: Vec::new(),
            whole: Vec::new(),
            hand: Vec::new(),
            seen: HashMap::new(),
            actions: 0,
        };
        for large in [false, true] {
            nonsense.add_port(large);
        }
        nonsense
    }

    fn add_port(&mut self, large: bool) {
        let mut port = Port::new([256, 1, 0, 4096][self.bytes.below(4)]);
        port.large_segments = large;
        port.isolated = self.mode.isolated;
        port.name = self.mode.named.then(|| "web".to_owned());
        self.ports.push(self.network.add_port(port));
    }

    fn step(&mut self) {
        match self.bytes.below(16) {
            0..=4 => self.tcp(),
            5 => self.datagram(),
            6 if self.mode.v6 => self.frame6(),
            6 => self.other_frame(),
            7 => self.fragment(),
            8 | 9 => self.time(),
            10..=13 => self.socket_event(),
            14 => self.ports_change(),
            _ => self.rules_change(),
        }
    }

    fn time(&mut self) {
        let jump = [0, 1, 11, 200, 1000, 61_000, 301_000, 7_500_000][self.bytes.below(8)];
        self.now += Duration::from_millis(jump);
        self.timeout();
    }

    fn timeout(&mut self) {
        self.network.timeout(self.now, &mut self.out);
        self.carry_out_all();
        let next = self.network.next_deadline();
        assert!(
            next.is_none_or(|at| at > self.now),
            "a timeout left its deadline behind"
        );
    }

    /// A burst ends: reads, then acknowledgements.
    fn settle(&mut self) {
        let mut reads = 0;
        while let Some(read) = self.network.next_read(self.now, &mut self.out) {
            reads += 1;
            assert!(reads < 10_000, "reads without end");
            self.carry_out_all();
            self.contract.name(read.socket);
            let there = [0, 1, 2000, 100_000][self.bytes.below(4)];
            let len = read.max.min(there);
            let event = Event::Peeked {
                socket: read.socket,
                len,
                ended: self.bytes.chance(8),
                more: len == read.max && self.bytes.chance(2),
            };
            self.hand = vec![9; len];
            self.network.event(self.now, &event, &mut self.out);
            self.carry_out_all();
        }
        let another_follows = self.bytes.chance(3);
        self.network.flush(self.now, another_follows, &mut self.out);
        self.carry_out_all();
        self.store();
        if self
            .network
            .next_deadline()
            .is_some_and(|at| at <= self.now)
        {
            self.timeout();
        }
    }

    /// The store answers, or not yet, and sometimes twice.
    fn store(&mut self) {
        if self.storing.is_none() || self.bytes.chance(2) {
            return;
        }
        let stored = !self.bytes.chance(3);
        let again = self.stored.filter(|_| self.bytes.chance(4));
        if let Some(ticket) = again.or_else(|| self.storing.take()) {
            self.stored = Some(ticket);
            self.network
                .leases_stored(self.now, ticket, stored, &mut self.out);
            self.carry_out_all();
        }
    }

    /// After a day of silence nothing is left but what rules hold.
    fn end(&mut self) {
        let ports = self.ports.clone();
        for port in ports {
            self.network.set_port_ready(port, true);
        }
        for rule in std::mem::take(&mut self.rules) {
            self.network.remove_forward(rule, &mut self.out);
        }
        self.carry_out_all();
        let end = self.now + Duration::from_secs(86_400);
        let mut calls = 0;
        while let Some(next) = self.network.next_deadline()
            && next < end
        {
            calls += 1;
            assert!(calls < 100_000, "deadlines without end");
            self.now = next;
            self.timeout();
            self.settle();
        }
        assert_eq!(self.network.flows(), 0, "flows that never end");
        assert_eq!(self.contract.living(), 0, "sockets that were never closed");
    }
}
