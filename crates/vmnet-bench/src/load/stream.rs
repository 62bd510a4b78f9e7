//! TCP: bulk in either direction with both sums compared afterwards, and one byte there and back.
//!
//! A connection begins with 24 bytes from the client: a magic number, what it wants, and the token.

use super::tally::{Tallies, Tally};
use crate::control::Latency;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

const MAGIC: u64 = 0x766d_6e65_745f_6c64;
const UPLOAD: u64 = 1;
const DOWNLOAD: u64 = 2;
const ECHO: u64 = 3;

/// One read or write. Large enough that the system calls of the load do not count.
const CHUNK: usize = 256 * 1024;
/// A stream that moves nothing for this long has failed.
const STALL: Duration = Duration::from_secs(10);

/// Serves every wish on this address, one thread a connection.
pub(crate) fn listen(at: SocketAddr, tallies: Tallies) -> io::Result<()> {
    let listener = super::short::listener(at)?;
    listener.set_nonblocking(false)?;
    thread::spawn(move || {
        while let Ok((stream, peer)) = listener.accept() {
            let tallies = tallies.clone();
            thread::spawn(move || serve(stream, peer, &tallies));
        }
    });
    Ok(())
}

fn serve(mut stream: TcpStream, peer: SocketAddr, tallies: &Tallies) {
    let Ok((wish, token)) = read_header(&mut stream) else {
        return;
    };
    let tally = tallies.open(token);
    let _busy = tally.begin();
    tally.saw(peer.ip());
    let done = match wish {
        UPLOAD => pull(&mut stream, &tally),
        DOWNLOAD => push(&mut stream, &tally),
        ECHO => echo(&mut stream),
        other => Err(io::Error::other(format!("unknown wish {other}"))),
    };
    if let Err(error) = done {
        tally.fail(&format!("server side: {error}"));
    }
}

fn read_header(stream: &mut TcpStream) -> io::Result<(u64, u64)> {
    stream.set_nodelay(true)?;
    limit(stream)?;
    let mut word = [0; 8];
    let mut next = || {
        stream
            .read_exact(&mut word)
            .map(|()| u64::from_be_bytes(word))
    };
    if next()? != MAGIC {
        return Err(io::Error::other("not a load generator"));
    }
    Ok((next()?, next()?))
}

fn limit(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(STALL))?;
    stream.set_write_timeout(Some(STALL))
}

fn connect(server: SocketAddr, wish: u64, token: u64) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&server, STALL)?;
    stream.set_nodelay(true)?;
    limit(&stream)?;
    let header: Vec<u8> = [MAGIC, wish, token]
        .iter()
        .flat_map(|word| word.to_be_bytes())
        .collect();
    stream.write_all(&header)?;
    Ok(stream)
}

/// Sends on `streams` connections until halted; each then waits until the server has everything.
pub(crate) fn upload(
    server: SocketAddr,
    streams: usize,
    token: u64,
    tally: Arc<Tally>,
) -> io::Result<()> {
    spawn(server, UPLOAD, streams, token, &tally, push)
}

/// Receives on `streams` connections until the server ends them.
pub(crate) fn download(
    server: SocketAddr,
    streams: usize,
    token: u64,
    tally: Arc<Tally>,
) -> io::Result<()> {
    spawn(server, DOWNLOAD, streams, token, &tally, pull)
}

fn spawn(
    server: SocketAddr,
    wish: u64,
    streams: usize,
    token: u64,
    tally: &Arc<Tally>,
    work: fn(&mut TcpStream, &Tally) -> io::Result<()>,
) -> io::Result<()> {
    let connections: Vec<_> = (0..streams)
        .map(|_| connect(server, wish, token))
        .collect::<io::Result<_>>()?;
    for mut stream in connections {
        let tally = Arc::clone(tally);
        let busy = tally.begin();
        thread::spawn(move || {
            if let Err(error) = work(&mut stream, &tally) {
                tally.fail(&format!("client side: {error}"));
            }
            drop(busy);
        });
    }
    Ok(())
}

/// Sends until halted, then half-closes and waits for the other end to close: all has arrived.
fn push(stream: &mut TcpStream, tally: &Tally) -> io::Result<()> {
    let chunk = vec![0x5a; CHUNK];
    while !tally.halted() {
        let sent = stream.write(&chunk).map_err(stalled)?;
        tally.add(sent, 0);
    }
    stream.shutdown(Shutdown::Write)?;
    match stream.read(&mut [0]).map_err(stalled)? {
        0 => Ok(()),
        _ => Err(io::Error::other("bytes came from an end that sends none")),
    }
}

