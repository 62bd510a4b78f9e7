//! Equality, hashes, copies.

use crate::array::Array;
use crate::border::border;
use crate::dictionary::Dictionary;
use crate::object::{Body, Object, Raw, look};
use std::ffi::CStr;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ptr;

/// Whether two objects hold the same. Descriptors, connections and endpoints are only equal to themselves.
#[must_use]
pub fn equal(one: &Body, other: &Body) -> bool {
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
        (Body::Array(a), Body::Array(b)) => ptr::eq(a, b) || arrays_equal(a, b),
        (Body::Dictionary(a), Body::Dictionary(b)) => ptr::eq(a, b) || dictionaries_equal(a, b),
        _ => ptr::eq(one, other),
    }
}

fn arrays_equal(one: &Array, other: &Array) -> bool {
    let (one, other) = (one.snapshot(), other.snapshot());
    one.len() == other.len()
        && one
            .iter()
            .zip(&other)
            .all(|(a, b)| equal(a.body(), b.body()))
}

fn dictionaries_equal(one: &Dictionary, other: &Dictionary) -> bool {
    let (one, other) = (one.snapshot(), other.snapshot());
    one.len() == other.len()
        && one
            .iter()
            .zip(&other)
            .all(|((a, x), (b, y))| a == b && equal(x.body(), y.body()))
}

fn hash_into(body: &Body, hasher: &mut DefaultHasher) {
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
            .for_each(|value| hash_into(value.body(), hasher)),
        Body::Dictionary(dictionary) => {
            for (key, value) in dictionary.snapshot() {
                key.hash(hasher);
                hash_into(value.body(), hasher);
            }
        }
        Body::Fd(_) | Body::Connection(_) | Body::Endpoint(_) => ptr::from_ref(body).hash(hasher),
    }
}

/// Equal objects have equal hashes, in this process.
#[must_use]
pub fn hash(body: &Body) -> u64 {
    let mut hasher = DefaultHasher::new();
    hash_into(body, &mut hasher);
    hasher.finish()
}

/// An object that is changed by itself: containers are copied with what is in them, others are the same object.
#[must_use]
pub fn copy(object: &Object) -> Object {
    match object.body() {
        Body::Array(array) => Object::new(Body::Array(array.snapshot().iter().map(copy).collect())),
        Body::Dictionary(dictionary) => {
            let new = Dictionary::default();
            for (key, value) in dictionary.snapshot() {
                let key: &CStr = &key;
                drop(new.set(key, Some(copy(&value))));
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
