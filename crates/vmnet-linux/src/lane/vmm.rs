//! VMMs that come and go at vhost-user ports, and what they say of their rings.
//!
//! One VMM at a time has a port. Others that connect wait in the listener's queue until it has gone.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use vmnet_core::PortId;
use vmnet_virtio::memory::Unsealed;
use vmnet_virtio::net::Features;
use vmnet_virtio::ring::StartError;
use vmnet_virtio::session::{Change, Offer, RingStart, Session, SessionError};

use crate::lane::datapath::Lane;
use crate::lane::handle::Command;
use crate::poller::{KICKS, READ, Token};
use crate::port::Port;
use crate::port::vhost_user::{EndedRings, QUEUE_PAIRS, Signal, VhostUser};
use crate::slots::Slot;

/// How soon a VMM that is not there is looked for again.
const RETRY: Duration = Duration::from_millis(250);

/// How a VMM and its port find each other.
#[derive(Debug)]
pub enum VhostUserSocket {
    /// The VMM connects to this socket, and may come again.
    Listen(UnixListener),
    /// We connect to the VMM's socket of this name in this directory, as soon as it is there, and again whenever it has
    /// gone.
    Connect(OwnedFd, String),
    /// The VMM is there, and the port ends when it goes.
    Connected(UnixStream),
}

/// What is known of a port's VMM.
#[derive(Debug)]
pub(super) struct Vmm {
    socket: VhostUserSocket,
    session: Option<Session>,
    /// Counts sessions: what an earlier one said is not heard.
    epoch: u64,
    /// When to connect again, or to listen again.
    retry_at: Option<Instant>,
}

impl Vmm {
    /// When something is to be done without an event.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.retry_at
    }
}

impl Lane {
    pub(super) fn attach_vhost_user(
        &mut self,
        id: PortId,
        socket: VhostUserSocket,
    ) -> io::Result<()> {
        let mut retry_at = None;
        let mut there = None;
        match &socket {
            VhostUserSocket::Listen(listener) => {
                listener.set_nonblocking(true)?;
                self.poller.add(listener, Token::Vmm(Slot::of(id)), READ)?;
            }
            VhostUserSocket::Connect(..) => retry_at = Some(self.now),
            VhostUserSocket::Connected(stream) => there = Some(stream.try_clone()?),
        }
        self.vmms.insert(
            id,
            Vmm {
                socket,
                session: None,
                epoch: 0,
                retry_at,
            },
        );
        if let Some(stream) = there {
            self.converse(id, stream);
        }
        Ok(())
    }

    /// A VMM has knocked.
    pub(super) fn vmm_event(&mut self, slot: Slot) {
        let Some(id) = self.ports.find(slot) else {
            return;
        };
        let Some(Vmm {
            socket: VhostUserSocket::Listen(listener),
            session: None,
            ..
        }) = self.vmms.get_mut(id)
        else {
            return;
        };
        match listener.accept() {
            Ok((stream, _)) => {
                // The next one waits until this one has gone.
                self.poller.remove(listener.as_fd());
                self.converse(id, stream);
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock
                        | io::ErrorKind::Interrupted
                        | io::ErrorKind::ConnectionAborted
                ) => {}
            Err(error) if is_exhaustion(&error) => {
                if !self.warned.descriptors {
                    self.warned.descriptors = true;
                    tracing::warn!(%error, "a VMM has to wait: raise the limit with `ulimit -n`");
                }
                // It knocks on and on: it is not heard for a while.
                self.poller.remove(listener.as_fd());
                if let Some(vmm) = self.vmms.get_mut(id) {
                    vmm.retry_at = Some(self.now + RETRY);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "no VMM can come to a port any more");
                self.detach(id);
            }
        }
    }

    /// Connects to VMMs for which it is time, and listens to those that could not be let in.
    pub(super) fn look_for_vmms(&mut self) {
        let now = self.now;
        let due = |vmm: &Vmm| vmm.retry_at.is_some_and(|at| at <= now);
        let due: Vec<PortId> = (self.vmms.iter_mut())
            .filter_map(|(id, vmm)| due(vmm).then_some(id))
            .collect();
        for id in due {
            let Some(vmm) = self.vmms.get_mut(id) else {
                continue;
            };
            vmm.retry_at = Some(now + RETRY);
            match &vmm.socket {
                VhostUserSocket::Connect(directory, name) => {
                    if let Ok(stream) = connect(directory, name) {
                        vmm.retry_at = None;
                        self.converse(id, stream);
                    }
                }
                VhostUserSocket::Listen(listener) => {
                    let token = Token::Vmm(Slot::of(id));
                    if self.poller.add(listener, token, READ).is_ok() {
                        vmm.retry_at = None;
                    }
                }
                VhostUserSocket::Connected(_) => vmm.retry_at = None,
            }
        }
    }

