//! What a hostile guest sends by IPv6: neighbours, routers, groups and pieces that do not exist, from addresses that are
//! not its own. Needs a raw socket.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, socket};
use vmnet_wire::ip::{Protocol, pseudo_header};
use vmnet_wire::ipv6::Header;
use zerocopy::IntoBytes;

/// Sends to `gateway` and to groups of the link behind `interface` until `time` is over; how many packets.
///
/// # Errors
/// Those of the socket.
pub fn run(gateway: Ipv6Addr, interface: &str, time: Duration) -> io::Result<usize> {
    // With this protocol the header is the sender's (raw(7)).
    let raw = socket(AddressFamily::INET6, SocketType::RAW, Some(ipproto::RAW))?;
    // What it says of routers is for others.
    rustix::net::sockopt::set_ipv6_multicast_loop(&raw, false)?;
    let index = rustix::net::netdevice::name_to_index(&raw, interface)?;
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (begin, mut count) = (Instant::now(), 0);
    while begin.elapsed() < time {
        let (to, packet) = packet(&mut random, gateway);
        let to = SocketAddr::V6(SocketAddrV6::new(to, 0, 0, index));
        match rustix::net::sendto(&raw, &packet, SendFlags::empty(), &to) {
            Ok(_) => count += 1,
            Err(rustix::io::Errno::NOBUFS | rustix::io::Errno::AGAIN) => std::thread::yield_now(),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(count)
}

/// One packet and to whom it goes.
fn packet(random: &mut Random, gateway: Ipv6Addr) -> (Ipv6Addr, Vec<u8>) {
    let prefix = gateway.to_bits() & !u128::from(u64::MAX);
    let guest = Ipv6Addr::from_bits(prefix | u128::from(random.next()));
    let local = Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(random.next()));
    let (all, routers): (Ipv6Addr, Ipv6Addr) = (
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2),
    );
    let link_option = [&[1, 1][..], &random.next().to_be_bytes()[..6]].concat();
    let message = |kind: u8, rest: &[&[u8]]| [&[kind, 0, 0, 0][..], &rest.concat()].concat();
    match random.next() % 6 {
        0 => {
            let ask = message(135, &[&[0; 4], &gateway.octets(), &link_option]);
            icmp(guest, gateway, ask)
        }
        1 => {
            let claim = message(
                136,
                &[&[0x20, 0, 0, 0], &guest.octets(), &[2], &link_option[1..]],
            );
            icmp(guest, all, claim)
        }
        2 => icmp(local, routers, message(133, &[&[0; 4], &link_option])),
        3 => {
            let life = message(134, &[&[64, 0, 7, 8], &[0; 8], &link_option]);
            icmp(local, all, life)
        }
        4 => {
            let group = Ipv6Addr::from_bits(0xff05 << 112 | u128::from(random.next()));
            let report = message(143, &[&[0, 0, 0, 1, 4, 0, 0, 0], &group.octets()]);
            icmp(local, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16), report)
        }
        _ => {
            // The first piece of a datagram of which no other comes.
            let id = random.next().to_be_bytes();
            let piece = [&[17, 0, 0, 1][..], &id[..4], &[0; 1024]].concat();
            let header = Header::new(guest, gateway, Protocol(44), 64, piece.len());
            (gateway, [header.as_bytes(), &piece].concat())
        }
    }
}

fn icmp(from: Ipv6Addr, to: Ipv6Addr, mut message: Vec<u8>) -> (Ipv6Addr, Vec<u8>) {
    let ends = (IpAddr::V6(from), IpAddr::V6(to));
    let sum = pseudo_header(ends.0, ends.1, Protocol::ICMPV6, message.len());
    let sum = sum.with(&message).finish().to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    let header = Header::new(from, to, Protocol::ICMPV6, 255, message.len());
    (to, [header.as_bytes(), &message].concat())
}

/// Good enough to be different each time (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
