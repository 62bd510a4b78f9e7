//! The names in dictionaries. Programs read them from data symbols: `const char *const`.

use std::ffi::{CStr, c_char};

/// The address of a name. It is a pointer, and nothing else.
#[repr(transparent)]
#[derive(Debug)]
pub struct Key(*const c_char);

// SAFETY: It is a constant.
unsafe impl Sync for Key {}

impl Key {
    const fn new(name: &'static CStr) -> Self {
        Self(name.as_ptr())
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &'static CStr {
        // SAFETY: It came from a string that is a constant.
        unsafe { CStr::from_ptr(self.0) }
    }
}

macro_rules! keys {
    ($($symbol:ident $name:literal $what:literal)*) => {
        $(
            #[doc = $what]
            #[unsafe(no_mangle)]
            pub static $symbol: Key = Key::new($name);
        )*

        /// All of them, with their symbols.
        pub static ALL: &[(&str, &Key)] = &[$((stringify!($symbol), &$symbol)),*];
    };
}

keys! {
    vmnet_operation_mode_key c"vmnet_operation_mode" "uint64: where an interface leads."
    vmnet_shared_interface_name_key c"vmnet_shared_interface_name" "string: the host's interface to bridge to."
    vmnet_interface_id_key c"vmnet_interface_id" "uuid: what an interface is known by, to have its MAC again."
    vmnet_mac_address_key c"vmnet_mac_address" "string: the guest's MAC."
    vmnet_allocate_mac_address_key c"vmnet_allocate_mac_address" "bool: whether there is to be one."
    vmnet_mtu_key c"vmnet_mtu" "uint64: the largest IP packet."
    vmnet_max_packet_size_key c"vmnet_max_packet_size" "uint64: the largest frame."
    vmnet_read_max_packets_key c"vmnet_read_max_packets" "uint64: the most packets of one read."
    vmnet_write_max_packets_key c"vmnet_write_max_packets" "uint64: the most packets of one write."
    vmnet_start_address_key c"vmnet_start_address" "string: the host's address, before those of DHCP."
    vmnet_end_address_key c"vmnet_end_address" "string: the last address of DHCP."
    vmnet_subnet_mask_key c"vmnet_subnet_mask" "string: the subnet's mask."
    vmnet_nat66_prefix_key c"vmnet_nat66_prefix" "string: the IPv6 prefix."
    vmnet_nat66_prefix_length_key c"vmnet_nat66_prefix_length" "uint64: its length, 64."
    vmnet_network_identifier_key c"vmnet_network_identifier" "uuid: which private switch to join."
    vmnet_host_ip_address_key c"vmnet_host_ip_address" "string: the host's address there."
    vmnet_host_subnet_mask_key c"vmnet_host_subnet_mask" "string: its mask."
    vmnet_host_ipv6_address_key c"vmnet_host_ipv6_address" "string: the host's IPv6 address there."
    vmnet_enable_tso_key c"vmnet_enable_tso" "bool: TCP segments of up to 64 KiB in one frame."
    vmnet_enable_isolation_key c"vmnet_enable_isolation" "bool: no frames from and to other guests."
    vmnet_enable_checksum_offload_key c"vmnet_enable_checksum_offload" "bool: checksums are not the guest's work."
    vmnet_enable_virtio_header_key c"vmnet_enable_virtio_header" "bool: a virtio-net header before each frame."
    vmnet_estimated_packets_available_key c"vmnet_estimated_packets_available" "uint64: how many packets wait."
}

#[cfg(test)]
mod tests {
    use super::ALL;

    #[test]
    fn each_is_named_like_its_symbol() {
        assert_eq!(ALL.len(), 23);
        for (symbol, key) in ALL {
            assert_eq!(
                key.name().to_str().unwrap(),
                symbol.strip_suffix("_key").unwrap()
            );
        }
    }
}
