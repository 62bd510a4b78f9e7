//! Interfaces with different offloads on one network (vmnet-api §11).

mod world;

use openvmnet::{Interface, InterfaceConfiguration, Status};
use vmnet_wire::segment;
use world::{SOON, eventually, inside, read_batch};

const HEADERS: usize = 54;

fn start(tso: bool, checksum: bool, header: bool) -> Interface {
    let configuration = InterfaceConfiguration::host()
        .tso(tso)
        .checksum_offload(checksum)
        .virtio_header(header);
    Interface::start(&configuration.build().unwrap()).unwrap()
}

/// A TCP frame to everybody, without any checksum.
fn tcp(payload: usize) -> Vec<u8> {
    let total = u16::try_from(40 + payload).unwrap().to_be_bytes();
    let mut frame = vec![0xff; 6];
    frame.extend([0x02, 0, 0, 0, 0, 0x55, 8, 0]);
    frame.extend([0x45, 0, total[0], total[1], 0, 7, 0x40, 0, 64, 6, 0, 0]);
    frame.extend([10, 1, 1, 1, 10, 1, 1, 2]);
    frame.extend([
        0, 99, 0, 98, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0,
    ]);
    frame.extend((0..payload).map(|at| u8::try_from(at % 251).unwrap()));
    frame
}

fn read_all(interface: &Interface, payload: usize, headers: usize) -> Vec<Vec<u8>> {
    let mut frames: Vec<Vec<u8>> = Vec::new();
    while frames
        .iter()
        .map(|frame| frame.len() - headers)
        .sum::<usize>()
        < payload
    {
        assert!(interface.wait(Some(SOON)).unwrap(), "{} came", frames.len());
        frames.extend(read_batch(interface, 64, 65_562));
    }
    frames
}

/// The sum of the IPv4 header, which is 0 if it is right.
fn is_ipv4_right(frame: &[u8]) -> bool {
    vmnet_wire::checksum::Sum::new()
        .with(&frame[14..34])
        .finish()
        == 0
}

#[test]
fn a_large_frame_reaches_each_as_it_can_take_it() {
    inside("a_large_frame_reaches_each_as_it_can_take_it", || {
        let sender = start(true, true, false);
        let large = start(true, true, false);
        let plain = start(false, false, false);
        let sums = start(false, true, false);
        let header = start(true, false, true);
        assert_eq!(sender.parameters().max_packet_size, 65_550);
        assert_eq!(header.parameters().max_packet_size, 65_550);
        assert_eq!(plain.parameters().max_packet_size, 1514);
        for payload in [1, 1000, 20_000, 65_000] {
            let sent = tcp(payload);
            sender.write_packet(&sent).unwrap();
            for to in [&plain, &sums] {
                let frames = read_all(to, payload, HEADERS);
                assert_eq!(frames.len(), payload.div_ceil(1460), "of {payload}");
                let mut whole = Vec::new();
                for frame in &frames {
                    assert!(frame.len() <= 1514);
                    assert!(is_ipv4_right(frame) && segment::verify(frame));
                    whole.extend_from_slice(&frame[HEADERS..]);
                }
                assert_eq!(whole, sent[HEADERS..]);
            }
            let frames = read_all(&large, payload, HEADERS);
            let [frame] = frames.as_slice() else {
                panic!("{} frames of {payload}", frames.len());
            };
            assert_eq!(frame[HEADERS..], sent[HEADERS..]);
            assert!(is_ipv4_right(frame) && segment::verify(frame));
            let frames = read_all(&header, payload, 12 + HEADERS);
            let [frame] = frames.as_slice() else {
                panic!("{} frames of {payload}", frames.len());
            };
            let (said, frame) = frame.split_at(12);
            assert_eq!(frame[HEADERS..], sent[HEADERS..]);
            assert_eq!(said[0], 1, "its checksum is left to us");
            assert_eq!(said[10..], [1, 0]);
            let cut = u16::from_le_bytes([said[4], said[5]]);
            let expected = if payload > 1460 { (1, 1460) } else { (0, 0) };
            assert_eq!((said[1], cut), expected, "of {payload}");
        }
    });
}

#[test]
fn a_header_says_what_is_left_to_others() {
    inside("a_header_says_what_is_left_to_others", || {
        let (header, plain) = (start(true, false, true), start(false, false, false));
        let mut frame = tcp(3000);
        vmnet_wire::unfinished::leave(
            &mut frame,
            vmnet_wire::unfinished::Leaves {
                sums: true,
                cutting_to: Some(1500),
            },
        )
        .unwrap();
        // NEEDS_CSUM, TCPV4, headers of 54 bytes, in pieces of 1000, from byte 34 on, at its byte 16.
        let mut packet = vec![1, 1, 54, 0, 0xe8, 3, 34, 0, 16, 0, 0, 0];
        packet.extend(&frame);
        header.write_packet(&packet).unwrap();
        let frames = read_all(&plain, 3000, HEADERS);
        assert_eq!(frames.len(), 3);
        assert!(frames.iter().all(|frame| segment::verify(frame)));
        let refused = header.write_packet(&packet[..25]).unwrap_err();
        assert_eq!(
            refused.status(),
            Status::InvalidArgument,
            "no Ethernet header"
        );
    });
}

#[test]
fn wrong_sums_are_dropped_for_who_relies_on_us() {
    inside("wrong_sums_are_dropped_for_who_relies_on_us", || {
        let plain = start(false, false, false);
        let (sums, other) = (start(false, true, false), start(false, false, false));
        // One with nothing right, one whose IPv4 header is, and one with everything.
        let wrong = tcp(100);
        let mut half = tcp(100);
        let sums_of = vmnet_wire::unfinished::Leaves {
            sums: true,
            cutting_to: None,
        };
        let (offload, _) = vmnet_wire::unfinished::leave(&mut half, sums_of).unwrap();
        let mut right = half.clone();
        segment::complete(&mut right, &[], offload.checksum);
        for frame in [&wrong, &half, &right] {
            plain.write_packet(frame).unwrap();
        }
        eventually("all are there", || other.packets_available() == 3);
        let all = [wrong, half, right.clone()];
        assert_eq!(
            read_batch(&other, 10, 2000),
            all,
            "others look for themselves"
        );
        let mut read = Vec::new();
        eventually("two are dropped", || {
            read.extend(read_batch(&sums, 10, 2000));
            sums.statistics().bad == 2 && !read.is_empty()
        });
        assert_eq!(read, [right]);
    });
}

#[test]
fn jumbo_frames() {
    inside("jumbo_frames", || {
        let jumbo = || {
            let id = uuid::Uuid::from_u128(1);
            let configuration = InterfaceConfiguration::private(id).mtu(9000).build();
            Interface::start(&configuration.unwrap()).unwrap()
        };
        let (one, other) = (jumbo(), jumbo());
        assert_eq!(one.parameters().max_packet_size, 9014);
        for len in [14, 1500, 4147, 4148, 4149, 4160, 9000, 9014] {
            one.write_packet(&world::frame(3, len)).unwrap();
            assert!(other.wait(Some(SOON)).unwrap());
            eventually("it is whole", || other.packets_available() == 1);
            assert_eq!(read_batch(&other, 10, 9014), [world::frame(3, len)]);
        }
        let long = one.write_packet(&world::frame(3, 9015)).unwrap_err();
        assert_eq!(long.status(), Status::PacketTooBig);
    });
}
