//! What a network is, with everything decided: from what was asked for, and what of the host's addresses is free.
//!
//! | file | what |
//! | --- | --- |
//! | `bridged` | networks in mode bridged |
//! | `prefix` | which IPv6 prefix a network gets |
//! | `subnet` | which subnet a network gets |
//! | `text` | what is told to clients, and read from them |

mod bridged;
mod prefix;
mod subnet;
pub(crate) mod text;

use openvmnet::service::{Datapath, Mode, NetworkConfiguration, ServiceError};
use std::net::SocketAddr;
use std::time::Duration;
use uuid::Uuid;
use vmnet_linux::lane::{
    Dhcp, Dhcp6, Dns, Ipv4, MTU_MAX, MTU_MIN, MTU_MIN_IPV6, Prefix, Settings, Subnet, gateway_mac,
};

pub(crate) use bridged::{Bridged, shown as shown_method};
pub(crate) use subnet::Occupied;

/// Apple's default; also what the world's paths take.
const MTU: u16 = 1500;
/// The domain of guests' names.
const DOMAIN: &str = "vmnet.internal";
/// How long leases last, in seconds.
const LEASE_SECONDS: u32 = 24 * 3600;
/// The longest name of a network.
const NAME_MAX: usize = 32;
/// Names of networks become UUIDs under this one: a network that is made again by its name is the same.
const NAMES: Uuid = Uuid::from_u128(0x6d6e_6574_6f70_4e76_8d3e_766d_6e65_7421);

/// A network with everything decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) uuid: Uuid,
    pub(crate) name: Option<String>,
    pub(crate) mode: Mode,
    pub(crate) ipv4: Option<Ipv4>,
    pub(crate) dhcp: Option<Dhcp>,
    pub(crate) mtu: u16,
    pub(crate) dns_proxy: bool,
    pub(crate) nat44: bool,
    pub(crate) ipv6: Option<Prefix>,
    pub(crate) nat66: bool,
    pub(crate) router_advertisement: bool,
    pub(crate) dhcp6: bool,
    pub(crate) external_interface: Option<String>,
    /// In mode bridged.
    pub(crate) bridged: Option<Bridged>,
    pub(crate) domain: String,
    pub(crate) resolvers: Option<Vec<SocketAddr>>,
    pub(crate) lease_seconds: u32,
    pub(crate) isolation: bool,
    pub(crate) host_loopback: bool,
    pub(crate) datapath: Datapath,
    pub(crate) private: bool,
}

/// What was asked for cannot be.
fn invalid(reason: impl Into<String>) -> ServiceError {
    ServiceError::InvalidArgument {
        reason: reason.into(),
    }
}

impl Plan {
    /// Decides everything that `asked` leaves open.
    ///
    /// # Errors
    /// What of it cannot be, or is taken.
    pub(crate) fn make(
        asked: &NetworkConfiguration,
        occupied: &Occupied,
    ) -> Result<Self, ServiceError> {
        if let Some(name) = &asked.name {
            check_name(name)?;
        }
        let mode = asked.mode;
        if mode == Mode::Bridged {
            return bridged::plan(asked, occupied);
        }
        if asked.bridge_method.is_some() {
            return Err(invalid(
                "a bridge method needs the mode bridged: leave one of them out",
            ));
        }
        let private = asked.private.unwrap_or(false);
        check_mode(asked, private)?;
        let ipv4 = match &asked.subnet {
            Some(text) => Some(occupied.check(text::ipv4(text)?)?),
            None if private => None,
            None => Some(occupied.choose(mode)?),
        };
        let datapath = datapath(asked, occupied.kernel)?;
        if let Some(ipv4) = ipv4.filter(|_| datapath == Datapath::Kernel) {
            check_private(ipv4.subnet())?;
        }
        let mtu = asked.mtu.unwrap_or(MTU);
        if !(MTU_MIN..=MTU_MAX).contains(&mtu) {
            return Err(invalid(format!(
                "the MTU is {mtu}; it must be {MTU_MIN} to {MTU_MAX}"
            )));
        }
        let lease_seconds = asked.lease_seconds.unwrap_or(LEASE_SECONDS);
        let dhcp = match ipv4 {
            Some(ipv4) if !private && asked.dhcp.unwrap_or(true) => {
                Some(pool(asked, &ipv4, lease_seconds)?)
            }
            _ => None,
        };
        let resolvers = asked.resolvers.as_ref();
        let resolvers = resolvers.map(|all| all.iter().map(|one| text::resolver(one)).collect());
        let uuid = uuid_of(asked)?;
        // Nobody asked for IPv6 where the MTU is too small for it.
        let without = private || mtu < MTU_MIN_IPV6;
        let ipv6 = prefix::of(asked, without, uuid, occupied)?;
        let serves6 = ipv6.is_some() && !private;
        Ok(Self {
            uuid,
            name: asked.name.clone(),
            mode,
            ipv4,
            dhcp,
            mtu,
            dns_proxy: !private && asked.dns_proxy.unwrap_or(true),
            nat44: mode == Mode::Shared && asked.nat44.unwrap_or(true),
            ipv6,
            nat66: serves6 && mode == Mode::Shared && asked.nat66.unwrap_or(true),
            router_advertisement: serves6 && asked.router_advertisement.unwrap_or(true),
            dhcp6: serves6 && asked.dhcp6.unwrap_or(true),
            external_interface: asked.external_interface.clone(),
            bridged: None,
            domain: asked.domain.clone().unwrap_or_else(|| DOMAIN.to_owned()),
            resolvers: resolvers.transpose()?,
            lease_seconds,
            isolation: asked.isolation.unwrap_or(false),
            host_loopback: asked.host_loopback.unwrap_or(false),
            datapath,
            private,
        })
    }

