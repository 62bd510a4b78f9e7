//! Making an [`InterfaceConfiguration`] by calls: a builder for each mode, without what the mode does not know.

use std::marker::PhantomData;
use std::net::{Ipv4Addr, Ipv6Addr};

use uuid::Uuid;

use super::configuration::{InterfaceConfiguration, InterfaceKeys, Target};
use crate::mode::OperatingMode;
use crate::status::Error;

/// Makes an [`InterfaceConfiguration`]; `M` is where the interface leads.
#[derive(Debug, Clone)]
pub struct InterfaceBuilder<M> {
    keys: InterfaceKeys,
    mode: PhantomData<M>,
}

/// An interface that leads to the host, other guests and the outside.
#[derive(Debug, Clone, Copy)]
pub enum SharedMode {}
/// An interface that leads to the host and other guests.
#[derive(Debug, Clone, Copy)]
pub enum HostMode {}
/// An interface on a private switch.
#[derive(Debug, Clone, Copy)]
pub enum PrivateMode {}
/// An interface on the LAN of one of the host's interfaces.
#[derive(Debug, Clone, Copy)]
pub enum BridgedMode {}
/// An interface on a [`Network`](crate::Network).
#[derive(Debug, Clone, Copy)]
pub enum OnNetwork {}

impl InterfaceConfiguration {
    /// An interface that leads to the host, to other guests, and through NAT to the outside.
    #[must_use]
    pub fn shared() -> InterfaceBuilder<SharedMode> {
        InterfaceBuilder::of(InterfaceKeys::default())
    }

    /// An interface that leads to the host and other guests.
    #[must_use]
    pub fn host() -> InterfaceBuilder<HostMode> {
        InterfaceBuilder::of(InterfaceKeys::default())
    }

    /// An interface on a switch of its own, with nobody but who names the same identifier: no DHCP, and no host unless it is
    /// given an address there (`vmnet_network_identifier_key`).
    #[must_use]
    pub fn private(identifier: Uuid) -> InterfaceBuilder<PrivateMode> {
        InterfaceBuilder::of(InterfaceKeys {
            network_identifier: Some(identifier),
            ..InterfaceKeys::default()
        })
    }

    /// An interface on the LAN of one of the host's interfaces, of which [`shared_interfaces`](crate::shared_interfaces)
    /// has a list.
    #[must_use]
    pub fn bridged(shared_interface: &str) -> InterfaceBuilder<BridgedMode> {
        InterfaceBuilder::of(InterfaceKeys {
            shared_interface_name: Some(shared_interface.to_owned()),
            ..InterfaceKeys::default()
        })
    }

    /// An interface on a [`Network`](crate::Network), for [`Interface::start_on`](crate::Interface::start_on).
    #[must_use]
    pub fn on_network() -> InterfaceBuilder<OnNetwork> {
        InterfaceBuilder::of(InterfaceKeys::default())
    }

    /// Where it leads; none on a network, which knows.
    #[must_use]
    pub fn mode(&self) -> Option<OperatingMode> {
        match self.target {
            Target::Mode(mode) => Some(mode),
            Target::Network => None,
        }
    }

    /// Its keys.
    #[must_use]
    pub fn keys(&self) -> &InterfaceKeys {
        &self.keys
    }

    pub(super) fn tso(&self) -> bool {
        self.keys.enable_tso == Some(true)
    }

    pub(super) fn checksum_offload(&self) -> bool {
        self.keys.enable_checksum_offload == Some(true)
    }

    pub(super) fn virtio_header(&self) -> bool {
        self.keys.enable_virtio_header == Some(true)
    }
}

impl<M> InterfaceBuilder<M> {
    fn of(keys: InterfaceKeys) -> Self {
        Self {
            keys,
            mode: PhantomData,
        }
    }

    /// TCP frames of up to 65,550 bytes may be read and written (`vmnet_enable_tso_key`).
    #[must_use]
    pub fn tso(mut self, on: bool) -> Self {
        self.keys.enable_tso = Some(on);
        self
    }

    /// Checksums of what is written are made, and what is read has right ones (`vmnet_enable_checksum_offload_key`). Not
    /// together with [`Self::virtio_header`].
    #[must_use]
    pub fn checksum_offload(mut self, on: bool) -> Self {
        self.keys.enable_checksum_offload = Some(on);
        self
    }

    /// Every packet has a virtio-net header of 12 bytes in front (`vmnet_enable_virtio_header_key`).
    #[must_use]
    pub fn virtio_header(mut self, on: bool) -> Self {
        self.keys.enable_virtio_header = Some(on);
        self
    }

