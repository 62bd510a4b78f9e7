//! Messages of other programs: frames in pieces, and bodies. What is read can be written, and is read again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmnet_xpc::Body;
use vmnet_xpc::compare::equal;
use vmnet_xpc::wire::{HEAD, Head, Purpose, Stream, read, write};

fuzz_target!(|data: &[u8]| {
    let Some((&piece, rest)) = data.split_first() else {
        return;
    };
    // As they come: most inputs have no head, so every other one is given one.
    let mut bytes = Vec::new();
    if piece & 1 == 1 {
        let length = u32::try_from(rest.len()).expect("small");
        bytes.extend(Head { length, id: 7, purpose: Purpose::Question, descriptors: 0 }.to_bytes());
        assert_eq!(bytes.len(), HEAD);
    }
    bytes.extend_from_slice(rest);
    let mut stream = Stream::default();
    'pieces: for piece in bytes.chunks(usize::from(piece) + 1) {
        stream.push(piece, []);
        loop {
            match stream.next_frame() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => break 'pieces,
            }
        }
    }
    if let Ok(message) = read(rest, std::iter::empty()) {
        let written = write(&message).expect("what was read is within the limits");
        assert_eq!(written.bytes.len(), rest.len());
        let again = read(&written.bytes, written.descriptors.into_iter()).expect("it was written");
        let _not_equal_with_nan = equal(&Body::Dictionary(message), &Body::Dictionary(again));
    }
});
