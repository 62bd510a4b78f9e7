//! TCP segments between a guest and its port as readable text, with relative sequence numbers, for snapshots.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use vmnet_wire::tcp::{Flags, Seq};

use crate::sim::packets::{flags_in_words, read_icmp, read_tcp};

/// What was seen on a guest's wire.
#[derive(Debug, Default)]
pub struct Trace {
    /// Lines, one for each frame.
    pub text: String,
    first: HashMap<(Ipv4Addr, u16, Ipv4Addr, u16), Seq>,
}

impl Trace {
    /// Writes down a frame. `outward`: from the guest.
    pub fn note(&mut self, outward: bool, frame: &[u8]) {
        let arrow = if outward { "guest >" } else { "guest <" };
        if let Some((source, destination, fields, payload)) = read_tcp(frame) {
            let key = (
                source,
                fields.source_port,
                destination,
                fields.destination_port,
            );
            let back = (
                destination,
                fields.destination_port,
                source,
                fields.source_port,
            );
            if fields.flags.has(Flags::SYN) {
                self.first.insert(key, fields.sequence);
            }
            let relative = |of: Option<&Seq>, seq: Seq| of.map_or(seq, |first| Seq(seq - *first)).0;
            let _ = write!(
                self.text,
                "{arrow} {} seq {}",
                flags_in_words(fields.flags),
                relative(self.first.get(&key), fields.sequence)
            );
            if fields.flags.has(Flags::ACK) {
                let number = relative(self.first.get(&back), fields.acknowledgement);
                let _ = write!(self.text, " ack {number}");
            }
            if !payload.is_empty() {
                let _ = write!(self.text, " len {}", payload.len());
            }
            self.text.push('\n');
        } else if let Some((from, kind, code, _)) = read_icmp(frame) {
            let _ = writeln!(self.text, "{arrow} ICMP {kind}/{code} from {from}");
        }
    }
}
