//! NAT: guests reach the outside through sockets of the host, and the outside reaches guests through
//! forwarded ports.
//!
//! | file | what |
//! | --- | --- |
//! | `flow` | the key of a flow, the same for both families |
//! | `table` | all flows: limit, eviction, who is whose |
//! | `destination` | where a packet really goes, and which never leave |
//! | `tcp` | connections |
//! | `udp` | mappings |
//! | `clients` | who came by which of several rules to one UDP port |
//! | `echo` | ICMP echo |
//! | `outward` | packets from guests to the outside |
//! | `inward` | what happened to the host's sockets |
//! | `refusal` | ICMP errors of guests about what they were sent |
//! | [`port_forward`] | rules that lead from a port of the host to a guest |

pub(crate) mod clients;
pub(crate) mod destination;
pub(crate) mod echo;
pub(crate) mod flow;
pub(crate) mod inward;
pub(crate) mod outward;
pub mod port_forward;
mod refusal;
pub(crate) mod table;
pub(crate) mod tcp;
pub(crate) mod udp;

use std::time::Instant;

use vmnet_wire::ethernet::Mac;

use crate::event::Read;
use crate::gateway::icmp::Budgets;
use crate::link::Link;
use crate::nat::destination::HostAccess;
use crate::nat::port_forward::Forwards;
use crate::nat::table::{Flow, Table};
use crate::nat::tcp::{Agenda, Fate};
use crate::outbox::{Action, SocketId};

/// Reminders, and flows in wait, among which old ones are not looked for.
const REMINDERS_MIN: usize = 1024;

/// The NAT of one network.
#[derive(Debug)]
pub(crate) struct Nat {
    pub(crate) table: Table,
    pub(crate) forwards: Forwards,
    pub(crate) host: HostAccess,
    pub(crate) budgets: Budgets,
    agenda: Agenda,
    /// Flows that would read, but whose guest's port is full.
    parked: Vec<SocketId>,
    /// Since when initial sequence numbers are counted.
    epoch: Instant,
}

impl Nat {
    pub(crate) fn new(now: Instant, flows_max: usize, host: HostAccess) -> Self {
        Self {
            table: Table::new(flows_max),
            forwards: Forwards::default(),
            host,
            budgets: Budgets::default(),
            agenda: Agenda::default(),
            parked: Vec::new(),
            epoch: now,
        }
    }

    /// What the next flow in line wants to read.
    pub(crate) fn next_read(&mut self, link: &mut Link<'_>) -> Option<Read> {
        while let Some(id) = self.agenda.reads.pop_front() {
            let Some(Flow::Tcp(flow)) = self.table.get_mut(id) else {
                continue;
            };
            if !link.is_ready(flow.mac) {
                self.parked.push(id);
            } else if let Some(read) = flow.next_read(link, &mut self.agenda) {
                return Some(read);
            }
        }
        None
    }

    /// Flows are in line.
    pub(crate) fn has_reads(&self) -> bool {
        !self.agenda.reads.is_empty()
    }

    /// A read could not be carried out: its flow is the next in line.
    pub(crate) fn put_back(&mut self, read: &Read) {
        if let Some(Flow::Tcp(flow)) = self.table.get_mut(read.socket) {
            flow.put_back(&mut self.agenda);
        }
    }

    /// A port has room again: who waited may read.
    pub(crate) fn unpark(&mut self) {
        self.agenda.reads.extend(self.parked.drain(..));
    }

    /// The burst is over: acknowledgements go out, but those that may wait where another burst follows at once.
    pub(crate) fn flush(&mut self, link: &mut Link<'_>, another_follows: bool) {
        let mut waiting = 0;
        while let Some(id) = self.agenda.acks.get(waiting).copied() {
            let flow = match self.table.get_mut(id) {
                Some(Flow::Tcp(flow)) if another_follows && flow.may_wait(link.now) => {
                    waiting += 1;
                    continue;
                }
                flow => flow,
            };
            self.agenda.acks.swap_remove(waiting);
            let Some(Flow::Tcp(flow)) = flow else {
                continue;
            };
            flow.flush(link);
            if flow.end_if_done(link) == Fate::Ended {
                self.table.remove(id);
            }
        }
        debug_assert!(waiting <= self.table.len(), "each flow waits once");
        self.tidy();
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.agenda.deadlines.next()
    }

    /// Forgets reminders of flows that are gone, or have set another, before they are many.
    fn tidy(&mut self) {
        if self.agenda.deadlines.len() > REMINDERS_MIN + 2 * self.table.len() {
            let table = &mut self.table;
            self.agenda
                .deadlines
                .retain(|at, id| match table.get_mut(id) {
                    Some(Flow::Tcp(flow)) => flow.is_reminded_at(at),
                    Some(_) => true,
                    None => false,
                });
        }
        if self.parked.len() > REMINDERS_MIN + self.table.len() {
            let table = &mut self.table;
            self.parked.retain(|id| table.get_mut(*id).is_some());
        }
    }

    /// Looks at every flow of which something may be due.
    pub(crate) fn timeout(&mut self, link: &mut Link<'_>) {
        while let Some(id) = self.agenda.deadlines.due(link.now) {
            let Some(flow) = self.table.get_mut(id) else {
                continue;
            };
            let fate = match flow {
                Flow::Tcp(flow) => flow.timeout(link, &mut self.agenda),
                Flow::Udp(mapping) if mapping.forward.is_some() => Fate::Lives,
                Flow::Udp(mapping) => self.agenda.idle(link, id, mapping.seen + udp::IDLE),
                Flow::Echo(echo) => self.agenda.idle(link, id, echo.seen + echo::IDLE),
            };
            if fate == Fate::Ended {
                self.table.remove(id);
            }
        }
    }

    /// A port is gone: flows of the guests behind it wait a little for it to come back.
    pub(crate) fn orphan(&mut self, now: Instant, is_behind: impl Fn(Mac) -> bool) {
        for (_, flow) in self.table.iter_mut() {
            if let Flow::Tcp(flow) = flow
                && is_behind(flow.mac)
            {
                flow.orphan(now, &mut self.agenda);
            }
        }
    }
}

impl Agenda {
    /// A flow without a connection: closes it if it has been idle until `end`.
    fn idle(&mut self, link: &mut Link<'_>, id: SocketId, end: Instant) -> Fate {
        if link.now >= end {
            link.out.push(Action::Close { socket: id });
            return Fate::Ended;
        }
        self.deadlines.set(end, id);
        Fate::Lives
    }
}
