//! References, and what an object holds.
//!
//! Some objects are data symbols, whose addresses are constants of programs. These can end up in the program itself (copy
//! relocations), so their size is part of the ABI: a [`Head`], and never more. What they hold stays in the library.

use crate::array::Array;
use crate::border::border;
use crate::connection::{Connection, Endpoint};
use crate::dictionary::Dictionary;
use crate::failure::Failure;
use std::ffi::{CString, c_void};
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

/// An object as C has it: `xpc_object_t`.
pub type Raw = *mut c_void;

/// References of an object that is never freed.
const IMMORTAL: usize = usize::MAX;

/// Where an object's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
enum Home {
    /// Behind its head.
    Here,
    True,
    False,
    Null,
    Interrupted,
    Invalid,
    Terminating,
}

/// The beginning of every object.
#[repr(C)]
#[derive(Debug)]
pub struct Head {
    references: AtomicUsize,
    home: Home,
    reserved: [usize; 2],
}

/// An object that was made.
#[repr(C)]
struct Full {
    head: Head,
    body: Body,
}

/// What an object holds.
#[derive(Debug)]
pub enum Body {
    /// Nothing.
    Null,
    /// Yes or no.
    Bool(bool),
    /// A signed number.
    Int64(i64),
    /// An unsigned number.
    Uint64(u64),
    /// A number with a fraction.
    Double(f64),
    /// Nanoseconds since 1970.
    Date(i64),
    /// Bytes.
    Data(Box<[u8]>),
    /// Text, of any bytes but 0.
    String(CString),
    /// A UUID.
    Uuid([u8; 16]),
    /// A descriptor.
    Fd(OwnedFd),
    /// Objects in a row.
    Array(Array),
    /// Objects by name.
    Dictionary(Dictionary),
    /// A connection.
    Connection(Connection),
    /// What a connection can be made from.
    Endpoint(Endpoint),
    /// Why a connection ended, or what became of a message.
    Error(Failure),
}

const fn immortal(home: Home) -> Head {
    Head {
        references: AtomicUsize::new(IMMORTAL),
        home,
        reserved: [0; 2],
    }
}

/// `XPC_BOOL_TRUE` is its address.
#[unsafe(no_mangle)]
pub static _xpc_bool_true: Head = immortal(Home::True);
/// `XPC_BOOL_FALSE` is its address.
#[unsafe(no_mangle)]
pub static _xpc_bool_false: Head = immortal(Home::False);
/// `XPC_ERROR_CONNECTION_INTERRUPTED` is its address.
#[unsafe(no_mangle)]
pub static _xpc_error_connection_interrupted: Head = immortal(Home::Interrupted);
/// `XPC_ERROR_CONNECTION_INVALID` is its address.
#[unsafe(no_mangle)]
pub static _xpc_error_connection_invalid: Head = immortal(Home::Invalid);
/// `XPC_ERROR_TERMINATION_IMMINENT` is its address. Nothing here terminates services.
#[unsafe(no_mangle)]
pub static _xpc_error_termination_imminent: Head = immortal(Home::Terminating);
static NULL: Head = immortal(Home::Null);

impl Head {
    /// What the object holds.
    #[must_use]
    pub fn body(&self) -> &Body {
        static TRUE: Body = Body::Bool(true);
        static FALSE: Body = Body::Bool(false);
        static EMPTY: Body = Body::Null;
        static INTERRUPTED: Body = Body::Error(Failure::Interrupted);
        static INVALID: Body = Body::Error(Failure::Invalid);
        static TERMINATING: Body = Body::Error(Failure::Terminating);
        match self.home {
            // SAFETY: Only the head of a `Full` says so.
            Home::Here => unsafe { &(*(&raw const *self).cast::<Full>()).body },
            Home::True => &TRUE,
            Home::False => &FALSE,
            Home::Null => &EMPTY,
            Home::Interrupted => &INTERRUPTED,
            Home::Invalid => &INVALID,
            Home::Terminating => &TERMINATING,
        }
    }

