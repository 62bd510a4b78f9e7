//! Questions to the kernel, and what it answers.

use super::{RouteError, Routes};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use std::io;

/// How a list was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kernel) enum Told {
    /// As it was at one time.
    Whole,
    /// It changed meanwhile.
    Changed,
}

/// How often a list is asked for that changes while it is told.
const DUMPS_MAX: u32 = 20;

impl Routes {
    /// Sends a request that is answered by one acknowledgement.
    pub(in crate::kernel) fn ask(
        &mut self,
        request: RouteNetlinkMessage,
        flags: u16,
        what: &str,
    ) -> Result<(), RouteError> {
        self.send(request, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        self.answers(what, |_| {}).map(|_| ())
    }

    /// Sends a request that is answered by a list, and again if that changed while it was told: something that was there all
    /// the time can be missing from it then.
    pub(in crate::kernel) fn dump(
        &mut self,
        request: RouteNetlinkMessage,
        what: &str,
        each: impl FnMut(RouteNetlinkMessage),
    ) -> Result<(), RouteError> {
        for _ in 0..DUMPS_MAX {
            self.send(request.clone(), NLM_F_REQUEST | NLM_F_DUMP)?;
            let mut list = Vec::new();
            let told = self.answers(what, |message| list.push(message))?;
            if told == Told::Whole {
                list.into_iter().for_each(each);
                return Ok(());
            }
        }
        Err(RouteError::Answer(format!(
            "to {what}: it changed each time while it was told"
        )))
    }

    pub(in crate::kernel) fn send(
        &mut self,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), RouteError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        Ok(())
    }

    /// Reads answers until the acknowledgement or the end of the list.
    pub(in crate::kernel) fn answers(
        &self,
        what: &str,
        each: impl FnMut(RouteNetlinkMessage),
    ) -> Result<Told, RouteError> {
        let receive = || Ok(self.socket.recv_from_full()?.0);
        read_answers(receive, self.sequence, what, each)
    }
}

fn read_answers(
    mut receive: impl FnMut() -> io::Result<Vec<u8>>,
    sequence: u32,
    what: &str,
    mut each: impl FnMut(RouteNetlinkMessage),
) -> Result<Told, RouteError> {
    let mut told = Told::Whole;
    loop {
        let bytes = receive()?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|error| RouteError::Answer(error.to_string()))?;
            let length = (message.header.length as usize).next_multiple_of(4);
            if length == 0 {
                return Err(RouteError::Answer("a message of no length".into()));
            }
            rest = rest.get(length..).unwrap_or_default();
            if message.header.sequence_number != sequence {
                continue;
            }
            if message.header.flags & NLM_F_DUMP_INTR != 0 {
                told = Told::Changed;
            }
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(told),
                NetlinkPayload::Error(error) => {
                    return match error.code {
                        None => Ok(told),
                        Some(_) => Err(RouteError::Refused {
                            what: what.to_owned(),
                            source: error.to_io(),
                        }),
                    };
                }
                NetlinkPayload::InnerMessage(inner) => each(inner),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_route::link::LinkMessage;

    /// A message of the kernel's: a link of this number, or the end of the list.
    fn message(link: Option<u32>, flags: u16) -> Vec<u8> {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = 7;
        let payload = match link {
            Some(index) => {
                let mut link = LinkMessage::default();
                link.header.index = index;
                NetlinkPayload::from(RouteNetlinkMessage::NewLink(link))
            }
            None => NetlinkPayload::Done(netlink_packet_core::DoneMessage::default()),
        };
        let mut message = NetlinkMessage::new(header, payload);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    #[test]
    fn a_list_that_changed_while_it_was_told_is_known() {
        for (flags, expected) in [
            ([0, 0, 0], Told::Whole),
            ([0, NLM_F_DUMP_INTR, 0], Told::Changed),
            ([0, 0, NLM_F_DUMP_INTR], Told::Changed),
        ] {
            let [first, second, last] = flags;
            let mut datagrams = vec![
                [message(Some(1), first), message(Some(2), second)].concat(),
                message(None, last),
            ]
            .into_iter();
            let mut links = 0;
            let receive = || Ok(datagrams.next().unwrap());
            let told = read_answers(receive, 7, "list the links", |_| links += 1).unwrap();
            assert_eq!((told, links), (expected, 2), "{flags:?}");
        }
    }
}
