//! What can be typed.
//!
//! | file | what |
//! | --- | --- |
//! | here | verbs that bring guests: `run`, `qemu`, `attach` |
//! | `service` | verbs that ask the service |
//! | `network`, `interface`, `identity`, `forward`, `lease`, `status` | one file for each of these |
//! | `daemon` | the service itself |
//! | `doctor` | what can work here |
//! | `pages` | completions and manual pages |

pub(crate) mod daemon;
pub(crate) mod doctor;
pub(crate) mod forward;
pub(crate) mod identity;
pub(crate) mod interface;
pub(crate) mod lease;
pub(crate) mod network;
pub(crate) mod pages;
pub(crate) mod service;
pub(crate) mod status;

use crate::identity::{GuestName, NetworkName};
use crate::port_spec::PortSpec;
use clap::{ArgGroup, Parser, Subcommand};
use openvmnet::place::Scope;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use uuid::Uuid;
use vmnet_core::subnet::SubnetError;
use vmnet_linux::kernel::existing_namespace::Netns;
use vmnet_linux::lane::{Ipv4, MTU_MAX, MTU_MIN, Prefix, Subnet};
use vmnet_wire::ethernet::Mac;

const EXAMPLES: &str = "\
Examples:
  vmnet run -- curl https://example.org         a command on a network of its own
  vmnet run -p 8080:80 -- python3 -m http.server 80
  vmnet qemu -- qemu-system-x86_64 -m 1G disk.qcow2

  vmnet run --network lab --name db -- postgres     a network for several guests, from any shell
  vmnet qemu --network lab --name web -p 8080:80 -- qemu-system-x86_64 -m 1G web.qcow2
  vmnet lease list lab                              who is there
  vmnet forward add lab 2222:web:22
  vmnet status";

const RUN_EXAMPLES: &str = "\
Examples:
  vmnet run -- ping -c3 example.org
  vmnet run -p 127.0.0.1:8080:80 -p 5353:53/udp -- ./server
  vmnet run --root -- ip address
  vmnet run --network lab --name db -- postgres    found by others on lab as db.vmnet.internal";

const QEMU_EXAMPLES: &str = "\
Examples:
  vmnet qemu -- qemu-system-x86_64 -enable-kvm -m 1G disk.qcow2
  vmnet qemu --network lab --name web -p 2222:22 -- qemu-system-aarch64 -M virt -m 1G disk.qcow2";

const ATTACH_EXAMPLES: &str = "\
Examples:
  vmnet attach lab --stream /tmp/lab.sock
  qemu-system-x86_64 ... -netdev stream,id=n0,server=off,addr.type=unix,addr.path=/tmp/lab.sock -device virtio-net,netdev=n0
  vmnet attach lab --vhost-user /tmp/lab.vhost      for a VMM whose guest's memory is shared (a memfd)
  vmnet attach lab --netns 4711 --name web      a card for the namespace of process 4711";

/// Options that stand behind a verb's own.
const EVERY: &str = "Options of every verb";

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "vmnet", version, about = "Rootless virtual networks for virtual machines and commands", subcommand_required = true, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Say more on stderr; twice for debugging, three times for everything. VMNET_LOG sets filters.
    #[arg(short, long, action = clap::ArgAction::Count, global = true, help_heading = EVERY)]
    pub(crate) verbose: u8,
    /// The service of the machine, not this user's: ask it, or be it (`daemon`); as VMNET_SCOPE=system.
    #[arg(long, global = true, help_heading = EVERY)]
    pub(crate) system: bool,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

