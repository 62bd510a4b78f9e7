//! What the core wants done, and what it promised.

use vmnet_core::outbox::HOLDS;
use vmnet_core::{Action, Event, Span};
use vmnet_wire::tcp::Flags;

use crate::sim::nonsense::{FLOWS_MAX, Nonsense, RULES_MAX};
use crate::sim::packets;

impl Nonsense<'_> {
    pub(super) fn carry_out_all(&mut self) {
        while let Some(action) = self.out.take() {
            self.actions += 1;
            assert!(self.actions < 2_000_000, "actions without end");
            self.carry_out(&action);
        }
        assert!(self.out.is_empty());
        assert!(
            self.network.flows() <= FLOWS_MAX + RULES_MAX,
            "the table has a limit"
        );
    }

    fn in_hand(&self, span: Span) {
        assert!(
            span.of(&self.hand).is_some(),
            "{span:?} outside {}",
            self.hand.len()
        );
    }

    fn carry_out(&mut self, action: &Action) {
        match action {
            Action::Forward { .. } | Action::Ask { .. } | Action::Forget { .. } => {
                if let Action::Ask { query, .. } = action {
                    self.queries.push(*query);
                }
            }
            Action::StoreLeases { ticket, writes } => {
                assert!(!writes.is_empty(), "nothing to store");
                let before = self.storing.replace(*ticket);
                assert_eq!(before, None, "one batch at a time");
            }
            Action::Reply { frame, .. } => {
                let frame = self.out.bytes(frame).to_vec();
                assert!(
                    vmnet_wire::segment::verify(&frame),
                    "checksums of what the core made"
                );
                self.learn(&frame, 0);
            }
            Action::Deliver { headers, body, .. } => {
                self.in_hand(*body);
                let headers = self.out.bytes(headers).to_vec();
                assert!(headers.len() >= 34);
                self.learn(&headers, u32::try_from(body.len).expect("a frame"));
            }
            Action::Open { socket, .. } => {
                self.contract.open(*socket);
                self.sockets.push(*socket);
            }
            Action::Send { socket, span } => {
                self.contract.write(*socket);
                self.in_hand(*span);
                let taken = if self.bytes.chance(3) {
                    self.bytes.below(span.len + 1)
                } else {
                    span.len
                };
                let room = self.bytes.number() as usize % 100_000;
                let event = Event::Sent {
                    socket: *socket,
                    taken,
                    room,
                };
                self.network.event(self.now, &event, &mut self.out);
            }
            Action::SendTo { socket, span, .. } => {
                self.contract.name(*socket);
                self.in_hand(*span);
            }
            Action::ShutWrite { socket } => self.contract.shut(*socket),
            Action::Discard { socket, .. }
            | Action::NotifyWritable { socket }
            | Action::StreamAnswer { socket, .. } => self.contract.name(*socket),
            Action::Close { socket } | Action::Reset { socket } => self.contract.end(*socket),
            Action::Hold { buffer, at, span } => {
                self.in_hand(*span);
                assert!(*buffer < HOLDS && at + span.len <= 65_535);
            }
            Action::Reassemble {
                port, headers, len, ..
            } => {
                let mut frame = self.out.bytes(headers).to_vec();
                frame.resize(frame.len() + len, 3);
                self.whole.push((*port, frame));
            }
        }
    }

    fn learn(&mut self, frame: &[u8], body: u32) {
        let Some((peer, guest, fields, _)) = packets::read_tcp_head(frame) else {
            return;
        };
        let ends =
            u32::from(fields.flags.has(Flags::SYN)) + u32::from(fields.flags.has(Flags::FIN));
        let pair = (guest, fields.destination_port, peer, fields.source_port);
        let next = fields.sequence.advance(body + ends).0;
        self.seen.insert(pair, (fields.acknowledgement.0, next));
    }
}
