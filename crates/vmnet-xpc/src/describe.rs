//! Text for logs. Its form may change; programs must not read it.

use crate::border::border;
use crate::object::{Body, Object, Raw};
use std::ffi::{CString, c_char};
use std::fmt::Write as _;
use std::os::fd::AsRawFd as _;
use std::ptr;

/// How deep containers are shown, and how much of data.
const DEPTH: usize = 16;
const SHOWN_BYTES: usize = 64;

fn write(object: &Object, depth: usize, out: &mut String) -> std::fmt::Result {
    let at = object.as_ptr();
    match object.body() {
        Body::Array(array) => {
            let values = array.snapshot();
            write!(
                out,
                "<array: {at:p}> {{ count = {}, contents =",
                values.len()
            )?;
            for (index, value) in values.iter().enumerate() {
                line(depth, out)?;
                write!(out, "{index}: ")?;
                inside(value, depth, out)?;
            }
            out.write_str(" }")
        }
        Body::Dictionary(dictionary) => {
            let entries = dictionary.snapshot();
            write!(
                out,
                "<dictionary: {at:p}> {{ count = {}, contents =",
                entries.len()
            )?;
            for (key, value) in &entries {
                line(depth, out)?;
                write!(out, "\"{}\" => ", key.to_string_lossy())?;
                inside(value, depth, out)?;
            }
            out.write_str(" }")
        }
        _ => write_scalar(object, out),
    }
}

fn write_scalar(object: &Object, out: &mut String) -> std::fmt::Result {
    let at = object.as_ptr();
    match object.body() {
        Body::Null => write!(out, "<null: {at:p}>"),
        Body::Bool(value) => write!(out, "<bool: {at:p}>: {value}"),
        Body::Int64(value) => write!(out, "<int64: {at:p}>: {value}"),
        Body::Uint64(value) => write!(out, "<uint64: {at:p}>: {value}"),
        Body::Double(value) => write!(out, "<double: {at:p}>: {value:.6}"),
        Body::Date(value) => write!(out, "<date: {at:p}>: {value} ns"),
        Body::Data(bytes) => {
            write!(
                out,
                "<data: {at:p}>: {{ length = {} bytes, contents = 0x",
                bytes.len()
            )?;
            bytes
                .iter()
                .take(SHOWN_BYTES)
                .try_for_each(|byte| write!(out, "{byte:02x}"))?;
            out.write_str(if bytes.len() > SHOWN_BYTES {
                "... }"
            } else {
                " }"
            })
        }
        Body::String(text) => {
            let (length, text) = (text.count_bytes(), text.to_string_lossy());
            write!(
                out,
                "<string: {at:p}> {{ length = {length}, contents = \"{text}\" }}"
            )
        }
        Body::Uuid(bytes) => {
            write!(out, "<uuid: {at:p}> ")?;
            bytes.iter().enumerate().try_for_each(|(index, byte)| {
                let dash = if matches!(index, 4 | 6 | 8 | 10) {
                    "-"
                } else {
                    ""
                };
                write!(out, "{dash}{byte:02X}")
            })
        }
        Body::Fd(descriptor) => write!(out, "<fd: {at:p}> {{ {} }}", descriptor.as_raw_fd()),
        Body::Connection(connection) => {
            let name = connection.name().unwrap_or_default();
            write!(
                out,
                "<connection: {at:p}> {{ name = {}, pid = {} }}",
                name.to_string_lossy(),
                connection.pid()
            )
        }
        Body::Endpoint(_) => write!(out, "<endpoint: {at:p}>"),
        Body::Error(failure) => {
            write!(
                out,
                "<error: {at:p}> {{ \"{}\" }}",
                failure.description().to_string_lossy()
            )
        }
        Body::Array(_) | Body::Dictionary(_) => Ok(()),
    }
}

fn line(depth: usize, out: &mut String) -> std::fmt::Result {
    write!(out, "\n{:1$}", "", depth + 1)
}

fn inside(object: &Object, depth: usize, out: &mut String) -> std::fmt::Result {
    if depth >= DEPTH {
        return out.write_str("...");
    }
    write(object, depth + 1, out)
}

/// An object as text.
#[must_use]
pub fn describe(object: &Object) -> String {
    let mut text = String::new();
    // Strings take everything.
    let _never_fails = write(object, 0, &mut text);
    text
}

/// An object as text, which the caller gives to `free`; null of null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_copy_description(object: Raw) -> *mut c_char {
    border(ptr::null_mut(), || {
        // SAFETY: The caller has null or a live object.
        let Some(object) = (unsafe { Object::retained(object) }) else {
            return ptr::null_mut();
        };
        let Ok(text) = CString::new(describe(&object)) else {
            return ptr::null_mut();
        };
        // SAFETY: It is a string, copied to memory of C.
        unsafe { libc::strdup(text.as_ptr()) }
    })
}
