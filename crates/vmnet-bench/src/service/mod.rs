//! The service and its command line: how long starting takes, what it holds in memory, how fast it answers.
//!
//! | file | what it measures |
//! | --- | --- |
//! | `cold.rs` | a command from nothing to its end, with vmnet and with the peers |
//! | `interface.rs` | starting and stopping interfaces, making networks, and the disk below that |
//! | `memory.rs` | the daemon with nothing, with networks, with ports |
//! | `calls.rs` | calls a second |
//! | `recovery.rs` | from the death of the daemon to the guest's next connection |
//! | `daemon.rs` | a daemon of the bench's own, ended by its number |
//! | `folders.rs` | where all of that is kept |
//!
//! The service answers only processes of its own user and network namespace. So these measurements are made by a load
//! generator that runs as the ordinary user in the host's namespace, and the bench only tells it to.

mod calls;
mod cold;
pub(crate) mod daemon;
pub(crate) mod folders;
mod interface;
mod memory;
pub(crate) mod recovery;

use crate::control::{Refusal, Reply, Request};
use crate::measure::Values;
use crate::options::Options;
use crate::path::{self, Kind, Path};
use crate::testbed::Testbed;
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

/// How long one part may take.
const PATIENCE: Duration = Duration::from_secs(400);

/// What a measurement of the service answers on failure.
pub(crate) type Failure = Box<dyn Error>;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Part {
    /// A command on a network of its own; also with the peers.
    ColdPrivate,
    /// A command on a network of the service, which does not run yet.
    ColdStarting,
    /// The same with a service that runs.
    ColdRunning,
    /// Interfaces with a fresh identity, kept on disk.
    Interfaces,
    /// Interfaces without an identity.
    PlainInterfaces,
    /// Networks.
    Networks,
    /// The daemon's memory.
    Memory,
    /// Calls a second over this many connections.
    Calls { connections: usize },
    /// The daemon is killed and a guest connects again.
    Recovery,
    /// Frames of this many bytes from one program to another, by the library.
    Library { len: usize },
    /// How soon a program hears of a frame.
    Events,
}

impl Part {
    /// Whether this can be measured of a path.
    pub(crate) fn is_of(self, kind: Kind) -> bool {
        match kind {
            Kind::Ours => true,
            Kind::Pasta | Kind::Slirp4netns => self == Self::ColdPrivate,
            Kind::Kernel => false,
        }
    }

    /// How often it is done in one measurement.
    fn runs(self, options: &Options) -> usize {
        match self {
            Self::ColdPrivate | Self::ColdStarting | Self::ColdRunning => 20,
            Self::Interfaces | Self::PlainInterfaces => 500,
            Self::Networks => 50,
            Self::Memory | Self::Calls { .. } | Self::Library { .. } | Self::Events => 1,
            Self::Recovery if options.quick => 3,
            Self::Recovery => 10,
        }
    }
}

/// An order to measure.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ask {
    part: Part,
    /// Of which program.
    peer: Peer,
    /// How often.
    runs: usize,
    /// How long, where it is a matter of time.
    millis: u64,
    /// Where a guest finds an answer outside.
    server: SocketAddr,
}

/// A program that starts a command behind a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Peer {
    Vmnet,
    Pasta,
    Slirp4netns,
}

/// The MTU under which the rows of the service are shown: it does not matter to them, so they are measured once.
pub(crate) fn column(options: &Options) -> Option<u32> {
    let wanted = crate::targets::MTU;
    let first = || options.mtu.first().copied();
    options
        .mtu
        .contains(&wanted)
        .then_some(wanted)
        .or_else(first)
}

/// Has one part measured, in folders of its own.
pub(crate) fn measure(
    part: Part,
    path: Path,
    testbed: &mut Testbed,
    options: &Options,
) -> Result<Values, Refusal> {
    let peer = match path.kind {
        Kind::Ours => {
            path::install_ours(testbed, options)?;
            Peer::Vmnet
        }
        Kind::Pasta => Peer::Pasta,
        Kind::Slirp4netns => Peer::Slirp4netns,
        Kind::Kernel => return Err("kernel NAT has no service".to_owned()),
    };
    let ask = Request::Service(Ask {
        part,
        peer,
        runs: part.runs(options),
        millis: (options.seconds() * 1e3) as u64,
        server: testbed.short_address(),
    });
    let name = testbed.fresh_name("service");
    let home = testbed
        .scratch()
        .directory_of(&name, testbed.user())
        .map_err(|error| format!("a folder for the service: {error}"))?;
    let mut command = testbed.client_command(&name);
    folders::set(&mut command, &home);
    let mut process = testbed.start(command, &testbed.host, &name)?;
    let (mut agent, _) = testbed.await_agent(&name, &mut process)?;
    match agent.ask_within(&ask, PATIENCE) {
        Ok(Reply::Values(values)) => Ok(values),
        Ok(other) => Err(format!("expected values, got {other:?}")),
        Err(why) => Err(format!("{why}{}", testbed.last_words(&name))),
    }
}

/// Measures, in the load generator.
pub(crate) fn obey(ask: &Ask) -> Result<Values, Failure> {
    folders::make()?;
    match ask.part {
        Part::ColdPrivate => cold::private(ask.peer, ask.runs),
        Part::ColdStarting => cold::starting(ask.runs),
        Part::ColdRunning => cold::running(ask.runs),
        Part::Interfaces => interface::fresh(ask.runs),
        Part::PlainInterfaces => interface::plain(ask.runs),
        Part::Networks => interface::networks(ask.runs),
        Part::Memory => memory::measure(),
        Part::Calls { connections } => calls::measure(connections, ask.millis),
        Part::Library { len } => crate::library::frames(len, ask.millis),
        Part::Events => crate::library::events(ask.millis),
        Part::Recovery => recovery::measure(ask.server, ask.runs),
    }
}

/// A share of some samples: 50 for the median. The smallest sample that so many of a hundred do not exceed.
pub(crate) fn percentile(samples: &[f64], share: usize) -> Result<f64, Failure> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let rank = (sorted.len() * share).div_ceil(100).max(1) - 1;
    let value = sorted.get(rank).ok_or("nothing was measured")?;
    Ok(*value)
}

/// Milliseconds.
fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn named(values: &[(&str, f64)]) -> Values {
    values
        .iter()
        .map(|(row, value)| ((*row).to_owned(), *value))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let samples: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!(percentile(&samples, 50).unwrap(), 100.0);
        assert_eq!(percentile(&samples, 99).unwrap(), 198.0);
        assert_eq!(percentile(&samples, 100).unwrap(), 200.0);
        assert_eq!(percentile(&[7.0], 50).unwrap(), 7.0);
        assert!(percentile(&[], 50).is_err());
    }
}
