//! DNS: queries to the host's resolvers, and our own end of guests' streams to the proxy.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::EventFlags;
use rustix::net::RecvFlags;
use vmnet_core::gateway::dns::{QueryId, Transport};
use vmnet_core::{Drop, Event, SocketId};

use crate::dns_stream::{self, Status, udp_query};
use crate::lane::datapath::Lane;
use crate::lane::execute::Hand;
use crate::poller::{READ, READ_WRITE, Token};
use crate::slots::Slot;
use crate::socket::stream::Stream;

/// A query's own socket.
#[derive(Debug)]
pub(super) enum Query {
    Datagram(OwnedFd),
    Stream(dns_stream::Stream),
}

/// A guest's stream to the proxy, our end of it.
#[derive(Debug)]
pub(super) struct DnsSession {
    stream: dns_stream::Stream,
    /// Questions without an answer yet.
    owed: usize,
    /// The guest will ask no more.
    ended: bool,
}

/// Queries that wait for a resolver.
pub(super) type Queries = HashMap<u64, Query>;

impl Lane {
    pub(super) fn ask(
        &mut self,
        query: QueryId,
        resolver: SocketAddr,
        transport: Transport,
        message: &[u8],
    ) -> io::Result<()> {
        let number = u64::from(query);
        let by = self.uplink.way_to(resolver.ip());
        let asked = match transport {
            Transport::Udp => {
                let fd = udp_query(resolver, message, by.as_deref())?;
                self.poller.add(&fd, Token::Query(number), READ)?;
                Query::Datagram(fd)
            }
            Transport::Tcp => {
                let mut stream = dns_stream::Stream::connect(resolver, by.as_deref())?;
                stream.queue(message).map_err(io::Error::other)?;
                self.poller
                    .add(stream.as_fd(), Token::Query(number), READ_WRITE)?;
                Query::Stream(stream)
            }
        };
        self.queries.insert(number, asked);
        Ok(())
    }

    pub(super) fn forget(&mut self, query: QueryId) {
        self.queries.remove(&u64::from(query));
    }

    pub(super) fn query_event(&mut self, number: u64, flags: EventFlags) {
        let query = QueryId::from(number);
        let mut answers = Vec::new();
        let result = match self.queries.get_mut(&number) {
            Some(Query::Datagram(fd)) => receive_answer(fd, &mut answers),
            Some(Query::Stream(stream)) => {
                let result = continue_stream(stream, flags, &mut answers);
                if !stream.wants_write() {
                    let _watched = self
                        .poller
                        .change(stream.as_fd(), Token::Query(number), READ);
                }
                result
            }
            None => return,
        };
        for message in &answers {
            self.network
                .event(self.now, &Event::Answer { query, message }, &mut self.out);
        }
        if let Err(error) = result {
            tracing::debug!(%error, "a resolver failed");
            self.network
                .event(self.now, &Event::QueryFailed { query }, &mut self.out);
        }
        self.carry_out(Hand::EMPTY);
    }

    // ---- guests' streams -------------------------------------------------------------------

    /// Makes a flow's stream to the proxy; the other end is ours.
    pub(super) fn open_dns_stream(&mut self, socket: SocketId) -> io::Result<Stream> {
        let (stream, end) = Stream::pair()?;
        let served = dns_stream::Stream::new(end)?;
        self.poller
            .add(served.as_fd(), Token::DnsStream(Slot::of(socket)), READ)?;
        self.dns_sessions.insert(
            socket,
            DnsSession {
                stream: served,
                owed: 0,
                ended: false,
            },
        );
        Ok(stream)
    }

    pub(super) fn dns_stream_event(&mut self, slot: Slot, flags: EventFlags) {
        let Some(socket) = self.dns_sessions.find(slot) else {
            return;
        };
        let Some(session) = self.dns_sessions.get_mut(socket) else {
            return;
        };
        let mut questions = Vec::new();
        let result = continue_stream(&mut session.stream, flags, &mut questions);
        match result {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => session.ended = true,
            Err(_) => return drop(self.dns_sessions.remove(socket)),
        }
        // The flow's own end is gone: there is nobody left to answer.
        if flags.intersects(EventFlags::HUP | EventFlags::ERR) {
            return drop(self.dns_sessions.remove(socket));
        }
        for message in &questions {
            self.question(socket, message);
        }
        self.watch_dns_session(socket);
    }

    /// Hands a question to the proxy; an answer is owed unless it is dropped.
    fn question(&mut self, socket: SocketId, message: &[u8]) {
        let dropped = self.network.drops().of(Drop::Dns);
        if let Some(session) = self.dns_sessions.get_mut(socket) {
            session.owed += 1;
        }
        let event = Event::StreamQuery { socket, message };
        self.network.event(self.now, &event, &mut self.out);
        let was_dropped = self.network.drops().of(Drop::Dns) > dropped;
        if was_dropped && let Some(session) = self.dns_sessions.get_mut(socket) {
            session.owed = session.owed.saturating_sub(1);
        }
        self.carry_out(Hand::EMPTY);
    }

    pub(super) fn stream_answer(&mut self, socket: SocketId, message: &[u8]) {
        let Some(session) = self.dns_sessions.get_mut(socket) else {
            return;
        };
        session.owed = session.owed.saturating_sub(1);
        // A guest that asks and does not read is served no further.
        if session.stream.queue(message).is_err() || session.stream.flush().is_err() {
            self.dns_sessions.remove(socket);
            return;
        }
        self.watch_dns_session(socket);
    }

    /// Waits for what can still come of a session; ends it if nothing can.
    fn watch_dns_session(&mut self, socket: SocketId) {
        let Some(session) = self.dns_sessions.get_mut(socket) else {
            return;
        };
        let writes = session.stream.wants_write();
        if session.ended && session.owed == 0 && !writes {
            self.dns_sessions.remove(socket);
            return;
        }
        let flags = match (session.ended, writes) {
            (true, true) => EventFlags::OUT,
            (true, false) => EventFlags::empty(),
            (false, true) => READ_WRITE,
            (false, false) => READ,
        };
        let token = Token::DnsStream(Slot::of(socket));
        let _watched = self.poller.change(session.stream.as_fd(), token, flags);
    }
}

fn receive_answer(fd: &OwnedFd, answers: &mut Vec<Vec<u8>>) -> io::Result<()> {
    let mut message = vec![0; 65_535];
    match rustix::net::recv(fd, &mut message[..], RecvFlags::DONTWAIT) {
        Ok((_, len)) => {
            message.truncate(len);
            answers.push(message);
            Ok(())
        }
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Sends and receives what goes. An end is an error: whoever waited for an answer gets none.
fn continue_stream(
    stream: &mut dns_stream::Stream,
    flags: EventFlags,
    messages: &mut Vec<Vec<u8>>,
) -> io::Result<()> {
    if flags.contains(EventFlags::OUT) {
        stream.flush()?;
    }
    if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
        match stream.read(|message| messages.push(message.to_vec()))? {
            Status::Ended => return Err(io::ErrorKind::UnexpectedEof.into()),
            Status::Drained | Status::More => {}
        }
    }
    Ok(())
}
