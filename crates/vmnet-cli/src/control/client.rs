//! Asks the process that holds a network.

use super::folder::{self, FolderError};
use super::protocol::{
    AttachKind, Attached, Connection, ForwardTarget, Lease, Reply, Request, Status, is_udp,
};
use crate::identity::NetworkName;
use crate::port_spec::PortSpec;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use vmnet_linux::lane::Protocol;
use vmnet_wire::ethernet::Mac;

/// A holder that does not answer within this is stuck or stopped.
const PATIENCE: Duration = Duration::from_secs(10);

/// A request failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("the network {0} is not up: `vmnet up {0}` holds it")]
    NotUp(NetworkName),
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error("the network {0} does not answer: {1}")]
    Io(NetworkName, #[source] io::Error),
    #[error("the network {0} refuses: {1}")]
    Refused(NetworkName, String),
    #[error(
        "a port cannot be forwarded to a socket that several guests come by: `vmnet up {0} -p HOSTPORT:GUEST-ADDRESS:GUESTPORT` names one of them"
    )]
    NoOneGuest(NetworkName),
}

/// A connection to the holder of a network.
pub(crate) struct Client {
    name: NetworkName,
    connection: Connection,
}

impl Client {
    /// Connects.
    pub(crate) fn connect(name: &NetworkName) -> Result<Self, ClientError> {
        let path = folder::socket_path(&folder::folder()?, name);
        let io_error = |error| ClientError::Io(name.clone(), error);
        let stream = UnixStream::connect(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NotUp(name.clone())
            }
            _ => io_error(error),
        })?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(io_error)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(io_error)?;
        Ok(Self {
            name: name.clone(),
            connection: Connection::new(stream),
        })
    }

    /// Attaches a descriptor as a port, which lives as long as this connection.
    pub(crate) fn attach(
        &mut self,
        kind: AttachKind,
        descriptor: BorrowedFd<'_>,
        name: Option<String>,
        mac: Option<Mac>,
    ) -> Result<Attached, ClientError> {
        let mac = mac.map(|mac| mac.to_string());
        match self.ask(&Request::Attach { kind, name, mac }, &[descriptor])? {
            Reply::Attached(attached) => Ok(attached),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Forwards a host port for as long as this connection lives.
    fn forward(
        &mut self,
        protocol: Protocol,
        listen: SocketAddr,
        target: ForwardTarget,
        guest_port: u16,
    ) -> Result<(), ClientError> {
        let request = Request::Forward {
            udp: is_udp(protocol),
            listen,
            target,
            guest_port,
        };
        match self.ask(&request, &[])? {
            Reply::Forwarded => Ok(()),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Forwards host ports to the guest of a port that was attached.
    pub(crate) fn publish(
        &mut self,
        specs: &[PortSpec],
        attached: Attached,
    ) -> Result<(), ClientError> {
        for spec in specs {
            let port = attached
                .port
                .ok_or_else(|| ClientError::NoOneGuest(self.name.clone()))?;
            for (listen, guest_port) in spec.pairs() {
                let target = ForwardTarget::Port(port);
                self.forward(spec.protocol, listen, target, guest_port)?;
            }
        }
        Ok(())
    }

    /// The leases.
    pub(crate) fn leases(&mut self) -> Result<Vec<Lease>, ClientError> {
        match self.ask(&Request::Leases, &[])? {
            Reply::Leases { leases } => Ok(leases),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Everything else.
    pub(crate) fn status(&mut self) -> Result<Status, ClientError> {
        match self.ask(&Request::Status, &[])? {
            Reply::Status(status) => Ok(status),
            other => Err(self.unexpected(&other)),
        }
    }

    fn ask(&mut self, request: &Request, beside: &[BorrowedFd<'_>]) -> Result<Reply, ClientError> {
        let io_error = |error| ClientError::Io(self.name.clone(), error);
        self.connection.send(request, beside).map_err(io_error)?;
        let answer = self.connection.receive::<Reply>().map_err(io_error)?;
        match answer {
            None => Err(io_error(io::ErrorKind::UnexpectedEof.into())),
            Some((Reply::Failed { reason }, _)) => {
                Err(ClientError::Refused(self.name.clone(), reason))
            }
            Some((reply, _)) => Ok(reply),
        }
    }

    fn unexpected(&self, reply: &Reply) -> ClientError {
        let text = format!("it answered something else: {reply:?}");
        ClientError::Io(
            self.name.clone(),
            io::Error::new(io::ErrorKind::InvalidData, text),
        )
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.stream().as_fd()
    }
}
