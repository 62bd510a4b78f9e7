//! What guests do with their TCP connections: send the pattern, read and keep.

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State;
use vmnet_core::PortId;

use crate::sim::lan::Lan;
use crate::sim::stream::pattern;

/// A guest's side of one connection.
#[derive(Clone, Debug)]
pub struct Talk {
    /// Whose.
    pub port: PortId,
    /// By which socket.
    pub handle: SocketHandle,
    /// Bytes of the pattern that it sends in all.
    pub total: u64,
    /// Bytes of which the socket has taken charge.
    pub sent: u64,
    /// Close after the last byte.
    pub close: bool,
    /// Close only when the other side has.
    pub close_last: bool,
    /// Do not read.
    pub deaf: bool,
    /// What was read.
    pub read: Vec<u8>,
}

impl Talk {
    /// A connection by which the guest sends `total` bytes and closes, and reads everything.
    #[must_use]
    pub fn new(port: PortId, handle: SocketHandle, total: u64) -> Self {
        Self {
            port,
            handle,
            total,
            sent: 0,
            close: true,
            close_last: false,
            deaf: false,
            read: Vec::new(),
        }
    }

    /// Does what can be done now.
    pub fn step(&mut self, lan: &mut Lan) {
        let socket = lan.guest(self.port).tcp(self.handle);
        while self.sent < self.total && socket.can_send() {
            let end = self.total.min(self.sent + 16 * 1024);
            let bytes: Vec<u8> = (self.sent..end).map(pattern).collect();
            let taken = socket.send_slice(&bytes).unwrap_or(0);
            self.sent += taken as u64;
            if taken == 0 {
                break;
            }
        }
        while !self.deaf && socket.can_recv() {
            let read = &mut self.read;
            let got = socket.recv(|bytes| {
                read.extend_from_slice(bytes);
                (bytes.len(), bytes.len())
            });
            if got.unwrap_or(0) == 0 {
                break;
            }
        }
        let other_closed = matches!(socket.state(), State::CloseWait);
        if self.close
            && self.sent == self.total
            && (other_closed || !self.close_last)
            && socket.may_send()
        {
            socket.close();
        }
    }

    /// The socket's state.
    pub fn state(&self, lan: &mut Lan) -> State {
        lan.guest(self.port).tcp(self.handle).state()
    }

    /// Steps until the socket is closed (or waits out its last minutes).
    pub fn is_over(&mut self, lan: &mut Lan) -> bool {
        self.step(lan);
        matches!(self.state(lan), State::Closed | State::TimeWait)
    }
}

/// Bytes are the pattern, from its beginning.
#[must_use]
pub fn is_pattern(bytes: &[u8]) -> bool {
    bytes
        .iter()
        .enumerate()
        .all(|(at, byte)| *byte == pattern(at as u64))
}