    /// What it is called where there is no room for much: its name, else its UUID.
    pub(crate) fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.uuid.to_string())
    }

    /// What to ask for to get the same again.
    pub(crate) fn configuration(&self) -> NetworkConfiguration {
        if let Some(bridged) = &self.bridged {
            return self.bridged_configuration(bridged);
        }
        let resolvers = self.resolvers.as_ref();
        NetworkConfiguration {
            mode: self.mode,
            name: self.name.clone(),
            uuid: Some(self.uuid.to_string()),
            subnet: self.ipv4.as_ref().map(text::gateway_and_length),
            dhcp_first: self.dhcp.map(|dhcp| dhcp.first.to_string()),
            dhcp_last: self.dhcp.map(|dhcp| dhcp.last.to_string()),
            mtu: Some(self.mtu),
            dhcp: Some(self.dhcp.is_some()),
            dns_proxy: Some(self.dns_proxy),
            nat44: Some(self.nat44),
            ipv6: Some(self.ipv6.is_some()),
            ipv6_prefix: self.ipv6.map(|prefix| prefix.to_string()),
            nat66: Some(self.nat66),
            router_advertisement: Some(self.router_advertisement),
            dhcp6: Some(self.dhcp6),
            external_interface: self.external_interface.clone(),
            bridge_method: None,
            domain: Some(self.domain.clone()),
            resolvers: resolvers.map(|all| all.iter().map(ToString::to_string).collect()),
            lease_seconds: Some(self.lease_seconds),
            isolation: Some(self.isolation),
            host_loopback: Some(self.host_loopback),
            datapath: Some(self.datapath),
            private: Some(self.private),
        }
    }

    /// Whether `asked` describes this network: all that it says is so.
    ///
    /// # Errors
    /// What is otherwise.
    pub(crate) fn fits(&self, asked: &NetworkConfiguration) -> Result<(), ServiceError> {
        let ours = self.configuration();
        let mut different = Vec::new();
        if asked.mode != ours.mode {
            different.push("mode");
        }
        macro_rules! compare {
            ($($field:ident),*) => {$(
                if asked.$field.is_some() && asked.$field != ours.$field {
                    different.push(stringify!($field));
                }
            )*};
        }
        if let Some(uuid) = &asked.uuid
            && self.uuid != text::uuid(uuid)?
        {
            different.push("uuid");
        }
        let method = self
            .bridged
            .as_ref()
            .map(|bridged| bridged::shown(bridged.method));
        if asked.bridge_method.is_some() && asked.bridge_method != method {
            different.push("bridge_method");
        }
        compare!(
            name,
            mtu,
            dhcp,
            dns_proxy,
            nat44,
            ipv6,
            nat66,
            router_advertisement,
            dhcp6,
            external_interface,
            domain,
            lease_seconds,
            isolation,
            host_loopback,
            datapath,
            private
        );
        if let Some(subnet) = &asked.subnet
            && self.ipv4 != Some(text::ipv4(subnet)?)
        {
            different.push("subnet");
        }
        compare!(dhcp_first, dhcp_last);
        if let Some(prefix) = &asked.ipv6_prefix
            && self.ipv6 != Some(text::prefix(prefix)?)
        {
            different.push("ipv6_prefix");
        }
        if let Some(all) = &asked.resolvers {
            let all: Result<Vec<_>, _> = all.iter().map(|one| text::resolver(one)).collect();
            if self.resolvers != Some(all?) {
                different.push("resolvers");
            }
        }
        if different.is_empty() {
            return Ok(());
        }
        let reason = format!(
            "the network {} is there already, and differs in: {}; leave that out, or choose another name",
            self.label(),
            in_words(&different)
        );
        Err(ServiceError::Exists { reason })
    }

    /// What the datapath is to be.
    pub(crate) fn settings(&self) -> Settings {
        let dns = match (self.dns_proxy, self.mode) {
            (false, _) => Dns::Off,
            (true, Mode::Host) => Dns::Local,
            (true, Mode::Shared) => Dns::Proxy,
            (true, Mode::Bridged) => Dns::Off,
        };
        Settings {
            name: self.label(),
            ipv4: self.ipv4,
            host: (self.datapath == Datapath::Kernel).then(|| gateway_mac(self.ipv4, self.ipv6)),
            dhcp: self.dhcp,
            dns,
            nat44: self.nat44,
            ipv6: self.ipv6,
            nat66: self.nat66,
            router_advertisement: self.router_advertisement,
            dhcp6: self.dhcp6.then(|| Dhcp6 {
                lease_time: Duration::from_secs(self.lease_seconds.into()),
            }),
            isolation: self.isolation,
            mtu: self.mtu,
            domain: self.domain.clone(),
            host_loopback: self.host_loopback,
            resolvers: self.resolvers.clone(),
            // A bridged network has no sockets.
            external_interface: self
                .external_interface
                .clone()
                .filter(|_| self.bridged.is_none()),
            moved: None,
            leases: None,
            restored: Vec::new(),
            reservations: Vec::new(),
        }
    }
}

