//! What a network is to be (`vmnet_network_configuration_ref`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use vmnet_wire::ethernet::Mac;
use vmnet_wire::ipv4::is_private;

use crate::mode::NetworkMode;
use crate::service::{self, ForwardRule, Guest, Protocol, Reservation};
use crate::status::{Error, Status};

/// The smallest and the largest packets that a network can have, in bytes.
const MTU: std::ops::RangeInclusive<u32> = 576..=65_520;
/// Lengths that a subnet's prefix can have.
const PREFIX_LEN: std::ops::RangeInclusive<u32> = 16..=30;

/// What a network is to be.
///
/// Without more a network has an IPv4 subnet and an IPv6 prefix that are free, gives addresses by DHCP, answers DNS
/// questions and advertises itself as a router; a shared one translates both families to the outside, by the host's
/// default route. Its MTU is 1500.
///
/// ```
/// use openvmnet::{NetworkConfiguration, NetworkMode};
///
/// let mut configuration = NetworkConfiguration::new(NetworkMode::Shared);
/// configuration.set_ipv4_subnet([10, 7, 0, 1].into(), [255, 255, 255, 0].into())?;
/// configuration.set_mtu(9000)?;
/// # Ok::<(), openvmnet::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct NetworkConfiguration {
    asked: service::NetworkConfiguration,
    subnet: Option<(Ipv4Addr, u32)>,
    reservations: Vec<(Mac, Ipv4Addr)>,
    forwards: Vec<ForwardRule>,
}

impl NetworkConfiguration {
    /// A network of this mode, with defaults for everything else (`vmnet_network_configuration_create`).
    #[must_use]
    pub fn new(mode: NetworkMode) -> Self {
        Self {
            asked: service::NetworkConfiguration::new(mode.into()),
            subnet: None,
            reservations: Vec::new(),
            forwards: Vec::new(),
        }
    }

    /// Where it leads.
    #[must_use]
    pub fn mode(&self) -> NetworkMode {
        match self.asked.mode {
            service::Mode::Host => NetworkMode::Host,
            // It was made from a mode that networks have.
            service::Mode::Shared | service::Mode::Bridged => NetworkMode::Shared,
        }
    }

    /// Guests do not reach the outside by IPv4 (`vmnet_network_configuration_disable_nat44`).
    pub fn disable_nat44(&mut self) -> &mut Self {
        self.asked.nat44 = Some(false);
        self
    }

    /// Guests do not reach the outside by IPv6 (`vmnet_network_configuration_disable_nat66`).
    pub fn disable_nat66(&mut self) -> &mut Self {
        self.asked.nat66 = Some(false);
        self
    }

    /// Guests get no addresses by DHCP (`vmnet_network_configuration_disable_dhcp`), nor by DHCPv6.
    pub fn disable_dhcp(&mut self) -> &mut Self {
        (self.asked.dhcp, self.asked.dhcp6) = (Some(false), Some(false));
        self
    }

    /// The host's address answers no DNS questions (`vmnet_network_configuration_disable_dns_proxy`).
    pub fn disable_dns_proxy(&mut self) -> &mut Self {
        self.asked.dns_proxy = Some(false);
        self
    }

    /// Guests are told no IPv6 prefix (`vmnet_network_configuration_disable_router_advertisement`).
    pub fn disable_router_advertisement(&mut self) -> &mut Self {
        self.asked.router_advertisement = Some(false);
        self
    }

    /// The host's interface by which a shared network reaches the outside
    /// (`vmnet_network_configuration_set_external_interface`). That it is there is seen when the network is made.
    ///
    /// # Errors
    /// [`Status::InvalidArgument`]: the network is not shared, or this is no name of an interface.
    pub fn set_external_interface(&mut self, name: &str) -> Result<&mut Self, Error> {
        if self.mode() != NetworkMode::Shared {
            return Err(Error::invalid(
                "only a shared network has an external interface",
            ));
        }
        // `IFNAMSIZ`, with its zero.
        if name.is_empty() || name.len() > 15 || name.contains(['/', ' ', '\0']) {
            return Err(Error::invalid(format!(
                "`{name}` is no name of an interface"
            )));
        }
        self.asked.external_interface = Some(name.to_owned());
        Ok(self)
    }

