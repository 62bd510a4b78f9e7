//! What a test does inside a guest or a namespace, more exactly than shell tools can.
//!
//! The program `vmnet-lab-client` is these functions behind a command line; a test may also call them on a thread
//! inside a [`crate::namespace::Namespace`].
//!
//! | file | what is in it |
//! | --- | --- |
//! | `connect.rs` | one connection and its outcome, many at once, many one after another |
//! | `transfer.rs` | files over HTTP and half-closed streams, every byte compared |
//! | `datagram.rs` | UDP echo and questions |
//! | `flood.rs` | what a hostile guest sends by IPv6 |
//! | `listen.rs` | servers inside, which say who came |
//! | `command_line.rs` | the subcommands |

pub mod command_line;
pub mod connect;
pub mod datagram;
pub mod flood;
pub mod listen;
pub mod transfer;

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A connection without progress for this long is a failure.
const STALLED: Duration = Duration::from_secs(60);

/// Connects, with bounds on everything that may take long.
fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(30))?;
    stream.set_read_timeout(Some(STALLED))?;
    stream.set_write_timeout(Some(STALLED))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// An error in the words of this module.
fn wrong(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}
