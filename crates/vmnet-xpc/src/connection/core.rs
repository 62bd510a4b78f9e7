//! One connection: its life, what it sends, who waits for answers.

use super::handler::{Handler, Slot, Waiter};
use super::link::{Link, Use};
use super::mailbox::Mailbox;
use super::outgoing::{Outgoing, Refused};
use super::{Connection, Origin, Stage, reactor, service};
use crate::dictionary::Dictionary;
use crate::failure::{Failure, Unsent};
use crate::object::{Body, Head, Object};
use crate::wire::{Frame, Purpose, Written, write};
use rustix::io::Errno;
use rustix::net::UCred;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vmnet_queue::{Target, fork};

/// With so many events waiting, a peer is not read any more, unless somebody waits for its answer.
const MANY_EVENTS: usize = 1024;
/// With so few it is read again.
const FEW_EVENTS: usize = 256;
/// While an answer is awaited reading cannot wait, as it may come behind them: a peer that sends more events than this and
/// no answer is given up.
const MOST_EVENTS: usize = 16 * MANY_EVENTS;
/// How much is read of one peer before the others' turn.
const READS: usize = 16;

/// Which end of a connection it is.
#[derive(Debug)]
pub(super) enum Role {
    /// The client of a named service.
    Client(CString),
    /// The client of an endpoint.
    EndpointClient(OwnedFd),
    /// A named service.
    Service(CString),
    /// A listener without a name.
    Anonymous,
    /// A service's end of a client's connection.
    Peer,
}

/// The object of a connection, which may be about to be freed.
#[derive(Debug)]
struct Whose(NonNull<Head>);
// SAFETY: Heads may be looked at from any thread; `abandon` takes this one away before it is freed.
unsafe impl Send for Whose {}

#[derive(Debug, Default)]
pub(super) struct State {
    whose: Option<Whose>,
    /// A peer that the program has resumed lives until it ends, whoever has a reference.
    own: Option<Object>,
    handler: Option<Arc<Handler>>,
    active: bool,
    dead: bool,
    paused: bool,
    pub(super) link: Option<Arc<Link>>,
    /// A peer's socket until it is resumed.
    socket: Option<OwnedFd>,
    outgoing: Outgoing,
    waiting: HashMap<u64, Waiter>,
    questions: u64,
    credentials: Option<UCred>,
    /// What a listener has open.
    pub(super) listening: super::listening::Open,
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Core {
    pub(super) role: Role,
    pub(super) mailbox: Arc<Mailbox>,
    state: Mutex<State>,
    /// In which process it was made: a child of `fork` has no part in it.
    generation: u64,
}

impl Core {
    /// A connection, suspended, and its object.
    pub(super) fn object_of(role: Role, socket: Option<OwnedFd>, target: Target) -> Object {
        let credentials = match (&socket, &role) {
            (Some(socket), _) | (None, Role::EndpointClient(socket)) => {
                service::credentials(socket).ok()
            }
            _ => None,
        };
        let state = State {
            socket,
            credentials,
            ..State::default()
        };
        let core = Arc::new(Self {
            role,
            mailbox: Mailbox::new(target),
            state: Mutex::new(state),
            generation: fork::generation(),
        });
        let object = Object::new(Body::Connection(Connection(Arc::clone(&core))));
        core.lock().whose = Some(Whose(NonNull::from(object.head())));
        object
    }

    /// Whether it is this process's. In a child even its lock may be held for ever.
    pub(super) fn is_ours(&self) -> bool {
        self.generation == fork::generation()
    }

    pub(super) fn name(&self) -> Option<&CStr> {
        match &self.role {
            Role::Client(name) | Role::Service(name) => Some(name),
            Role::EndpointClient(_) | Role::Anonymous | Role::Peer => None,
        }
    }

    pub(super) fn credentials(&self) -> Option<UCred> {
        self.lock().credentials
    }

    pub(super) fn is_dead(&self) -> bool {
        self.lock().dead
    }

    pub(super) fn set_handler(&self, handler: Option<Handler>) {
        let mut state = self.lock();
        if !state.dead {
            let old = std::mem::replace(&mut state.handler, handler.map(Arc::new));
            drop(state);
            drop(old);
        }
    }

    /// Takes back a suspension; the first time, the connection begins.
    pub(super) fn resume(self: &Arc<Self>) {
        let begun = self.begin();
        self.mailbox.resume();
        if begun.is_err() {
            self.die();
        }
    }