    /// Other guests are not reached, and do not reach it (`vmnet_enable_isolation_key`).
    #[must_use]
    pub fn isolation(mut self, on: bool) -> Self {
        self.keys.enable_isolation = Some(on);
        self
    }
}

/// What interfaces by mode have, and those on networks do not.
macro_rules! identity {
    ($($mode:ty),*) => {$(
        impl InterfaceBuilder<$mode> {
            /// The identity: the same one gets the same MAC (`vmnet_interface_id_key`). Without one, a fresh one.
            #[must_use]
            pub fn interface_id(mut self, id: Uuid) -> Self {
                self.keys.interface_id = Some(id);
                self
            }

            /// Whether a MAC is given; yes without (`vmnet_allocate_mac_address_key`).
            #[must_use]
            pub fn allocate_mac_address(mut self, allocate: bool) -> Self {
                self.keys.allocate_mac_address = Some(allocate);
                self
            }
        }
    )*};
}
identity!(SharedMode, HostMode, PrivateMode, BridgedMode);

/// What the host's own networks have, and a LAN does not.
macro_rules! mtu {
    ($($mode:ty),*) => {$(
        impl InterfaceBuilder<$mode> {
            /// The largest packet, in bytes (`vmnet_mtu_key`).
            #[must_use]
            pub fn mtu(mut self, mtu: u32) -> Self {
                self.keys.mtu = Some(mtu.into());
                self
            }
        }
    )*};
}
mtu!(SharedMode, HostMode, PrivateMode);

/// What networks with DHCP have.
macro_rules! range {
    ($($mode:ty),*) => {$(
        impl InterfaceBuilder<$mode> {
            /// The network's addresses (`vmnet_start_address_key`, `vmnet_end_address_key`, `vmnet_subnet_mask_key`): the
            /// first is the host's, those behind it up to the end are given by DHCP. Interfaces with the same start share a
            /// network.
            #[must_use]
            pub fn address_range(mut self, start: Ipv4Addr, end: Ipv4Addr, mask: Ipv4Addr) -> Self {
                self.keys.start_address = Some(start);
                self.keys.end_address = Some(end);
                self.keys.subnet_mask = Some(mask);
                self
            }
        }
    )*};
}
range!(SharedMode, HostMode);

impl InterfaceBuilder<SharedMode> {
    /// The IPv6 prefix, of which the first 64 bits count, inside `fd00::/8` (`vmnet_nat66_prefix_key`). Without one, a
    /// random one.
    #[must_use]
    pub fn nat66_prefix(mut self, prefix: Ipv6Addr) -> Self {
        self.keys.nat66_prefix = Some(prefix);
        self
    }

    /// What was asked for, if it can be.
    ///
    /// # Errors
    /// See [`InterfaceKeys::build`].
    pub fn build(self) -> Result<InterfaceConfiguration, Error> {
        self.keys.build(OperatingMode::Shared)
    }
}

impl InterfaceBuilder<HostMode> {
    /// What was asked for, if it can be.
    ///
    /// # Errors
    /// See [`InterfaceKeys::build`].
    pub fn build(self) -> Result<InterfaceConfiguration, Error> {
        self.keys.build(OperatingMode::Host)
    }
}

impl InterfaceBuilder<PrivateMode> {
    /// The host's IPv4 address there, and its mask (`vmnet_host_ip_address_key`, `vmnet_host_subnet_mask_key`).
    #[must_use]
    pub fn host_address(mut self, address: Ipv4Addr, mask: Ipv4Addr) -> Self {
        self.keys.host_ip_address = Some(address);
        self.keys.host_subnet_mask = Some(mask);
        self
    }

    /// The host's IPv6 address there, in a prefix of 64 bits (`vmnet_host_ipv6_address_key`).
    #[must_use]
    pub fn host_ipv6_address(mut self, address: Ipv6Addr) -> Self {
        self.keys.host_ipv6_address = Some(address);
        self
    }

    /// What was asked for, if it can be.
    ///
    /// # Errors
    /// See [`InterfaceKeys::build`].
    pub fn build(self) -> Result<InterfaceConfiguration, Error> {
        self.keys.build(OperatingMode::Host)
    }
}

impl InterfaceBuilder<BridgedMode> {
    /// What was asked for, if it can be.
    ///
    /// # Errors
    /// See [`InterfaceKeys::build`].
    pub fn build(self) -> Result<InterfaceConfiguration, Error> {
        self.keys.build(OperatingMode::Bridged)
    }
}

impl InterfaceBuilder<OnNetwork> {
    /// What was asked for, if it can be.
    ///
    /// # Errors
    /// See [`InterfaceKeys::build_on_network`].
    pub fn build(self) -> Result<InterfaceConfiguration, Error> {
        self.keys.build_on_network()
    }
}