    /// The IPv4 subnet (`vmnet_network_configuration_set_ipv4_subnet`): the host's address in it, or its first address,
    /// which stands for the one behind it; and the mask.
    ///
    /// # Errors
    /// [`Status::InvalidArgument`]: the mask has holes, or the subnet is smaller than four addresses or larger than 65,536,
    /// or the address is its last one.
    pub fn set_ipv4_subnet(
        &mut self,
        address: Ipv4Addr,
        mask: Ipv4Addr,
    ) -> Result<&mut Self, Error> {
        let bits = mask.to_bits();
        let len = bits.leading_ones();
        if bits.count_ones() != len || !PREFIX_LEN.contains(&len) {
            return Err(Error::invalid(format!(
                "{mask} is no mask of a subnet of /{} to /{}",
                PREFIX_LEN.start(),
                PREFIX_LEN.end()
            )));
        }
        if address.to_bits() | bits == u32::MAX {
            return Err(Error::invalid(format!(
                "{address} is the last address of its subnet, which means all of it"
            )));
        }
        self.subnet = Some((address, len));
        Ok(self)
    }

    /// The IPv6 prefix (`vmnet_network_configuration_set_ipv6_prefix`). What stands behind its 64 bits does not matter.
    ///
    /// # Errors
    /// [`Status::InvalidArgument`]: not 64 bits long, or not in `fd00::/8` (RFC 4193 §3.1).
    pub fn set_ipv6_prefix(&mut self, prefix: Ipv6Addr, len: u8) -> Result<&mut Self, Error> {
        if len != 64 {
            return Err(Error::invalid(format!(
                "an IPv6 prefix has 64 bits, and not {len}"
            )));
        }
        if prefix.octets().first() != Some(&0xfd) {
            return Err(Error::invalid(format!(
                "{prefix} is not in fd00::/8, where local prefixes are"
            )));
        }
        let network = prefix.to_bits() & !u128::from(u64::MAX);
        self.asked.ipv6_prefix = Some(format!("{}/64", Ipv6Addr::from_bits(network)));
        Ok(self)
    }

    /// The largest packet, in bytes (`vmnet_network_configuration_set_mtu`).
    ///
    /// # Errors
    /// [`Status::InvalidArgument`]: not 576 to 65,520.
    pub fn set_mtu(&mut self, mtu: u32) -> Result<&mut Self, Error> {
        let fits = MTU.contains(&mtu);
        let mtu = u16::try_from(mtu).ok().filter(|_| fits).ok_or_else(|| {
            Error::invalid(format!(
                "an MTU is {} to {}, and not {mtu}",
                MTU.start(),
                MTU.end()
            ))
        })?;
        self.asked.mtu = Some(mtu);
        Ok(self)
    }

    /// Keeps an IPv4 address for a guest, as long as the network lives
    /// (`vmnet_network_configuration_add_dhcp_reservation`).
    ///
    /// # Errors
    /// [`Status::InvalidArgument`]: the MAC is nobody's, the MAC or the address has a reservation already, or the address is
    /// not in the subnet that was set.
    pub fn add_dhcp_reservation(
        &mut self,
        client: Mac,
        address: Ipv4Addr,
    ) -> Result<&mut Self, Error> {
        if !client.is_unicast() {
            return Err(Error::invalid(format!(
                "{client} is a group or no address, and not a guest's MAC"
            )));
        }
        let known = |(mac, kept): &&(Mac, Ipv4Addr)| *mac == client || *kept == address;
        if let Some((mac, kept)) = self.reservations.iter().find(known) {
            return Err(Error::invalid(format!(
                "{kept} is reserved for {mac} already"
            )));
        }
        if let Some((subnet, len)) = self.subnet {
            let behind = 32 - len;
            let inside = address.to_bits() >> behind == subnet.to_bits() >> behind;
            if !inside || address == subnet {
                return Err(Error::invalid(format!(
                    "{address} is no guest's address in the subnet of {subnet}/{len}"
                )));
            }
        }
        self.reservations.push((client, address));
        Ok(self)
    }

