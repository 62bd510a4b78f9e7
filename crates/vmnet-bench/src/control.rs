//! What the bench and its load generators say to each other: one JSON object a line over a Unix socket.
//!
//! A Unix socket in the file system is reached from every network namespace, so control never shares the path under
//! test. A request names its work by a **token**; both ends keep a tally under that token and the bench compares them.

use crate::service::Ask;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// The first line of a load generator.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// Its `--name`.
    pub(crate) name: String,
}

/// An order of the bench.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Client: send on this many TCP streams until halted.
    Upload {
        server: SocketAddr,
        streams: usize,
        token: u64,
    },
    /// Client: receive on this many TCP streams until the server ends them.
    Download {
        server: SocketAddr,
        streams: usize,
        token: u64,
    },
    /// Count datagrams that come to an address. A client (`from`) announces itself to that address first; a server is told its new port.
    ReceiveDatagrams {
        at: IpAddr,
        from: Option<SocketAddr>,
        size: usize,
        token: u64,
    },
    /// Send datagrams from an address. A server (no `to`) waits for an announcement. A rate of 0 is as fast as it goes.
    SendDatagrams {
        at: IpAddr,
        to: Option<SocketAddr>,
        size: usize,
        rate: u64,
        token: u64,
    },
    /// Client: one byte there and back, until the rounds or the time are over.
    PingPong {
        server: SocketAddr,
        rounds: usize,
        millis: u64,
        token: u64,
    },
    /// Client: connect, ask, read, close, with this many at once.
    Connections {
        servers: Vec<SocketAddr>,
        workers: usize,
        lead_in_millis: u64,
        millis: u64,
    },
    /// Client: open flows that exchange a request once and then rest.
    Hold { server: SocketAddr, flows: usize },
    /// Client: close what `Hold` opened.
    Release,
    /// Client: measure the service.
    Service(Ask),
    /// How much so far.
    Count { token: u64 },
    /// Stop sending (or listening for datagrams).
    Halt { token: u64 },
    /// Wait for the last byte, then say the sums and forget the token.
    Totals { token: u64 },
}

/// The answer to a [`Request`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Done,
    Port(u16),
    Count(Count),
    Totals(Totals),
    Latency(Latency),
    Opened(Opened),
    /// By row.
    Values(Vec<(String, f64)>),
    Failed(String),
}

/// A sample of a tally, with the time (of the machine's monotonic clock) at which it was read.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Count {
    pub(crate) bytes: u64,
    pub(crate) packets: u64,
    pub(crate) nanos: u64,
}

/// The sums of a finished job.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Totals {
    pub(crate) bytes: u64,
    pub(crate) packets: u64,
    /// The address the other end was seen with.
    pub(crate) peer: Option<IpAddr>,
    pub(crate) failure: Option<String>,
}

/// Round trip times of one run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) rounds: usize,
    pub(crate) p50_nanos: u64,
    pub(crate) p99_nanos: u64,
}

/// Connections made in one run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Opened {
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    pub(crate) nanos: u64,
    pub(crate) failure: Option<String>,
}

/// Why an agent did not do what it was told.
pub(crate) type Refusal = String;

/// The bench's end of one load generator.
#[derive(Debug)]
pub(crate) struct Agent {
    lines: BufReader<UnixStream>,
}

impl Agent {
    /// Takes over a connection whose [`Hello`] was read.
    pub(crate) fn new(lines: BufReader<UnixStream>) -> Self {
        Self { lines }
    }

    /// Gives an order and waits for its answer, at most 40 seconds.
    pub(crate) fn ask(&mut self, request: &Request) -> Result<Reply, Refusal> {
        self.ask_within(request, Duration::from_secs(40))
    }

    /// Gives an order and waits so long for its answer.
    pub(crate) fn ask_within(
        &mut self,
        request: &Request,
        time: Duration,
    ) -> Result<Reply, Refusal> {
        let lost = |error: io::Error| format!("the load generator is lost: {error}");
        self.lines
            .get_ref()
            .set_read_timeout(Some(time))
            .map_err(lost)?;
        write_line(self.lines.get_mut(), request).map_err(lost)?;
        match read_line(&mut self.lines).map_err(lost)? {
            Some(Reply::Failed(why)) => Err(why),
            Some(reply) => Ok(reply),
            None => Err("the load generator ended".to_owned()),
        }
    }

    /// An order that is answered by [`Reply::Done`].
    pub(crate) fn tell(&mut self, request: &Request) -> Result<(), Refusal> {
        self.ask(request).map(|_| ())
    }

    /// Samples the tally of a token.
    pub(crate) fn count(&mut self, token: u64) -> Result<Count, Refusal> {
        match self.ask(&Request::Count { token })? {
            Reply::Count(count) => Ok(count),
            other => Err(format!("expected a count, got {other:?}")),
        }
    }

    /// Ends a token. A failure that the agent met underway is an error here.
    pub(crate) fn totals(&mut self, token: u64) -> Result<Totals, Refusal> {
        match self.ask(&Request::Totals { token })? {
            Reply::Totals(Totals {
                failure: Some(why), ..
            }) => Err(why),
            Reply::Totals(totals) => Ok(totals),
            other => Err(format!("expected totals, got {other:?}")),
        }
    }
}

/// Writes one value as one line.
pub(crate) fn write_line(to: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// Reads one line as a value; `None` at the end.
pub(crate) fn read_line<T: for<'a> Deserialize<'a>>(
    from: &mut impl BufRead,
) -> io::Result<Option<T>> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_str(&line)?))
}
