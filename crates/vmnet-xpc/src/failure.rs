//! The errors of connections, and of messages. They act as dictionaries with a description.

use crate::dictionary::Dictionary;
use crate::object::{Body, Object};
use crate::wire::WriteError;
use std::ffi::{CStr, c_char};
use std::sync::OnceLock;

/// Why a connection ended, or what became of a message on a connection that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The service has gone; the next message finds it again, if it is back.
    Interrupted,
    /// The connection is of no more use.
    Invalid,
    /// The program is about to be ended.
    Terminating,
    /// A message was not sent, and the connection goes on.
    Unsent(Unsent),
    /// The peer had an answer that it could not send, and the connection goes on.
    Unanswered,
}

/// Why a message was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unsent {
    /// It is none that can be sent.
    Unwritable(WriteError),
    /// Too much waits for a peer that does not read.
    LineFull,
    /// The kernel does not take it: the user has too many descriptors on their way, or there is no memory.
    Refused,
}

impl Unsent {
    const COUNT: usize = 8;

    fn index(self) -> usize {
        match self {
            Self::LineFull => 0,
            Self::Refused => 1,
            Self::Unwritable(WriteError::TooLong) => 2,
            Self::Unwritable(WriteError::TooDeep) => 3,
            Self::Unwritable(WriteError::TooManyObjects) => 4,
            Self::Unwritable(WriteError::TooManyDescriptors) => 5,
            Self::Unwritable(WriteError::NotSendable) => 6,
            Self::Unwritable(WriteError::NoDescriptors) => 7,
        }
    }

    fn description(self) -> &'static CStr {
        match self {
            Self::LineFull => c"Message not sent: the peer does not read, and 64 MiB wait for it",
            Self::Refused => {
                c"Message not sent: too many descriptors are on their way, or there is no memory"
            }
            Self::Unwritable(WriteError::TooLong) => {
                c"Message not sent: it has more than 16 MiB; send a descriptor of a file in its place"
            }
            Self::Unwritable(WriteError::TooDeep) => {
                c"Message not sent: its containers are more than 64 deep, or hold themselves"
            }
            Self::Unwritable(WriteError::TooManyObjects) => {
                c"Message not sent: it has more than 262144 objects"
            }
            Self::Unwritable(WriteError::TooManyDescriptors) => {
                c"Message not sent: it has more than 64 descriptors"
            }
            Self::Unwritable(WriteError::NotSendable) => {
                c"Message not sent: it has a connection or an error in it; send an endpoint in its place"
            }
            Self::Unwritable(WriteError::NoDescriptors) => {
                c"Message not sent: this process has no descriptors left (RLIMIT_NOFILE)"
            }
        }
    }
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
            Self::Unsent(why) => why.description(),
            Self::Unanswered => c"Not answered: the peer could not send its answer",
        }
    }

    /// The error as a dictionary.
    pub(crate) fn dictionary(self) -> &'static Dictionary {
        static ENDS: [OnceLock<Dictionary>; 4] = [const { OnceLock::new() }; 4];
        static UNSENT: [OnceLock<Dictionary>; Unsent::COUNT] =
            [const { OnceLock::new() }; Unsent::COUNT];
        let [interrupted, invalid, terminating, unanswered] = &ENDS;
        let cell = match self {
            Self::Interrupted => interrupted,
            Self::Invalid => invalid,
            Self::Terminating => terminating,
            Self::Unanswered => unanswered,
            Self::Unsent(why) => &UNSENT[why.index()],
        };
        cell.get_or_init(|| {
            let dictionary = Dictionary::default();
            let text = Object::new(Body::String(self.description().to_owned()));
            drop(dictionary.set(DESCRIPTION, Some(text)));
            dictionary
        })
    }
}