    /// Forwards a port of the host to a guest, as long as the network lives
    /// (`vmnet_network_configuration_add_port_forwarding_rule`). The guest's own port comes first.
    ///
    /// # Errors
    /// [`Status::InvalidArgument`]: a port is zero, or the host's port has a rule already.
    pub fn add_port_forwarding_rule(
        &mut self,
        protocol: Protocol,
        internal_port: u16,
        external_port: u16,
        internal_address: IpAddr,
    ) -> Result<&mut Self, Error> {
        if internal_port == 0 || external_port == 0 {
            return Err(Error::invalid("port 0 is no port"));
        }
        let rule = rule(protocol, internal_port, external_port, internal_address);
        let same = |other: &&ForwardRule| {
            (other.protocol, other.first, &other.address)
                == (protocol, external_port, &rule.address)
        };
        match self.forwards.iter().find(same) {
            Some(other) if *other == rule => {}
            Some(_) => {
                return Err(Error::invalid(format!(
                    "the host's port {external_port} is forwarded already"
                )));
            }
            None => self.forwards.push(rule),
        }
        Ok(self)
    }

    /// A name by which other programs find the network, and `vmnet network show` shows it. Apple's has none.
    pub fn set_name(&mut self, name: &str) -> &mut Self {
        self.asked.name = Some(name.to_owned());
        self
    }

    /// What the service is asked for.
    ///
    /// # Errors
    /// [`Status::Failure`]: the subnet is not a private one (RFC 1918).
    pub(crate) fn asked(&self) -> Result<service::NetworkConfiguration, Error> {
        let mut asked = self.asked.clone();
        if let Some((address, len)) = self.subnet {
            if !is_private(address, len) {
                return Err(Error::new(
                    Status::Failure,
                    format!(
                        "{address}/{len} is no private subnet: take one of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16"
                    ),
                ));
            }
            asked.subnet = Some(format!("{address}/{len}"));
        }
        Ok(asked)
    }

    /// What is to be reserved when the network is there.
    pub(crate) fn reservations(&self) -> impl Iterator<Item = Reservation> {
        self.reservations.iter().map(|(mac, address)| Reservation {
            address: address.to_string(),
            mac: Some(mac.to_string()),
            client_id: None,
            name: None,
        })
    }

    /// What is to be forwarded then.
    pub(crate) fn forwards(&self) -> &[ForwardRule] {
        &self.forwards
    }
}

