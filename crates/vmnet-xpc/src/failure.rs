//! The errors of connections. They act as dictionaries with a description.

use crate::dictionary::Dictionary;
use crate::object::{Body, Object};
use std::ffi::{CStr, c_char};
use std::sync::OnceLock;

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The service has gone; the next message finds it again, if it is back.
    Interrupted,
    /// The connection is of no more use.
    Invalid,
    /// The program is about to be ended.
    Terminating,
}

/// The name of the description in an error: `XPC_ERROR_KEY_DESCRIPTION`.
pub(crate) const DESCRIPTION: &CStr = c"XPCErrorDescription";

/// A string of C whose address is a constant.
#[repr(transparent)]
#[derive(Debug)]
pub struct Text(*const c_char);

// SAFETY: It is a constant.
unsafe impl Sync for Text {}

/// `XPC_ERROR_KEY_DESCRIPTION` is its value.
#[unsafe(no_mangle)]
pub static _xpc_error_key_description: Text = Text(DESCRIPTION.as_ptr());

impl Failure {
    /// For humans.
    #[must_use]
    pub fn description(self) -> &'static CStr {
        match self {
            Self::Interrupted => c"Connection interrupted",
            Self::Invalid => c"Connection invalid",
            Self::Terminating => c"Process will terminate",
        }
    }

    /// The error as a dictionary.
    pub(crate) fn dictionary(self) -> &'static Dictionary {
        static ALL: [OnceLock<Dictionary>; 3] = [const { OnceLock::new() }; 3];
        let [interrupted, invalid, terminating] = &ALL;
        let cell = match self {
            Self::Interrupted => interrupted,
            Self::Invalid => invalid,
            Self::Terminating => terminating,
        };
        cell.get_or_init(|| {
            let dictionary = Dictionary::default();
            let text = Object::new(Body::String(self.description().to_owned()));
            drop(dictionary.set(DESCRIPTION, Some(text)));
            dictionary
        })
    }
}