impl Args {
    /// Whose service is meant, or to be.
    pub(crate) fn scope(&self) -> Scope {
        if self.system {
            Scope::System
        } else {
            Scope::User
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run a command in a network namespace of its own.
    ///
    /// The command gets an interface eth0 with an address by DHCP, a default route and a resolver, and reaches the world
    /// through NAT. It keeps your user and group, and has no capabilities. Its exit status and signals pass through; 125
    /// means that vmnet itself failed, 126 that the command could not be executed, 127 that it was not found. When it
    /// ends, everything it started ends.
    #[command(after_help = RUN_EXAMPLES)]
    Run(Run),
    /// Run QEMU with a NIC on the network.
    ///
    /// Adds a `-netdev` and a virtio-net device to the command line of QEMU 7.2 or later. The MAC belongs to --id, else it is
    /// made from the machine's name: --name, else that of QEMU's own -name, else its disks and arguments.
    #[command(after_help = QEMU_EXAMPLES)]
    Qemu(Qemu),
    /// Join a socket, tap or namespace to a network; ends with Ctrl-C.
    ///
    /// Says in one line on standard output what became of it, once guests may come.
    #[command(after_help = ATTACH_EXAMPLES)]
    Attach(Attach),
    #[command(flatten)]
    Service(service::ServiceVerb),
}

/// How a network is made that is not there yet.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Making {
    /// IPv4 subnet of /16 to /30, or the gateway's address in it [default: the first free /24 from 192.168.64.0 to
    /// 192.168.127.0]
    #[arg(long, value_name = "ADDRESS/LENGTH", value_parser = addresses)]
    pub(crate) subnet: Option<Ipv4>,
    #[arg(
        long,
        value_parser = clap::value_parser!(u16).range(i64::from(MTU_MIN)..=i64::from(MTU_MAX)),
        help = format!("Largest packet, {MTU_MIN} to {MTU_MAX} [default: 1500]")
    )]
    pub(crate) mtu: Option<u16>,
    /// IPv6 prefix inside fd00::/8, of 64 bits [default: a random one]
    #[arg(long, value_name = "ADDRESS/64", value_parser = network::prefix)]
    pub(crate) ipv6_prefix: Option<Prefix>,
    /// Know no IPv6.
    #[arg(long, conflicts_with = "ipv6_prefix")]
    pub(crate) no_ipv6: bool,
    /// Let the gateway's address reach services on the host's loopback too.
    #[arg(long)]
    pub(crate) host_loopback: bool,
}

impl Making {
    /// Whether anything was asked for.
    pub(crate) fn says_something(&self) -> bool {
        self.subnet.is_some()
            || self.mtu.is_some()
            || self.ipv6_prefix.is_some()
            || self.no_ipv6
            || self.host_loopback
    }
}

/// Which network a guest joins, and as whom.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Joining {
    /// Join this network of the service, by name or UUID; made if it is not there [default: a private one]
    #[arg(long)]
    pub(crate) network: Option<NetworkName>,
    /// The guest's name: in DNS, and for an address that stays.
    #[arg(long)]
    pub(crate) name: Option<GuestName>,
    /// The guest's MAC [default: that of --id, else made from the name, random without one]
    #[arg(long, value_parser = station)]
    pub(crate) mac: Option<Mac>,
    /// The guest's identity: the service keeps a MAC for it, for ever.
    #[arg(long, value_name = "UUID", value_parser = uuid, requires = "network")]
    pub(crate) id: Option<Uuid>,
    /// Reach the gateway and the outside, but no other guest.
    #[arg(long, requires = "network")]
    pub(crate) isolated: bool,
    #[arg(
        short,
        long = "publish",
        value_name = "PORT",
        help = "Forward a host port: [ADDR:]HOSTPORT[-END]:GUESTPORT[-END][/tcp|/udp]; without ADDR on all addresses, IPv4 and IPv6"
    )]
    pub(crate) publish: Vec<PortSpec>,
}

/// A name that the kernel takes for an interface: 1 to 15 bytes, no space, no slash, no colon, not of dots alone.
fn interface_name(text: &str) -> Result<String, String> {
    let bad =
        |byte: u8| byte.is_ascii_whitespace() || byte.is_ascii_control() || b"/:%".contains(&byte);
    if text.is_empty() || text.len() > 15 || text == "." || text == ".." || text.bytes().any(bad) {
        return Err(format!(
            "`{text}` is no name of an interface: use 1 to 15 letters, digits, - _ and ."
        ));
    }
    Ok(text.to_owned())
}

