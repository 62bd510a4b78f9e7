//! `vmnet network`.

use crate::identity::{NameError, NetworkName};
use crate::span::Span;
use clap::{Subcommand, ValueEnum};
use std::net::{Ipv4Addr, Ipv6Addr};
use vmnet_linux::lane::{Prefix, PrefixError};

const EXAMPLES: &str = "\
Examples:
  vmnet network create lab
  vmnet network list
  vmnet network show lab --counters
  vmnet network delete lab";

const CREATE_EXAMPLES: &str = "\
Examples:
  vmnet network create lab
  vmnet network create lab --subnet 10.77.0.0/24 --dhcp-range 10.77.0.100-10.77.0.199 --lease-time 12h
  vmnet network create six --ipv6-prefix fd12:3456:789a:1::/64    an IPv6 prefix of your own, not a random one
  vmnet network create cage --mode host --isolation      guests see the host, not each other, nor the world
  vmnet network create lan0 --mode bridged --interface eth0    guests are stations of the LAN, with its DHCP
  vmnet network create wire --private                    a switch, and nothing else
  vmnet network create office --resolver 10.0.0.53 --domain office.internal --json";

const LIST_EXAMPLES: &str = "\
Examples:
  vmnet network list
  vmnet network list --json | jq -r '.networks[].name'";

const SHOW_EXAMPLES: &str = "\
Examples:
  vmnet network show lab
  vmnet network show lab --counters --json | jq '.counters[\"drop-spoofed\"]'";

const BRIDGEABLE_EXAMPLES: &str = "\
Examples:
  vmnet network bridgeable
  vmnet network bridgeable --json | jq -r '.interfaces[] | select(.method != null) | .name'";

const DELETE_EXAMPLES: &str = "\
Examples:
  vmnet network delete lab
  vmnet network delete --force lab cage                  also while guests are on them";

/// Networks: make, list, show, delete; the host's interfaces to bridge to.
#[derive(Debug, Subcommand)]
pub(crate) enum NetworkVerb {
    /// Make a network that stays until it is deleted.
    ///
    /// It is there at once, and again whenever the service starts, with its reservations and forwards. `vmnet run --network
    /// NAME` and `vmnet qemu --network NAME` join it. What is not given is chosen: a free subnet, the host's resolvers, a
    /// UUID that belongs to the name.
    #[command(after_help = CREATE_EXAMPLES)]
    Create(Box<Create>),
    /// List the networks.
    #[command(visible_alias = "ls", after_help = LIST_EXAMPLES)]
    List(List),
    /// Show a network: its addresses, its switches, what it counted.
    #[command(after_help = SHOW_EXAMPLES)]
    Show(Show),
    /// List the host's interfaces whose LAN guests can be on, and how.
    #[command(after_help = BRIDGEABLE_EXAMPLES)]
    Bridgeable(List),
    /// Delete networks that were created, with their leases, reservations and forwards.
    #[command(visible_alias = "rm", after_help = DELETE_EXAMPLES)]
    Delete(Delete),
}

#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true, after_help = EXAMPLES)]
pub(crate) struct Network {
    #[command(subcommand)]
    pub(crate) verb: NetworkVerb,
}

/// Where a network leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// To other guests, the host, and through NAT to the world.
    Shared,
    /// To other guests and the host, and no farther.
    Host,
    /// To the LAN of one of the host's interfaces, as stations of it.
    Bridged,
}

/// How guests get onto a LAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Method {
    /// The best that there is: bridge, else packet.
    Auto,
    /// Join the bridge that the interface is, or is a member of.
    Bridge,
    /// Read and write frames at the interface.
    Packet,
    /// A macvtap for each guest.
    Macvtap,
}

/// Who carries a network's frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Datapath {
    /// The service's own thread.
    User,
    /// The kernel, by a bridge and rules.
    Kernel,
}

