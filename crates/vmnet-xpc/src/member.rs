//! Values in containers, by type. Getters give 0, false, null or -1 of what is missing or of another type.

use crate::array::{array, xpc_array_get_value, xpc_array_set_value};
use crate::border::border;
use crate::dictionary::{readable, writable, xpc_dictionary_get_value, xpc_dictionary_set_value};
use crate::object::{Body, Object, Raw, body};
use crate::scalar::{self, duplicate, duplicate_of};
use std::ffi::{c_char, c_int, c_void};
use std::ptr;

/// Puts something of ours into a dictionary of C.
unsafe fn put(object: Raw, key: *const c_char, new: impl FnOnce() -> Option<Body>) {
    border((), || {
        // SAFETY: The caller has null or a live object, and null or a string.
        let (dictionary, key) = unsafe { (writable(object), scalar::text(key)) };
        if let (Some(dictionary), Some(key), Some(body)) = (dictionary, key, new()) {
            drop(dictionary.set(key, Some(Object::new(body))));
        }
    });
}

/// Puts something of ours into an array of C.
unsafe fn put_at(object: Raw, index: usize, new: impl FnOnce() -> Option<Body>) {
    border((), || {
        // SAFETY: The caller has null or a live object.
        if let (Some(array), Some(body)) = (unsafe { array(object) }, new()) {
            array.set(index, Object::new(body));
        }
    });
}

macro_rules! members {
    ($($value:ty, $variant:ident, $value_of:ident,
       $dictionary_set:ident $dictionary_get:ident $array_set:ident $array_get:ident $what:literal;)*) => {$(
        #[doc = concat!("Gives a name to ", $what, ".")]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $dictionary_set(object: Raw, key: *const c_char, value: $value) {
            // SAFETY: The caller has null or a live object, and null or a string.
            unsafe { put(object, key, || Some(Body::$variant(value))) };
        }

        #[doc = concat!("The value of a name, if it is ", $what, ".")]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $dictionary_get(object: Raw, key: *const c_char) -> $value {
            // SAFETY: The caller has null or a live object, and null or a string.
            unsafe { scalar::$value_of(xpc_dictionary_get_value(object, key)) }
        }

        #[doc = concat!("Puts ", $what, " at a place.")]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $array_set(object: Raw, index: usize, value: $value) {
            // SAFETY: The caller has null or a live object.
            unsafe { put_at(object, index, || Some(Body::$variant(value))) };
        }

        #[doc = concat!("The value at a place, if it is ", $what, ".")]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $array_get(object: Raw, index: usize) -> $value {
            // SAFETY: The caller has null or a live object.
            unsafe { scalar::$value_of(xpc_array_get_value(object, index)) }
        }
    )*};
}

members! {
    bool, Bool, xpc_bool_get_value,
        xpc_dictionary_set_bool xpc_dictionary_get_bool xpc_array_set_bool xpc_array_get_bool "yes or no";
    i64, Int64, xpc_int64_get_value,
        xpc_dictionary_set_int64 xpc_dictionary_get_int64 xpc_array_set_int64 xpc_array_get_int64 "a signed number";
    u64, Uint64, xpc_uint64_get_value,
        xpc_dictionary_set_uint64 xpc_dictionary_get_uint64 xpc_array_set_uint64 xpc_array_get_uint64
        "an unsigned number";
    f64, Double, xpc_double_get_value,
        xpc_dictionary_set_double xpc_dictionary_get_double xpc_array_set_double xpc_array_get_double
        "a number with a fraction";
    i64, Date, xpc_date_get_value,
        xpc_dictionary_set_date xpc_dictionary_get_date xpc_array_set_date xpc_array_get_date "a date";
}

macro_rules! copied {
    ($(($($argument:ident: $type:ty),*), $body:expr, $dictionary_set:ident $array_set:ident $what:literal;)*) => {$(
        #[doc = concat!("Gives a name to ", $what, ".")]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $dictionary_set(object: Raw, key: *const c_char, $($argument: $type),*) {
            // SAFETY: The caller has null or a live object, and what the arguments point at.
            unsafe { put(object, key, || $body) };
        }

        #[doc = concat!("Puts ", $what, " at a place.")]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $array_set(object: Raw, index: usize, $($argument: $type),*) {
            // SAFETY: The caller has null or a live object, and what the arguments point at.
            unsafe { put_at(object, index, || $body) };
        }
    )*};
}

copied! {
    (string: *const c_char), scalar::text(string).map(|text| Body::String(text.to_owned())),
        xpc_dictionary_set_string xpc_array_set_string "a copy of a string";
    (at: *const c_void, length: usize), scalar::bytes(at, length).map(Body::Data),
        xpc_dictionary_set_data xpc_array_set_data "a copy of bytes";
    (at: *const u8), scalar::uuid(at).map(Body::Uuid),
        xpc_dictionary_set_uuid xpc_array_set_uuid "a UUID";
    (descriptor: c_int), duplicate(descriptor).map(Body::Fd),
        xpc_dictionary_set_fd xpc_array_set_fd "a descriptor of its own for the same file";
}

