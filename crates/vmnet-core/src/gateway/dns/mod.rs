//! The DNS proxy on the gateway's address (RFC 5625, RFC 7766).
//!
//! Names of guests are answered here; every other query is passed to one of the host's resolvers and its answer is
//! passed back, byte for byte apart from the id.
//!
//! | file | question it answers |
//! | --- | --- |
//! | [`proxy`] | which way does a message go, and what happens when a resolver is silent |
//! | `pending` | which queries wait for an answer, and how many may |
//! | `resolvers` | which resolver is asked first |
//! | `names` | which address has a guest's name, and which names never leave |
//! | `label` | which text is a guest's name |
//! | `reverse` | which address does an `in-addr.arpa` or `ip6.arpa` name mean |
//! | `message` | what does a message ask, and the bytes of our own answers (the only user of `hickory-proto`) |
//! | `id` | an id that cannot be guessed |
//!
//! There is no cache: the host's resolver has one. There is no zone transfer, no DNSSEC of our own, and no DNS over
//! TLS or HTTPS. Sockets, ports and the TCP framing belong to the caller.

mod id;
mod label;
mod message;
mod names;
mod pending;
pub mod proxy;
mod resolvers;
mod reverse;
#[cfg(test)]
mod tests;

pub use label::Label;
pub use names::NameError;
pub use proxy::Proxy;

use std::net::{IpAddr, SocketAddr};

/// The domain of guests' names, unless the network's owner chose another.
pub const DEFAULT_DOMAIN: &str = "vmnet.internal";

/// What a message came over, and what it has to be asked or answered over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// One message is one datagram.
    Udp,
    /// Messages are framed by their length in a stream (RFC 7766 §8); the frame is the caller's.
    Tcp,
}

/// Who is behind an asker: all askers of one guest have the same number, and different guests have different ones.
///
/// Limits are counted by it. The guest's MAC address or its switch port are good choices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guest(pub u64);

/// One message sent to one resolver; a query that is asked again gets another one. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueryId(u64);

impl From<QueryId> for u64 {
    /// A small number that counts up from zero, so that a caller can pack it beside a few bits of its own.
    fn from(query: QueryId) -> Self {
        query.0
    }
}

impl From<u64> for QueryId {
    /// The id that was turned into this number.
    fn from(number: u64) -> Self {
        Self(number)
    }
}

/// What the caller has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output<A> {
    /// Open a fresh socket to `resolver` and send `message`. What comes back goes to [`Proxy::answer`]; if the
    /// socket cannot be opened or reports an error, call [`Proxy::failed`].
    Ask {
        /// The name of this attempt from now on.
        query: QueryId,
        /// Where to send it.
        resolver: SocketAddr,
        /// What to send it over.
        transport: Transport,
        /// The message, without a length in front.
        message: Vec<u8>,
    },
    /// Close the socket of this query. Exactly one follows every [`Output::Ask`].
    Forget {
        /// The attempt that is over.
        query: QueryId,
    },
    /// Send `message` to whoever asked.
    Reply {
        /// As given to [`Proxy::query`].
        asker: A,
        /// The message, without a length in front.
        message: Vec<u8>,
    },
}

/// Why a message of a guest got neither an answer nor a resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Drop {
    /// An answer, which nobody here waits for; replying to it could start an endless exchange.
    #[error("the guest sent an answer to the resolver")]
    Answer,
    /// The same query of the same asker is in flight; its answer will serve both.
    #[error("the guest repeated a query that is still in flight")]
    Repeated,
    /// Less than a header.
    #[error("the guest's message is shorter than a DNS header")]
    Short,
}

/// Why a proxy could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The domain is not a name under which guests' names fit.
    #[error(
        "{domain:?} cannot be the domain of a network: \
         use labels of letters, digits and hyphens, joined by dots, at most 180 characters"
    )]
    Domain {
        /// As it was given.
        domain: String,
    },
}

/// What a proxy has to know from the beginning.
#[derive(Clone, Debug)]
pub struct Config {
    /// The domain of guests' names; [`DEFAULT_DOMAIN`] if the owner chose none.
    pub domain: String,
    /// Our addresses on this network: what `gateway.DOMAIN` resolves to, and where no query is ever sent.
    pub gateway: Vec<IpAddr>,
    /// Networks and prefix lengths of the guests, whose reverse lookups stay here.
    pub subnets: Vec<(IpAddr, u8)>,
    /// Queries about other names are passed to the host's resolvers; if not, they are refused at once.
    pub asks_outside: bool,
    /// 128 random bits, which make the ids of queries unpredictable.
    pub seed: [u8; 16],
}

/// What the proxy has seen, by cause. Every field only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages of guests, whatever became of them.
    pub queries: u64,
    /// Answered from the names of this network.
    pub local: u64,
    /// Messages sent to resolvers, repetitions included.
    pub asked: u64,
    /// Answers passed to guests.
    pub answered: u64,
    /// Guests' messages that were answers themselves.
    pub dropped_answer: u64,
    /// Guests' repetitions of a query in flight.
    pub dropped_repeated: u64,
    /// Guests' messages shorter than a header.
    pub dropped_short: u64,
    /// Refused with an error because they were malformed or of a kind that cannot be passed on.
    pub refused_malformed: u64,
    /// Refused because only names of this network are answered.
    pub refused_outside: u64,
    /// Refused with SERVFAIL because the guest had too many queries in flight.
    pub refused_guest_limit: u64,
    /// Refused with SERVFAIL because the network had too many queries in flight.
    pub refused_network_limit: u64,
    /// Refused with SERVFAIL because no resolver is known.
    pub refused_no_resolver: u64,
    /// Ended early with SERVFAIL to make room for a query of a guest with fewer.
    pub evicted: u64,
    /// Ended because no resolver gave an answer in time, or all failed.
    pub unanswered: u64,
    /// Messages from resolvers that did not fit the query: another id, another question, or no answer at all.
    pub answers_wrong: u64,
    /// Messages from resolvers for queries that are over.
    pub answers_late: u64,
    /// Attempts given up because too many wrong answers came: somebody may be guessing.
    pub answers_guessed: u64,
    /// Attempts that failed at once: unreachable, refused, or a socket error.
    pub resolver_failed: u64,
    /// Attempts that a resolver did not answer within its time.
    pub resolver_silent: u64,
}
