//! Two sockets at the ends of a wire: what one sends comes to the other with its tags, and with what was left to others.

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmnet_core::Drop;
use vmnet_lab::namespace::Namespace;
use vmnet_lab::prerequisite::{Prerequisite, all_present};
use vmnet_wire::offload::{Kind, Segmentation};

use super::*;
use crate::kernel::nics;
use crate::port::body::Body;
use crate::port::{FRAME_MAX, Outgoing};

const SOON: Duration = Duration::from_secs(10);
const MTU: usize = 1500;

/// A TCP segment of IPv4 with this payload, whose sum is to be made, and where its transport header is.
fn segment(payload: usize) -> Vec<u8> {
    let fields = vmnet_wire::ipv4::Fields {
        source: [10, 0, 0, 1].into(),
        destination: [10, 0, 0, 2].into(),
        protocol: vmnet_wire::ip::Protocol::TCP,
        ttl: 64,
        id: 1,
        dont_fragment: true,
    };
    let header = vmnet_wire::ipv4::Header::new(&fields, 20 + payload);
    let mut bytes = vec![2, 0, 0, 0, 0, 3, 2, 0, 0, 0, 0, 2, 8, 0];
    bytes.extend_from_slice(zerocopy::IntoBytes::as_bytes(&header));
    bytes.extend([0x1f, 0x90, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0]);
    bytes.extend([0; 4]);
    bytes.extend((0..payload).map(|n| n as u8));
    vmnet_wire::unfinished::set_pseudo_sum(&mut bytes, 54 + payload);
    bytes
}

fn next(socket: &Packet) -> (Vec<u8>, Offload) {
    let mut frame = vec![0; FRAME_MAX + lan_socket::TAG];
    let soon = Timespec::try_from(SOON).unwrap();
    let mut readable = [PollFd::from_borrowed_fd(socket.tap.fd(), PollFlags::IN)];
    assert_eq!(poll(&mut readable, Some(&soon)), Ok(1), "a frame");
    let (place, offload) = socket.receive(&mut frame).unwrap().expect("a frame");
    (frame[place].to_vec(), offload)
}

#[test]
fn tags_pass_both_ways() {
    if !all_present(&[Prerequisite::Root]) {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.connect("eth0", &there, "eth0");
    let [mut one, other] = [&here, &there].map(|namespace| {
        // Nothing but what the test sends.
        namespace.sysctl("net.ipv6.conf.eth0.disable_ipv6", "1");
        namespace.enter(|| {
            let nics = nics::all().unwrap();
            let nic = nics.iter().find(|nic| nic.name == "eth0").unwrap();
            let fd = lan_socket::open(nic.index, nic.mac, Hears::All).unwrap();
            Packet::new(fd, Mac(nic.mac), Hears::All)
        })
    });
    let tags: [&[u8]; 5] = [
        &[],
        &[0x81, 0, 0xe0, 5],
        &[0x88, 0xa8, 0, 7],
        &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 5],
        // Of no VLAN, with a priority.
        &[0x81, 0, 0xa0, 0],
    ];
    for tags in tags {
        // The kernel lets one tag of 802.1Q go beyond the MTU, and no others.
        let rest = 1460 - tags.len() + if tags.starts_with(&[0x81]) { 4 } else { 0 };
        for (payload, size) in [(1, None), (rest, None), (20_000, Some(1400))] {
            let plain = segment(payload);
            let frame = [&plain[..12], tags, &plain[12..]].concat();
            let offload = Offload {
                checksum: Offload::partial(34 + tags.len(), 16),
                segmentation: size.map(|size| Segmentation {
                    kind: Kind::Tcp4,
                    size,
                    ecn: false,
                }),
            };
            let outgoing = Outgoing {
                head: &frame,
                body: Body::EMPTY,
                offload,
            };
            let sent: Result<(), Drop> = one.tap.send(&outgoing, MTU, &mut Vec::new());
            assert_eq!(sent, Ok(()), "{tags:x?} {payload}");
            let (came, said) = next(&other);
            assert_eq!(came.len(), frame.len(), "{tags:x?} {payload}");
            assert!(came == frame, "{tags:x?} {payload}: {:x?}", &came[..64]);
            assert_eq!(said, offload, "{tags:x?} {payload}");
        }
    }
}

#[test]
fn a_sum_beyond_all_frames_is_no_sum() {
    let place = |start| Offload {
        checksum: Checksum::Partial { start, offset: 0 },
        segmentation: None,
    };
    assert_eq!(behind_tag(place(34)).unwrap(), place(38));
    assert!(behind_tag(place(u16::MAX - 3)).is_err());
}