/// Receives until the other end half-closes.
fn pull(stream: &mut TcpStream, tally: &Tally) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        match stream.read(&mut chunk).map_err(stalled)? {
            0 => return Ok(()),
            got => tally.add(got, 0),
        }
    }
}

fn stalled(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock {
        return io::Error::other(format!("nothing moved for {} s", STALL.as_secs()));
    }
    error
}

/// Which core a ping-pong end is bound to: client and server each their own, or the scheduler's choice whether both
/// share a core (likely why unbound runs differ four times) would be what is measured. The path is not bound.
#[derive(Clone, Copy)]
enum End {
    Client,
    Server,
}

/// Binds this thread to one core until dropped.
struct Bound(Option<CpuSet>);

impl Bound {
    fn to(end: End) -> Self {
        let Ok(before) = sched_getaffinity(None) else {
            return Self(None);
        };
        let mut allowed = (0..CpuSet::MAX_CPU).filter(|core| before.is_set(*core));
        let core = match end {
            End::Client => allowed.next(),
            End::Server => allowed.next_back(),
        };
        let mut only = CpuSet::new();
        if let Some(core) = core {
            only.set(core);
        }
        Self(sched_setaffinity(None, &only).is_ok().then_some(before))
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = sched_setaffinity(None, before);
        }
    }
}

fn echo(stream: &mut TcpStream) -> io::Result<()> {
    let _bound = Bound::to(End::Server);
    let mut byte = [0];
    loop {
        if stream.read(&mut byte).map_err(stalled)? == 0 {
            return Ok(());
        }
        stream.write_all(&byte)?;
    }
}

/// One byte there and back, again and again, until `rounds` or `millis` are over; the first tenth is not counted.
pub(crate) fn ping_pong(
    server: SocketAddr,
    rounds: usize,
    millis: u64,
    token: u64,
) -> io::Result<Latency> {
    let mut stream = connect(server, ECHO, token)?;
    let _bound = Bound::to(End::Client);
    let end = Instant::now() + Duration::from_millis(millis);
    let lead_in = rounds / 10;
    let mut times = Vec::with_capacity(rounds + lead_in);
    for round in 0..rounds + lead_in {
        let sent = Instant::now();
        let (there, mut back) = ([round.to_le_bytes()[0]], [0]);
        stream.write_all(&there)?;
        stream.read_exact(&mut back).map_err(stalled)?;
        let now = Instant::now();
        if there != back {
            return Err(io::Error::other("the echo is not what was sent"));
        }
        times.push((now - sent).as_nanos() as u64);
        if now >= end {
            break;
        }
    }
    let counted = times.split_off(lead_in.min(times.len() / 10));
    percentiles(counted).ok_or_else(|| io::Error::other("not one round trip was made"))
}

fn percentiles(mut times: Vec<u64>) -> Option<Latency> {
    times.sort_unstable();
    let at = |percent: usize| {
        times
            .get((times.len() * percent / 100).min(times.len().saturating_sub(1)))
            .copied()
    };
    Some(Latency {
        rounds: times.len(),
        p50_nanos: at(50)?,
        p99_nanos: at(99)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn percentiles_of_a_known_run() {
        let latency = percentiles((1..=1000).rev().collect()).unwrap();
        assert_eq!(
            (latency.rounds, latency.p50_nanos, latency.p99_nanos),
            (1000, 501, 991)
        );
        assert!(percentiles(Vec::new()).is_none());
    }

    #[test]
    fn both_ends_count_the_same_bytes() {
        let tallies = Tallies::default();
        let probe = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = probe.local_addr().unwrap();
        drop(probe);
        listen(at, tallies.clone()).unwrap();
        let client = Tallies::default();
        upload(at, 2, 7, client.open(7)).unwrap();
        thread::sleep(Duration::from_millis(50));
        client.open(7).halt();
        let sent = client.close(7);
        let received = tallies.close(7);
        assert!(sent.bytes > 0);
        assert_eq!(sent.bytes, received.bytes);
        assert_eq!((sent.failure, received.failure), (None, None));
    }
}