    /// As [`Core::resume`], once.
    pub(super) fn activate(self: &Arc<Self>) {
        if !self.lock().active {
            self.resume();
        }
    }

    fn begin(self: &Arc<Self>) -> io::Result<()> {
        let mut state = self.lock();
        if state.active || state.dead {
            return Ok(());
        }
        state.active = true;
        match &self.role {
            Role::Client(_) | Role::EndpointClient(_) => self.start(&mut state),
            Role::Service(name) => self.listen(&mut state, name),
            Role::Anonymous => self.wait_for_endpoints(&mut state),
            Role::Peer => {
                state.own = Self::object(&state);
                let socket = state.socket.take().ok_or(io::ErrorKind::NotConnected)?;
                state.link = Some(reactor()?.add(socket, Use::Messages, self)?);
                self.flush(&mut state)
            }
        }
    }

    /// The object, if the program still has it.
    fn object(state: &State) -> Option<Object> {
        // SAFETY: It is not freed before `abandon` has taken it away, which needs the lock.
        state
            .whose
            .as_ref()
            .and_then(|whose| unsafe { whose.0.as_ref() }.retain_if_alive())
    }

    /// Sends a message, or the answer that the message is. What cannot be sent is told to the handler.
    pub(super) fn send(self: &Arc<Self>, message: &Dictionary) {
        let (purpose, id) = match message.origin.get() {
            Some(Origin {
                stage: Stage::Answer(id),
                ..
            }) => (Purpose::Reply, *id),
            _ => (Purpose::Message, 0),
        };
        let written = write(message).map_err(Unsent::Unwritable);
        let mut state = self.lock();
        if state.dead {
            return;
        }
        let sent = self.push(&mut state, written, purpose, id);
        drop(state);
        if sent.is_err() {
            self.die();
        }
    }

    /// Puts a message into the line and sends what the socket takes. An error is the socket's.
    fn push(
        self: &Arc<Self>,
        state: &mut State,
        written: Result<Written, Unsent>,
        purpose: Purpose,
        id: u64,
    ) -> io::Result<()> {
        let pushed = written.and_then(|written| state.outgoing.push(written, purpose, id));
        if let Err(why) = pushed {
            self.unsent(state, Refused { purpose, id }, why)?;
        }
        self.start(state)
    }

    /// Tells of a message that is not sent: who waits for its answer, on this side or the peer's, and else the handler. An error
    /// is that the peer cannot be told, which would wait for ever.
    fn unsent(
        self: &Arc<Self>,
        state: &mut State,
        which: Refused,
        why: Unsent,
    ) -> Result<(), Errno> {
        let Refused { purpose, id } = which;
        let failure = Failure::Unsent(why);
        match purpose {
            Purpose::Question => {
                if let Some(waiter) = state.waiting.remove(&id) {
                    waiter.fail(failure);
                }
                return Ok(());
            }
            // Without descriptors, and short.
            Purpose::Reply => {
                let empty = write(&Dictionary::default()).map_err(Unsent::Unwritable);
                empty
                    .and_then(|empty| state.outgoing.push(empty, Purpose::Refusal, id))
                    .map_err(|_| Errno::NOBUFS)?;
            }
            Purpose::Message | Purpose::Refusal => {}
        }
        // A program that goes on and on hears it often enough.
        if self.mailbox.len() < MANY_EVENTS {
            self.tell(Object::new(Body::Error(failure)));
        }
        Ok(())
    }

    /// Sends a question.
    pub(super) fn ask(self: &Arc<Self>, message: &Dictionary, waiter: Waiter) {
        let written = write(message).map_err(Unsent::Unwritable);
        let mut state = self.lock();
        if state.dead || matches!(self.role, Role::Service(_) | Role::Anonymous) {
            drop(state);
            return waiter.fail(Failure::Invalid);
        }
        let id = state.questions;
        state.questions += 1;
        state.waiting.insert(id, waiter);
        let sent = self.push(&mut state, written, Purpose::Question, id);
        self.look_again(&mut state);
        drop(state);
        if sent.is_err() {
            self.die();
        }
    }

