//! Connections over sockets.
//!
//! | file | what |
//! | --- | --- |
//! | `mod` | what objects hold of connections |
//! | `exports` | what C sees |
//! | `core` | one connection: its life, what it sends, who waits for answers |
//! | `listening` | connections that accept others |
//! | `outgoing` | what stands in line to be sent |
//! | `handler` | blocks and functions that get objects |
//! | `mailbox` | one event after the other, where the program wants them |
//! | `reactor` | the thread that waits for sockets |
//! | `link` | bytes and descriptors over a socket |
//! | `service` | named services: sockets in the runtime folder |
//!
//! A connection to a service is made when the first message is sent, and again after the service has been away: then its
//! handler gets `XPC_ERROR_CONNECTION_INTERRUPTED`. Where there is no service, it gets `XPC_ERROR_CONNECTION_INVALID`,
//! and so does every connection that cannot come back, once and last.
//!
//! A message that cannot be sent ([`crate::failure::Unsent`]) leaves its connection as it is: who asked gets an error in
//! place of the answer, and of what is no question the handler gets an error. Where the message is itself an answer, the
//! peer who waits for it gets one too.
//!
//! A child of `fork` without `exec` can make connections of its own. Those of its parent give it errors: their threads and
//! sockets are the parent's.

mod core;
pub mod exports;
mod handler;
mod link;
mod listening;
mod mailbox;
mod outgoing;
mod reactor;
mod service;

pub use exports::{xpc_connection_create_from_endpoint, xpc_endpoint_create};

use self::core::Core;
use crate::object::Object;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// A connection, as its object holds it. When the program lets go of the object, the connection ends.
#[derive(Debug)]
pub struct Connection(pub(crate) Arc<Core>);

impl Connection {
    /// What the service is called.
    #[must_use]
    pub fn name(&self) -> Option<CString> {
        self.0.name().map(ToOwned::to_owned)
    }

    /// The peer's process, as the kernel knows it; 0 before there is one.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.0
            .credentials()
            .map_or(0, |peer| peer.pid.as_raw_nonzero().get())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.0.is_ours() {
            self.0.abandon();
        } else {
            // What it holds is the parent's to close.
            std::mem::forget(Arc::clone(&self.0));
        }
    }
}

/// What a connection can be made from: a descriptor at whose other end a listener waits for sockets.
#[derive(Debug)]
pub struct Endpoint(OwnedFd);

impl Endpoint {
    /// An endpoint of this descriptor.
    #[must_use]
    pub fn new(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }

    /// The descriptor.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Where a dictionary stands between two programs.
#[derive(Debug)]
pub(crate) struct Origin {
    /// The connection that the message came by.
    pub(crate) connection: Object,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It came, and nobody waits for an answer.
    Came,
    /// It came, and somebody does.
    Asked(u64),
    /// It is the answer.
    Answer(u64),
}

impl Origin {
    /// That of an answer to this.
    pub(crate) fn answered(&self) -> Option<Self> {
        let Stage::Asked(id) = self.stage else {
            return None;
        };
        Some(Self {
            connection: self.connection.clone(),
            stage: Stage::Answer(id),
        })
    }
}

#[cfg(test)]
mod tests;
