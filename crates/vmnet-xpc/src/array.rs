//! Objects in a row.

use crate::border::border;
use crate::object::{Body, Object, Raw, body};
use crate::scalar::created;
use std::ffi::c_void;
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// `XPC_ARRAY_APPEND`: the place after the last.
pub(crate) const APPEND: usize = usize::MAX;

/// Objects in a row.
#[derive(Debug, Default)]
pub struct Array(Mutex<Vec<Object>>);

impl Array {
    /// One at a place.
    pub fn get(&self, index: usize) -> Option<Object> {
        self.lock().get(index).cloned()
    }

    /// All of them, as they are now.
    pub fn snapshot(&self) -> Vec<Object> {
        self.lock().clone()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Puts one behind the last.
    pub fn push(&self, value: Object) {
        self.lock().push(value);
    }

    /// Puts one at a place, instead of what is there. A place beyond the end is refused.
    pub fn set(&self, index: usize, value: Object) {
        let mut values = self.lock();
        let old = if index == APPEND {
            values.push(value);
            return;
        } else {
            values
                .get_mut(index)
                .map(|place| std::mem::replace(place, value))
        };
        drop(values);
        drop(old);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Object>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FromIterator<Object> for Array {
    fn from_iter<I: IntoIterator<Item = Object>>(objects: I) -> Self {
        Self(Mutex::new(objects.into_iter().collect()))
    }
}

/// An object of C as an array.
pub(crate) unsafe fn array<'a>(object: Raw) -> Option<&'a Array> {
    // SAFETY: The caller has null or a live object.
    match unsafe { body(object) } {
        Some(Body::Array(array)) => Some(array),
        _ => None,
    }
}

/// An array of these objects.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_array_create(objects: *const Raw, count: usize) -> Raw {
    created(|| {
        let count = if objects.is_null() { 0 } else { count };
        let values = (0..count).filter_map(|index| {
            // SAFETY: The caller has as many objects there.
            unsafe { Object::retained(*objects.add(index)) }
        });
        Some(Body::Array(values.collect()))
    })
}

/// An array of nothing.
#[unsafe(no_mangle)]
pub extern "C" fn xpc_array_create_empty() -> Raw {
    created(|| Some(Body::Array(Array::default())))
}

/// Puts an object behind the last.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_array_append_value(object: Raw, value: Raw) {
    // SAFETY: The caller has null or live objects.
    unsafe { xpc_array_set_value(object, APPEND, value) };
}

/// Puts an object at a place, or behind the last with `XPC_ARRAY_APPEND`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_array_set_value(object: Raw, index: usize, value: Raw) {
    border((), || {
        // SAFETY: The caller has null or live objects.
        if let (Some(array), Some(value)) = unsafe { (array(object), Object::retained(value)) } {
            array.set(index, value);
        }
    });
}

/// How many there are; none in null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_array_get_count(object: Raw) -> usize {
    // SAFETY: The caller has null or a live object.
    unsafe { array(object) }.map_or(0, Array::count)
}

/// The one at a place, which stays the array's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_array_get_value(object: Raw, index: usize) -> Raw {
    // SAFETY: The caller has null or a live object.
    let value = unsafe { array(object) }.and_then(|array| array.get(index));
    value.map_or(ptr::null_mut(), |value| value.as_ptr())
}

fn apply(array: &Array, mut visit: impl FnMut(usize, Raw) -> bool) -> bool {
    let values = array.snapshot();
    values
        .iter()
        .enumerate()
        .all(|(index, value)| visit(index, value.as_ptr()))
}

/// Calls a block with each, until it says false. True if it came to the end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_array_apply(object: Raw, block: *const c_void) -> bool {
    border(false, || {
        // SAFETY: The caller has null or a live object.
        let Some(array) = (unsafe { array(object) }).filter(|_| !block.is_null()) else {
            return false;
        };
        // SAFETY: The caller has a `bool (^)(size_t, xpc_object_t)`, whose function has this type.
        let invoke: unsafe extern "C" fn(*const c_void, usize, Raw) -> bool =
            unsafe { std::mem::transmute(vmnet_blocks::held::invoke(block)) };
        // SAFETY: As above.
        apply(array, |index, value| unsafe { invoke(block, index, value) })
    })
}

/// Calls a function with each, until it says false. True if it came to the end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_array_apply_f(
    object: Raw,
    context: *mut c_void,
    function: Option<unsafe extern "C" fn(*mut c_void, usize, Raw) -> bool>,
) -> bool {
    border(false, || {
        // SAFETY: The caller has null or a live object.
        let (Some(array), Some(function)) = (unsafe { array(object) }, function) else {
            return false;
        };
        // SAFETY: The caller gives context and function together.
        apply(array, |index, value| unsafe {
            function(context, index, value)
        })
    })
}