    /// Sends a question and waits for the answer, or for an error. A connection that was never resumed gives one at once.
    pub(super) fn ask_and_wait(self: &Arc<Self>, message: &Dictionary) -> Object {
        if !self.lock().active {
            return Object::new(Body::Error(Failure::Invalid));
        }
        let slot = Arc::new(Slot::default());
        self.ask(message, Waiter::Thread(Arc::clone(&slot)));
        slot.wait()
    }

    /// Sends what waits, once the connection has begun.
    fn start(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        if state.active && !state.outgoing.is_empty() {
            self.flush(state)
        } else {
            Ok(())
        }
    }

    /// Connects if need be, and sends what the socket takes.
    fn flush(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        let link = match (&state.link, &self.role) {
            (Some(link), _) => Arc::clone(link),
            (None, Role::Client(name)) => {
                let socket = service::connect(name)?;
                state.credentials = service::credentials(&socket).ok();
                self.linked(state, socket)?
            }
            (None, Role::EndpointClient(endpoint)) => {
                let socket = super::listening::connect(endpoint)?;
                self.linked(state, socket)?
            }
            (None, Role::Service(_) | Role::Anonymous | Role::Peer) => {
                return Err(io::ErrorKind::NotConnected.into());
            }
        };
        match self.flush_into(state, &link) {
            // The reactor finds out too, and knows what follows.
            Ok(()) | Err(Errno::PIPE | Errno::CONNRESET) => {}
            Err(error) => return Err(error.into()),
        }
        reactor()?.wait_for(&link, !state.paused, !state.outgoing.is_empty());
        Ok(())
    }

    /// Sends what the socket takes, and tells of what the kernel refuses.
    fn flush_into(self: &Arc<Self>, state: &mut State, link: &Link) -> Result<(), Errno> {
        while let Some(refused) = state.outgoing.flush(link)? {
            self.unsent(state, refused, Unsent::Refused)?;
        }
        Ok(())
    }

    fn linked(self: &Arc<Self>, state: &mut State, socket: OwnedFd) -> io::Result<Arc<Link>> {
        let link = reactor()?.add(socket, Use::Messages, self)?;
        state.link = Some(Arc::clone(&link));
        Ok(link)
    }

    /// A socket has something for us. In the reactor's thread.
    pub(super) fn ready(self: &Arc<Self>, link: &Arc<Link>, readable: bool, writable: bool) {
        let alive = match link.purpose {
            Use::Accept => self.accept(link),
            Use::Rendezvous => self.meet(link),
            Use::Messages => {
                (!writable || self.write_more(link)) && (!readable || self.read_more(link))
            }
        };
        if !alive {
            self.ended(link);
        }
    }

    /// False if the socket is of no more use.
    fn write_more(self: &Arc<Self>, link: &Arc<Link>) -> bool {
        let mut state = self.lock();
        let had = !state.outgoing.is_empty();
        let taken = self.flush_into(&mut state, link).is_ok();
        // To be waited for as before is to be told as before.
        if let Some(reactor) = reactor::get().filter(|_| had) {
            reactor.wait_for(
                link,
                !state.paused && !state.dead,
                !state.outgoing.is_empty(),
            );
        }
        // After the connection's end it has only waited for this.
        taken && !(state.dead && state.outgoing.is_empty())
    }

    /// False at the end, and after what is no message.
    fn read_more(self: &Arc<Self>, link: &Arc<Link>) -> bool {
        let mut buffer = vec![0; 64 << 10];
        let mut stream = link.stream.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..READS {
            let state = self.lock();
            let closed = state.dead || state.paused;
            drop(state);
            if closed {
                return true;
            }
            let (count, descriptors) = match link.receive(&mut buffer) {
                Ok((0, _)) => return false,
                Ok(received) => received,
                Err(error) => return error == Errno::AGAIN,
            };
            stream.push(buffer.get(..count).unwrap_or_default(), descriptors);
            loop {
                match stream.next_frame() {
                    Ok(Some(frame)) => {
                        if !self.arrived(frame) {
                            return false;
                        }
                    }
                    Ok(None) => break,
                    Err(_) => return false,
                }
            }
        }
        true
    }