impl From<Datapath> for openvmnet::service::Datapath {
    fn from(datapath: Datapath) -> Self {
        match datapath {
            Datapath::User => Self::User,
            Datapath::Kernel => Self::Kernel,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// The network's name: at most 32 letters, digits, dots, hyphens and underscores, with a letter or digit first.
    #[arg(value_parser = name)]
    pub(crate) name: String,
    /// Where it leads [default: shared; host with --private]
    #[arg(long)]
    pub(crate) mode: Option<Mode>,
    /// IPv4 subnet, or the gateway's address in it [default: a /24 that the host does not use, of 192.168.64.0 to
    /// 192.168.127.0; in host mode of 192.168.128.0 to 192.168.191.0]
    #[arg(long, value_name = "ADDRESS/LENGTH", value_parser = subnet)]
    pub(crate) subnet: Option<String>,
    /// The addresses that DHCP gives [default: all of the subnet but the gateway's]
    #[arg(long, value_name = "FIRST-LAST", value_parser = address_range)]
    pub(crate) dhcp_range: Option<(Ipv4Addr, Ipv4Addr)>,
    /// Largest packet, 576 to 65520 [default: 1500]
    #[arg(long, value_parser = clap::value_parser!(u16).range(576..=65520))]
    pub(crate) mtu: Option<u16>,
    /// Give no addresses.
    #[arg(long, conflicts_with_all = ["dhcp_range", "lease_time"])]
    pub(crate) no_dhcp: bool,
    /// Answer no DNS questions; guests are told the resolvers themselves.
    #[arg(long)]
    pub(crate) no_dns: bool,
    /// Translate nothing to the outside.
    #[arg(long)]
    pub(crate) no_nat44: bool,
    /// IPv6 prefix inside fd00::/8, of 64 bits [default: a random one that stays with the network; none with --private]
    #[arg(long, value_name = "ADDRESS/64", value_parser = prefix)]
    pub(crate) ipv6_prefix: Option<Prefix>,
    /// Know no IPv6.
    #[arg(long, conflicts_with_all = ["ipv6_prefix", "no_nat66", "no_router_advertisement", "no_dhcp6"])]
    pub(crate) no_ipv6: bool,
    /// Translate no IPv6 to the outside.
    #[arg(long)]
    pub(crate) no_nat66: bool,
    /// Advertise no router: guests get neither an IPv6 prefix nor a way out.
    #[arg(long)]
    pub(crate) no_router_advertisement: bool,
    /// Answer nobody by DHCPv6.
    #[arg(long)]
    pub(crate) no_dhcp6: bool,
    /// The host's interface by which guests reach the outside [default: as the host's routes say]
    #[arg(long, value_name = "IF")]
    pub(crate) external_interface: Option<String>,
    /// In mode bridged: the host's interface whose LAN guests are on; `vmnet network bridgeable` lists them.
    #[arg(long, value_name = "IF", conflicts_with = "external_interface")]
    pub(crate) interface: Option<String>,
    /// In mode bridged: how guests get onto the LAN [default: auto]
    #[arg(long, requires = "interface")]
    pub(crate) method: Option<Method>,
    /// The domain of guests' names [default: vmnet.internal]
    #[arg(long)]
    pub(crate) domain: Option<String>,
    /// Ask this resolver: ADDRESS or ADDRESS:PORT, an IPv6 address with a port in brackets; may be repeated [default: the
    /// host's]
    #[arg(long = "resolver", value_name = "ADDRESS[:PORT]", value_parser = resolver)]
    pub(crate) resolvers: Vec<String>,
    /// How long a lease lasts, like 90s, 30m, 12h or 7d [default: 1d]
    #[arg(long, value_name = "DURATION")]
    pub(crate) lease_time: Option<Span>,
    /// Guests reach the gateway and the outside, but not each other.
    #[arg(long)]
    pub(crate) isolation: bool,
    /// Let the gateway's address reach services on the host's loopback too.
    #[arg(long)]
    pub(crate) host_loopback: bool,
    /// Who carries frames: the service's own thread, or the kernel by a bridge and rules, which takes the machine's service
    /// [default: the kernel, if it can]
    #[arg(long, value_name = "WHO")]
    pub(crate) datapath: Option<Datapath>,
    /// Only a switch, without DHCP and DNS; the host has an address on it if --subnet says which.
    #[arg(long, conflicts_with_all = ["dhcp_range", "lease_time", "domain", "resolvers", "external_interface"])]
    pub(crate) private: bool,
    /// The network's UUID [default: made of the name]
    #[arg(long, value_parser = super::known_uuid)]
    pub(crate) uuid: Option<String>,
    /// Print the network as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    /// The network's name or UUID.
    pub(crate) network: String,
    /// Also what it counted since it began.
    #[arg(long)]
    pub(crate) counters: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Delete {
    /// Names or UUIDs.
    #[arg(required = true, value_name = "NETWORK")]
    pub(crate) networks: Vec<String>,
    /// Also while others use it; their interfaces end.
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// A name for a network, and no UUID.
fn name(text: &str) -> Result<String, String> {
    let name: NetworkName = text.parse().map_err(|error: NameError| error.to_string())?;
    if name.is_uuid() {
        return Err("a UUID is no name: give it with --uuid, and a name".to_owned());
    }
    Ok(text.to_owned())
}

/// `ADDRESS/LENGTH`; which ones can be had is the service's to say.
fn subnet(text: &str) -> Result<String, String> {
    let form = || "say ADDRESS/LENGTH, like 10.77.0.0/24".to_owned();
    let (address, length) = text.split_once('/').ok_or_else(form)?;
    let _address: Ipv4Addr = address.parse().map_err(|_| form())?;
    let length: u8 = length.parse().map_err(|_| form())?;
    if !(16..=30).contains(&length) {
        return Err("the length is 16 to 30".to_owned());
    }
    Ok(text.to_owned())
}

/// `ADDRESS/64` or `ADDRESS`; bits behind the prefix do not matter.
pub(super) fn prefix(text: &str) -> Result<Prefix, String> {
    let form = || "say ADDRESS/64, like fd12:3456:789a:1::/64".to_owned();
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, length.parse().map_err(|_| form())?),
        None => (text, Prefix::LEN),
    };
    let address: Ipv6Addr = address.parse().map_err(|_| form())?;
    if length != Prefix::LEN {
        return Err(PrefixError::Len(length).to_string());
    }
    Prefix::of(address).map_err(|error| error.to_string())
}

fn address_range(text: &str) -> Result<(Ipv4Addr, Ipv4Addr), String> {
    let form = || "say FIRST-LAST, like 10.77.0.100-10.77.0.199".to_owned();
    let (first, last) = text.split_once('-').ok_or_else(form)?;
    let first: Ipv4Addr = first.parse().map_err(|_| form())?;
    let last: Ipv4Addr = last.parse().map_err(|_| form())?;
    if last < first {
        return Err(format!("{last} comes before {first}"));
    }
    Ok((first, last))
}

fn resolver(text: &str) -> Result<String, String> {
    if text.parse::<std::net::IpAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    match text.parse::<std::net::SocketAddr>() {
        Ok(at) if at.port() == 0 => return Err("no resolver listens on port 0".to_owned()),
        Ok(_) => return Ok(text.to_owned()),
        Err(_) => {}
    }
    Err("say ADDRESS or ADDRESS:PORT, like 10.0.0.53, 10.0.0.53:5353 or [fd00::53]:5353".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets() {
        assert_eq!(subnet("10.77.0.1/24").as_deref(), Ok("10.77.0.1/24"));
        for bad in [
            "10.77.0.0",
            "10.77.0/24",
            "10.0.0.0/8",
            "10.0.0.0/31",
            "fd00::/64",
            "",
        ] {
            assert!(subnet(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn prefixes() {
        let lab = "fd12:3456:789a:1::/64";
        for good in [
            lab,
            "fd12:3456:789a:1::",
            "fd12:3456:789a:1::1",
            "fd12:3456:789a:1::1/64",
        ] {
            assert_eq!(prefix(good).unwrap().to_string(), lab, "{good}");
        }
        for (bad, word) in [
            ("fd12::/48", "48"),
            ("fc00::/64", "fd00::/8"),
            ("2001:db8::/64", "fd00::/8"),
            ("10.77.0.0/24", "ADDRESS/64"),
            ("fd12::/", "ADDRESS/64"),
            ("", "ADDRESS/64"),
        ] {
            let error = prefix(bad).unwrap_err();
            assert!(error.contains(word), "{bad}: {error}");
        }
    }

    #[test]
    fn ranges_of_addresses() {
        let (first, last) = address_range("10.0.0.5-10.0.0.5").unwrap();
        assert_eq!(first, last);
        for bad in ["10.0.0.5", "10.0.0.5-10.0.0.4", "10.0.0.5-9", "-", ""] {
            assert!(address_range(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn resolvers() {
        for good in ["10.0.0.53", "10.0.0.53:5353", "fd00::53", "[fd00::53]:5353"] {
            assert!(resolver(good).is_ok(), "{good}");
        }
        for bad in [
            "dns.example",
            "10.0.0.53:",
            "10.0.0.53:0",
            "[fd00::53]:0",
            "[fd00::53]",
            "",
        ] {
            assert!(resolver(bad).is_err(), "{bad}");
        }
    }
}
