//! Objects of one value. Getters give nothing of another type: they do not convert.

use crate::border::border;
use crate::object::{Body, Object, Raw, body};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::os::fd::{BorrowedFd, IntoRawFd, OwnedFd};
use std::ptr;

/// A new object for C.
pub(crate) fn created(new: impl FnOnce() -> Option<Body>) -> Raw {
    border(ptr::null_mut(), || {
        new().map_or(ptr::null_mut(), |body| Object::new(body).into_raw())
    })
}

/// Bytes of C, copied.
pub(crate) unsafe fn bytes(at: *const c_void, length: usize) -> Option<Box<[u8]>> {
    if length == 0 {
        return Some(Box::default());
    }
    if at.is_null() || isize::try_from(length).is_err() {
        return None;
    }
    // SAFETY: The caller has as many bytes there.
    Some(unsafe { std::slice::from_raw_parts(at.cast::<u8>(), length) }.into())
}

/// A string of C.
pub(crate) unsafe fn text<'a>(at: *const c_char) -> Option<&'a CStr> {
    // SAFETY: The caller has null or a string.
    (!at.is_null()).then(|| unsafe { CStr::from_ptr(at) })
}

/// A UUID of C.
pub(crate) unsafe fn uuid(at: *const u8) -> Option<[u8; 16]> {
    // SAFETY: The caller has null or 16 bytes.
    (!at.is_null()).then(|| unsafe { at.cast::<[u8; 16]>().read() })
}

/// A second descriptor of the same file; none if the first is not open.
pub(crate) fn duplicate(descriptor: c_int) -> Option<OwnedFd> {
    if descriptor < 0 {
        return None;
    }
    // SAFETY: If nobody has it open, the system says so.
    let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
    rustix::io::fcntl_dupfd_cloexec(borrowed, 3).ok()
}

/// A second descriptor of an object's file, for C; -1 if there is none.
pub(crate) fn duplicate_of(body: Option<&Body>) -> c_int {
    match body {
        Some(Body::Fd(descriptor)) => {
            rustix::io::fcntl_dupfd_cloexec(descriptor, 3).map_or(-1, IntoRawFd::into_raw_fd)
        }
        _ => -1,
    }
}

/// The object that holds nothing.
#[unsafe(no_mangle)]
pub extern "C" fn xpc_null_create() -> Raw {
    created(|| Some(Body::Null))
}

macro_rules! plain {
    ($($variant:ident $value:ty, $zero:expr, $create:ident $get:ident $what:literal;)*) => {$(
        #[doc = concat!("An object that holds ", $what, ".")]
        #[unsafe(no_mangle)]
        pub extern "C" fn $create(value: $value) -> Raw {
            created(|| Some(Body::$variant(value)))
        }

        #[doc = concat!("What an object of ", $what, " holds; 0 or false of another type.")]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $get(object: Raw) -> $value {
            // SAFETY: The caller has null or a live object.
            match unsafe { body(object) } {
                Some(Body::$variant(value)) => *value,
                _ => $zero,
            }
        }
    )*};
}

plain! {
    Bool bool, false, xpc_bool_create xpc_bool_get_value "yes or no";
    Int64 i64, 0, xpc_int64_create xpc_int64_get_value "a signed number";
    Uint64 u64, 0, xpc_uint64_create xpc_uint64_get_value "an unsigned number";
    Double f64, 0.0, xpc_double_create xpc_double_get_value "a number with a fraction";
    Date i64, 0, xpc_date_create xpc_date_get_value "nanoseconds since 1970";
}

/// The date of now.
#[unsafe(no_mangle)]
pub extern "C" fn xpc_date_create_from_current() -> Raw {
    created(|| {
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .ok()?;
        Some(Body::Date(i64::try_from(since.as_nanos()).ok()?))
    })
}

/// An object that holds a copy of bytes; null without them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_data_create(at: *const c_void, length: usize) -> Raw {
    // SAFETY: The caller has as many bytes there.
    created(|| unsafe { bytes(at, length) }.map(Body::Data))
}

/// How many bytes it holds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_data_get_length(object: Raw) -> usize {
    // SAFETY: The caller has null or a live object.
    match unsafe { body(object) } {
        Some(Body::Data(bytes)) => bytes.len(),
        _ => 0,
    }
}

/// Where they are, as long as the object lives.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_data_get_bytes_ptr(object: Raw) -> *const c_void {
    // SAFETY: The caller has null or a live object.
    match unsafe { body(object) } {
        Some(Body::Data(bytes)) if !bytes.is_empty() => bytes.as_ptr().cast(),
        _ => ptr::null(),
    }
}

/// Copies some of them out, and says how many.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_data_get_bytes(
    object: Raw,
    buffer: *mut c_void,
    offset: usize,
    length: usize,
) -> usize {
    // SAFETY: The caller has null or a live object.
    let Some(Body::Data(bytes)) = (unsafe { body(object) }) else {
        return 0;
    };
    let Some(rest) = bytes.get(offset..).filter(|_| !buffer.is_null()) else {
        return 0;
    };
    let count = rest.len().min(length);
    // SAFETY: The caller has `length` bytes there, and they are not the object's.
    unsafe { ptr::copy_nonoverlapping(rest.as_ptr(), buffer.cast(), count) };
    count
}

/// An object that holds a copy of a string; null without one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_string_create(string: *const c_char) -> Raw {
    // SAFETY: The caller has null or a string.
    created(|| unsafe { text(string) }.map(|text| Body::String(text.to_owned())))
}

/// How many bytes it has, without the 0 at its end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_string_get_length(object: Raw) -> usize {
    // SAFETY: The caller has null or a live object.
    match unsafe { body(object) } {
        Some(Body::String(text)) => text.count_bytes(),
        _ => 0,
    }
}

/// Where it is, as long as the object lives.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_string_get_string_ptr(object: Raw) -> *const c_char {
    // SAFETY: The caller has null or a live object.
    match unsafe { body(object) } {
        Some(Body::String(text)) => text.as_ptr(),
        _ => ptr::null(),
    }
}

/// An object that holds a UUID; null without one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_uuid_create(at: *const u8) -> Raw {
    // SAFETY: The caller has null or 16 bytes.
    created(|| unsafe { uuid(at) }.map(Body::Uuid))
}

/// Where its 16 bytes are, as long as the object lives.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_uuid_get_bytes(object: Raw) -> *const u8 {
    // SAFETY: The caller has null or a live object.
    match unsafe { body(object) } {
        Some(Body::Uuid(bytes)) => bytes.as_ptr(),
        _ => ptr::null(),
    }
}

/// An object with a descriptor of its own for the same file; null if it is not open.
#[unsafe(no_mangle)]
pub extern "C" fn xpc_fd_create(descriptor: c_int) -> Raw {
    created(|| duplicate(descriptor).map(Body::Fd))
}

/// A new descriptor of the object's file, which the caller closes; -1 if there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_fd_dup(object: Raw) -> c_int {
    // SAFETY: The caller has null or a live object.
    duplicate_of(unsafe { body(object) })
}
