//! The host's interfaces that can be bridged to.

use crate::argument::status_of;
use std::ffi::CString;
use std::ptr;
use vmnet_xpc::{Array, Body, Object, Raw, border};

/// Their names: an array that the caller releases. It is empty where there are none, also if nobody can be asked.
#[unsafe(no_mangle)]
pub extern "C" fn vmnet_copy_shared_interface_list() -> Raw {
    border(ptr::null_mut(), || {
        let interfaces = openvmnet::shared_interfaces().unwrap_or_else(|error| {
            let _nobody_to_tell = status_of(&error);
            Vec::new()
        });
        let names = interfaces
            .into_iter()
            .filter_map(|interface| CString::new(interface.name).ok())
            .map(|name| Object::new(Body::String(name)));
        Object::new(Body::Array(names.collect::<Array>())).into_raw()
    })
}
