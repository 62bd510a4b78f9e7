//! One TCP socket of the host, and the server at its other end.
//!
//! The receive queue is read like a Linux socket with `SO_PEEK_OFF`: peeks name an offset, and bytes stay until they
//! are discarded. The send queue has limited room.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use vmnet_core::{HostError, SocketId};

/// The byte at a place of the stream that test servers and guests send.
#[must_use]
pub fn pattern(at: u64) -> u8 {
    let mixed = at.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8 ^ at as u8
}

/// What listens at an address of the internet.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Server {
    /// Sends back what it reads, and closes when the other does.
    Echo,
    /// Reads everything.
    Sink,
    /// Sends so many bytes of the pattern, then closes; reads everything.
    Source(u64),
    /// Reads until the end, and only then sends so many bytes, and closes.
    Late(u64),
    /// Refuses.
    Refuse,
    /// Never answers.
    BlackHole,
    /// Cannot be reached.
    Error(HostError),
    /// Reads so many bytes each millisecond, through a small buffer.
    Slow(usize),
    /// Resets the connection after so many bytes.
    ResetAfter(usize),
    /// Does what the test does.
    Manual,
    /// The DNS proxy's side of a stream.
    Dns,
    /// Joined to another socket of this host: the two ends of one connection.
    Joined(Option<SocketId>),
}

/// One TCP socket.
#[derive(Debug)]
pub struct Stream {
    /// The other end.
    pub peer: SocketAddr,
    /// What is there.
    pub server: Server,
    /// The connection stands.
    pub connected: bool,
    /// Bytes from the server that the core has not discarded.
    pub receive: VecDeque<u8>,
    /// The most that `receive` holds.
    pub receive_max: usize,
    /// The server has closed its side.
    pub ended: bool,
    /// Bytes that were written and that the server has not read.
    pub send: VecDeque<u8>,
    /// The most that `send` holds.
    pub send_max: usize,
    /// Nothing more will be written by the core.
    pub shut: bool,
    /// What the server has read.
    pub read: Vec<u8>,
    /// Bytes of the pattern that the server has sent.
    pub produced: u64,
    /// The core wants to hear when there is room.
    pub writable_wanted: bool,
    /// The core has to be told that there is something to read.
    pub(super) news: bool,
    /// The server wants to reset the connection.
    pub break_with: Option<HostError>,
    /// The core has been told that the connection broke.
    pub broken: bool,
    /// DNS questions that were asked and not answered.
    pub(super) questions: usize,
    wakes: Option<Instant>,
}

impl Stream {
    pub(super) fn new(peer: SocketAddr, server: Server) -> Self {
        Self {
            peer,
            server,
            connected: false,
            receive: VecDeque::new(),
            receive_max: 256 << 10,
            ended: false,
            send: VecDeque::new(),
            send_max: if matches!(server, Server::Slow(_)) {
                16 << 10
            } else {
                256 << 10
            },
            shut: false,
            read: Vec::new(),
            produced: 0,
            writable_wanted: false,
            news: false,
            break_with: None,
            broken: false,
            questions: 0,
            wakes: None,
        }
    }

    /// Bytes that the send queue takes.
    #[must_use]
    pub fn room(&self) -> usize {
        self.send_max.saturating_sub(self.send.len())
    }

    /// The server sends bytes.
    pub fn say(&mut self, bytes: &[u8]) {
        self.receive.extend(bytes);
        self.news = true;
    }

    /// The server sends as much of the pattern as fits, up to `total`. Whether all was sent.
    pub fn produce(&mut self, total: u64) -> bool {
        let room = self.receive_max.saturating_sub(self.receive.len()) as u64;
        let count = room.min(total - self.produced);
        for at in self.produced..self.produced + count {
            self.receive.push_back(pattern(at));
        }
        self.produced += count;
        self.news |= count > 0;
        self.produced == total
    }

    /// The server closes its side.
    pub fn finish(&mut self) {
        if !self.ended {
            (self.ended, self.news) = (true, true);
        }
    }

    /// The server reads so many bytes.
    pub fn consume(&mut self, most: usize) -> usize {
        let count = most.min(self.send.len());
        self.read.extend(self.send.drain(..count));
        count
    }

    /// The server has read everything, and nothing more will come.
    #[must_use]
    pub fn at_end(&self) -> bool {
        self.shut && self.send.is_empty()
    }

    /// The server works.
    pub(super) fn work(&mut self, now: Instant) {
        if !self.connected || self.broken {
            return;
        }
        match self.server {
            Server::Echo => {
                let room = self.receive_max.saturating_sub(self.receive.len());
                let count = room.min(self.send.len());
                if count > 0 {
                    let bytes: Vec<u8> = self.send.drain(..count).collect();
                    self.read.extend(&bytes);
                    self.say(&bytes);
                }
                if self.at_end() {
                    self.finish();
                }
            }
            Server::Sink => {
                self.consume(usize::MAX);
                if self.at_end() {
                    self.finish();
                }
            }
            Server::Source(total) => {
                self.consume(usize::MAX);
                if self.produce(total) {
                    self.finish();
                }
            }
            Server::Late(total) => {
                self.consume(usize::MAX);
                if self.at_end() && self.produce(total) {
                    self.finish();
                }
            }
            Server::Slow(rate) => {
                if self.wakes.is_none_or(|at| at <= now) {
                    self.consume(rate);
                    self.wakes = Some(now + Duration::from_millis(1));
                }
                if self.send.is_empty() {
                    self.wakes = None;
                }
                if self.at_end() {
                    self.finish();
                }
            }
            Server::ResetAfter(count) => {
                self.consume(usize::MAX);
                if self.read.len() >= count {
                    self.break_with = Some(HostError::Reset);
                }
            }
            Server::Refuse
            | Server::BlackHole
            | Server::Error(_)
            | Server::Manual
            | Server::Dns
            | Server::Joined(_) => {}
        }
    }

    /// When the server wants to work next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.wakes
    }
}
