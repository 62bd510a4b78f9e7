//! What an interface is to be (`interface_desc`).

use std::net::{Ipv4Addr, Ipv6Addr};

use uuid::Uuid;
use vmnet_wire::ipv4::is_private;

use crate::mode::OperatingMode;
use crate::status::{Error, Status};

/// The smallest and the largest packets that an interface can have, in bytes.
const MTU: std::ops::RangeInclusive<u32> = 576..=65_520;
/// Lengths that a subnet's prefix can have.
const PREFIX_LEN: std::ops::RangeInclusive<u32> = 16..=30;

/// What an interface is to be, found to be possible.
///
/// It is made by a builder of its mode, which has no methods for what the mode does not know, and sees the rest when it
/// builds. Programs that have a dictionary of keys instead give [`InterfaceKeys`].
///
/// ```
/// use openvmnet::InterfaceConfiguration;
///
/// let configuration = InterfaceConfiguration::shared()
///     .address_range(
///         [192, 168, 105, 1].into(),
///         [192, 168, 105, 254].into(),
///         [255, 255, 255, 0].into(),
///     )
///     .tso(true)
///     .checksum_offload(true)
///     .build()?;
/// # Ok::<(), openvmnet::Error>(())
/// ```
///
/// What a mode does not know is not there:
///
/// ```compile_fail
/// openvmnet::InterfaceConfiguration::bridged("eth0").mtu(9000);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceConfiguration {
    pub(super) target: Target,
    pub(super) keys: InterfaceKeys,
}

/// Where it is to be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Mode(OperatingMode),
    /// On a network that is given.
    Network,
}

/// Every key of `interface_desc`, as plain values: for programs that have them in a dictionary. What is `None` was not
/// given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InterfaceKeys {
    /// `vmnet_shared_interface_name_key`: the host's interface to bridge to; in other modes it means nothing.
    pub shared_interface_name: Option<String>,
    /// `vmnet_interface_id_key`.
    pub interface_id: Option<Uuid>,
    /// `vmnet_allocate_mac_address_key`; yes without.
    pub allocate_mac_address: Option<bool>,
    /// `vmnet_mtu_key`.
    pub mtu: Option<u64>,
    /// `vmnet_start_address_key`.
    pub start_address: Option<Ipv4Addr>,
    /// `vmnet_end_address_key`.
    pub end_address: Option<Ipv4Addr>,
    /// `vmnet_subnet_mask_key`.
    pub subnet_mask: Option<Ipv4Addr>,
    /// `vmnet_nat66_prefix_key`.
    pub nat66_prefix: Option<Ipv6Addr>,
    /// `vmnet_nat66_prefix_length_key`: 64, if it is given.
    pub nat66_prefix_length: Option<u64>,
    /// `vmnet_network_identifier_key`.
    pub network_identifier: Option<Uuid>,
    /// `vmnet_host_ip_address_key`.
    pub host_ip_address: Option<Ipv4Addr>,
    /// `vmnet_host_subnet_mask_key`.
    pub host_subnet_mask: Option<Ipv4Addr>,
    /// `vmnet_host_ipv6_address_key`.
    pub host_ipv6_address: Option<Ipv6Addr>,
    /// `vmnet_enable_tso_key`; no without.
    pub enable_tso: Option<bool>,
    /// `vmnet_enable_isolation_key`; no without.
    pub enable_isolation: Option<bool>,
    /// `vmnet_enable_checksum_offload_key`; no without.
    pub enable_checksum_offload: Option<bool>,
    /// `vmnet_enable_virtio_header_key`; no without.
    pub enable_virtio_header: Option<bool>,
}

impl InterfaceKeys {
    /// An interface by mode (`vmnet_start_interface`).
    ///
    /// # Errors
    /// [`Status::InvalidArgument`]: keys that cannot be, or not together, or not in this mode. [`Status::Failure`]: an
    /// address range that is not private (RFC 1918).
    pub fn build(self, mode: OperatingMode) -> Result<InterfaceConfiguration, Error> {
        self.check_offloads()?;
        self.check_prefix(mode)?;
        self.check_mtu(mode)?;
        self.check_range(mode)?;
        self.check_identifier(mode)?;
        if mode == OperatingMode::Bridged {
            self.check_name()?;
        }
        Ok(InterfaceConfiguration {
            target: Target::Mode(mode),
            keys: self,
        })
    }

    /// An interface on a network (`vmnet_interface_start_with_network`), which decides everything but offloads and
    /// isolation: other keys mean nothing.
    ///
    /// # Errors
    /// [`Status::InvalidArgument`]: offloads that cannot be together.
    pub fn build_on_network(self) -> Result<InterfaceConfiguration, Error> {
        self.check_offloads()?;
        Ok(InterfaceConfiguration {
            target: Target::Network,
            keys: self,
        })
    }

    fn check_offloads(&self) -> Result<(), Error> {
        if self.enable_checksum_offload == Some(true) && self.enable_virtio_header == Some(true) {
            return Err(Error::invalid(
                "with a virtio header checksum offload is in the header: leave one of them out",
            ));
        }
        Ok(())
    }