    fn retain(&self) {
        if self.references.load(Ordering::Relaxed) != IMMORTAL {
            self.references.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A reference, unless the last one has been given back already.
    pub(crate) fn retain_if_alive(&self) -> Option<Object> {
        let taken = self
            .references
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| match count {
                0 => None,
                IMMORTAL => Some(IMMORTAL),
                _ => Some(count + 1),
            });
        taken.ok().map(|_| Object(NonNull::from(self)))
    }
}

/// A reference of an object.
#[derive(Debug)]
pub struct Object(NonNull<Head>);

// SAFETY: References are counted atomically; bodies are unchanging or locked.
unsafe impl Send for Object {}
// SAFETY: As above.
unsafe impl Sync for Object {}

impl Object {
    /// An object that holds this.
    #[must_use]
    pub fn new(body: Body) -> Self {
        match body {
            Body::Bool(true) => Self(NonNull::from(&_xpc_bool_true)),
            Body::Bool(false) => Self(NonNull::from(&_xpc_bool_false)),
            Body::Null => Self(NonNull::from(&NULL)),
            Body::Error(Failure::Interrupted) => {
                Self(NonNull::from(&_xpc_error_connection_interrupted))
            }
            Body::Error(Failure::Invalid) => Self(NonNull::from(&_xpc_error_connection_invalid)),
            Body::Error(Failure::Terminating) => {
                Self(NonNull::from(&_xpc_error_termination_imminent))
            }
            body => {
                let head = Head {
                    references: AtomicUsize::new(1),
                    home: Home::Here,
                    reserved: [0; 2],
                };
                let full = Box::into_raw(Box::new(Full { head, body }));
                // SAFETY: A box is not null, and its head comes first.
                Self(unsafe { NonNull::new_unchecked(full.cast()) })
            }
        }
    }

    /// Takes over a reference that C gives away.
    ///
    /// # Safety
    ///
    /// Null, or a live object, one reference of which is the caller's to give.
    #[must_use]
    pub unsafe fn from_raw(raw: Raw) -> Option<Self> {
        NonNull::new(raw.cast()).map(Self)
    }

    /// Takes a reference of its own.
    ///
    /// # Safety
    ///
    /// Null, or a live object.
    #[must_use]
    pub unsafe fn retained(raw: Raw) -> Option<Self> {
        // SAFETY: The caller's promise.
        unsafe { look(raw) }?.retain();
        NonNull::new(raw.cast()).map(Self)
    }

    /// Gives the reference to C.
    #[must_use]
    pub fn into_raw(self) -> Raw {
        std::mem::ManuallyDrop::new(self).as_ptr()
    }

    /// The object as C has it; the reference stays here.
    #[must_use]
    pub fn as_ptr(&self) -> Raw {
        self.0.as_ptr().cast()
    }

    /// Its head.
    #[must_use]
    pub fn head(&self) -> &Head {
        // SAFETY: An object lives as long as its references.
        unsafe { self.0.as_ref() }
    }

    /// What it holds.
    #[must_use]
    pub fn body(&self) -> &Body {
        self.head().body()
    }
}

impl Clone for Object {
    fn clone(&self) -> Self {
        self.head().retain();
        Self(self.0)
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        let head = self.head();
        if head.references.load(Ordering::Relaxed) == IMMORTAL
            || head.references.fetch_sub(1, Ordering::AcqRel) != 1
        {
            return;
        }
        // SAFETY: It is a `Full`, since those that are not are immortal, and this was the last reference.
        drop(unsafe { Box::from_raw(self.0.as_ptr().cast::<Full>()) });
    }
}

/// An object of C, for the length of a call.
///
/// # Safety
///
/// Null, or an object that lives as long as is looked.
#[must_use]
pub unsafe fn look<'a>(raw: Raw) -> Option<&'a Head> {
    // SAFETY: The caller's promise.
    unsafe { raw.cast::<Head>().as_ref() }
}

/// What an object of C holds.
///
/// # Safety
///
/// As for [`look`].
#[must_use]
pub unsafe fn body<'a>(raw: Raw) -> Option<&'a Body> {
    // SAFETY: The caller's promise.
    unsafe { look(raw) }.map(Head::body)
}

/// Takes a reference. Null stays null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_retain(object: Raw) -> Raw {
    // SAFETY: The caller has null or a live object.
    if let Some(head) = unsafe { look(object) } {
        head.retain();
    }
    object
}

/// Gives back a reference; the last one frees the object.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_release(object: Raw) {
    border((), || {
        // SAFETY: The caller gives its reference away.
        drop(unsafe { Object::from_raw(object) });
    });
}
