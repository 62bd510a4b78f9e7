//! The way of a query: answered here, or asked of one resolver after the other until one answers.
//!
//! A resolver has two seconds; then the next one in turn is asked, or the same one again if there is no other, since a
//! datagram may be lost. Earlier attempts stay open, and the first valid answer of any wins. A resolver that fails at
//! once, or answers SERVFAIL or REFUSED, is not asked again for that query. After nine seconds, or when all have
//! refused, the guest gets the last refusal as it came, or SERVFAIL. Every attempt has an id of its own, and the caller
//! gives it a socket of its own (RFC 5452 §9.2).
//!
//! Decided here: a query with another number of questions than one is malformed (RFC 9619). Other opcodes are passed on
//! if they carry one question, and NOTIMP otherwise or if they are about our own names. Zone transfers over TCP are
//! NOTIMP, since their answers are many messages. A truncated answer passes; the guest asks again over TCP, and what
//! came over TCP is asked over TCP.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::id::Ids;
use super::label::Label;
use super::message::{self, Head, OPCODE_QUERY, Question, Rcode};
use super::names::{Names, code};
use super::pending::{Number, Pending, Plan, Room, Waiting};
use super::resolvers::Resolvers;
use super::{Config, ConfigError, Counters, Drop, Guest, NameError, Output, QueryId, Transport};

/// How long one resolver may think before the next one is asked as well.
const ATTEMPT: Duration = Duration::from_secs(2);

/// How long a guest waits at most; common resolvers in guests ask again after five seconds and end after ten.
const PATIENCE: Duration = Duration::from_secs(9);

/// Wrong answers to one attempt before it is given up: a guess hits with one in 65,536, so this leaves little hope.
const WRONG_LIMIT: u8 = 32;

/// Refusals longer than this are not kept for later.
const REFUSAL_LIMIT: usize = 4096;

/// The DNS proxy of one network. `A` tells the caller where a reply goes.
#[derive(Debug)]
pub struct Proxy<A> {
    names: Names,
    resolvers: Resolvers,
    asks_outside: bool,
    ids: Ids,
    pending: Pending<A>,
    attempts: BTreeMap<QueryId, Attempt>,
    following: u64,
    /// Not later than the first deadline; it may be earlier.
    wake: Option<Instant>,
    counters: Counters,
}

/// One message sent to one resolver.
#[derive(Debug)]
struct Attempt {
    number: Number,
    resolver: SocketAddr,
    transport: Transport,
    id: u16,
    sent: Instant,
    wrong: u8,
}