/// Who carries the frames. `kernel`: it can be the kernel.
fn datapath(asked: &NetworkConfiguration, kernel: bool) -> Result<Datapath, ServiceError> {
    let loopback = asked.host_loopback == Some(true);
    match asked.datapath {
        Some(Datapath::Kernel) if loopback => Err(invalid(
            "the host's loopback is reached by the datapath `user` alone: leave out the datapath, or the loopback",
        )),
        Some(asked) => Ok(asked),
        None if kernel && !loopback => Ok(Datapath::Kernel),
        None => Ok(Datapath::User),
    }
}

/// The host gets an address of the subnet, and a route to all of it: nobody of the outside may be there.
fn check_private(subnet: Subnet) -> Result<(), ServiceError> {
    if Subnet::is_private(subnet.network(), subnet.prefix_len()) {
        return Ok(());
    }
    Err(invalid(format!(
        "{subnet} is no private subnet, and the host would lose the outside's: take one of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or 100.64.0.0/10, or the datapath `user`"
    )))
}

/// Refuses what can be on no host.
///
/// # Errors
/// What of it cannot be.
pub(crate) fn possible(asked: &NetworkConfiguration) -> Result<(), ServiceError> {
    match asked.mode {
        Mode::Bridged => bridged::check(asked),
        Mode::Host | Mode::Shared => Plan::make(asked, &Occupied::default()).map(drop),
    }
}

/// A name that is readable everywhere, and a file name too.
fn check_name(name: &str) -> Result<(), ServiceError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let first = name.bytes().next();
    let starts = first.is_some_and(|byte| byte.is_ascii_alphanumeric());
    if !starts || name.len() > NAME_MAX || !name.bytes().all(allowed) {
        return Err(invalid(format!(
            "`{name}` is no network name: use 1 to {NAME_MAX} of the letters a-z A-Z, digits, - _ and ., with a letter or digit first"
        )));
    }
    if Uuid::try_parse(name).is_ok() {
        return Err(invalid(format!("`{name}` is a UUID, and no name")));
    }
    Ok(())
}

