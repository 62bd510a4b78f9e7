//! What an interface is to be: `interface_desc`. Keys that nobody knows are ignored; a known one of another type is an
//! invalid argument.

use crate::argument::status_of;
use crate::key::{self, Key};
use openvmnet::{InterfaceConfiguration, InterfaceKeys, OperatingMode, Status};
use std::ffi::CStr;
use std::str::FromStr;
use uuid::Uuid;
use vmnet_xpc::{Body, Dictionary};

/// A value that is of another type than its key's, or cannot be.
fn wrong<T>() -> Result<T, Status> {
    Err(Status::InvalidArgument)
}

/// Reads values by their keys.
struct Reader<'a>(&'a Dictionary);

impl Reader<'_> {
    fn get<T>(
        &self,
        key: &Key,
        convert: impl FnOnce(&Body) -> Result<T, Status>,
    ) -> Result<Option<T>, Status> {
        let value = self.0.get(key.name());
        value.map(|value| convert(value.body())).transpose()
    }

    fn bool(&self, key: &Key) -> Result<Option<bool>, Status> {
        self.get(key, |body| match body {
            Body::Bool(value) => Ok(*value),
            _ => wrong(),
        })
    }

    fn uint64(&self, key: &Key) -> Result<Option<u64>, Status> {
        self.get(key, |body| match body {
            Body::Uint64(value) => Ok(*value),
            _ => wrong(),
        })
    }

    fn uuid(&self, key: &Key) -> Result<Option<Uuid>, Status> {
        self.get(key, |body| match body {
            Body::Uuid(bytes) => Ok(Uuid::from_bytes(*bytes)),
            _ => wrong(),
        })
    }

    /// Text, and what is written in it.
    fn parsed<T: FromStr>(&self, key: &Key) -> Result<Option<T>, Status> {
        self.get(key, |body| match body {
            Body::String(text) => text_of(text)?.parse().or_else(|_| wrong()),
            _ => wrong(),
        })
    }
}

fn text_of(text: &CStr) -> Result<&str, Status> {
    text.to_str().or_else(|_| wrong())
}

/// The mode, if there is one, and everything else.
fn keys(dictionary: &Dictionary) -> Result<(Option<u64>, InterfaceKeys), Status> {
    let read = Reader(dictionary);
    let mode = read.uint64(&key::vmnet_operation_mode_key)?;
    let keys = InterfaceKeys {
        shared_interface_name: read.parsed(&key::vmnet_shared_interface_name_key)?,
        interface_id: read.uuid(&key::vmnet_interface_id_key)?,
        allocate_mac_address: read.bool(&key::vmnet_allocate_mac_address_key)?,
        mtu: read.uint64(&key::vmnet_mtu_key)?,
        start_address: read.parsed(&key::vmnet_start_address_key)?,
        end_address: read.parsed(&key::vmnet_end_address_key)?,
        subnet_mask: read.parsed(&key::vmnet_subnet_mask_key)?,
        nat66_prefix: read.parsed(&key::vmnet_nat66_prefix_key)?,
        nat66_prefix_length: read.uint64(&key::vmnet_nat66_prefix_length_key)?,
        network_identifier: read.uuid(&key::vmnet_network_identifier_key)?,
        host_ip_address: read.parsed(&key::vmnet_host_ip_address_key)?,
        host_subnet_mask: read.parsed(&key::vmnet_host_subnet_mask_key)?,
        host_ipv6_address: read.parsed(&key::vmnet_host_ipv6_address_key)?,
        enable_tso: read.bool(&key::vmnet_enable_tso_key)?,
        enable_isolation: read.bool(&key::vmnet_enable_isolation_key)?,
        enable_checksum_offload: read.bool(&key::vmnet_enable_checksum_offload_key)?,
        enable_virtio_header: read.bool(&key::vmnet_enable_virtio_header_key)?,
    };
    Ok((mode, keys))
}

/// An interface by its mode.
pub(super) fn by_mode(dictionary: &Dictionary) -> Result<InterfaceConfiguration, Status> {
    let (mode, keys) = keys(dictionary)?;
    let mode = mode
        .and_then(|mode| u32::try_from(mode).ok())
        .and_then(OperatingMode::from_code)
        .ok_or(Status::InvalidArgument)?;
    keys.build(mode).map_err(|error| status_of(&error))
}

/// An interface on a network, which has a mode already.
pub(super) fn on_network(dictionary: &Dictionary) -> Result<InterfaceConfiguration, Status> {
    let (_, keys) = keys(dictionary)?;
    keys.build_on_network().map_err(|error| status_of(&error))
}