impl<A: Copy + Eq> Proxy<A> {
    /// A proxy that knows its own names and no resolver.
    ///
    /// # Errors
    ///
    /// If guests' names would not fit under the domain.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        Ok(Self {
            names: Names::new(config)?,
            resolvers: Resolvers::default(),
            asks_outside: config.asks_outside,
            ids: Ids::new(config.seed),
            pending: Pending::new(),
            attempts: BTreeMap::new(),
            following: 0,
            wake: None,
            counters: Counters::default(),
        })
    }

    /// Takes the host's resolvers, best first; at most eight are used, and never the gateway's own address.
    ///
    /// Queries in flight go to the new ones from their next attempt on.
    pub fn set_resolvers(&mut self, now: Instant, addresses: &[SocketAddr]) {
        if self.resolvers.set(addresses, self.names.gateway()) {
            for query in self.pending.iter_mut() {
                query
                    .plan
                    .replace(self.resolvers.order(now, query.transport));
            }
        }
    }

    /// Gives an address the name `NAME.DOMAIN`; of a name with dots only the first label counts. An address may have
    /// several names; the first one set comes first in a reverse lookup.
    ///
    /// # Errors
    ///
    /// If the name is malformed, reserved, or belongs to another address of the same family.
    pub fn set_name(&mut self, name: &str, address: IpAddr) -> Result<(), NameError> {
        self.names.set_name(name, address.to_canonical())
    }

    /// Gives an address a name in reverse lookups alone.
    ///
    /// # Errors
    ///
    /// If the name is malformed or reserved, or there are too many.
    pub fn set_reverse(&mut self, name: &str, address: IpAddr) -> Result<(), NameError> {
        self.names.set_reverse(name, address.to_canonical())
    }

    /// The first name of an address.
    #[must_use]
    pub fn name_of(&self, address: IpAddr) -> Option<&str> {
        self.names.name_of(address)
    }

    /// Takes a name from the addresses that have it.
    pub fn remove_name(&mut self, name: &str) {
        self.names.remove_name(name);
    }

    /// Takes all names from an address. Call it when a lease ends.
    pub fn remove_address(&mut self, address: IpAddr) {
        self.names.remove_address(address.to_canonical());
    }

    /// The addresses that have a name, one of each family.
    #[must_use]
    pub fn addresses_of(&self, name: &str) -> [Option<IpAddr>; 2] {
        self.names.addresses_of(name)
    }

    /// The IPv4 address that has a name.
    #[must_use]
    pub fn address_named(&self, name: &Label) -> Option<Ipv4Addr> {
        match self.names.address_named(name)? {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }
    }

    /// A message of a guest to port 53 of the gateway.
    ///
    /// # Errors
    ///
    /// If the message is dropped without any output; it has been counted.
    pub fn query(
        &mut self,
        now: Instant,
        guest: Guest,
        asker: A,
        transport: Transport,
        message: &[u8],
        out: &mut Vec<Output<A>>,
    ) -> Result<(), Drop> {
        self.counters.queries += 1;
        let head = Head::read(message)
            .ok_or(Drop::Short)
            .inspect_err(|_| self.counters.dropped_short += 1)?;
        if head.is_answer {
            self.counters.dropped_answer += 1;
            return Err(Drop::Answer);
        }
        let question = match readable(head, transport, message) {
            Ok(question) => question,
            Err(code) => {
                self.counters.refused_malformed += 1;
                out.push(Output::Reply {
                    asker,
                    message: message::error(message, code),
                });
                return Ok(());
            }
        };
        if let Some(found) = self
            .names
            .find(&question.labels, question.kind, question.class)
        {
            self.counters.local += 1;
            let message = if head.opcode == OPCODE_QUERY {
                message::local(message, &found, &self.names, transport)
            } else {
                message::error(message, Rcode::NotImp)
            };
            out.push(Output::Reply { asker, message });
            return Ok(());
        }
        if !self.asks_outside {
            self.counters.refused_outside += 1;
            let message = message::error(message, Rcode::Refused);
            out.push(Output::Reply { asker, message });
            return Ok(());
        }
        let bytes = question.bytes(message);
        if self.pending.has(guest, asker, transport, head.id, bytes) {
            self.counters.dropped_repeated += 1;
            return Err(Drop::Repeated);
        }
        let plan = Plan::new(self.resolvers.order(now, transport));
        let query = Waiting {
            guest,
            asker,
            transport,
            message: message.into(),
            id: head.id,
            opcode: head.opcode,
            question: bytes.into(),
            plan,
            live: Vec::new(),
            next: now + ATTEMPT,
            give_up: now + PATIENCE,
            refusal: None,
        };
        self.pass_on(now, query, out);
        Ok(())
    }

    /// What came back for an attempt. A message that does not fit changes nothing; the right one may still come.
    pub fn answer(
        &mut self,
        now: Instant,
        query: QueryId,
        message: &[u8],
        out: &mut Vec<Output<A>>,
    ) {
        let Some(attempt) = self.attempts.get_mut(&query) else {
            self.counters.answers_late += 1;
            return;
        };
        let number = attempt.number;
        let Some(waiting) = self.pending.get_mut(number) else {
            return;
        };
        let fits = |head: &Head| {
            head.is_answer
                && head.id == attempt.id
                && head.opcode == waiting.opcode
                && (head.may_lack_question()
                    || head.questions == 1 && message::repeats(message, &waiting.question))
        };
        let Some(head) = Head::read(message).filter(fits) else {
            self.counters.answers_wrong += 1;
            attempt.wrong = attempt.wrong.saturating_add(1);
            if attempt.wrong >= WRONG_LIMIT {
                self.counters.answers_guessed += 1;
                self.forget(query, out);
                self.ask(now, number, out);
            }
            return;
        };
        self.resolvers
            .answered(now, attempt.resolver, attempt.transport);
        if head.is_refusal() {
            if message.len() <= REFUSAL_LIMIT {
                waiting.refusal = Some(message.into());
            }
            waiting.plan.rule_out(attempt.resolver);
            self.forget(query, out);
            self.ask_if_idle(now, number, out);
            return;
        }
        self.counters.answered += 1;
        if let Some(waiting) = self.end(number, out) {
            let message = message::with_id(message, waiting.id);
            out.push(Output::Reply {
                asker: waiting.asker,
                message,
            });
        }
    }

    /// The socket of an attempt could not be opened, or reported an error such as an unreachable port or a stream that
    /// ended without an answer.
    pub fn failed(&mut self, now: Instant, query: QueryId, out: &mut Vec<Output<A>>) {
        let Some(attempt) = self.attempts.get(&query) else {
            return;
        };
        let (number, resolver) = (attempt.number, attempt.resolver);
        self.counters.resolver_failed += 1;
        self.resolvers
            .silent(now, resolver, attempt.transport, attempt.sent);
        if let Some(waiting) = self.pending.get_mut(number) {
            waiting.plan.rule_out(resolver);
        }
        self.forget(query, out);
        self.ask_if_idle(now, number, out);
    }

    /// An asker is gone, for example with its TCP session: what it asked is not of interest any more.
    pub fn forget_asker(&mut self, asker: A, out: &mut Vec<Output<A>>) {
        for number in self.pending.numbers(|query| query.asker == asker) {
            self.end(number, out);
        }
    }

    /// Does what is due. Call it at [`Proxy::next_deadline`] or later.
    pub fn timeout(&mut self, now: Instant, out: &mut Vec<Output<A>>) {
        if self.wake.is_none_or(|wake| now < wake) {
            return;
        }
        for number in self.pending.numbers(|query| query.next <= now) {
            self.blame_silent(now, number);
            let Some(query) = self.pending.get_mut(number) else {
                continue;
            };
            if query.give_up <= now {
                self.give_up(number, out);
                continue;
            }
            let left = query.give_up.saturating_duration_since(now);
            query.next = query.give_up.min(now + ATTEMPT);
            if left >= ATTEMPT {
                self.ask(now, number, out);
            }
        }
        self.wake = self.pending.next_deadline();
    }

    /// When [`Proxy::timeout`] has to be called. It may be early, never late.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.wake
    }

    /// What was seen so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Gives a query a place among those in flight and asks for the first time.
    fn pass_on(&mut self, now: Instant, query: Waiting<A>, out: &mut Vec<Output<A>>) {
        let refused = match self.pending.room(query.guest, query.message.len()) {
            _ if self.resolvers.is_empty() => Some(&mut self.counters.refused_no_resolver),
            Room::Free => None,
            Room::Evict(oldest) => {
                self.counters.evicted += 1;
                if let Some(oldest) = self.end(oldest, out) {
                    out.push(servfail(&oldest));
                }
                None
            }
            Room::GuestFull => Some(&mut self.counters.refused_guest_limit),
            Room::NetworkFull => Some(&mut self.counters.refused_network_limit),
        };
        if let Some(counter) = refused {
            *counter += 1;
            out.push(servfail(&query));
            return;
        }
        self.wake = Some(self.wake.map_or(query.next, |wake| wake.min(query.next)));
        let number = self.pending.insert(query);
        self.ask(now, number, out);
    }

    /// Asks the next resolver in turn; ends the query if none is left and no attempt is open.
    fn ask(&mut self, now: Instant, number: Number, out: &mut Vec<Output<A>>) {
        let Some(waiting) = self.pending.get_mut(number) else {
            return;
        };
        let Some(resolver) = waiting.plan.next() else {
            if waiting.live.is_empty() {
                self.give_up(number, out);
            }
            return;
        };
        let query = QueryId(self.following);
        self.following = self.following.saturating_add(1);
        let id = self.ids.next();
        let transport = waiting.transport;
        waiting.live.push(query);
        self.attempts.insert(
            query,
            Attempt {
                number,
                resolver,
                transport,
                id,
                sent: now,
                wrong: 0,
            },
        );
        self.counters.asked += 1;
        let message = message::with_id(&waiting.message, id);
        out.push(Output::Ask {
            query,
            resolver,
            transport,
            message,
        });
    }

    /// After a refusal: if an attempt is still open, its turn of two seconds goes on.
    fn ask_if_idle(&mut self, now: Instant, number: Number, out: &mut Vec<Output<A>>) {
        let Some(waiting) = self.pending.get_mut(number) else {
            return;
        };
        if waiting.live.is_empty() {
            waiting.next = waiting.give_up.min(now + ATTEMPT);
            self.wake = Some(
                self.wake
                    .map_or(waiting.next, |wake| wake.min(waiting.next)),
            );
            self.ask(now, number, out);
        }
    }

    /// The latest attempt had its time.
    fn blame_silent(&mut self, now: Instant, number: Number) {
        let latest = self
            .pending
            .get_mut(number)
            .and_then(|query| query.live.last());
        if let Some(attempt) = latest.and_then(|latest| self.attempts.get(latest)) {
            self.counters.resolver_silent += 1;
            self.resolvers
                .silent(now, attempt.resolver, attempt.transport, attempt.sent);
        }
    }

    fn give_up(&mut self, number: Number, out: &mut Vec<Output<A>>) {
        self.counters.unanswered += 1;
        let Some(waiting) = self.end(number, out) else {
            return;
        };
        out.push(match &waiting.refusal {
            Some(refusal) => Output::Reply {
                asker: waiting.asker,
                message: message::with_id(refusal, waiting.id),
            },
            None => servfail(&waiting),
        });
    }

    fn end(&mut self, number: Number, out: &mut Vec<Output<A>>) -> Option<Waiting<A>> {
        let waiting = self.pending.remove(number)?;
        for &query in &waiting.live {
            self.attempts.remove(&query);
            out.push(Output::Forget { query });
        }
        Some(waiting)
    }

    fn forget(&mut self, query: QueryId, out: &mut Vec<Output<A>>) {
        let Some(attempt) = self.attempts.remove(&query) else {
            return;
        };
        if let Some(waiting) = self.pending.get_mut(attempt.number) {
            waiting.live.retain(|live| *live != query);
        }
        out.push(Output::Forget { query });
    }

    #[cfg(test)]
    pub(super) fn is_consistent(&self) -> bool {
        self.pending.is_consistent() && (self.pending.len() > 0 || self.attempts.is_empty())
    }

    #[cfg(test)]
    pub(super) fn in_flight(&self) -> (usize, usize) {
        (self.pending.len(), self.attempts.len())
    }
}

/// The question of a message that can be answered or passed on, or what to say about one that cannot.
fn readable(head: Head, transport: Transport, message: &[u8]) -> Result<Question, Rcode> {
    let malformed = if head.opcode == OPCODE_QUERY {
        Rcode::FormErr
    } else {
        Rcode::NotImp
    };
    if head.questions != 1 {
        return Err(malformed);
    }
    let question = Question::read(message).ok_or(malformed)?;
    let transfer = matches!(question.kind, code::AXFR | code::IXFR);
    if transfer && transport == Transport::Tcp {
        return Err(Rcode::NotImp);
    }
    Ok(question)
}

fn servfail<A: Copy>(query: &Waiting<A>) -> Output<A> {
    Output::Reply {
        asker: query.asker,
        message: message::error(&query.message, Rcode::ServFail),
    }
}