/// What belongs to one mode is not asked of another.
fn check_mode(asked: &NetworkConfiguration, private: bool) -> Result<(), ServiceError> {
    if asked.mode == Mode::Host {
        if asked.nat44 == Some(true) {
            return Err(invalid(
                "a host network leads nowhere: NAT needs the mode shared",
            ));
        }
        if asked.nat66 == Some(true) {
            return Err(invalid(
                "a host network leads nowhere: NAT66 needs the mode shared",
            ));
        }
        if asked.external_interface.is_some() {
            return Err(invalid(
                "a host network leads nowhere: an external interface needs the mode shared",
            ));
        }
    } else if private {
        return Err(invalid("a private switch needs the mode host"));
    }
    if private && (asked.dhcp == Some(true) || asked.dns_proxy == Some(true)) {
        return Err(invalid(
            "a private switch has neither DHCP nor DNS: leave one of them out",
        ));
    }
    check_ipv6(asked, private)?;
    let gives = !private && asked.dhcp != Some(false);
    if !gives && (asked.dhcp_first.is_some() || asked.dhcp_last.is_some()) {
        return Err(invalid(
            "a network without DHCP gives no addresses: leave out the first and last one",
        ));
    }
    Ok(())
}

/// What needs IPv6 is not asked of a network without.
fn check_ipv6(asked: &NetworkConfiguration, private: bool) -> Result<(), ServiceError> {
    let mtu = asked.mtu.unwrap_or(MTU);
    let wanted = asked.ipv6_prefix.is_some() || asked.ipv6 == Some(true);
    if wanted && mtu < MTU_MIN_IPV6 {
        return Err(invalid(format!(
            "the MTU is {mtu}; IPv6 needs {MTU_MIN_IPV6} at least: take that, or no IPv6"
        )));
    }
    let services = [asked.nat66, asked.router_advertisement, asked.dhcp6];
    if services.contains(&Some(true)) {
        if asked.ipv6 == Some(false) || mtu < MTU_MIN_IPV6 {
            return Err(invalid(
                "a network without IPv6 has neither NAT66 nor router advertisements nor DHCPv6: leave one of them out",
            ));
        }
        if private {
            return Err(invalid(
                "a private switch has neither router advertisements nor DHCPv6: leave one of them out",
            ));
        }
    }
    if asked.ipv6 == Some(false) && asked.ipv6_prefix.is_some() {
        return Err(invalid(
            "a network without IPv6 has no prefix: leave one of them out",
        ));
    }
    if private && asked.ipv6 == Some(true) && asked.ipv6_prefix.is_none() {
        return Err(invalid(
            "a private switch knows IPv6 by a prefix: give one, like fd12:3456:789a:1::/64",
        ));
    }
    Ok(())
}

/// The addresses that DHCP gives.
fn pool(
    asked: &NetworkConfiguration,
    ipv4: &Ipv4,
    lease_seconds: u32,
) -> Result<Dhcp, ServiceError> {
    let mut pool = Dhcp::whole(ipv4, Duration::from_secs(lease_seconds.into()));
    if let Some(first) = &asked.dhcp_first {
        pool.first = text::address(first)?;
    }
    if let Some(last) = &asked.dhcp_last {
        pool.last = text::address(last)?;
    }
    for address in [pool.first, pool.last] {
        if !ipv4.subnet().is_host(address) {
            return Err(invalid(format!(
                "DHCP cannot give {address}: it is no guest's address in {}",
                ipv4.subnet()
            )));
        }
    }
    if pool.first > pool.last {
        return Err(invalid(format!(
            "DHCP cannot give addresses from {} to {}: the lower comes first",
            pool.first, pool.last
        )));
    }
    Ok(pool)
}

/// As asked, by its name, or random.
pub(crate) fn uuid_of(asked: &NetworkConfiguration) -> Result<Uuid, ServiceError> {
    match (&asked.uuid, &asked.name) {
        (Some(text), _) => text::uuid(text),
        (None, Some(name)) => Ok(Uuid::new_v5(&NAMES, name.as_bytes())),
        (None, None) => Ok(Uuid::new_v4()),
    }
}

/// Settings as people call them, whichever way they were asked for.
fn in_words(settings: &[&'static str]) -> String {
    let mut words: Vec<&str> = settings
        .iter()
        .map(|setting| match *setting {
            "uuid" => "UUID",
            "mtu" => "MTU",
            "dhcp" => "DHCP",
            "dhcp_first" | "dhcp_last" => "DHCP range",
            "dns_proxy" => "DNS proxy",
            "nat44" => "NAT of IPv4",
            "ipv6" => "IPv6",
            "ipv6_prefix" => "IPv6 prefix",
            "nat66" => "NAT of IPv6",
            "router_advertisement" => "router advertisements",
            "dhcp6" => "DHCPv6",
            "external_interface" => "external interface",
            "bridge_method" => "method",
            "lease_seconds" => "lease time",
            "host_loopback" => "host loopback",
            other => other,
        })
        .collect();
    words.dedup();
    words.join(", ")
}

#[cfg(test)]
mod tests;
