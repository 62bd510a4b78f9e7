//! Answers, for the process that holds a network: a thread per connection, at most [`MAX_CONNECTIONS`] of them.

use super::protocol::{
    AttachKind, Attached, Connection, ForwardTarget, Lease, Listener, Port, Reply, Request, Status,
    Way,
};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use vmnet_linux::lane::{
    Forward, ForwardGuest, ForwardId, Handle, ListenerId, PortId, PortOptions, Protocol,
};

/// More guests than a subnet of ours holds.
const MAX_CONNECTIONS: usize = 1024;

/// How long an answer may wait for its reader.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Member {
    /// A guest's port.
    Port(PortId),
    /// A socket for guests.
    Listener(ListenerId),
}

/// Who attached something, and as what.
struct Owner {
    kind: AttachKind,
    name: Option<String>,
    pid: i32,
}

/// A network that is served.
pub(crate) struct Served {
    handle: Handle,
    name: String,
    subnet: String,
    mtu: u16,
    owners: Mutex<BTreeMap<Member, Owner>>,
    connections: AtomicUsize,
}

impl Served {
    pub(crate) fn new(handle: Handle, name: String, subnet: String, mtu: u16) -> Self {
        Self {
            handle,
            name,
            subnet,
            mtu,
            owners: Mutex::default(),
            connections: AtomicUsize::new(0),
        }
    }

    /// The datapath.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Attaches a port, or a socket for guests, for the process `pid`.
    pub(crate) fn attach(
        &self,
        kind: AttachKind,
        descriptor: OwnedFd,
        name: Option<String>,
        mac: Option<&str>,
        pid: i32,
    ) -> Result<Member, String> {
        let parsed = mac.map(str::parse).transpose();
        let mac = parsed.map_err(|error| format!("`{}`: {error}", mac.unwrap_or_default()))?;
        let mut owners = self.owners();
        if name.is_some()
            && let Some(holder) = owners.values().find(|owner| owner.name == name)
        {
            return Err(format!(
                "a guest named {} is there already, of process {}: choose another --name",
                name.unwrap_or_default(),
                holder.pid
            ));
        }
        let options = PortOptions {
            name: name.clone(),
            mac,
            ..PortOptions::default()
        };
        let member = match kind.join(descriptor) {
            Way::Port(attachment) => self.handle.attach(attachment, options).map(Member::Port),
            Way::Listener(socket) => self.handle.listen(socket, options).map(Member::Listener),
        }
        .map_err(|error| crate::chain(&error))?;
        tracing::info!(?member, %kind, ?name, pid, "attached");
        owners.insert(member, Owner { kind, name, pid });
        Ok(member)
    }

    fn detach(&self, member: Member) {
        let mut owners = self.owners();
        match member {
            Member::Port(port) => self.handle.detach(port),
            Member::Listener(listener) => self.handle.end_listener(listener),
        }
        owners.remove(&member);
        tracing::info!(?member, "detached");
    }

    fn leases(&self) -> Vec<Lease> {
        let rows = self.handle.leases().into_iter();
        rows.map(|row| Lease {
            address: row.address,
            mac: row.mac.to_string(),
            name: row.name,
            expires_in_seconds: row.expires_in.as_secs(),
        })
        .collect()
    }

    fn status(&self) -> Status {
        // Held meanwhile, so that every port of the datapath has its owner here.
        let owners = self.owners();
        let ports = self.handle.ports().into_iter().filter_map(|row| {
            let member = row.listener.map_or(Member::Port(row.id), Member::Listener);
            Some(Port {
                port: row.id.number(),
                kind: row.kind.into(),
                listener: row.listener.map(ListenerId::number),
                name: row.name,
                mac: row.mac.map(|mac| mac.to_string()),
                address: row.address,
                pid: owners.get(&member)?.pid,
            })
        });
        let listeners = owners.iter().filter_map(|(member, owner)| match member {
            Member::Port(_) => None,
            Member::Listener(id) => Some(Listener {
                listener: id.number(),
                kind: owner.kind,
                pid: owner.pid,
            }),
        });
        Status {
            name: self.name.clone(),
            pid: std::process::id(),
            subnet: self.subnet.clone(),
            mtu: self.mtu,
            ports: ports.collect(),
            listeners: listeners.collect(),
            counters: self.handle.counters().rows,
        }
    }