/// A port of the host, on all its addresses of the guest's family, that leads to a guest. Rules of both families may have the
/// same port: the service listens by IPv6 alone for a guest's IPv6 address.
pub(crate) fn rule(
    protocol: Protocol,
    internal_port: u16,
    external_port: u16,
    internal_address: IpAddr,
) -> ForwardRule {
    ForwardRule {
        protocol,
        address: match internal_address {
            IpAddr::V4(_) => "0.0.0.0".to_owned(),
            IpAddr::V6(_) => "::".to_owned(),
        },
        first: external_port,
        last: external_port,
        except: Vec::new(),
        guest: Guest {
            address: Some(internal_address.to_string()),
            mac: None,
            name: None,
            interface: None,
        },
        guest_port: internal_port,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared() -> NetworkConfiguration {
        NetworkConfiguration::new(NetworkMode::Shared)
    }

    fn v4(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    #[test]
    fn subnets_by_either_address() {
        for (address, mask, asked) in [
            ("192.168.64.1", "255.255.255.0", Ok("192.168.64.1/24")),
            ("192.168.64.0", "255.255.255.0", Ok("192.168.64.0/24")),
            ("10.233.0.0", "255.255.0.0", Ok("10.233.0.0/16")),
            ("172.31.255.253", "255.255.255.252", Ok("172.31.255.253/30")),
            (
                "192.168.64.255",
                "255.255.255.0",
                Err(Status::InvalidArgument),
            ),
            ("10.0.0.1", "255.0.0.0", Err(Status::InvalidArgument)),
            ("10.0.0.1", "255.255.255.254", Err(Status::InvalidArgument)),
            ("10.0.0.1", "255.255.0.255", Err(Status::InvalidArgument)),
            ("10.0.0.1", "0.0.0.0", Err(Status::InvalidArgument)),
            ("8.8.8.1", "255.255.255.0", Err(Status::Failure)),
            ("169.254.1.1", "255.255.0.0", Err(Status::Failure)),
            ("172.32.0.1", "255.255.0.0", Err(Status::Failure)),
        ] {
            let mut configuration = shared();
            let found = configuration
                .set_ipv4_subnet(v4(address), v4(mask))
                .and_then(|configuration| configuration.asked())
                .map(|asked| asked.subnet.unwrap())
                .map_err(|error| error.status());
            assert_eq!(found, asked.map(str::to_owned), "{address} {mask}");
        }
    }

    #[test]
    fn prefixes_are_local_and_64_bits_long() {
        let mut configuration = shared();
        let mut set = |prefix: &str, len| {
            let set = configuration.set_ipv6_prefix(prefix.parse().unwrap(), len);
            set.map(|set| set.asked.ipv6_prefix.clone().unwrap())
                .map_err(|error| error.status())
        };
        assert_eq!(set("fd12:1:2:3::", 64).unwrap(), "fd12:1:2:3::/64");
        assert_eq!(set("fd12:1:2:3::1", 64).unwrap(), "fd12:1:2:3::/64");
        for (prefix, len) in [
            ("fd12::", 48),
            ("fd12::", 65),
            ("fc00::", 64),
            ("2001:db8::", 64),
            ("fe80::", 64),
        ] {
            assert_eq!(
                set(prefix, len),
                Err(Status::InvalidArgument),
                "{prefix}/{len}"
            );
        }
    }

    #[test]
    fn an_mtu_that_can_be() {
        for (mtu, fits) in [
            (575, false),
            (576, true),
            (1500, true),
            (65_520, true),
            (65_521, false),
            (u32::MAX, false),
        ] {
            assert_eq!(shared().set_mtu(mtu).is_ok(), fits, "{mtu}");
        }
    }

    #[test]
    fn only_shared_networks_have_an_external_interface() {
        let mut host = NetworkConfiguration::new(NetworkMode::Host);
        assert!(host.set_external_interface("eth0").is_err());
        for name in ["", "a/b", "a b", "sixteen-letters-"] {
            assert!(shared().set_external_interface(name).is_err(), "{name}");
        }
        let mut configuration = shared();
        configuration.set_external_interface("eth0").unwrap();
        assert_eq!(
            configuration.asked.external_interface.as_deref(),
            Some("eth0")
        );
    }

    #[test]
    fn reservations_that_cannot_be() {
        let (one, other) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        let mut configuration = shared();
        configuration
            .set_ipv4_subnet(v4("10.1.0.1"), v4("255.255.255.0"))
            .unwrap();
        configuration
            .add_dhcp_reservation(one, v4("10.1.0.9"))
            .unwrap();
        for (mac, address) in [
            (one, "10.1.0.10"),
            (other, "10.1.0.9"),
            (other, "10.1.1.9"),
            (other, "10.1.0.1"),
            (Mac::BROADCAST, "10.1.0.11"),
        ] {
            let refused = configuration.add_dhcp_reservation(mac, v4(address));
            assert_eq!(
                refused.unwrap_err().status(),
                Status::InvalidArgument,
                "{mac} {address}"
            );
        }
        assert_eq!(configuration.reservations().count(), 1);
    }

    #[test]
    fn one_rule_for_a_port() {
        let mut configuration = shared();
        let mut add = |protocol, inside, outside, address: &str| {
            configuration
                .add_port_forwarding_rule(protocol, inside, outside, address.parse().unwrap())
                .is_ok()
        };
        assert!(add(Protocol::Tcp, 80, 8080, "10.1.0.9"));
        assert!(add(Protocol::Tcp, 80, 8080, "10.1.0.9"), "the same again");
        assert!(!add(Protocol::Tcp, 81, 8080, "10.1.0.9"));
        assert!(!add(Protocol::Tcp, 0, 8081, "10.1.0.9"));
        assert!(!add(Protocol::Tcp, 80, 0, "10.1.0.9"));
        assert!(add(Protocol::Udp, 81, 8080, "10.1.0.9"));
        assert!(add(Protocol::Tcp, 80, 8080, "fd00::9"));
        assert_eq!(configuration.forwards().len(), 3);
    }
}
