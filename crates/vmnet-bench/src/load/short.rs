//! Connections by the thousand, one `epoll` thread at each end so that the ends stay cheap.
//!
//! A request is 64 bytes, an answer 128. The first byte of the request says what the server does then: close (as a web
//! server without keep-alive does) or keep the connection open.

use crate::control::Opened;
use rustix::event::epoll;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

const CLOSE: u8 = b'C';
const KEEP: u8 = b'K';
const REQUEST: usize = 64;
const ANSWER: [u8; 128] = [b'a'; 128];
/// Keys from here on are those of listeners; no descriptor has such a number.
const LISTENER: u64 = 1 << 32;
/// A connection that is not done by then has failed.
const LIFETIME: Duration = Duration::from_secs(5);

fn events() -> Vec<epoll::Event> {
    Vec::with_capacity(256)
}

fn key(of: &impl AsRawFd) -> u64 {
    of.as_raw_fd().unsigned_abs().into()
}

fn wait(
    poll: &OwnedFd,
    events: &mut Vec<epoll::Event>,
    timeout: Option<Duration>,
) -> io::Result<()> {
    events.clear();
    let timeout = timeout.map(|time| rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: time.as_nanos() as i64,
    });
    match epoll::wait(
        poll,
        rustix::buffer::spare_capacity(events),
        timeout.as_ref(),
    ) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Answers requests on these addresses, with one thread.
pub(crate) fn listen(at: &[SocketAddr]) -> io::Result<()> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut listeners = HashMap::new();
    for address in at {
        let listener = listener(*address)?;
        let number = LISTENER + key(&listener);
        epoll::add(
            &poll,
            &listener,
            epoll::EventData::new_u64(number),
            epoll::EventFlags::IN,
        )?;
        listeners.insert(number, listener);
    }
    thread::spawn(move || {
        let mut open = HashMap::new();
        let mut events = events();
        while wait(&poll, &mut events, None).is_ok() {
            for event in &events {
                let key = event.data.u64();
                match listeners.get(&key) {
                    Some(listener) => accept(listener, &poll, &mut open),
                    None => answer(key, &mut open),
                }
            }
        }
    });
    Ok(())
}

