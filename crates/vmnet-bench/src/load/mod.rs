//! The load generator: `vmnet-bench load client|server`, driven by the bench through its control socket.
//!
//! | file | what it does |
//! | --- | --- |
//! | `tally.rs` | what was moved under a token, counted by the threads that move it |
//! | `stream.rs` | TCP in bulk, and the byte that goes there and back |
//! | `datagram.rs` | UDP, paced, by the batch |
//! | `short.rs` | connections by the thousand: short ones, and idle ones that are held |
//!
//! Both roles are the same program; a server merely listens as well.

pub(crate) mod datagram;
pub(crate) mod short;
pub(crate) mod stream;
pub(crate) mod tally;

use crate::control::{Hello, Reply, Request, read_line, write_line};
use std::io::{self, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use tally::Tallies;

/// The port of bulk transfers and of ping-pong.
pub(crate) const STREAM_PORT: u16 = 5001;
/// The first port of short connections, also that of held ones.
pub(crate) const SHORT_PORT: u16 = 5100;
/// How many ports short connections are spread over. The end that closes first remembers a pair of addresses and ports
/// for a minute (RFC 9293, section 3.6.1), so one port of a server serves 64,512 connections a minute of one host.
pub(crate) const SHORT_PORTS: u16 = 64;

/// `vmnet-bench load`.
#[derive(Debug, clap::Args)]
pub(crate) struct Load {
    /// Which end to be.
    #[arg(value_enum)]
    role: Role,
    /// The control socket of the bench.
    #[arg(long)]
    control: PathBuf,
    /// The name under which to report.
    #[arg(long)]
    name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Role {
    Client,
    Server,
}

/// Serves the bench until it closes the control socket.
pub(crate) fn run(load: &Load) -> io::Result<()> {
    crate::sys::raise_open_files();
    let tallies = Tallies::default();
    if load.role == Role::Server {
        for any in [
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        ] {
            stream::listen((any, STREAM_PORT).into(), tallies.clone())?;
            let ports = SHORT_PORT..SHORT_PORT + SHORT_PORTS;
            let addresses = ports.map(|port| (any, port).into());
            short::listen(&addresses.collect::<Vec<_>>())?;
        }
    }
    let mut control = UnixStream::connect(&load.control)?;
    write_line(
        &mut control,
        &Hello {
            name: load.name.clone(),
        },
    )?;
    let mut lines = BufReader::new(control.try_clone()?);
    let mut held = Vec::new();
    while let Some(request) = read_line(&mut lines)? {
        let reply = obey(request, &tallies, &mut held)
            .unwrap_or_else(|error| Reply::Failed(error.to_string()));
        write_line(&mut control, &reply)?;
    }
    Ok(())
}

fn obey(
    request: Request,
    tallies: &Tallies,
    held: &mut Vec<std::net::TcpStream>,
) -> io::Result<Reply> {
    Ok(match request {
        Request::Upload {
            server,
            streams,
            token,
        } => {
            stream::upload(server, streams, token, tallies.open(token))?;
            Reply::Done
        }
        Request::Download {
            server,
            streams,
            token,
        } => {
            stream::download(server, streams, token, tallies.open(token))?;
            Reply::Done
        }
        Request::ReceiveDatagrams {
            at,
            from,
            size,
            token,
        } => {
            let tally = tallies.open(token);
            Reply::Port(datagram::receive((at, from), size, token, tally)?)
        }
        Request::SendDatagrams {
            at,
            to,
            size,
            rate,
            token,
        } => {
            let tally = tallies.open(token);
            Reply::Port(datagram::send((at, to), size, rate, token, tally)?)
        }
        Request::PingPong {
            server,
            rounds,
            millis,
            token,
        } => Reply::Latency(stream::ping_pong(server, rounds, millis, token)?),
        Request::Connections {
            servers,
            workers,
            lead_in_millis,
            millis,
        } => Reply::Opened(short::connections(
            &servers,
            workers,
            lead_in_millis,
            millis,
        )?),
        Request::Hold { server, flows } => {
            *held = short::hold(server, flows)?;
            Reply::Done
        }
        Request::Release => {
            held.clear();
            Reply::Done
        }
        Request::Service(ask) => Reply::Values(
            crate::service::obey(&ask).map_err(|error| io::Error::other(error.to_string()))?,
        ),
        Request::Count { token } => Reply::Count(tallies.open(token).count()),
        Request::Halt { token } => {
            tallies.open(token).halt();
            Reply::Done
        }
        Request::Totals { token } => Reply::Totals(tallies.close(token)),
    })
}