    fn owners(&self) -> MutexGuard<'_, BTreeMap<Member, Owner>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Accepts and answers until the process ends.
pub(crate) fn serve(listener: UnixListener, served: Arc<Served>) -> io::Result<()> {
    std::thread::Builder::new()
        .name("control".into())
        .spawn(move || accept(&listener, &served))
        .map(drop)
}

fn accept(listener: &UnixListener, served: &Arc<Served>) {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, mostly: let some go before the next try.
                tracing::warn!(%error, "a connection could not be accepted");
                std::thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        if served.connections.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
            served.connections.fetch_sub(1, Ordering::Relaxed);
            tracing::warn!("too many connections");
            continue;
        }
        let served = Arc::clone(served);
        let spawned = std::thread::Builder::new()
            .name("connection".into())
            .stack_size(256 * 1024)
            .spawn(move || {
                if let Err(error) = converse(stream, &served) {
                    tracing::debug!(%error, "a connection failed");
                }
                served.connections.fetch_sub(1, Ordering::Relaxed);
            });
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread for a connection");
        }
    }
}

/// What one connection holds; let go when it ends.
struct Session<'a> {
    served: &'a Served,
    pid: i32,
    members: Vec<Member>,
    forwards: Vec<ForwardId>,
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        for forward in self.forwards.drain(..) {
            self.served.handle.remove_forward(forward);
        }
        for member in self.members.drain(..) {
            self.served.detach(member);
        }
    }
}

fn converse(stream: UnixStream, served: &Served) -> io::Result<()> {
    let peer = rustix::net::sockopt::socket_peercred(stream.as_fd())?;
    if peer.uid != rustix::process::getuid() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "another user",
        ));
    }
    // A client that does not read its answers is let go.
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut connection = Connection::new(stream);
    let mut session = Session {
        served,
        pid: peer.pid.as_raw_nonzero().get(),
        members: Vec::new(),
        forwards: Vec::new(),
    };
    loop {
        let reply = match connection.receive::<Request>() {
            Ok(None) => return Ok(()),
            Ok(Some((request, beside))) => session
                .answer(request, beside)
                .unwrap_or_else(|reason| Reply::Failed { reason }),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let reason = format!("the request was not understood: {error}");
                connection.send(&Reply::Failed { reason }, &[])?;
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        connection.send(&reply, &[])?;
    }
}

impl Session<'_> {
    fn answer(&mut self, request: Request, mut beside: Vec<OwnedFd>) -> Result<Reply, String> {
        match request {
            Request::Attach { kind, name, mac } => {
                let descriptor = beside
                    .pop()
                    .ok_or("no descriptor came beside the request")?;
                let mac = mac.as_deref();
                let member = self.served.attach(kind, descriptor, name, mac, self.pid)?;
                self.members.push(member);
                Ok(Reply::Attached(Attached {
                    port: match member {
                        Member::Port(id) => Some(id.number()),
                        Member::Listener(_) => None,
                    },
                    mtu: self.served.mtu,
                }))
            }
            Request::Forward {
                udp,
                listen,
                target,
                guest_port,
            } => {
                let forward = Forward {
                    protocol: if udp { Protocol::Udp } else { Protocol::Tcp },
                    listen,
                    guest: self.guest(target)?,
                    guest_port,
                };
                let id = self
                    .served
                    .handle
                    .forward(forward)
                    .map_err(|error| error.to_string())?;
                self.forwards.push(id);
                Ok(Reply::Forwarded)
            }
            Request::Leases => Ok(Reply::Leases {
                leases: self.served.leases(),
            }),
            Request::Status => Ok(Reply::Status(self.served.status())),
        }
    }

    fn guest(&self, target: ForwardTarget) -> Result<ForwardGuest, String> {
        match target {
            ForwardTarget::Address(address) => Ok(ForwardGuest::Address(address)),
            ForwardTarget::Port(number) => self
                .members
                .iter()
                .find_map(|member| match member {
                    Member::Port(id) if id.number() == number => Some(ForwardGuest::Port(*id)),
                    Member::Port(_) | Member::Listener(_) => None,
                })
                .ok_or_else(|| format!("port {number} is not one this connection attached")),
        }
    }
}
