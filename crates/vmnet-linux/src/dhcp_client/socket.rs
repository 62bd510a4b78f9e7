//! How DHCP messages go and come: as whole packets while the interface has no address, by UDP afterwards.
//!
//! A socket is open only while an answer is expected: a packet socket costs every packet of the interface a copy, and port
//! 68 may be wanted by a client of the user's.

use super::machine::{Hearing, Output};
use crate::sys::packet;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
const HEADERS: usize = 28;
const UDP: u8 = 17;

enum Open {
    Nothing,
    Packets(OwnedFd),
    Datagrams(UdpSocket),
}

/// The sockets of one interface.
pub(super) struct Transport {
    name: String,
    index: u32,
    open: Open,
}

impl Transport {
    pub(super) fn open(name: &str, index: u32) -> io::Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            index,
            open: Open::Packets(packet::open(index)?),
        })
    }

    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.open {
            Open::Nothing => None,
            Open::Packets(socket) => Some(socket.as_fd()),
            Open::Datagrams(socket) => Some(socket.as_fd()),
        }
    }

    /// Opens what is needed to hear, closes what is not.
    pub(super) fn follow(&mut self, hearing: Hearing) -> io::Result<()> {
        match (hearing, &self.open) {
            (Hearing::Packets, Open::Packets(_)) | (Hearing::Datagrams, Open::Datagrams(_)) => {}
            (Hearing::Nothing, _) => self.open = Open::Nothing,
            (Hearing::Packets, _) => self.open = Open::Packets(packet::open(self.index)?),
            (Hearing::Datagrams, _) => self.open = Open::Datagrams(self.datagrams()?),
        }
        Ok(())
    }

    pub(super) fn send(&self, output: &Output) -> io::Result<()> {
        let (to, bytes) = match output {
            Output::Shout(bytes) => return self.shout(bytes),
            Output::Broadcast(bytes) => (Ipv4Addr::BROADCAST, bytes),
            Output::Unicast(server, bytes) => (*server, bytes),
        };
        let to = (to, SERVER_PORT);
        match &self.open {
            Open::Datagrams(socket) => socket.send_to(bytes, to).map(drop),
            _ => self.datagrams()?.send_to(bytes, to).map(drop),
        }
    }

    /// The next message to port 68 that waits.
    pub(super) fn receive(&self) -> Option<Vec<u8>> {
        let mut buffer = [0; 2048];
        loop {
            match &self.open {
                Open::Nothing => return None,
                Open::Datagrams(socket) => {
                    let length = socket.recv(&mut buffer).ok()?;
                    return buffer.get(..length).map(<[u8]>::to_vec);
                }
                Open::Packets(socket) => {
                    let length = rustix::io::read(socket, &mut buffer).ok()?;
                    if let Some(message) = buffer.get(..length).and_then(unwrap) {
                        return Some(message.to_vec());
                    }
                }
            }
        }
    }

    fn shout(&self, bytes: &[u8]) -> io::Result<()> {
        let packet = wrap(bytes)?;
        match &self.open {
            Open::Packets(socket) => packet::send(socket, self.index, [0xff; 6], &packet),
            _ => packet::send(packet::open(self.index)?, self.index, [0xff; 6], &packet),
        }
    }

    fn datagrams(&self) -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, CLIENT_PORT))?;
        packet::bind_to_interface(&socket, &self.name)?;
        socket.set_broadcast(true)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}

/// An IPv4 packet from nowhere to everybody (RFC 791 §3.1, RFC 768).
fn wrap(message: &[u8]) -> io::Result<Vec<u8>> {
    let too_long = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let total = u16::try_from(HEADERS + message.len()).map_err(too_long)?;
    let udp_length = total - 20;
    let mut packet = vec![0x45, 0x10];
    packet.extend_from_slice(&total.to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 0, 64, UDP, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255]);
    let sum = checksum(&[&packet]);
    packet.splice(10..12, sum.to_be_bytes());
    let mut udp = Vec::new();
    udp.extend_from_slice(&CLIENT_PORT.to_be_bytes());
    udp.extend_from_slice(&SERVER_PORT.to_be_bytes());
    udp.extend_from_slice(&udp_length.to_be_bytes());
    udp.extend_from_slice(&[0, 0]);
    udp.extend_from_slice(message);
    let [high, low] = udp_length.to_be_bytes();
    let pseudo = [0, 0, 0, 0, 255, 255, 255, 255, 0, UDP, high, low];
    let sum = match checksum(&[&pseudo, &udp]) {
        0 => 0xffff,
        sum => sum,
    };
    udp.splice(6..8, sum.to_be_bytes());
    packet.extend_from_slice(&udp);
    Ok(packet)
}

/// The message in an IPv4 packet to port 68. The UDP checksum is not looked at: on a link whose sender leaves sums to the
/// receiver's hardware, packets that never met hardware carry unfinished ones.
fn unwrap(packet: &[u8]) -> Option<&[u8]> {
    let [first, _, a, b, _, _, f, g, _, protocol, ..] = packet else {
        return None;
    };
    let header_length = usize::from(first & 0x0f) * 4;
    let header = packet.get(..header_length)?;
    let fragment = u16::from_be_bytes([*f, *g]) & 0x3fff;
    let whole = usize::from(u16::from_be_bytes([*a, *b]));
    if first >> 4 != 4
        || header_length < 20
        || *protocol != UDP
        || fragment != 0
        || checksum(&[header]) != 0
    {
        return None;
    }
    let udp = packet.get(header_length..whole)?;
    let [_, _, to_a, to_b, len_a, len_b, _, _, ..] = udp else {
        return None;
    };
    let length = usize::from(u16::from_be_bytes([*len_a, *len_b]));
    if u16::from_be_bytes([*to_a, *to_b]) != CLIENT_PORT {
        return None;
    }
    udp.get(8..length)
}

/// RFC 1071; all parts but the last have even lengths.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for pair in parts.iter().flat_map(|part| part.chunks(2)) {
        sum += match *pair {
            [high, low] => u32::from(u16::from_be_bytes([high, low])),
            [high] => u32::from(high) << 8,
            _ => 0,
        };
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What we send, sent back as a server would, is read again; cut or changed anywhere it is refused or harmless.
    #[test]
    fn packets_round_trip_and_rubbish_is_refused() {
        let message = [7; 301];
        let mut packet = wrap(&message).unwrap();
        assert_eq!(packet.len(), 329);
        assert_eq!(unwrap(&packet), None, "to the server's port");
        packet[22..24].copy_from_slice(&CLIENT_PORT.to_be_bytes());
        assert_eq!(unwrap(&packet), Some(&message[..]));
        packet.extend_from_slice(&[0; 6]);
        assert_eq!(unwrap(&packet), Some(&message[..]), "with Ethernet padding");
        for length in 0..329 {
            assert_eq!(unwrap(&packet[..length]), None, "cut to {length}");
        }
        for byte in 0..20 {
            let mut changed = packet.clone();
            changed[byte] ^= 0x40;
            assert_eq!(unwrap(&changed), None, "changed at {byte}");
        }
    }

    #[test]
    fn the_sums_are_right() {
        let packet = wrap(b"odd").unwrap();
        assert_eq!(checksum(&[&packet[..20]]), 0);
        let pseudo = [0, 0, 0, 0, 255, 255, 255, 255, 0, UDP, 0, 11];
        assert_eq!(checksum(&[&pseudo, &packet[20..]]), 0);
    }
}
