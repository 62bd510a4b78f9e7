//! One connection and its outcome, many at once, many one after another.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::{open, wrong};

/// What came of connecting, in a word, and how long it took.
///
/// `connected`, `refused` (RST), `unreachable` (ICMP), `timeout`, or the error as text.
#[must_use]
pub fn outcome(address: SocketAddr, timeout: Duration) -> (String, Duration) {
    let begin = Instant::now();
    let result = TcpStream::connect_timeout(&address, timeout);
    let took = begin.elapsed();
    let word = match result.map_err(|error| (error.kind(), error)) {
        Ok(_) => "connected".to_owned(),
        Err((ErrorKind::ConnectionRefused, _)) => "refused".to_owned(),
        Err((ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable, _)) => {
            "unreachable".to_owned()
        }
        Err((ErrorKind::TimedOut | ErrorKind::WouldBlock, _)) => "timeout".to_owned(),
        Err((_, error)) => error.to_string(),
    };
    (word, took)
}

/// Connects to the addresses of a name one after another, those of IPv6 first; which one it was, and how long it took.
///
/// # Errors
/// None of them can be reached.
pub fn six_first(mut found: Vec<SocketAddr>, timeout: Duration) -> io::Result<String> {
    let begin = Instant::now();
    found.sort_by_key(SocketAddr::is_ipv4);
    let mut words = Vec::new();
    for address in found {
        let (word, _) = outcome(address, timeout);
        let connected = word == "connected";
        words.push(format!("{} {word}", address.ip()));
        if connected {
            let took = begin.elapsed().as_millis();
            return Ok(format!("{} {took} ms", words.join(", ")));
        }
    }
    Err(wrong(words.join(", ")))
}

/// Opens `count` connections to an echo server, and when all are open, uses each of them.
///
/// # Errors
/// The first connection that fails or gets back other bytes than it sent.
pub fn at_once(address: SocketAddr, count: usize) -> io::Result<()> {
    let streams = in_parallel((0..count).collect(), |_| open(address))?;
    let numbered = streams.into_iter().enumerate().collect();
    let streams = in_parallel(numbered, |(number, mut stream)| {
        echo(&mut stream, number).map(|()| stream)
    })?;
    in_parallel(streams, close).map(drop)
}

/// Opens `count` connections to an echo server, each when the one before is closed, and uses each.
///
/// # Errors
/// The first connection that fails, with its number.
pub fn one_after_another(address: SocketAddr, count: usize) -> io::Result<()> {
    for number in 0..count {
        let once = || {
            let mut stream = open(address)?;
            echo(&mut stream, number)?;
            close(stream)
        };
        once().map_err(|error| wrong(format!("connection {number} of {count}: {error}")))?;
    }
    Ok(())
}

/// Opens, uses and closes connections until `time` is over; how many.
///
/// # Errors
/// The first connection that fails.
pub fn churn(address: SocketAddr, time: Duration) -> io::Result<usize> {
    let begin = Instant::now();
    let mut count = 0;
    while begin.elapsed() < time {
        at_once(address, 8)?;
        count += 8;
    }
    Ok(count)
}

fn echo(stream: &mut TcpStream, number: usize) -> io::Result<()> {
    let message = format!("this is connection {number}\n");
    stream.write_all(message.as_bytes())?;
    let mut back = vec![0; message.len()];
    stream.read_exact(&mut back)?;
    if back == message.as_bytes() {
        return Ok(());
    }
    let back = String::from_utf8_lossy(&back).into_owned();
    Err(wrong(format!("connection {number} got {back:?}")))
}

/// Closes our half and reads the end of the other.
fn close(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest)?;
    if rest.is_empty() {
        return Ok(());
    }
    Err(wrong(format!(
        "{} bytes too many before the end",
        rest.len()
    )))
}

fn in_parallel<A: Send, B: Send>(
    items: Vec<A>,
    work: impl Fn(A) -> io::Result<B> + Sync,
) -> io::Result<Vec<B>> {
    let work = &work;
    thread::scope(|scope| {
        let threads: Vec<_> = items
            .into_iter()
            .map(|item| {
                let worker = thread::Builder::new().stack_size(128 * 1024);
                worker.spawn_scoped(scope, move || work(item))
            })
            .collect::<io::Result<_>>()?;
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(wrong("a thread panicked".into())))
            })
            .collect()
    })
}
