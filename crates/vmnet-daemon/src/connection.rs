//! Who may speak to the service, and one task for each who does.

use crate::rpc::Session;
use crate::supervisor::{ConnectionId, Supervisor};
use crate::transport::{Nowhere, Transport};
use openvmnet::service::ServiceError;
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use vmnet_linux::sys::peer;
use zlink::service::{MethodReply, Service};
use zlink::{Connection, Reply};

/// Connections at once; more than this many clients wait for nothing.
const CONNECTIONS_MAX: usize = 4096;
/// Clients that are told at once why they are refused.
const REFUSALS_MAX: usize = 16;
/// How long a client that is refused is listened to.
const HEARING: Duration = Duration::from_secs(1);
/// After accepting failed for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Who may connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Admission {
    /// This user, and the superuser.
    User(u32),
    /// The superuser, and members of this group.
    Group(u32),
}

/// All connections.
pub(crate) struct Connections {
    supervisor: Rc<RefCell<Supervisor>>,
    admission: Admission,
    /// The namespace that clients must come from: ours.
    namespace: Option<u64>,
    open: Cell<usize>,
    /// Clients that are being told why they are refused.
    refused: Cell<usize>,
    /// Told when the number of connections changes.
    pub(crate) changed: Notify,
}

impl Connections {
    pub(crate) fn new(supervisor: Rc<RefCell<Supervisor>>, admission: Admission) -> Self {
        Self {
            supervisor,
            admission,
            namespace: None,
            open: Cell::new(0),
            refused: Cell::new(0),
            changed: Notify::new(),
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.open.get()
    }

    /// Accepts for ever. To be run in a local task set.
    pub(crate) async fn accept(self: Rc<Self>, listener: Rc<UnixListener>) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => self.admit(stream),
                Err(error) => {
                    tracing::warn!(%error, "a client could not be let in");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Lets in who waits at the door, and says whether anybody did.
    pub(crate) fn admit_waiting(self: &Rc<Self>, listener: &UnixListener) -> bool {
        let mut any = false;
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        while let std::task::Poll::Ready(Ok((stream, _))) = listener.poll_accept(&mut context) {
            any = true;
            self.admit(stream);
        }
        any
    }

    fn admit(self: &Rc<Self>, stream: UnixStream) {
        let peer = match self.check(&stream) {
            Ok(pid) => pid,
            Err(error) => {
                tracing::warn!(%error, "a client was refused");
                self.refuse(stream, error.to_string());
                return;
            }
        };
        if self.open.get() >= CONNECTIONS_MAX {
            tracing::warn!("too many clients: one was turned away");
            return;
        }
        let visit = Visit::begin(Rc::clone(self), peer);
        tokio::task::spawn_local(visit.serve(stream));
    }

    /// Tells a client why it is not let in, in answer to its first call.
    fn refuse(self: &Rc<Self>, stream: UnixStream, reason: String) {
        if self.refused.get() >= REFUSALS_MAX {
            return;
        }
        self.refused.set(self.refused.get() + 1);
        let connections = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let told = tokio::time::timeout(HEARING, turn_away(stream, reason)).await;
            if let Ok(Err(error)) = told {
                tracing::debug!(%error, "a client was not told why it was refused");
            }
            connections.refused.set(connections.refused.get() - 1);
        });
    }

    /// The process at the other end, if it may be there.
    fn check(&self, stream: &UnixStream) -> io::Result<i32> {
        let peer = peer::credentials(stream)?;
        let admitted = peer.uid == 0
            || match &self.admission {
                Admission::User(uid) => peer.uid == *uid,
                Admission::Group(group) => {
                    peer.gid == *group || peer::groups(stream)?.contains(group)
                }
            };
        if !admitted {
            let text = match self.admission {
                Admission::User(uid) => format!(
                    "process {} is of user {}, and this is the service of user {uid}",
                    peer.pid, peer.uid
                ),
                Admission::Group(group) => format!(
                    "process {} of user {} is not of the group {group}, which may use this service",
                    peer.pid, peer.uid
                ),
            };
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        // A command of `vmnet run` is of the same user, and still a guest.
        if let (Some(ours), Ok(theirs)) = (self.namespace, peer::namespace(stream))
            && ours != theirs
        {
            let text = format!(
                "process {} is in another network namespace than this service, like guests and containers, which have no say over networks",
                peer.pid
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        Ok(peer.pid)
    }

    /// Lets nobody in from other network namespaces than the listener's.
    pub(crate) fn only_from_here(&mut self, listener: &UnixListener) {
        match peer::namespace(listener) {
            Ok(cookie) => self.namespace = Some(cookie),
            // Before Linux 5.14; the folder of the socket is hidden from guests all the same.
            Err(error) => tracing::debug!(%error, "clients' namespaces cannot be told"),
        }
    }
}

/// A client from its coming to its going. What it holds is let go when this is dropped.
struct Visit {
    connections: Rc<Connections>,
    id: ConnectionId,
}

impl Visit {
    fn begin(connections: Rc<Connections>, pid: i32) -> Self {
        let id = connections.supervisor.borrow_mut().connected(pid);
        connections.open.set(connections.open.get() + 1);
        connections.changed.notify_waiters();
        Self { connections, id }
    }

    async fn serve(self, stream: UnixStream) {
        let session = Session::new(Rc::clone(&self.connections.supervisor), self.id);
        match converse(session, stream).await {
            Ok(()) | Err(zlink::Error::UnexpectedEof) => {}
            Err(error) => tracing::info!(%error, "a client's connection ended"),
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.connections
            .supervisor
            .borrow_mut()
            .disconnected(self.id);
        self.connections.open.set(self.connections.open.get() - 1);
        self.connections.changed.notify_waiters();
    }
}

/// Any call, of which nothing matters.
#[derive(Debug, serde::Deserialize)]
struct AnyCall {}

async fn turn_away(stream: UnixStream, reason: String) -> zlink::Result<()> {
    let (mut reader, mut writer) = Connection::new(Transport(Rc::new(stream))).split();
    reader.receive_call::<AnyCall>().await?;
    let error = ServiceError::NotAuthorized { reason };
    writer.send_error(&error, Vec::new()).await
}

/// Answers one call after the other.
async fn converse(mut session: Session, stream: UnixStream) -> zlink::Result<()> {
    let connection = Connection::new(Transport(Rc::new(stream)));
    let (mut reader, mut writer) = connection.split();
    let mut nowhere = Connection::new(Nowhere);
    loop {
        let (call, descriptors) = reader
            .receive_call::<<Session as Service<Nowhere>>::MethodCall<'_>>()
            .await?;
        let (reply, _) = session.handle(&call, &mut nowhere, descriptors).await;
        if call.oneway() {
            continue;
        }
        match reply {
            MethodReply::Single(parameters) => {
                let reply = Reply::new(parameters).set_continues(Some(false));
                writer.send_reply(&reply, Vec::new()).await?;
            }
            MethodReply::Error(error) => writer.send_error(&error, Vec::new()).await?,
            // No call of ours has several replies or becomes another protocol.
            _ => return Err(zlink::Error::UnexpectedEof),
        }
    }
}
