use super::{HEAD, Head, MOST_DEPTH, Purpose, ReadError, Stream, WriteError, Written, read, write};
use crate::array::Array;
use crate::compare::equal;
use crate::dictionary::Dictionary;
use crate::object::{Body, Object};
use proptest::prelude::*;
use std::ffi::CString;
use std::io::{Read as _, Write as _};

fn dictionary(entries: Vec<(CString, Object)>) -> Dictionary {
    let dictionary = Dictionary::default();
    for (key, value) in entries {
        drop(dictionary.set(&key, Some(value)));
    }
    dictionary
}

fn text() -> impl Strategy<Value = CString> {
    prop::collection::vec(1u8.., 0..20).prop_map(|bytes| CString::new(bytes).unwrap())
}

fn objects() -> impl Strategy<Value = Object> {
    let leaf = prop_oneof![
        Just(()).prop_map(|()| Body::Null),
        any::<bool>().prop_map(Body::Bool),
        any::<i64>().prop_map(Body::Int64),
        any::<u64>().prop_map(Body::Uint64),
        (-1e300..1e300).prop_map(Body::Double),
        any::<i64>().prop_map(Body::Date),
        prop::collection::vec(any::<u8>(), 0..50).prop_map(|bytes| Body::Data(bytes.into())),
        text().prop_map(Body::String),
        any::<[u8; 16]>().prop_map(Body::Uuid),
    ]
    .prop_map(Object::new);
    leaf.prop_recursive(5, 100, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8)
                .prop_map(|values| Object::new(Body::Array(values.into_iter().collect()))),
            prop::collection::vec((text(), inner), 0..8)
                .prop_map(|entries| Object::new(Body::Dictionary(dictionary(entries)))),
        ]
    })
}

fn framed(written: &Written, purpose: Purpose, id: u64) -> Vec<u8> {
    let head = Head {
        length: u32::try_from(written.bytes.len()).unwrap(),
        id,
        purpose,
        descriptors: u8::try_from(written.descriptors.len()).unwrap(),
    };
    let mut bytes = head.to_bytes().to_vec();
    bytes.extend_from_slice(&written.bytes);
    bytes
}

proptest! {
    #[test]
    fn what_is_written_is_read(entries in prop::collection::vec((text(), objects()), 0..8)) {
        let original = dictionary(entries);
        let written = write(&original).unwrap();
        let back = read(&written.bytes, std::iter::empty()).unwrap();
        prop_assert!(equal(&Body::Dictionary(original), &Body::Dictionary(back)));
    }

    #[test]
    fn frames_come_whole_out_of_any_pieces(
        entries in prop::collection::vec((text(), objects()), 0..4),
        piece in 1usize..40,
    ) {
        let original = dictionary(entries);
        let written = write(&original).unwrap();
        let mut bytes = framed(&written, Purpose::Question, 7);
        bytes.extend(framed(&written, Purpose::Reply, 8));
        let (mut stream, mut frames) = (Stream::default(), Vec::new());
        for piece in bytes.chunks(piece) {
            stream.push(piece, []);
            while let Some(frame) = stream.next_frame().unwrap() {
                frames.push(frame);
            }
        }
        prop_assert_eq!(frames.len(), 2);
        let purposes: Vec<_> = frames.iter().map(|frame| (frame.purpose, frame.id)).collect();
        prop_assert_eq!(purposes, vec![(Purpose::Question, 7), (Purpose::Reply, 8)]);
        let original = Body::Dictionary(original);
        for frame in frames {
            prop_assert!(equal(&original, &Body::Dictionary(frame.message)));
        }
    }

    #[test]
    fn anything_can_be_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(message) = read(&bytes, std::iter::empty()) {
            let written = write(&message).unwrap();
            prop_assert_eq!(written.bytes.len(), bytes.len());
        }
        let mut stream = Stream::default();
        stream.push(&bytes, []);
        while let Ok(Some(_)) = stream.next_frame() {}
    }

    #[test]
    fn a_flipped_bit_is_read_or_refused(
        entries in prop::collection::vec((text(), objects()), 1..4), at: prop::sample::Index, bit in 0u8..8,
    ) {
        let mut bytes = framed(&write(&dictionary(entries)).unwrap(), Purpose::Message, 0);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let mut stream = Stream::default();
        stream.push(&bytes, []);
        while let Ok(Some(_)) = stream.next_frame() {}
    }
}

