//! Every reader of headers, the cutting of segments and fragments, and the offload header.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmnet_wire::offload::{Kind, Offload, Segmentation};
use vmnet_wire::segment::{Cut, Fragments, Layout, complete, verify};
use vmnet_wire::{arp, ethernet, icmpv4, icmpv6, ipv4, ipv6, ndp, tcp, udp};

fuzz_target!(|data: &[u8]| {
    let _ = ethernet::Header::read(data);
    let _ = arp::Packet::read(data);
    let _ = icmpv4::Header::read(data);
    let _ = icmpv6::Header::read(data);
    packet6(data);
    if let Some(message) = ndp::Message::read(data) {
        assert!(message.options().into_iter().count() <= data.len() / 8);
    }
    let _ = udp::Header::read(data);
    if let Ok(packet) = ipv4::Packet::read(data, data.len()) {
        assert!(packet.payload.len() <= packet.payload_len);
    }
    if let Some(segment) = tcp::Segment::read(data) {
        let _ = segment.syn_options();
    }
    let _ = verify(data);
    let Some((header, frame)) = data.split_first_chunk::<{ Offload::HEADER_LEN }>() else { return };
    if let Ok(offload) = Offload::read(header) {
        let (mut head, body) = (frame.to_vec(), &header[..5]);
        complete(&mut head, body, offload.checksum);
        if let Some(segmentation) = offload.segmentation {
            cut(frame, segmentation);
        }
    }
    cut(frame, Segmentation { kind: Kind::Tcp4, size: 100, ecn: false });
    cut(frame, Segmentation { kind: Kind::Tcp6, size: 100, ecn: false });
    cut(frame, Segmentation { kind: Kind::Udp, size: 100, ecn: false });
    if let Some(fragments) = Fragments::new(frame, 576) {
        for (head, range) in fragments {
            assert!(frame.get(range.clone()).is_some() && head.bytes().len() + range.len() <= 576 + 14);
        }
    }
});

/// Whatever the chain of its headers says, a packet stays within its bytes.
fn packet6(data: &[u8]) {
    let Ok(packet) = ipv6::Packet::read(data, data.len()) else { return };
    assert!(packet.header_len + packet.payload_len <= data.len());
    assert!(packet.payload.len() == packet.payload_len);
    if let Some(fragment) = packet.fragment {
        assert!(fragment.at + ipv6::FragmentHeader::LEN <= packet.header_len);
        assert!(fragment.offset.is_multiple_of(8));
    }
    if let Some(problem) = packet.problem {
        assert!((problem.at as usize) < packet.header_len);
    }
}

fn cut(frame: &[u8], segmentation: Segmentation) {
    let Some(mut cut) = Cut::new(frame, frame.len(), segmentation) else { return };
    let layout = Layout::find(frame, frame.len()).expect("it was cut");
    let payload = &frame[cut.headers()..];
    let (mut sum, mut pieces) = (0, 0);
    while let Some((head, range)) = cut.next(payload) {
        sum += range.len();
        pieces += 1;
        assert!(range.len() <= usize::from(segmentation.size) && pieces <= frame.len() + 1);
        assert!(verify(&[head.bytes(), &payload[range]].concat()));
    }
    assert_eq!(sum, layout.end - layout.payload);
}