/// A socket that listens at an address of one family.
pub(super) fn listener(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = rustix::net::socket_with(
        family(at),
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
    if at.is_ipv6() {
        rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
    }
    rustix::net::bind(&socket, &at)?;
    // Longer than the number of clients that ever connect at once: the queue must never be what is measured.
    rustix::net::listen(&socket, 4096)?;
    Ok(TcpListener::from(socket))
}

fn family(of: SocketAddr) -> AddressFamily {
    match of {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    }
}

fn accept(listener: &TcpListener, poll: &OwnedFd, open: &mut HashMap<u64, TcpStream>) {
    while let Ok((stream, _)) = listener.accept() {
        let key = key(&stream);
        let ready = stream.set_nonblocking(true).is_ok()
            && epoll::add(
                poll,
                &stream,
                epoll::EventData::new_u64(key),
                epoll::EventFlags::IN,
            )
            .is_ok();
        if ready {
            open.insert(key, stream);
        }
    }
}

fn answer(key: u64, open: &mut HashMap<u64, TcpStream>) {
    let Some(stream) = open.get_mut(&key) else {
        return;
    };
    let mut request = [0; REQUEST];
    let keep = match stream.read(&mut request) {
        // A request is written at once and is smaller than any segment: it comes whole or the client is not ours.
        Ok(REQUEST) => stream.write_all(&ANSWER).is_ok() && request.first() == Some(&KEEP),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
        _ => false,
    };
    if !keep {
        open.remove(&key);
    }
}

fn request(kind: u8) -> [u8; REQUEST] {
    let mut request = [b'.'; REQUEST];
    if let Some(first) = request.first_mut() {
        *first = kind;
    }
    request
}

/// One connection of the closed loop.
struct Client {
    stream: TcpStream,
    began: Instant,
    asked: bool,
    got: usize,
}

enum Step {
    Waits,
    Complete,
}

impl Client {
    fn start(server: SocketAddr, poll: &OwnedFd) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family(server), SocketType::STREAM, flags, None)?;
        match rustix::net::connect(&socket, &server) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let events = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(
            poll,
            &socket,
            epoll::EventData::new_u64(key(&socket)),
            events,
        )?;
        Ok(Self {
            stream: socket.into(),
            began: Instant::now(),
            asked: false,
            got: 0,
        })
    }

    fn step(&mut self) -> io::Result<Step> {
        if !self.asked {
            match self.stream.write(&request(CLOSE)) {
                Ok(_) => self.asked = true,
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected
                    ) =>
                {
                    return Ok(Step::Waits);
                }
                Err(error) => return Err(error),
            }
        }
        let mut space = [0; 512];
        loop {
            match self.stream.read(&mut space) {
                Ok(0) if self.got == ANSWER.len() => return Ok(Step::Complete),
                Ok(0) => {
                    return Err(io::Error::other(format!(
                        "closed after {} bytes of the answer",
                        self.got
                    )));
                }
                Ok(got) => self.got += got,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Step::Waits),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Opens, asks, reads and closes with `workers` at once, for `lead_in_millis` uncounted and `millis` counted. The servers
/// are asked in turn.
pub(crate) fn connections(
    servers: &[SocketAddr],
    workers: usize,
    lead_in_millis: u64,
    millis: u64,
) -> io::Result<Opened> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut open = HashMap::new();
    let mut events = events();
    let mut turn = servers.iter().cycle();
    let mut result = Opened {
        completed: 0,
        failed: 0,
        nanos: 0,
        failure: None,
    };
    let mut begin = Instant::now() + Duration::from_millis(lead_in_millis);
    let mut counted = false;
    let mut look = Instant::now() + LIFETIME;
    loop {
        let now = Instant::now();
        if !counted && now >= begin {
            (counted, begin, result.completed) = (true, now, 0);
        }
        if counted && now >= begin + Duration::from_millis(millis) {
            result.nanos = (now - begin).as_nanos() as u64;
            return Ok(result);
        }
        if now >= look {
            look = now + LIFETIME / 4;
            let before = open.len();
            open.retain(|_, client: &mut Client| now - client.began < LIFETIME);
            result.failed += (before - open.len()) as u64;
            if open.len() < before {
                result
                    .failure
                    .get_or_insert_with(|| format!("not done within {} s", LIFETIME.as_secs()));
            }
        }
        while open.len() < workers {
            let server = turn
                .next()
                .ok_or_else(|| io::Error::other("no server is named"))?;
            let client = Client::start(*server, &poll)?;
            open.insert(key(&client.stream), client);
        }
        wait(&poll, &mut events, Some(Duration::from_millis(20)))?;
        for event in &events {
            let key = event.data.u64();
            match open.get_mut(&key).map(Client::step) {
                None | Some(Ok(Step::Waits)) => continue,
                Some(Ok(Step::Complete)) => result.completed += 1,
                Some(Err(error)) => {
                    result.failed += 1;
                    result.failure.get_or_insert_with(|| error.to_string());
                }
            }
            open.remove(&key);
        }
        if result.failed > 1000 {
            return Err(io::Error::other(result.failure.unwrap_or_default()));
        }
    }
}

/// Connects, asks and is answered, each within this time; the connection stays open.
pub(crate) fn exchange(server: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&server, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(&request(KEEP))?;
    stream.read_exact(&mut [0; ANSWER.len()])?;
    Ok(stream)
}

/// Opens flows that prove themselves by one request each and then rest.
pub(crate) fn hold(server: SocketAddr, flows: usize) -> io::Result<Vec<TcpStream>> {
    let mut held = Vec::with_capacity(flows);
    for number in 0..flows {
        held.push(
            exchange(server, LIFETIME)
                .map_err(|error| io::Error::other(format!("flow {number} of {flows}: {error}")))?,
        );
    }
    Ok(held)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loop_completes_and_flows_are_held() {
        let probe = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = probe.local_addr().unwrap();
        drop(probe);
        listen(&[at]).unwrap();
        let opened = connections(&[at], 4, 20, 200).unwrap();
        assert!(opened.completed > 20, "{opened:?}");
        assert_eq!(opened.failed, 0, "{opened:?}");
        assert_eq!(hold(at, 50).unwrap().len(), 50);
    }
}