fn nested(depth: usize) -> Dictionary {
    let innermost = Object::new(Body::Bool(true));
    let value = (1..depth).fold(innermost, |inner, _| {
        Object::new(Body::Array(std::iter::once(inner).collect()))
    });
    dictionary(vec![(c"deep".to_owned(), value)])
}

#[test]
fn depth_has_a_limit_on_both_sides() {
    let written = write(&nested(MOST_DEPTH)).unwrap();
    assert!(read(&written.bytes, std::iter::empty()).is_ok());
    assert_eq!(
        write(&nested(MOST_DEPTH + 1)).unwrap_err(),
        WriteError::TooDeep
    );
    // One array more, by hand: an array of one, before the innermost.
    let mut bytes = written.bytes;
    let end = bytes.len() - 1;
    bytes.splice(end..end, [super::tag::ARRAY, 1, 0, 0, 0]);
    assert_eq!(
        read(&bytes, std::iter::empty()).unwrap_err(),
        ReadError::TooDeep
    );
}

#[test]
fn a_dictionary_in_itself_is_refused() {
    let object = Object::new(Body::Dictionary(Dictionary::default()));
    let Body::Dictionary(inner) = object.body() else {
        unreachable!()
    };
    drop(inner.set(c"itself", Some(object.clone())));
    assert_eq!(write(inner).unwrap_err(), WriteError::TooDeep);
    drop(inner.set(c"itself", None));
}

#[test]
fn promises_of_much_take_no_memory() {
    let mut bytes = vec![1, 0, 0, 0, 1, 0, 0, 0, b'k', super::tag::ARRAY];
    bytes.extend([0xff; 4]);
    assert_eq!(
        read(&bytes, std::iter::empty()).unwrap_err(),
        ReadError::Truncated
    );
    let head = Head {
        length: u32::MAX,
        id: 0,
        purpose: Purpose::Message,
        descriptors: 0,
    };
    let mut stream = Stream::default();
    stream.push(&head.to_bytes(), []);
    assert_eq!(stream.next_frame().unwrap_err(), ReadError::TooLong);
}

#[test]
fn names_are_given_once() {
    let mut bytes = vec![2, 0, 0, 0];
    for _ in 0..2 {
        bytes.extend([1, 0, 0, 0, b'k', super::tag::NULL]);
    }
    assert_eq!(
        read(&bytes, std::iter::empty()).unwrap_err(),
        ReadError::SameName
    );
}

#[test]
fn descriptors_keep_their_places() {
    let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let array: Array = [Body::Int64(1), Body::Fd(theirs.into())]
        .into_iter()
        .map(Object::new)
        .collect();
    let original = dictionary(vec![(c"fds".to_owned(), Object::new(Body::Array(array)))]);
    let written = write(&original).unwrap();
    assert_eq!(written.descriptors.len(), 1);
    drop(original);
    let back = read(&written.bytes, written.descriptors.into_iter()).unwrap();
    let fds = back.get(c"fds").unwrap();
    let Body::Array(fds) = fds.body() else {
        panic!("an array")
    };
    let value = fds.get(1).unwrap();
    let Body::Fd(descriptor) = value.body() else {
        panic!("a descriptor")
    };
    let mut peer = std::fs::File::from(descriptor.try_clone().unwrap());
    peer.write_all(b"hello").unwrap();
    let mut heard = [0; 5];
    ours.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"hello");
}

#[test]
fn missing_and_needless_descriptors_are_refused() {
    let bytes = [1, 0, 0, 0, 1, 0, 0, 0, b'k', super::tag::FD];
    assert_eq!(
        read(&bytes, std::iter::empty()).unwrap_err(),
        ReadError::NoDescriptor
    );
    let spare = std::os::unix::net::UnixStream::pair().unwrap().0;
    let refused = read(&[0, 0, 0, 0], std::iter::once(spare.into()));
    assert_eq!(refused.unwrap_err(), ReadError::TooManyDescriptors);
    assert_eq!(HEAD, 24);
}
