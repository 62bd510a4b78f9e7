//! Objects by name.

use crate::border::border;
use crate::connection::Origin;
use crate::object::{Body, Object, Raw, body};
use crate::scalar::{created, text};
use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_void};
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Objects by name.
#[derive(Debug, Default)]
pub struct Dictionary {
    entries: Mutex<BTreeMap<Arc<CStr>, Object>>,
    /// Of a message that came, or of a reply to one.
    pub(crate) origin: OnceLock<Origin>,
}

impl Dictionary {
    /// The one of a name.
    pub fn get(&self, key: &CStr) -> Option<Object> {
        self.lock().get(key).cloned()
    }

    /// Gives a name to an object, or to none, and returns what had it.
    pub fn set(&self, key: &CStr, value: Option<Object>) -> Option<Object> {
        let mut entries = self.lock();
        let Some(value) = value else {
            return entries.remove(key);
        };
        if let Some(place) = entries.get_mut(key) {
            return Some(std::mem::replace(place, value));
        }
        entries.insert(key.into(), value)
    }

    /// All of them, as they are now, in the order of their names.
    pub fn snapshot(&self) -> Vec<(Arc<CStr>, Object)> {
        let entries = self.lock();
        entries
            .iter()
            .map(|(key, value)| (Arc::clone(key), value.clone()))
            .collect()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<CStr>, Object>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An object of C as a dictionary to read: errors are too.
pub(crate) unsafe fn readable<'a>(object: Raw) -> Option<&'a Dictionary> {
    // SAFETY: The caller has null or a live object.
    match unsafe { body(object) } {
        Some(Body::Dictionary(dictionary)) => Some(dictionary),
        Some(Body::Error(failure)) => Some(failure.dictionary()),
        _ => None,
    }
}

/// An object of C as a dictionary to change.
pub(crate) unsafe fn writable<'a>(object: Raw) -> Option<&'a Dictionary> {
    // SAFETY: The caller has null or a live object.
    match unsafe { body(object) } {
        Some(Body::Dictionary(dictionary)) => Some(dictionary),
        _ => None,
    }
}

/// A dictionary of these names and objects.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_dictionary_create(
    keys: *const *const c_char,
    values: *const Raw,
    count: usize,
) -> Raw {
    created(|| {
        let dictionary = Dictionary::default();
        let count = if keys.is_null() || values.is_null() {
            0
        } else {
            count
        };
        for index in 0..count {
            // SAFETY: The caller has as many strings and objects there.
            let (key, value) =
                unsafe { (text(*keys.add(index)), Object::retained(*values.add(index))) };
            if let (Some(key), Some(value)) = (key, value) {
                drop(dictionary.set(key, Some(value)));
            }
        }
        Some(Body::Dictionary(dictionary))
    })
}

/// A dictionary of nothing.
#[unsafe(no_mangle)]
pub extern "C" fn xpc_dictionary_create_empty() -> Raw {
    created(|| Some(Body::Dictionary(Dictionary::default())))
}

/// A dictionary that answers a message, when it is sent; null if nobody waits for an answer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_dictionary_create_reply(message: Raw) -> Raw {
    created(|| {
        // SAFETY: The caller has null or a live object.
        let origin = unsafe { writable(message) }?.origin.get()?.answered()?;
        let dictionary = Dictionary::default();
        drop(dictionary.origin.set(origin));
        Some(Body::Dictionary(dictionary))
    })
}

/// The connection that a message came by, which stays the message's; null if it did not come.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_dictionary_get_remote_connection(message: Raw) -> Raw {
    // SAFETY: The caller has null or a live object.
    let origin = unsafe { writable(message) }.and_then(|dictionary| dictionary.origin.get());
    origin.map_or(ptr::null_mut(), |origin| origin.connection.as_ptr())
}

/// Gives a name to an object; null takes it away.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_dictionary_set_value(object: Raw, key: *const c_char, value: Raw) {
    border((), || {
        // SAFETY: The caller has null or a live object, and null or a string.
        let (dictionary, key) = unsafe { (writable(object), text(key)) };
        if let (Some(dictionary), Some(key)) = (dictionary, key) {
            // SAFETY: The caller has null or a live object.
            drop(dictionary.set(key, unsafe { Object::retained(value) }));
        }
    });
}

/// The object of a name, which stays the dictionary's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_dictionary_get_value(object: Raw, key: *const c_char) -> Raw {
    // SAFETY: The caller has null or a live object, and null or a string.
    let (dictionary, key) = unsafe { (readable(object), text(key)) };
    let value = dictionary
        .zip(key)
        .and_then(|(dictionary, key)| dictionary.get(key));
    value.map_or(ptr::null_mut(), |value| value.as_ptr())
}

/// How many there are; none in null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_dictionary_get_count(object: Raw) -> usize {
    // SAFETY: The caller has null or a live object.
    unsafe { readable(object) }.map_or(0, Dictionary::count)
}

fn apply(dictionary: &Dictionary, mut visit: impl FnMut(*const c_char, Raw) -> bool) -> bool {
    let entries = dictionary.snapshot();
    entries
        .iter()
        .all(|(key, value)| visit(key.as_ptr(), value.as_ptr()))
}

/// Calls a block with each, until it says false. True if it came to the end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_dictionary_apply(object: Raw, block: *const c_void) -> bool {
    border(false, || {
        // SAFETY: The caller has null or a live object.
        let Some(dictionary) = (unsafe { readable(object) }).filter(|_| !block.is_null()) else {
            return false;
        };
        // SAFETY: The caller has a `bool (^)(const char *, xpc_object_t)`, whose function has this type.
        let invoke: unsafe extern "C" fn(*const c_void, *const c_char, Raw) -> bool =
            unsafe { std::mem::transmute(vmnet_blocks::held::invoke(block)) };
        // SAFETY: As above.
        apply(dictionary, |key, value| unsafe {
            invoke(block, key, value)
        })
    })
}

/// Calls a function with each, until it says false. True if it came to the end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_dictionary_apply_f(
    object: Raw,
    context: *mut c_void,
    function: Option<unsafe extern "C" fn(*mut c_void, *const c_char, Raw) -> bool>,
) -> bool {
    border(false, || {
        // SAFETY: The caller has null or a live object.
        let (Some(dictionary), Some(function)) = (unsafe { readable(object) }, function) else {
            return false;
        };
        // SAFETY: The caller gives context and function together.
        apply(dictionary, |key, value| unsafe {
            function(context, key, value)
        })
    })
}