    /// Begins to listen to a VMM.
    fn converse(&mut self, id: PortId, stream: UnixStream) {
        let offer = Offer {
            features: Features::ALL,
            queue_pairs: QUEUE_PAIRS,
            mtu: Some(self.network.mtu()),
            unsealed: Unsealed::Guard,
        };
        let line = self.inbox.line.clone();
        let Some(vmm) = self.vmms.get_mut(id) else {
            return;
        };
        vmm.epoch += 1;
        let epoch = vmm.epoch;
        let tell = move |change| line.tell(Command::Session(id, epoch, change));
        match Session::start(stream, offer, tell) {
            Ok(session) => vmm.session = Some(session),
            Err(error) => {
                tracing::warn!(%error, "a VMM cannot be served");
                self.await_vmm(id, EndedRings::default());
            }
        }
    }

    /// Nobody is at the port: somebody may come.
    fn await_vmm(&mut self, id: PortId, rings: EndedRings) {
        let Some(vmm) = self.vmms.get_mut(id) else {
            return;
        };
        // It ends at once, or has ended: its thread waits for nobody but us.
        end_elsewhere(vmm.session.take(), rings);
        vmm.epoch += 1;
        match &vmm.socket {
            VhostUserSocket::Listen(listener) => {
                let _unheard = self.poller.add(listener, Token::Vmm(Slot::of(id)), READ);
            }
            VhostUserSocket::Connect(..) => vmm.retry_at = Some(self.now + RETRY),
            // Nobody else ever comes.
            VhostUserSocket::Connected(_) => self.detach(id),
        }
    }

    /// A port goes with its VMM.
    pub(super) fn forget_vmm(&mut self, id: PortId, port: &mut VhostUser) {
        let rings = port.clear();
        self.unwatch_all(id, &rings);
        if let Some(vmm) = self.vmms.remove(id) {
            if let (VhostUserSocket::Listen(listener), None) = (&vmm.socket, &vmm.session) {
                // Others may hold the descriptor too, so that closing it does not end its events.
                self.poller.remove(listener);
            }
            end_elsewhere(vmm.session, rings);
        }
    }

    /// Ends the conversation with a port's VMM, and all its rings.
    fn end_session(&mut self, id: PortId) {
        let rings = self.end_rings(id);
        if self.ports.get_mut(id).is_some() {
            self.touch(id);
        }
        self.await_vmm(id, rings);
    }

    /// Ends all rings of a port.
    fn end_rings(&mut self, id: PortId) -> EndedRings {
        let mut rings = EndedRings::default();
        if let Some(Port::VhostUser(port)) = self.ports.get_mut(id) {
            rings = port.clear();
        }
        self.unwatch_all(id, &rings);
        rings
    }

    fn unwatch_all(&mut self, id: PortId, rings: &EndedRings) {
        for kick in rings.kicks() {
            self.poller.remove(kick);
        }
        self.rings.forget_all(id);
    }

    /// A guest has made a ring unreadable: its VMM has to begin anew.
    pub(super) fn break_off(&mut self, id: PortId, error: &dyn std::error::Error) {
        tracing::warn!(%error, "a guest's rings have ended");
        self.end_session(id);
    }

    // ---- what VMMs say ---------------------------------------------------------------------

    pub(super) fn session_change(&mut self, id: PortId, epoch: u64, change: Change) {
        let is_now = (self.vmms.get_mut(id)).is_some_and(|vmm| vmm.epoch == epoch);
        let Some(Port::VhostUser(port)) = self.ports.get_mut(id).filter(|_| is_now) else {
            // Not to be answered any more.
            return;
        };
        match change {
            Change::Negotiated { features, done } => {
                tracing::debug!(?id, features = %format_args!("{:#x}", features.0), "a guest's driver has chosen");
                port.negotiated(features);
                done.give(());
            }
            Change::Start { ring, done } => done.give(self.start_ring(id, ring)),
            Change::Enable { index, on, done } => {
                port.enable(index, on);
                self.touch(id);
                // The ring that a guest hears by first of all.
                if on && index == 0 {
                    self.network.listens(id);
                }
                if let Ok(index) = u8::try_from(index) {
                    // It may have been kicked before it was on.
                    self.kick_event(Slot::of(id), index);
                }
                done.give(());
            }
            Change::Kick { index, fd, done } => {
                self.set_kick(id, index, fd);
                done.give(());
            }
            Change::Call { index, fd, done } => {
                port.set_signal(index, Signal::Call, fd);
                done.give(());
            }
            Change::Error { index, fd, done } => {
                port.set_signal(index, Signal::Error, fd);
                done.give(());
            }
            Change::Memory { map, done } => done.give(port.remap(&map)),
            Change::Stop { index, base } => {
                let (at, kick) = port.stop(index);
                self.unwatch(id, index, kick);
                base.give(at);
            }
            Change::Reset { done } => {
                // The session has the guest's memory still, so that it is not let go of here.
                drop(self.end_rings(id));
                done.give(());
            }
            Change::Ended(end) => self.ended(id, end),
        }
    }

