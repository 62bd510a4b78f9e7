//! How packets travel between a program and the service: through rings in shared memory, or through a socket where the service
//! has no rings for programs, or `VMNET_DATAPATH=socket` asks for that.

use std::error::Error as StdError;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use vmnet_virtio::driver::DeviceError;

use super::Statistics;
use super::datagrams::{self, Datagrams};
use super::finish::Agreed;
use super::packet::{PacketBuffers, WritePacket};
use super::rings::{self, Rings, Seen};
use crate::service::{InterfaceOptions, Kind};

/// The way of an interface's packets.
#[derive(Debug)]
pub(super) enum Datapath {
    Rings(Box<Rings>),
    Socket(Box<Datagrams>),
}

/// Whether rings are not to be tried.
pub(super) fn wants_socket() -> bool {
    std::env::var_os("VMNET_DATAPATH").is_some_and(|value| value == "socket")
}

/// Our end of what the service was given.
#[derive(Debug)]
pub(super) enum Ours {
    Stream(std::os::unix::net::UnixStream),
    Socket(OwnedFd),
}

/// Two ends, one of them for the service, of which kind it is.
///
/// # Errors
/// There are too many open files.
pub(super) fn ends(kind: Kind) -> io::Result<(Ours, OwnedFd)> {
    Ok(match kind {
        Kind::Dgram => {
            let (ours, theirs) = datagrams::pair()?;
            (Ours::Socket(ours), theirs)
        }
        _ => {
            let (ours, theirs) = rings::pair()?;
            (Ours::Stream(ours), theirs)
        }
    })
}

/// The same interface by a socket.
pub(super) fn by_socket(options: &InterfaceOptions, tso: bool) -> InterfaceOptions {
    InterfaceOptions {
        kind: Kind::Dgram,
        virtio_header: Some(true),
        tso: Some(tso),
        ..options.clone()
    }
}

impl Datapath {
    pub(super) fn connect(
        ours: Ours,
        agreed: &Agreed,
    ) -> Result<Self, Box<dyn StdError + Send + Sync>> {
        Ok(match ours {
            Ours::Stream(stream) => Self::Rings(Box::new(Rings::connect(stream, agreed)?)),
            Ours::Socket(socket) => Self::Socket(Box::new(Datagrams::new(socket, agreed)?)),
        })
    }

    pub(super) fn reconnect(&self, ours: Ours) -> Result<(), Box<dyn StdError + Send + Sync>> {
        match (self, ours) {
            (Self::Rings(rings), Ours::Stream(stream)) => Ok(rings.reconnect(stream)?),
            (Self::Socket(datagrams), Ours::Socket(socket)) => Ok(datagrams.reconnect(socket)?),
            _ => Err("the service has another datapath".into()),
        }
    }

    /// What hangs up when the service lets go of it.
    pub(super) fn line(&self) -> Option<Arc<dyn AsFd + Send + Sync>> {
        match self {
            Self::Rings(rings) => Some(Arc::new(rings.line()?)),
            Self::Socket(datagrams) => Some(Arc::new(datagrams.line()?)),
        }
    }

    /// Waits for a moment until the service has taken what was written.
    pub(super) fn drain(&self) {
        match self {
            Self::Rings(rings) => rings.drain(),
            Self::Socket(datagrams) => datagrams.drain(),
        }
    }

    pub(super) fn end(&self) {
        match self {
            Self::Rings(rings) => rings.end(),
            Self::Socket(datagrams) => datagrams.end(),
        }
    }

    pub(super) fn watch(&self) -> BorrowedFd<'_> {
        match self {
            Self::Rings(rings) => rings.watch(),
            Self::Socket(datagrams) => datagrams.watch(),
        }
    }

    /// Lets `sleep` wait until there are packets, with a descriptor that is readable then.
    pub(super) fn sleep(&self, sleep: impl FnOnce(BorrowedFd<'_>)) {
        match self {
            Self::Rings(rings) => rings.sleep(sleep),
            Self::Socket(datagrams) => sleep(datagrams.watch()),
        }
    }

    pub(super) fn seen(&self) -> Seen {
        match self {
            Self::Rings(rings) => rings.seen(),
            Self::Socket(datagrams) => datagrams.seen(),
        }
    }

    #[inline]
    pub(super) fn read<P: PacketBuffers + ?Sized>(
        &self,
        packets: &mut P,
        agreed: &Agreed,
        statistics: &Statistics,
    ) -> Result<usize, DeviceError> {
        match self {
            Self::Rings(rings) => rings.read(packets, agreed, statistics),
            Self::Socket(datagrams) => Ok(datagrams.read(packets, agreed, statistics)),
        }
    }

    #[inline]
    pub(super) fn write<'a>(
        &self,
        packets: impl Iterator<Item = WritePacket<'a>>,
        agreed: &Agreed,
        statistics: &Statistics,
    ) -> Result<(), DeviceError> {
        match self {
            Self::Rings(rings) => rings.write(packets, agreed, statistics),
            Self::Socket(datagrams) => {
                datagrams.write(packets, agreed, statistics);
                Ok(())
            }
        }
    }
}
