//! A DHCPv4 client for one interface (RFC 2131 §4.4): leases, renews, rebinds, releases.
//!
//! | file | what |
//! | --- | --- |
//! | `echo` | to know that a message has arrived which nobody answers |
//! | `machine` | the states, without I/O: messages and times in, messages and news out |
//! | `message` | messages to bytes and back; the only file here that imports `dhcproto` |
//! | `socket` | how bytes go and come with and without an address |
//!
//! It does not probe an address by ARP before using it (RFC 2131 §4.4.1 says SHOULD): the networks it is for guard their
//! addresses themselves, and a probe costs seconds.

mod echo;
mod machine;
mod message;
mod socket;

use machine::{Machine, Output};
use socket::Transport;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};
use vmnet_wire::ethernet::Mac;

/// How long a release may need.
const ARRIVES_WITHIN: Duration = Duration::from_millis(200);

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The interface's MAC; the client identifier (option 61) is made of it.
    pub mac: Mac,
    /// The host name (option 12).
    pub host_name: Option<String>,
}

/// An address for a time, and what comes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// Bits of the subnet.
    pub prefix_len: u8,
    /// Who gave it.
    pub server: Ipv4Addr,
    /// How long it lasts.
    pub duration: Duration,
    /// T1, from the beginning.
    pub renew_after: Duration,
    /// T2, from the beginning.
    pub rebind_after: Duration,
    /// Routes, in the order in which they can be set.
    pub routes: Vec<Route>,
    /// Resolvers, the best first.
    pub resolvers: Vec<Ipv4Addr>,
    /// The domain (option 15).
    pub domain: Option<String>,
    /// Domains to search (option 119).
    pub search: Vec<String>,
    /// The link's largest packet (option 26).
    pub mtu: Option<u16>,
}

/// A route that a lease brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// First address.
    pub network: Ipv4Addr,
    /// Bits of the prefix.
    pub prefix_len: u8,
    /// Whom to send to; `None` on the link itself.
    pub gateway: Option<Ipv4Addr>,
}

/// What changed for the interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// Configure it so; also for each renewal.
    Leased(Lease),
    /// The address may not be used any more.
    Lost,
}

/// The client of one interface.
pub struct Client {
    machine: Machine,
    transport: Transport,
}

impl Client {
    /// Begins to ask on the interface with this name and index, which must be up.
    ///
    /// # Errors
    ///
    /// `EPERM` without `CAP_NET_RAW` over the network namespace.
    pub fn start(name: &str, index: u32, identity: Identity, now: Instant) -> io::Result<Self> {
        let mut seed = [0; 8];
        rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())?;
        let mut client = Self {
            machine: Machine::new(identity, u64::from_ne_bytes(seed), now),
            transport: Transport::open(name, index)?,
        };
        client.work(now);
        Ok(client)
    }

    /// What to wait for to be readable; `None` while no answer is expected.
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.transport.descriptor()
    }

    /// When to call [`Client::work`] at the latest.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.machine.deadline()
    }

    /// Reads what came and does what is due.
    pub fn work(&mut self, now: Instant) -> Option<News> {
        let mut out = Vec::new();
        let mut news = None;
        // A flood of rubbish must not keep us here.
        for _ in 0..64 {
            let Some(message) = self.transport.receive() else {
                break;
            };
            news = self.machine.receive(now, &message, &mut out);
            if news.is_some() {
                break;
            }
        }
        if news.is_none() && now >= self.machine.deadline() {
            news = self.machine.timeout(now, &mut out);
        }
        self.send(out);
        news
    }

    /// Gives the lease back; the client is of no use afterwards. Returns when the server has the message, which it does not
    /// answer itself, or after a fifth of a second: the interface may go then.
    pub fn release(&mut self, now: Instant) {
        let Some(server) = self.machine.server() else {
            return;
        };
        let mut out = Vec::new();
        self.machine.release(now, &mut out);
        self.send(out);
        match echo::answered(server, ARRIVES_WITHIN) {
            Ok(true) => {}
            Ok(false) => tracing::debug!(%server, "the release may be lost: no echo came back"),
            Err(error) => tracing::debug!(%server, %error, "the release may be lost"),
        }
    }

    fn send(&mut self, out: Vec<Output>) {
        if let Err(error) = self.transport.follow(self.machine.hearing()) {
            tracing::warn!(%error, "the DHCP client has no socket");
        }
        for output in out {
            // A lost message is sent again, so a refused one is as good as lost.
            if let Err(error) = self.transport.send(&output) {
                tracing::debug!(%error, "a DHCP message could not be sent");
            }
        }
    }
}