    fn ended(&mut self, id: PortId, end: Result<(), SessionError>) {
        match end {
            Ok(()) => tracing::debug!(?id, "a VMM has gone"),
            Err(error) => {
                tracing::warn!(error = %chain(&error), "the conversation with a VMM has ended")
            }
        }
        self.take_what_is_left(id);
        self.end_session(id);
    }

    fn start_ring(&mut self, id: PortId, start: RingStart) -> Result<(), StartError> {
        let Ok(index) = u8::try_from(start.index) else {
            return Err(StartError::Size(start.config.size));
        };
        let Some(Port::VhostUser(port)) = self.ports.get_mut(id) else {
            return Ok(());
        };
        let had = port.stop(start.index).1;
        let hears = start.enabled && index == 0;
        port.start(start)?;
        if hears {
            self.network.listens(id);
        }
        self.unwatch(id, index.into(), had);
        self.watch_kick(id, index);
        // Its guest is called once at the end of the turn, whichever direction it has.
        self.touch(id);
        Ok(())
    }

    fn set_kick(&mut self, id: PortId, index: u16, fd: Option<OwnedFd>) {
        let Some(Port::VhostUser(port)) = self.ports.get_mut(id) else {
            return;
        };
        if let Some(old) = port.set_kick(index, fd) {
            self.poller.remove(&old);
        }
        if let Ok(index) = u8::try_from(index) {
            self.watch_kick(id, index);
        }
    }

    /// Hears kicks of a ring, and looks at it once, as one may have been before.
    fn watch_kick(&mut self, id: PortId, index: u8) {
        let Some(Port::VhostUser(port)) = self.ports.get_mut(id) else {
            return;
        };
        if let Some(kick) = port.kick_fd(index)
            && let Err(error) = (self.poller).add(kick, Token::Kick(Slot::of(id), index), KICKS)
        {
            tracing::warn!(%error, "a guest's kicks cannot be heard");
        }
        self.kick_event(Slot::of(id), index);
    }

    fn unwatch(&mut self, id: PortId, index: u16, kick: Option<OwnedFd>) {
        if let Some(kick) = kick {
            self.poller.remove(&kick);
        }
        if let Ok(index) = u8::try_from(index) {
            self.rings.forget(id, index);
        }
    }
}

/// A port for a guest that shares its memory. One that came with its connection is a program of the library's.
pub(super) fn port(socket: &VhostUserSocket) -> Port {
    let is_program = matches!(socket, VhostUserSocket::Connected(_));
    Port::VhostUser(Box::new(VhostUser::new(is_program)))
}

/// A session waits for its thread when it is dropped, which may be in the middle of a message; and letting go of a large
/// guest's memory takes long.
fn end_elsewhere(session: Option<Session>, rings: EndedRings) {
    if session.is_none() && rings.is_empty() {
        return;
    }
    let ended = std::thread::Builder::new()
        .name("vhost-user-end".to_owned())
        .spawn(move || drop((session, rings)));
    if let Err(error) = ended {
        tracing::debug!(%error, "a session ends in the datapath's thread");
    }
}

/// The host or this process has no more of something, for now.
fn is_exhaustion(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS)
    )
}

/// Connects without waiting: a listener whose queue is full is asked again later.
fn connect(directory: &OwnedFd, name: &str) -> io::Result<UnixStream> {
    use rustix::net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // A directory has no length limit this way, and is the one that was meant even if it was moved.
    let path = format!("/proc/self/fd/{}/{name}", directory.as_raw_fd());
    connect(&fd, &SocketAddrUnix::new(path)?)?;
    Ok(fd.into())
}

/// An error with its sources.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}
