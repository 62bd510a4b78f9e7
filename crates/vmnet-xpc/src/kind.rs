//! The types. Programs compare the addresses of their symbols with what `xpc_get_type` gives.

use crate::object::{Body, Raw, body};
use std::ffi::{CStr, c_char};
use std::ptr;

/// A type. Its size is part of the ABI.
#[repr(C)]
#[derive(Debug)]
pub struct Kind {
    name: *const c_char,
    reserved: [usize; 3],
}

// SAFETY: The names are constants.
unsafe impl Sync for Kind {}

const fn named(name: &'static CStr) -> Kind {
    Kind {
        name: name.as_ptr(),
        reserved: [0; 3],
    }
}

macro_rules! kinds {
    ($($symbol:ident $name:literal $what:literal)*) => {$(
        #[doc = concat!("The type of ", $what, ".")]
        #[unsafe(no_mangle)]
        pub static $symbol: Kind = named($name);
    )*};
}

kinds! {
    _xpc_type_array c"array" "objects in a row"
    _xpc_type_bool c"bool" "yes and no"
    _xpc_type_connection c"connection" "connections"
    _xpc_type_data c"data" "bytes"
    _xpc_type_date c"date" "points in time"
    _xpc_type_dictionary c"dictionary" "objects by name"
    _xpc_type_double c"double" "numbers with fractions"
    _xpc_type_endpoint c"endpoint" "what connections can be made from"
    _xpc_type_error c"error" "why a connection ended"
    _xpc_type_fd c"fd" "descriptors"
    _xpc_type_int64 c"int64" "signed numbers"
    _xpc_type_null c"null" "nothing"
    _xpc_type_string c"string" "text"
    _xpc_type_uint64 c"uint64" "unsigned numbers"
    _xpc_type_uuid c"uuid" "UUIDs"
}

impl Body {
    /// The type's symbol.
    #[must_use]
    pub fn kind(&self) -> &'static Kind {
        match self {
            Self::Null => &_xpc_type_null,
            Self::Bool(_) => &_xpc_type_bool,
            Self::Int64(_) => &_xpc_type_int64,
            Self::Uint64(_) => &_xpc_type_uint64,
            Self::Double(_) => &_xpc_type_double,
            Self::Date(_) => &_xpc_type_date,
            Self::Data(_) => &_xpc_type_data,
            Self::String(_) => &_xpc_type_string,
            Self::Uuid(_) => &_xpc_type_uuid,
            Self::Fd(_) => &_xpc_type_fd,
            Self::Array(_) => &_xpc_type_array,
            Self::Dictionary(_) => &_xpc_type_dictionary,
            Self::Connection(_) => &_xpc_type_connection,
            Self::Endpoint(_) => &_xpc_type_endpoint,
            Self::Error(_) => &_xpc_type_error,
        }
    }
}

/// The type of an object; null for null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_get_type(object: Raw) -> *const Kind {
    // SAFETY: The caller has null or a live object.
    unsafe { body(object) }.map_or(ptr::null(), |body| &raw const *body.kind())
}

/// What a type is called.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_type_get_name(kind: *const Kind) -> *const c_char {
    // SAFETY: The caller has null or one of the symbols.
    unsafe { kind.as_ref() }.map_or(ptr::null(), |kind| kind.name)
}