    fn check_prefix(&self, mode: OperatingMode) -> Result<(), Error> {
        if let Some(len) = self.nat66_prefix_length
            && len != 64
        {
            return Err(Error::invalid(format!(
                "a NAT66 prefix has 64 bits, and not {len}"
            )));
        }
        let Some(prefix) = self.nat66_prefix else {
            return Ok(());
        };
        if mode != OperatingMode::Shared {
            return Err(Error::invalid("only shared interfaces have a NAT66 prefix"));
        }
        if prefix.octets().first() != Some(&0xfd) {
            return Err(Error::invalid(format!(
                "{prefix} is not in fd00::/8, where local prefixes are"
            )));
        }
        Ok(())
    }

    fn check_mtu(&self, mode: OperatingMode) -> Result<(), Error> {
        match self.mtu {
            None => Ok(()),
            Some(_) if mode == OperatingMode::Bridged => Err(Error::invalid(
                "a bridged interface has the MTU of the host's interface: none can be asked for",
            )),
            Some(mtu) if u32::try_from(mtu).is_ok_and(|mtu| MTU.contains(&mtu)) => Ok(()),
            Some(mtu) => Err(Error::invalid(format!(
                "an MTU is {} to {}, and not {mtu}",
                MTU.start(),
                MTU.end()
            ))),
        }
    }

    fn check_range(&self, mode: OperatingMode) -> Result<(), Error> {
        let (start, end, mask) = match (self.start_address, self.end_address, self.subnet_mask) {
            (None, None, None) => return Ok(()),
            (Some(start), Some(end), Some(mask)) => (start, end, mask),
            _ => {
                return Err(Error::invalid(
                    "start address, end address and subnet mask come together: give all three or none",
                ));
            }
        };
        if mode == OperatingMode::Bridged {
            return Err(Error::invalid(
                "a bridged interface gets its address from the LAN: leave the address range out",
            ));
        }
        let len = mask_len(mask)?;
        if !is_private(start, len) {
            return Err(Error::new(
                Status::Failure,
                format!(
                    "{start}/{len} is no private subnet: take one of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16"
                ),
            ));
        }
        let (first, last, bits) = (start.to_bits(), end.to_bits(), mask.to_bits());
        if first & bits != last & bits || first > last {
            return Err(Error::invalid(format!(
                "{end} is no end of a range that begins with {start} in a subnet with the mask {mask}"
            )));
        }
        if first | bits == u32::MAX {
            return Err(Error::invalid(format!(
                "{start} is the last address of its subnet, which means all of it"
            )));
        }
        Ok(())
    }

    fn check_identifier(&self, mode: OperatingMode) -> Result<(), Error> {
        let host = self.host_ip_address.is_some()
            || self.host_subnet_mask.is_some()
            || self.host_ipv6_address.is_some();
        if self.network_identifier.is_none() {
            if host {
                return Err(Error::invalid(
                    "the host's address is for a network with an identifier: give one, or leave the address out",
                ));
            }
            return Ok(());
        }
        if mode != OperatingMode::Host {
            return Err(Error::invalid(
                "only host interfaces have a network identifier",
            ));
        }
        match (self.host_ip_address, self.host_subnet_mask) {
            (None, None) => {}
            (Some(address), Some(mask)) => {
                let len = mask_len(mask)?;
                if !is_private(address, len) {
                    return Err(Error::new(
                        Status::Failure,
                        format!(
                            "{address}/{len} is in no private subnet: take one of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16"
                        ),
                    ));
                }
                let behind = address.to_bits() & !mask.to_bits();
                if behind == 0 || behind == !mask.to_bits() {
                    return Err(Error::invalid(format!(
                        "{address} is no host's address in a subnet of /{len}"
                    )));
                }
            }
            _ => {
                return Err(Error::invalid(
                    "the host's address and its mask come together: give both or none",
                ));
            }
        }
        if let Some(address) = self.host_ipv6_address
            && address.octets().first() != Some(&0xfd)
        {
            return Err(Error::invalid(format!(
                "{address} is not in fd00::/8, where local addresses are"
            )));
        }
        Ok(())
    }

    fn check_name(&self) -> Result<(), Error> {
        let Some(name) = self.shared_interface_name.as_deref() else {
            return Err(Error::invalid(
                "a bridged interface needs the name of the host's interface",
            ));
        };
        // `IFNAMSIZ`, with its zero.
        if name.is_empty() || name.len() > 15 || name.contains(['/', ' ', '\0']) {
            return Err(Error::invalid(format!(
                "`{name}` is no name of an interface"
            )));
        }
        Ok(())
    }
}

/// How many bits a mask has.
fn mask_len(mask: Ipv4Addr) -> Result<u32, Error> {
    let len = mask.to_bits().leading_ones();
    if mask.to_bits().count_ones() != len || !PREFIX_LEN.contains(&len) {
        return Err(Error::invalid(format!(
            "{mask} is no mask of a subnet of /{} to /{}",
            PREFIX_LEN.start(),
            PREFIX_LEN.end()
        )));
    }
    Ok(len)
}

#[cfg(test)]
mod tests;
