//! Two guests of one network, and what goes from one to the other: `vmnet run --network` twice, beside two namespaces on a
//! bridge of the kernel.
//!
//! | file | the network |
//! | --- | --- |
//! | `bridge.rs` | veths on a bridge: the rootful limit |
//! | `ours.rs` | a network of the service; in the mixed row with a third guest that takes no offload |

mod bridge;
mod ours;

use crate::control::{Agent, Count, Refusal, Reply, Request, Totals};
use crate::measure::Values;
use crate::namespace::Namespace;
use crate::options::Options;
use crate::path::{Kind, Path};
use crate::process::{Busy, Guarded};
use crate::testbed::Testbed;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::thread::sleep;
use std::time::Duration;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    /// Bulk TCP from one guest to the other.
    Tcp {
        streams: usize,
        /// A third guest of the network takes no large segments and no unfinished checksums.
        mixed: bool,
    },
    /// One byte there and back.
    RequestResponse,
}

impl Part {
    /// Whether this can be measured of a path.
    pub(crate) fn is_of(self, kind: Kind) -> bool {
        match (self, kind) {
            (_, Kind::Ours) => true,
            // A bridge knows no guest without offload.
            (Self::Tcp { mixed, .. }, Kind::Kernel) => !mixed,
            (Self::RequestResponse, Kind::Kernel) => true,
            (_, Kind::Pasta | Kind::Slirp4netns) => false,
        }
    }
}

/// Two guests that run. Fields are dropped in order: the guests before what is between them.
struct Pair {
    client: Agent,
    server: Agent,
    /// The two guests' addresses.
    from: IpAddr,
    to: IpAddr,
    /// Who carries the frames, if it is not the kernel.
    network: Option<u32>,
    _third: Option<UnixStream>,
    /// Of the bridge, which ends with it.
    _switch: Option<Namespace>,
    _processes: Vec<Guarded>,
}

/// Starts two guests and measures.
pub(crate) fn measure(
    part: Part,
    path: Path,
    testbed: &mut Testbed,
    options: &Options,
) -> Result<Values, Refusal> {
    let name = testbed.fresh_name("pair");
    let mut pair = match path.kind {
        Kind::Kernel => bridge::start(&name, path.mtu, testbed)?,
        Kind::Ours => {
            let mixed = matches!(part, Part::Tcp { mixed: true, .. });
            ours::start(&name, path.mtu, mixed, testbed, options)?
        }
        Kind::Pasta | Kind::Slirp4netns => {
            return Err("it has no network for several guests".to_owned());
        }
    };
    let measured = match part {
        Part::Tcp { streams, mixed } => pair.tcp(streams, mixed, options),
        Part::RequestResponse => pair.request_response(options),
    };
    measured.map_err(|why| format!("{why}{}", testbed.last_words(&name)))
}

/// The one address of a guest by which others reach it.
fn address(inside: &Namespace) -> Result<IpAddr, Refusal> {
    let shown = inside.ip("-br -4 addr show scope global")?;
    let address = shown.split_whitespace().nth(2);
    let address = address.and_then(|address| address.split('/').next()?.parse().ok());
    address.ok_or_else(|| format!("a guest has no address: {shown}"))
}

impl Pair {
    fn tcp(&mut self, streams: usize, mixed: bool, options: &Options) -> Result<Values, Refusal> {
        const TOKEN: u64 = 1;
        let server: SocketAddr = (self.to, crate::load::STREAM_PORT).into();
        self.client.tell(&Request::Upload {
            server,
            streams,
            token: TOKEN,
        })?;
        sleep(Duration::from_secs_f64(options.lead_in()));
        let (first, busy_first) = (self.server.count(TOKEN)?, Busy::now(self.network));
        sleep(Duration::from_secs_f64(options.seconds()));
        let (last, busy_last) = (self.server.count(TOKEN)?, Busy::now(self.network));
        self.client.tell(&Request::Halt { token: TOKEN })?;
        let sent = self.client.totals(TOKEN)?;
        let received = self.server.totals(TOKEN)?;
        if sent.bytes != received.bytes {
            return Err(format!(
                "{} bytes were sent, {} arrived",
                sent.bytes, received.bytes
            ));
        }
        self.came_from_the_other(&received)?;
        if self.network.is_some() && busy_last.network <= busy_first.network {
            return Err("its network process did nothing meanwhile: it was not used".to_owned());
        }
        let rate = rate(first, last)?;
        let row = match (streams, mixed) {
            (_, true) => "pair_tcp_mixed".to_owned(),
            (streams, false) => format!("pair_tcp_{streams}"),
        };
        Ok(vec![(row, rate)])
    }

    fn request_response(&mut self, options: &Options) -> Result<Values, Refusal> {
        const TOKEN: u64 = 2;
        let (rounds, millis) = options.rounds();
        let reply = self.client.ask(&Request::PingPong {
            server: (self.to, crate::load::STREAM_PORT).into(),
            rounds,
            millis,
            token: TOKEN,
        })?;
        let served = self.server.totals(TOKEN)?;
        self.came_from_the_other(&served)?;
        match reply {
            Reply::Latency(latency) if latency.rounds >= 100 => Ok(vec![(
                "pair_rr_p50".to_owned(),
                latency.p50_nanos as f64 / 1e3,
            )]),
            other => Err(format!("too few round trips: {other:?}")),
        }
    }

    fn came_from_the_other(&self, totals: &Totals) -> Result<(), Refusal> {
        if totals.peer == Some(self.from) {
            return Ok(());
        }
        Err(format!(
            "the guest saw {:?} and not the other one, {}",
            totals.peer, self.from
        ))
    }
}

fn rate(first: Count, last: Count) -> Result<f64, Refusal> {
    let bytes = (last.bytes - first.bytes) as f64;
    if bytes == 0.0 {
        return Err("not one byte arrived while it was measured".to_owned());
    }
    let seconds = (last.nanos - first.nanos) as f64 / 1e9;
    Ok(bytes * 8.0 / seconds / 1e9)
}
