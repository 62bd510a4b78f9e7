//! Equality, hashes, copies.

use crate::array::Array;
use crate::border::border;
use crate::dictionary::Dictionary;
use crate::object::{Body, Object, Raw, look};
use crate::wire::MOST_DEPTH;
use std::ffi::CStr;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ptr;

/// Containers are compared, hashed and copied as deep as they can be sent; what lies deeper is only equal to itself. One that
/// is in itself has no end.
const DEPTH: usize = MOST_DEPTH;

/// Whether two objects hold the same. Descriptors, connections and endpoints are only equal to themselves.
#[must_use]
pub fn equal(one: &Body, other: &Body) -> bool {
    equal_within(DEPTH, one, other)
}

fn equal_within(depth: usize, one: &Body, other: &Body) -> bool {
    match (one, other) {
        (Body::Null, Body::Null) => true,
        (Body::Bool(a), Body::Bool(b)) => a == b,
        (Body::Int64(a), Body::Int64(b)) | (Body::Date(a), Body::Date(b)) => a == b,
        (Body::Uint64(a), Body::Uint64(b)) => a == b,
        (Body::Double(a), Body::Double(b)) => a == b,
        (Body::Data(a), Body::Data(b)) => a == b,
        (Body::String(a), Body::String(b)) => a == b,
        (Body::Uuid(a), Body::Uuid(b)) => a == b,
        (Body::Error(a), Body::Error(b)) => a == b,
        (Body::Array(a), Body::Array(b)) => {
            ptr::eq(a, b) || depth > 0 && arrays_equal(depth - 1, a, b)
        }
        (Body::Dictionary(a), Body::Dictionary(b)) => {
            ptr::eq(a, b) || depth > 0 && dictionaries_equal(depth - 1, a, b)
        }
        _ => ptr::eq(one, other),
    }
}

fn arrays_equal(depth: usize, one: &Array, other: &Array) -> bool {
    let (one, other) = (one.snapshot(), other.snapshot());
    one.len() == other.len()
        && one
            .iter()
            .zip(&other)
            .all(|(a, b)| equal_within(depth, a.body(), b.body()))
}

fn dictionaries_equal(depth: usize, one: &Dictionary, other: &Dictionary) -> bool {
    let (one, other) = (one.snapshot(), other.snapshot());
    one.len() == other.len()
        && one
            .iter()
            .zip(&other)
            .all(|((a, x), (b, y))| a == b && equal_within(depth, x.body(), y.body()))
}

fn hash_into(depth: usize, body: &Body, hasher: &mut DefaultHasher) {
    let Some(deeper) = depth.checked_sub(1) else {
        return;
    };
    std::mem::discriminant(body).hash(hasher);
    match body {
        Body::Null => {}
        Body::Bool(value) => value.hash(hasher),
        Body::Int64(value) | Body::Date(value) => value.hash(hasher),
        Body::Uint64(value) => value.hash(hasher),
        // The two zeros are equal, and must have one hash.
        Body::Double(value) => (if *value == 0.0 { 0.0 } else { *value })
            .to_bits()
            .hash(hasher),
        Body::Data(value) => value.hash(hasher),
        Body::String(value) => value.hash(hasher),
        Body::Uuid(value) => value.hash(hasher),
        Body::Error(value) => value.hash(hasher),
        Body::Array(array) => array
            .snapshot()
            .iter()
            .for_each(|value| hash_into(deeper, value.body(), hasher)),
        Body::Dictionary(dictionary) => {
            for (key, value) in dictionary.snapshot() {
                key.hash(hasher);
                hash_into(deeper, value.body(), hasher);
            }
        }
        Body::Fd(_) | Body::Connection(_) | Body::Endpoint(_) => ptr::from_ref(body).hash(hasher),
    }
}

/// Equal objects have equal hashes, in this process.
#[must_use]
pub fn hash(body: &Body) -> u64 {
    let mut hasher = DefaultHasher::new();
    hash_into(DEPTH, body, &mut hasher);
    hasher.finish()
}

/// An object that is changed by itself: containers are copied with what is in them, others are the same object.
#[must_use]
pub fn copy(object: &Object) -> Object {
    copy_within(DEPTH, object)
}

fn copy_within(depth: usize, object: &Object) -> Object {
    let Some(deeper) = depth.checked_sub(1) else {
        return object.clone();
    };
    match object.body() {
        Body::Array(array) => {
            let values = array.snapshot();
            let copies = values.iter().map(|value| copy_within(deeper, value));
            Object::new(Body::Array(copies.collect()))
        }
        Body::Dictionary(dictionary) => {
            let new = Dictionary::default();
            for (key, value) in dictionary.snapshot() {
                let key: &CStr = &key;
                drop(new.set(key, Some(copy_within(deeper, &value))));
            }
            Object::new(Body::Dictionary(new))
        }
        _ => object.clone(),
    }
}

/// Whether two objects hold the same.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_equal(one: Raw, other: Raw) -> bool {
    border(false, || {
        // SAFETY: The caller has null or live objects.
        match unsafe { (look(one), look(other)) } {
            (Some(one), Some(other)) => equal(one.body(), other.body()),
            (one, other) => one.is_none() && other.is_none(),
        }
    })
}

/// A number that equal objects have in common; 0 for null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_hash(object: Raw) -> usize {
    border(0, || {
        // SAFETY: The caller has null or a live object.
        let hash = unsafe { look(object) }.map_or(0, |head| hash(head.body()));
        usize::try_from(hash).unwrap_or(usize::MAX)
    })
}

/// A copy that is changed by itself, with a reference for the caller; null of null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_copy(object: Raw) -> Raw {
    border(ptr::null_mut(), || {
        // SAFETY: The caller has null or a live object.
        let object = unsafe { Object::retained(object) };
        object.map_or(ptr::null_mut(), |object| copy(&object).into_raw())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_itself() -> Object {
        let object = Object::new(Body::Array(Array::default()));
        let Body::Array(array) = object.body() else {
            unreachable!("just made");
        };
        array.push(object.clone());
        object
    }

    #[test]
    fn a_container_in_itself_has_an_end() {
        let [one, other] = [in_itself(), in_itself()];
        assert!(equal(one.body(), one.body()));
        assert!(!equal(one.body(), other.body()));
        assert_eq!(hash(one.body()), hash(one.body()));
        assert!(matches!(copy(&one).body(), Body::Array(copied) if copied.snapshot().len() == 1));
        for object in [one, other] {
            let Body::Array(array) = object.body() else {
                unreachable!("just made");
            };
            array.set(0, Object::new(Body::Null));
        }
    }
}
