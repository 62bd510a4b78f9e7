//! The datapath thread of one network. Stand-in: it holds what is attached and forwards nothing.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::sync::Mutex;
use std::time::Duration;
use vmnet_wire::ethernet::Mac;

/// An IPv4 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4Net {
    /// Its first address.
    pub address: Ipv4Addr,
    /// Bits that are equal for all stations.
    pub prefix_len: u8,
}

/// What a network is made of.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The network's name.
    pub name: String,
    /// Where guests get addresses from.
    pub subnet: Ipv4Net,
    /// The largest packet.
    pub mtu: u16,
    /// Domain of the guests' names.
    pub domain: String,
    /// Whether the gateway's address reaches the host's loopback.
    pub host_loopback: bool,
    /// How long a lease lasts.
    pub lease_time: Duration,
    /// Resolvers to ask; `None` follows `/etc/resolv.conf`.
    pub resolvers: Option<Vec<SocketAddr>>,
}

/// How a port's frames come and go.
#[derive(Debug)]
pub enum Attachment {
    /// A tap with a virtio-net header of 12 bytes.
    Tap(OwnedFd),
    /// One connected client, QEMU's framing.
    Stream(OwnedFd),
    /// Any number of clients, QEMU's framing.
    StreamListener(UnixListener),
    /// A connected datagram socket.
    Dgram(OwnedFd),
    /// A bound datagram socket; peers are learnt.
    DgramListener(UnixDatagram),
}

/// What is known of a port's guest.
#[derive(Debug, Clone, Default)]
pub struct PortOptions {
    /// The guest's DNS name.
    pub name: Option<String>,
    /// The guest's MAC.
    pub mac: Option<Mac>,
}

/// A port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortId(pub u64);

/// A port forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForwardId(pub u64);

/// What is forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP connections.
    Tcp,
    /// UDP datagrams.
    Udp,
}

/// Where a forward leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardGuest {
    /// This address.
    Address(Ipv4Addr),
    /// Whatever address this port's guest leased.
    Port(PortId),
}

/// A port forward from the host to a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Where the host listens.
    pub listen: SocketAddr,
    /// Where it leads.
    pub guest: ForwardGuest,
    /// The guest's port.
    pub guest_port: u16,
}

/// A lease that is given.
#[derive(Debug, Clone)]
pub struct LeaseRow {
    /// The address.
    pub address: Ipv4Addr,
    /// Whose it is.
    pub mac: Mac,
    /// The guest's name, if it has one.
    pub name: Option<String>,
    /// Until it ends.
    pub expires_in: Duration,
}

/// The counters of a network at one moment.
#[derive(Debug, Clone, Default)]
pub struct CountersSnapshot {
    /// Name and value of each.
    pub rows: Vec<(String, u64)>,
}

/// A network could not start.
#[derive(Debug, thiserror::Error)]
#[error("the datapath could not start: {0}")]
pub struct StartError(#[from] std::io::Error);

/// A port could not be attached.
#[derive(Debug, thiserror::Error)]
#[error("the port could not be attached: {0}")]
pub struct AttachError(#[from] std::io::Error);

/// A port could not be forwarded.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The host address could not be listened on.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, #[source] std::io::Error),
}

/// A running network.
pub struct Handle {
    ports: Mutex<Table>,
}

type Table = (u64, BTreeMap<PortId, Attachment>, BTreeMap<ForwardId, Held>);

#[expect(dead_code, reason = "the stand-in only holds them open")]
enum Held {
    Tcp(std::net::TcpListener),
    Udp(std::net::UdpSocket),
}

/// Starts the datapath thread of a network.
///
/// # Errors
///
/// The thread or its descriptors could not be made.
pub fn start(settings: Settings) -> Result<Handle, StartError> {
    tracing::info!(name = settings.name, "no datapath in this build");
    Ok(Handle {
        ports: Mutex::default(),
    })
}

impl Handle {
    /// Attaches a port.
    ///
    /// # Errors
    ///
    /// The descriptor is of the wrong kind.
    pub fn attach(
        &self,
        attachment: Attachment,
        options: PortOptions,
    ) -> Result<PortId, AttachError> {
        let mut ports = self
            .ports
            .lock()
            .map_err(|_| std::io::Error::other("poisoned"))?;
        ports.0 += 1;
        let id = PortId(ports.0);
        tracing::debug!(?attachment, ?options, "attached");
        ports.1.insert(id, attachment);
        Ok(id)
    }

    /// Detaches a port.
    pub fn detach(&self, port: PortId) {
        if let Ok(mut ports) = self.ports.lock() {
            ports.1.remove(&port);
        }
    }

    /// Forwards a host port to a guest.
    ///
    /// # Errors
    ///
    /// The host refuses to listen there.
    pub fn forward(&self, forward: Forward) -> Result<ForwardId, ForwardError> {
        let failed = |error| ForwardError::Listen(forward.listen, error);
        let held = match forward.protocol {
            Protocol::Tcp => {
                Held::Tcp(std::net::TcpListener::bind(forward.listen).map_err(failed)?)
            }
            Protocol::Udp => Held::Udp(std::net::UdpSocket::bind(forward.listen).map_err(failed)?),
        };
        let mut ports = self
            .ports
            .lock()
            .map_err(|_| failed(std::io::Error::other("poisoned")))?;
        ports.0 += 1;
        let id = ForwardId(ports.0);
        ports.2.insert(id, held);
        Ok(id)
    }

    /// Ends a forward.
    pub fn remove_forward(&self, forward: ForwardId) {
        if let Ok(mut ports) = self.ports.lock() {
            ports.2.remove(&forward);
        }
    }

    /// The leases that are given.
    pub fn leases(&self) -> Vec<LeaseRow> {
        Vec::new()
    }

    /// The counters now.
    pub fn counters(&self) -> CountersSnapshot {
        CountersSnapshot::default()
    }

    /// Ends the datapath thread.
    pub fn stop(self) {}
}
