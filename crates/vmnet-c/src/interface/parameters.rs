//! What an interface turned out to be: `interface_param`.

use crate::key::{self, Key};
use openvmnet::InterfaceParameters;
use std::ffi::CString;
use std::fmt::Display;
use vmnet_xpc::{Body, Dictionary, Object};

/// Text in a dictionary. What is put there has no zeros.
fn text(value: impl Display) -> Option<Body> {
    CString::new(value.to_string()).ok().map(Body::String)
}

/// The dictionary. What a mode does not tell is not in it.
pub(super) fn dictionary(parameters: &InterfaceParameters) -> Object {
    let dictionary = Dictionary::default();
    let put = |key: &Key, value: Option<Body>| {
        if let Some(value) = value {
            drop(dictionary.set(key.name(), Some(Object::new(value))));
        }
    };
    let number = |value: u32| Some(Body::Uint64(value.into()));
    let id = parameters.interface_id.map(uuid::Uuid::into_bytes);
    put(&key::vmnet_interface_id_key, id.map(Body::Uuid));
    put(
        &key::vmnet_mac_address_key,
        parameters.mac_address.and_then(text),
    );
    put(&key::vmnet_mtu_key, number(parameters.mtu));
    put(
        &key::vmnet_max_packet_size_key,
        number(parameters.max_packet_size),
    );
    put(
        &key::vmnet_read_max_packets_key,
        number(parameters.read_max_packets),
    );
    put(
        &key::vmnet_write_max_packets_key,
        number(parameters.write_max_packets),
    );
    put(
        &key::vmnet_start_address_key,
        parameters.start_address.and_then(text),
    );
    put(
        &key::vmnet_end_address_key,
        parameters.end_address.and_then(text),
    );
    put(
        &key::vmnet_subnet_mask_key,
        parameters.subnet_mask.and_then(text),
    );
    put(
        &key::vmnet_nat66_prefix_key,
        parameters.nat66_prefix.and_then(text),
    );
    Object::new(Body::Dictionary(dictionary))
}
