//! Any bytes, with any descriptors among them.

use std::io::{IoSlice, Read, pipe};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::thread;

use proptest::prelude::*;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::*;

/// A descriptor of some kind.
fn descriptor(kind: u8) -> OwnedFd {
    match kind % 5 {
        0 => eventfd(0, EventfdFlags::empty()).unwrap(),
        1 => memfd_create("bytes", MemfdFlags::ALLOW_SEALING).unwrap(),
        2 => std::fs::File::open("/dev/null").unwrap().into(),
        3 => UnixStream::pair().unwrap().0.into(),
        _ => pipe().unwrap().0.into(),
    }
}

/// Sends `bytes` with descriptors beside them; false: the session has ended.
fn send(stream: &UnixStream, bytes: &[u8], fds: &[OwnedFd]) -> bool {
    let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !borrowed.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(&borrowed)));
    }
    let parts = [IoSlice::new(bytes)];
    sendmsg(stream, &parts, &mut control, SendFlags::NOSIGNAL).is_ok()
}

/// Bytes that have the form of a message, more or less.
fn nearly_a_message() -> impl Strategy<Value = Vec<u8>> {
    let words = prop::collection::vec(
        prop_oneof![0_u64..4, any::<u64>(), Just(0x1000), Just(1 << 32 | 1)],
        0..10,
    );
    (
        0_u32..48,
        prop_oneof![8 => Just(9_u32), 1 => any::<u32>()],
        words,
        -9_i32..9,
    )
        .prop_map(|(request, flags, words, off)| {
            let len = i32::try_from(words.len() * 8).unwrap();
            let len = if off.abs() > 6 { len + off } else { len };
            let mut bytes = [request, flags, len.cast_unsigned()]
                .map(u32::to_ne_bytes)
                .concat();
            bytes.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
            bytes
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// A session ends when its VMM has said all it has to say, whatever that was.
    #[test]
    fn any_bytes_are_answered_or_end_the_session(
        pieces in prop::collection::vec(
            (
                prop_oneof![
                    6 => nearly_a_message(),
                    1 => prop::collection::vec(any::<u8>(), 1..100),
                ],
                prop::collection::vec(any::<u8>(), 0..3),
                prop::bool::weighted(0.02),
            ),
            1..30,
        ),
    ) {
        let (_session, vmm, changes) = session(Offer { queue_pairs: 2, mtu: Some(1500), ..Offer::new() });
        let reader = {
            let mut stream = vmm.stream.try_clone().unwrap();
            // So that no answer blocks the session.
            thread::spawn(move || stream.read_to_end(&mut Vec::new()))
        };
        for (bytes, kinds, many) in pieces {
            let mut fds: Vec<OwnedFd> = kinds.into_iter().map(descriptor).collect();
            if many {
                fds = (0..40).map(|_| descriptor(0)).collect();
            }
            if !send(&vmm.stream, &bytes, &fds) {
                break;
            }
        }
        let _ = vmm.stream.shutdown(Shutdown::Write);
        let all = all(&changes);
        prop_assert!(!all.is_empty());
        let _ = reader.join().unwrap();
    }
}