    /// A message or an answer has come. False if it is one too many.
    fn arrived(self: &Arc<Self>, frame: Frame) -> bool {
        let mut state = self.lock();
        let stage = match frame.purpose {
            Purpose::Reply | Purpose::Refusal => {
                let waiter = state.waiting.remove(&frame.id);
                drop(state);
                // Nobody waits for an answer that comes twice.
                let answer = match frame.purpose {
                    Purpose::Refusal => Body::Error(Failure::Unanswered),
                    _ => Body::Dictionary(frame.message),
                };
                if let Some(waiter) = waiter {
                    waiter.answer(Object::new(answer));
                }
                return true;
            }
            Purpose::Message => Stage::Came,
            Purpose::Question => Stage::Asked(frame.id),
        };
        // Looked at first: an object that is let go of here, and is the last reference, would need the lock.
        if state.dead {
            return true;
        }
        if self.mailbox.len() >= MOST_EVENTS {
            return false;
        }
        let Some(connection) = Self::object(&state) else {
            return true;
        };
        drop(frame.message.origin.set(Origin { connection, stage }));
        self.tell(Object::new(Body::Dictionary(frame.message)));
        self.look_again(&mut state);
        true
    }

    /// Stops reading a peer with many events waiting, and goes on when there are few.
    fn look_again(&self, state: &mut State) {
        let waiting = self.mailbox.len();
        let pause = state.waiting.is_empty()
            && (waiting >= MANY_EVENTS || (state.paused && waiting > FEW_EVENTS));
        if pause == state.paused || state.dead {
            return;
        }
        state.paused = pause;
        if let (Some(link), Some(reactor)) = (&state.link, reactor::get()) {
            reactor.wait_for(link, !pause, !state.outgoing.is_empty());
        }
    }

    /// Gives an event to the handler, in its turn.
    pub(super) fn tell(self: &Arc<Self>, event: Object) {
        let core = Arc::clone(self);
        self.mailbox.push(Box::new(move || {
            let handler = core.lock().handler.clone();
            if let Some(handler) = handler {
                handler.call(&event);
            }
            drop(event);
            core.look_again(&mut core.lock());
        }));
    }

    /// The peer has gone.
    fn ended(self: &Arc<Self>, link: &Arc<Link>) {
        let mut state = self.lock();
        if !state
            .link
            .as_ref()
            .is_some_and(|other| Arc::ptr_eq(other, link))
        {
            drop(state);
            if let Some(reactor) = reactor::get() {
                reactor.remove(link);
            }
            return;
        }
        if state.dead || !matches!(self.role, Role::Client(_)) {
            drop(state);
            return self.die();
        }
        state.link = None;
        state.outgoing.clear();
        state.paused = false;
        let waiting = std::mem::take(&mut state.waiting);
        self.tell(Object::new(Body::Error(Failure::Interrupted)));
        drop(state);
        if let Some(reactor) = reactor::get() {
            reactor.remove(link);
        }
        waiting
            .into_values()
            .for_each(|waiter| waiter.fail(Failure::Interrupted));
    }

    /// Ends the connection; its handler is told, last. What was sent before still goes out.
    pub(super) fn die(self: &Arc<Self>) {
        let mut state = self.lock();
        if std::mem::replace(&mut state.dead, true) {
            return;
        }
        let object = Self::object(&state);
        let own = state.own.take();
        let core = Arc::clone(self);
        self.mailbox.push(Box::new(move || {
            let handler = core.lock().handler.take();
            if let Some(handler) = handler {
                handler.call(&Object::new(Body::Error(Failure::Invalid)));
            }
            drop((object, own));
        }));
        self.close(state);
    }

    /// The program has let go of the object.
    pub(super) fn abandon(self: &Arc<Self>) {
        let mut state = self.lock();
        state.whose = None;
        state.dead = true;
        let handler = state.handler.take();
        self.close(state);
        self.mailbox.clear();
        drop(handler);
    }

    /// Closes everything, except a socket that still has to send.
    fn close(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        let listening = std::mem::take(&mut state.listening);
        let waiting = std::mem::take(&mut state.waiting);
        let socket = state.socket.take();
        let link = state.link.take();
        if let (Some(link), Some(reactor)) = (link, reactor::get()) {
            if state.outgoing.is_empty() {
                reactor.remove(&link);
            } else {
                reactor.wait_for(&link, false, true);
            }
        }
        drop(state);
        drop((listening, socket));
        waiting
            .into_values()
            .for_each(|waiter| waiter.fail(Failure::Invalid));
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reactor, or why there is none.
pub(super) fn reactor() -> io::Result<&'static reactor::Reactor> {
    reactor::get().ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}