/// `ADDRESS/LENGTH`: a subnet, whose first address is the gateway's then, or the gateway's address in it.
fn addresses(text: &str) -> Result<Ipv4, String> {
    let (subnet, gateway) = match text.parse() {
        Ok(subnet) => return Ok(Ipv4::new(subnet)),
        Err(SubnetError::HostBits(gateway, length, network)) => {
            (Subnet::new(network, length), gateway)
        }
        Err(error) => return Err(error.to_string()),
    };
    let subnet = subnet.map_err(|error| error.to_string())?;
    Ipv4::with_gateway(subnet, gateway).map_err(|error| error.to_string())
}

/// A UUID, as it was said.
fn known_uuid(text: &str) -> Result<String, String> {
    uuid(text).map(|_| text.to_owned())
}

/// An id of an interface.
fn uuid(text: &str) -> Result<Uuid, String> {
    Uuid::try_parse(text)
        .map_err(|_| "say a UUID, like 2835e074-9892-4a79-affb-7e41d2605678".to_owned())
}

/// An address of either family.
pub(crate) fn address(text: &str) -> Result<IpAddr, String> {
    let refused = |_| "say an IPv4 or IPv6 address, like 192.168.64.10 or fd12::10".to_owned();
    text.parse().map_err(refused)
}

/// What the service has given a number.
pub(crate) fn number(text: &str) -> Result<u64, String> {
    let refused = |_| "say a number, as the list shows it".to_owned();
    text.parse().map_err(refused)
}

/// The MAC of one station.
fn station(text: &str) -> Result<Mac, String> {
    let mac: Mac = text.parse().map_err(|error| format!("{error}"))?;
    if !mac.is_unicast() {
        return Err(format!(
            "{mac} is a group or no address: the first byte is even, like in 52:54:00:12:34:56"
        ));
    }
    Ok(mac)
}

#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) joining: Joining,
    #[command(flatten)]
    pub(crate) making: Making,
    /// The command appears as user 0 with capabilities over its own network, for ip, nft, DHCP clients.
    #[arg(long)]
    pub(crate) root: bool,
    /// Bring the interface up and leave it unconfigured, for a DHCP client of yours.
    #[arg(long)]
    pub(crate) no_dhcp: bool,
    /// The command and its arguments.
    #[arg(trailing_var_arg = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// How frames travel between QEMU and us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum NicKind {
    /// A tap if the kernel carries the network's frames, else vhost-user if the machine can have it, else a socket.
    Auto,
    /// A tap on the bridge of a network whose frames the kernel carries.
    Tap,
    /// Rings in the guest's memory, which is shared.
    VhostUser,
    /// A socket.
    Socket,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Qemu {
    #[command(flatten)]
    pub(crate) joining: Joining,
    #[command(flatten)]
    pub(crate) making: Making,
    /// How frames travel between QEMU and the network.
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) nic: NicKind,
    /// Pairs of rings, for a guest with several processors; by vhost-user or a tap.
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u8).range(1..=16))]
    pub(crate) queues: u8,
    /// QEMU and its arguments.
    #[arg(trailing_var_arg = true, required = true, value_name = "QEMU")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("kind").required(true).args(["stream", "dgram", "vhost_user", "fd", "tap", "netns"])))]
