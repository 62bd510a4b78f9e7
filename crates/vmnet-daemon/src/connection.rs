//! Who may speak to the service, and one task for each who does.

use crate::call::Asked;
use crate::rpc::Session;
use crate::supervisor::{ConnectionId, Supervisor};
use crate::transport::{Nowhere, Transport, Writer};
use openvmnet::account::Group;
use openvmnet::service::ServiceError;
use serde::Deserialize as _;
use std::cell::{Cell, RefCell};
use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use vmnet_linux::sys::peer;
use zlink::service::{MethodReply, Service};
use zlink::varlink_service;
use zlink::{Call, Connection, Reply};

/// Connections at once; more than this many clients wait for nothing.
const CONNECTIONS_MAX: usize = 4096;
/// How many who may not come in are told why at once; others are left in the dark.
const LEAVING_MAX: usize = 64;
/// How long one who may not come in has to ask, before nothing is said: on a busy machine a second may pass between its
/// connection and its call.
const LEAVING: Duration = Duration::from_secs(10);
/// After accepting failed for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Who may connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Admission {
    /// This user, and the superuser.
    User(u32),
    /// The superuser alone.
    Superuser,
    /// The superuser, and members of this group.
    Group(Group),
}

/// All connections.
pub(crate) struct Connections {
    supervisor: Rc<RefCell<Supervisor>>,
    admission: Admission,
    /// The namespace that clients must come from: ours.
    namespace: Option<u64>,
    open: Cell<usize>,
    /// Who may not come in, and is told so.
    leaving: Cell<usize>,
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
            leaving: Cell::new(0),
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

    /// Lets in who waits at the door, and says whether anybody did. The listener is the one of [`Self::accept`], and is
    /// asked itself: what the runtime knows of it may be old.
    pub(crate) fn admit_waiting(self: &Rc<Self>, listener: &StdListener) -> bool {
        let mut any = false;
        while let Ok((stream, _)) = listener.accept() {
            any = true;
            let stream = stream
                .set_nonblocking(true)
                .and_then(|()| UnixStream::from_std(stream));
            match stream {
                Ok(stream) => self.admit(stream),
                Err(error) => tracing::warn!(%error, "a client could not be let in"),
            }
        }
        any
    }

    fn admit(self: &Rc<Self>, stream: UnixStream) {
        let peer = match self.check(&stream) {
            Ok(pid) if self.open.get() < CONNECTIONS_MAX => pid,
            Ok(_) => {
                let reason = format!(
                    "the service has {CONNECTIONS_MAX} clients already: end some, then try again"
                );
                return self.turn_away(stream, ServiceError::Exhausted { reason });
            }
            Err(refusal) => return self.turn_away(stream, refusal),
        };
        let visit = Visit::begin(Rc::clone(self), peer);
        tokio::task::spawn_local(visit.serve(stream));
    }

    /// Answers the first call with the reason why there is no second.
    fn turn_away(self: &Rc<Self>, stream: UnixStream, refusal: ServiceError) {
        tracing::warn!(reason = refusal.reason(), "a client was refused");
        if self.leaving.get() >= LEAVING_MAX {
            return;
        }
        self.leaving.set(self.leaving.get() + 1);
        let this = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let _nobody_asked = tokio::time::timeout(LEAVING, refuse(stream, &refusal)).await;
            this.leaving.set(this.leaving.get() - 1);
        });
    }

    /// The process at the other end, if it may be there.
    fn check(&self, stream: &UnixStream) -> Result<i32, ServiceError> {
        let failed = |error: io::Error| ServiceError::Failed {
            reason: format!("the process at the other end cannot be told: {error}"),
        };
        let peer = peer::credentials(stream).map_err(failed)?;
        let refused = |reason| Err(ServiceError::NotAuthorized { reason });
        let who = format!("process {} of user {}", peer.pid, peer.uid);
        match &self.admission {
            _ if peer.uid == 0 => {}
            Admission::User(uid) if peer.uid == *uid => {}
            Admission::User(uid) => {
                return refused(format!(
                    "{who} may not use the service of user {uid}: unset VMNET_SOCKET to use one of its own"
                ));
            }
            Admission::Superuser => {
                return refused(format!(
                    "{who} may not use the service of this machine: only the superuser may, until it is started with --group"
                ));
            }
            Admission::Group(group) => {
                let groups = peer::groups(stream).map_err(failed)?;
                if peer.gid != group.gid && !groups.contains(&group.gid) {
                    let group = &group.name;
                    return refused(format!(
                        "{who} may not use the service of this machine: join the group {group} (`usermod -aG {group} USER` as root, then log in again)"
                    ));
                }
            }
        }
        // A command of `vmnet run` is of the same user, and still a guest.
        if let (Some(ours), Ok(theirs)) = (self.namespace, peer::namespace(stream))
            && ours != theirs
        {
            return refused(format!(
                "{who} is in another network namespace, as a guest is: ask from the service's own"
            ));
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
        let hang_up = (self.connections.supervisor.borrow()).hang_up_of(self.id);
        let conversed = tokio::select! {
            conversed = converse(session, stream) => conversed,
            // Its interface was ended by another: that is all it waits to hear.
            () = hang_up.notified() => Ok(()),
        };
        match conversed {
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

/// Waits for a call, of which nothing is read, and refuses it.
async fn refuse(stream: UnixStream, refusal: &ServiceError) -> zlink::Result<()> {
    // A stream may be said to be readable that is not: to answer and hang up then would break the pipe of the call to come.
    loop {
        stream.readable().await?;
        match stream.try_read(&mut [0; 4096]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(_) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let (_, mut writer) = Connection::new(Transport(Rc::new(stream))).split();
    writer.send_error(refusal, Vec::new()).await
}

type Calls<'c> = <Session as Service<Nowhere>>::MethodCall<'c>;

/// Answers one call after the other.
async fn converse(mut session: Session, stream: UnixStream) -> zlink::Result<()> {
    let stream = Rc::new(stream);
    let lists = Writer::new(Rc::clone(&stream));
    let (mut reader, mut writer) = Connection::new(Transport(stream)).split();
    let mut nowhere = Connection::new(Nowhere);
    loop {
        let (asked, descriptors) = reader.receive_call::<Asked>().await?;
        let (oneway, more, upgrade) = (asked.oneway(), asked.more(), asked.upgrade());
        let checked = asked.method().checked();
        let understood = checked.as_ref().map_err(Clone::clone).and_then(|value| {
            Calls::deserialize(value).map_err(|_| varlink_service::Error::InvalidParameter {
                parameter: "parameters".into(),
            })
        });
        let call = match understood {
            Ok(method) => Call::new(method).set_more(more).set_upgrade(upgrade),
            Err(error) => {
                tracing::debug!(?error, "a call was not understood");
                if !oneway {
                    writer.send_error(&error, Vec::new()).await?;
                }
                continue;
            }
        };
        let (reply, beside) = session.handle(&call, &mut nowhere, descriptors).await;
        if oneway {
            continue;
        }
        match reply {
            MethodReply::Single(parameters) => {
                let reply = Reply::new(parameters).set_continues(Some(false));
                lists.send(&reply, &beside).await?;
            }
            MethodReply::Error(error) => writer.send_error(&error, Vec::new()).await?,
            // No call of ours has several replies or becomes another protocol.
            _ => return Err(zlink::Error::UnexpectedEof),
        }
    }
}