macro_rules! borrowed {
    ($($value:ty, $value_of:ident, $dictionary_get:ident $array_get:ident $what:literal;)*) => {$(
        #[doc = concat!("Where ", $what, " of a name is, as long as it has the name.")]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $dictionary_get(object: Raw, key: *const c_char) -> $value {
            // SAFETY: The caller has null or a live object, and null or a string.
            unsafe { scalar::$value_of(xpc_dictionary_get_value(object, key)) }
        }

        #[doc = concat!("Where ", $what, " at a place is, as long as it is there.")]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $array_get(object: Raw, index: usize) -> $value {
            // SAFETY: The caller has null or a live object.
            unsafe { scalar::$value_of(xpc_array_get_value(object, index)) }
        }
    )*};
}

borrowed! {
    *const c_char, xpc_string_get_string_ptr, xpc_dictionary_get_string xpc_array_get_string "the string";
    *const u8, xpc_uuid_get_bytes, xpc_dictionary_get_uuid xpc_array_get_uuid "the UUID";
}

/// The bytes of data, and how many there are.
unsafe fn data(object: Raw, length: *mut usize) -> *const c_void {
    // SAFETY: The caller has null or a live object.
    let (at, count) = unsafe {
        (
            scalar::xpc_data_get_bytes_ptr(object),
            scalar::xpc_data_get_length(object),
        )
    };
    if !length.is_null() {
        // SAFETY: The caller has a place for it.
        unsafe { length.write(count) };
    }
    at
}

/// Where the bytes of a name are, as long as they have the name, and how many.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_dictionary_get_data(
    object: Raw,
    key: *const c_char,
    length: *mut usize,
) -> *const c_void {
    // SAFETY: The caller has null or a live object, null or a string, and null or a place.
    unsafe { data(xpc_dictionary_get_value(object, key), length) }
}

/// Where the bytes at a place are, as long as they are there, and how many.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_array_get_data(
    object: Raw,
    index: usize,
    length: *mut usize,
) -> *const c_void {
    // SAFETY: The caller has null or a live object, and null or a place.
    unsafe { data(xpc_array_get_value(object, index), length) }
}

/// A new descriptor of the file of a name, which the caller closes; -1 if there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_dictionary_dup_fd(object: Raw, key: *const c_char) -> c_int {
    // SAFETY: The caller has null or a live object, and null or a string.
    duplicate_of(unsafe { body(xpc_dictionary_get_value(object, key)) })
}

/// A new descriptor of the file at a place, which the caller closes; -1 if there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_array_dup_fd(object: Raw, index: usize) -> c_int {
    // SAFETY: The caller has null or a live object.
    duplicate_of(unsafe { body(xpc_array_get_value(object, index)) })
}

/// An object, if it is a dictionary.
unsafe fn if_dictionary(object: Raw) -> Raw {
    // SAFETY: The caller has null or a live object.
    if unsafe { readable(object) }.is_some() {
        object
    } else {
        ptr::null_mut()
    }
}

/// An object, if it is an array.
unsafe fn if_array(object: Raw) -> Raw {
    // SAFETY: The caller has null or a live object.
    if unsafe { array(object) }.is_some() {
        object
    } else {
        ptr::null_mut()
    }
}

/// The dictionary of a name, which stays the container's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_dictionary_get_dictionary(object: Raw, key: *const c_char) -> Raw {
    // SAFETY: The caller has null or a live object, and null or a string.
    unsafe { if_dictionary(xpc_dictionary_get_value(object, key)) }
}

/// The array of a name, which stays the container's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_dictionary_get_array(object: Raw, key: *const c_char) -> Raw {
    // SAFETY: The caller has null or a live object, and null or a string.
    unsafe { if_array(xpc_dictionary_get_value(object, key)) }
}

/// The dictionary at a place, which stays the container's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_array_get_dictionary(object: Raw, index: usize) -> Raw {
    // SAFETY: The caller has null or a live object.
    unsafe { if_dictionary(xpc_array_get_value(object, index)) }
}

/// The array at a place, which stays the container's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_array_get_array(object: Raw, index: usize) -> Raw {
    // SAFETY: The caller has null or a live object.
    unsafe { if_array(xpc_array_get_value(object, index)) }
}

/// Gives a name to a connection's endpoint.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_dictionary_set_connection(
    object: Raw,
    key: *const c_char,
    connection: Raw,
) {
    // SAFETY: The caller has null or live objects, and null or a string.
    unsafe {
        let endpoint = crate::connection::xpc_endpoint_create(connection);
        xpc_dictionary_set_value(object, key, endpoint);
        crate::object::xpc_release(endpoint);
    }
}

/// A new connection from the endpoint of a name; null if there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_dictionary_create_connection(object: Raw, key: *const c_char) -> Raw {
    // SAFETY: The caller has null or a live object, and null or a string.
    unsafe {
        crate::connection::xpc_connection_create_from_endpoint(xpc_dictionary_get_value(
            object, key,
        ))
    }
}

/// Puts a connection's endpoint at a place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_array_set_connection(object: Raw, index: usize, connection: Raw) {
    // SAFETY: The caller has null or live objects.
    unsafe {
        let endpoint = crate::connection::xpc_endpoint_create(connection);
        xpc_array_set_value(object, index, endpoint);
        crate::object::xpc_release(endpoint);
    }
}