pub(crate) struct Attach {
    /// The network's name or UUID; it is made if it is not there.
    pub(crate) network: NetworkName,
    #[command(flatten)]
    pub(crate) making: Making,
    /// Listen here for clients in the framing of QEMU's `-netdev stream`.
    #[arg(long, value_name = "PATH")]
    pub(crate) stream: Option<PathBuf>,
    /// Receive frames here as datagrams, as vfkit and libkrun send them.
    #[arg(long, value_name = "PATH")]
    pub(crate) dgram: Option<PathBuf>,
    /// Listen here for the VMM of one guest that shares its memory: vhost-user, the fastest way.
    #[arg(long, value_name = "PATH")]
    pub(crate) vhost_user: Option<PathBuf>,
    /// The VMM is the one that listens there: connect to it, again and again.
    #[arg(long, requires = "vhost_user", conflicts_with_all = ["stream", "dgram", "fd", "tap", "netns"])]
    pub(crate) connect: bool,
    /// An open descriptor: a stream, datagram or sequenced-packet unix socket, or a tap with a virtio-net header.
    #[arg(long, value_name = "N")]
    pub(crate) fd: Option<i32>,
    /// A tap of the host that this user may open.
    #[arg(long, value_name = "IFNAME")]
    pub(crate) tap: Option<String>,
    /// A network namespace of this user, by a process in it or by its file: gets an interface.
    #[arg(long, value_name = "PID|PATH")]
    pub(crate) netns: Option<Netns>,
    /// The interface's name in the namespace.
    #[arg(
        long,
        value_name = "IFNAME",
        value_parser = interface_name,
        default_value = "eth0",
        conflicts_with_all = ["stream", "dgram", "vhost_user", "fd", "tap"]
    )]
    pub(crate) ifname: String,
    /// Bring the namespace's interface up and leave it unconfigured, for a DHCP client of yours.
    #[arg(long, requires = "netns", conflicts_with_all = ["stream", "dgram", "vhost_user", "fd", "tap"])]
    pub(crate) no_dhcp: bool,
    /// The guest's name in DNS.
    #[arg(long, conflicts_with_all = ["stream", "dgram"])]
    pub(crate) name: Option<GuestName>,
    /// The guest's MAC, if the network should accept no other.
    #[arg(long, value_parser = station)]
    pub(crate) mac: Option<Mac>,
    /// The guest's identity: the service keeps a MAC for it, for ever.
    #[arg(long, value_name = "UUID", value_parser = uuid)]
    pub(crate) id: Option<Uuid>,
    /// Reach the gateway and the outside, but no other guest.
    #[arg(long)]
    pub(crate) isolated: bool,
    /// Frames have a virtio-net header of 12 bytes in front.
    #[arg(long, conflicts_with_all = ["tap", "netns", "vhost_user"])]
    pub(crate) virtio_header: bool,
    /// TCP frames of up to 64 KiB pass in one.
    #[arg(long, conflicts_with_all = ["tap", "netns", "vhost_user"])]
    pub(crate) tso: bool,
    /// Make checksums where guests leave them out.
    #[arg(long, conflicts_with_all = ["tap", "netns", "vhost_user", "virtio_header"])]
    pub(crate) checksum_offload: bool,
    #[arg(
        short,
        long = "publish",
        value_name = "PORT",
        help = "Forward a host port to the guest: [ADDR:]HOSTPORT[-END]:GUESTPORT[-END][/tcp|/udp]"
    )]
    pub(crate) publish: Vec<PortSpec>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn what_follows_the_dashes_is_the_commands() {
        let args = Args::parse_from(["vmnet", "run", "-p", "80:80", "--", "ls", "-v", "--name"]);
        let Verb::Run(run) = args.verb else {
            panic!("another verb")
        };
        assert_eq!(run.command, ["ls", "-v", "--name"]);
        assert_eq!(run.joining.publish.len(), 1);
        assert_eq!(args.verbose, 0);
        // Without dashes the first word that is no option begins the command.
        let args = Args::parse_from(["vmnet", "run", "--root", "ls", "-v", "--", "-p"]);
        let Verb::Run(run) = args.verb else {
            panic!("another verb")
        };
        assert_eq!(run.command, ["ls", "-v", "--", "-p"]);
        assert!(run.root && args.verbose == 0);
    }

    #[test]
    fn subnets_and_mtus_are_those_that_a_network_can_have() {
        for (words, good) in [
            ("--subnet=10.0.0.0/16", true),
            ("--subnet=172.16.0.8/30", true),
            ("--subnet=10.0.0.0/15", false),
            ("--subnet=10.0.0.0/8", false),
            ("--subnet=10.0.0.0/31", false),
            // The gateway's address.
            ("--subnet=10.0.0.1/24", true),
            ("--subnet=10.0.0.200/24", true),
            ("--subnet=10.0.0.255/24", false),
            ("--subnet=10.0.0.1", false),
            ("--subnet=10.0.0.1/33", false),
            ("--subnet=127.0.0.0/24", false),
            ("--mtu=575", false),
            ("--mtu=576", true),
            ("--mtu=65520", true),
            ("--mtu=65521", false),
        ] {
            let parsed = Args::try_parse_from(["vmnet", "run", words, "--", "true"]);
            assert_eq!(parsed.is_ok(), good, "{words}");
        }
    }

    #[test]
    fn what_would_do_nothing_is_refused() {
        let attach = |words: &str| {
            let words = format!("vmnet attach lan {words}");
            Args::try_parse_from(words.split_whitespace()).is_ok()
        };
        for good in [
            "--stream s",
            "--vhost-user s --connect --name web",
            "--netns 1 --ifname eth1 --no-dhcp --name web",
            "--fd 3 --name web",
        ] {
            assert!(attach(good), "{good}");
        }
        for bad in [
            "--stream s --connect",
            "--stream s --name web",
            "--dgram s --name web",
            "--stream s --ifname foo",
            "--tap t0 --ifname foo",
            "--fd 3 --no-dhcp",
            "--netns 1 --ifname a/b",
            "--netns 1 --ifname sixteen-letters-",
        ] {
            assert!(!attach(bad), "{bad}");
        }
        assert!(interface_name("").is_err());
    }

    #[test]
    fn mistakes_are_told_in_our_words() {
        for (words, said) in [
            ("interface stop abc", "say a number"),
            ("lease release lan foo", "say an IPv4 or IPv6 address"),
            ("run --network lan --id me -- true", "say a UUID"),
            ("identity forget me", "say a UUID"),
            ("network create lan --uuid me", "say a UUID"),
            ("network create -- -lan", "is no network name"),
            (
                "network create 2835e074-9892-4a79-affb-7e41d2605678",
                "--uuid",
            ),
        ] {
            let typed = format!("vmnet {words}");
            let refused = Args::try_parse_from(typed.split_whitespace()).unwrap_err();
            assert!(refused.to_string().contains(said), "{refused}");
        }
    }

    #[test]
    fn a_guest_has_a_mac_of_its_own() {
        assert!(station("52:54:00:12:34:56").is_ok());
        for bad in [
            "ff:ff:ff:ff:ff:ff",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "52:54",
        ] {
            assert!(station(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_named_network_may_be_made_by_who_joins_it() {
        for flag in [
            "--subnet=10.0.0.0/24",
            "--mtu=9000",
            "--ipv6-prefix=fd12::/64",
            "--no-ipv6",
            "--host-loopback",
        ] {
            let words = ["vmnet", "run", "--network", "lan", flag, "--", "true"];
            assert!(Args::try_parse_from(words).is_ok(), "{flag}");
        }
    }

    #[test]
    fn what_only_the_service_knows_needs_its_network() {
        let id = "--id=6a1e4f2c-5d0b-4c57-9d0e-1f2a3b4c5d6e";
        for flag in [id, "--isolated"] {
            assert!(Args::try_parse_from(["vmnet", "run", flag, "--", "true"]).is_err());
            let words = ["vmnet", "run", "--network", "lan", flag, "--", "true"];
            assert!(Args::try_parse_from(words).is_ok(), "{flag}");
        }
    }
}
