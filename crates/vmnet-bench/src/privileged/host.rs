//! A host with a card on a LAN, where the server is a station: a namespace for each measurement, so that no rules and no
//! connections of an earlier one are in the way.

use crate::control::Refusal;
use crate::namespace::Namespace;
use crate::testbed::Testbed;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The card.
pub(super) const CARD: &str = "lan0";
/// The bridge that a card is a member of.
const BRIDGE: &str = "br0";
/// LANs of a run that do not meet.
const LANS: usize = 200;
/// The MTU of the LAN.
pub(super) const MTU: u32 = 1500;

/// How the host is on its LAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// The card has the addresses.
    Plain,
    /// The card is a member of a bridge, which has them.
    Bridge,
}

/// One that is held.
pub(super) struct Host {
    pub(super) namespace: Namespace,
    number: u8,
}

/// A station of the LAN.
#[derive(Debug, Clone, Copy)]
pub(super) enum Station {
    Host = 1,
    Server = 2,
    Guest = 3,
}

impl Host {
    /// A host that reaches the server's usual addresses by its card.
    pub(super) fn new(shape: Shape, testbed: &mut Testbed) -> Result<Self, Refusal> {
        let number = testbed.fresh_number() % LANS;
        let number = u8::try_from(number).map_err(|error| error.to_string())?;
        let this = Self {
            namespace: Namespace::new()?,
            number,
        };
        let (host, server) = (&this.namespace, testbed.server_side());
        let theirs = format!("port{number}");
        host.ip(&format!(
            "link add {CARD} mtu {MTU} type veth peer name {theirs} mtu {MTU} netns {}",
            server.path()
        ))?;
        server.ip(&format!("link set {theirs} up"))?;
        host.ip(&format!("link set {CARD} up"))?;
        let with_addresses = match shape {
            Shape::Plain => CARD,
            Shape::Bridge => {
                host.ip(&format!("link add {BRIDGE} type bridge forward_delay 0"))?;
                host.ip(&format!("link set {CARD} master {BRIDGE}"))?;
                host.ip(&format!("link set {BRIDGE} up"))?;
                BRIDGE
            }
        };
        this.give(host, with_addresses, Station::Host)?;
        this.give(server, &theirs, Station::Server)?;
        this.lead_out(host)?;
        Ok(this)
    }

    /// Gives an interface the addresses of a station.
    pub(super) fn give(
        &self,
        namespace: &Namespace,
        interface: &str,
        station: Station,
    ) -> Result<(), Refusal> {
        let (v4, v6) = self.addresses(station);
        namespace.ip(&format!("addr add {v4}/24 dev {interface}"))?;
        namespace.ip(&format!("addr add {v6}/64 dev {interface} nodad"))?;
        Ok(())
    }

    /// Leads all that a station sends to the server.
    pub(super) fn lead_out(&self, namespace: &Namespace) -> Result<(), Refusal> {
        let (v4, v6) = self.addresses(Station::Server);
        namespace.ip(&format!("route add default via {v4}"))?;
        namespace.ip(&format!("-6 route add default via {v6}"))?;
        Ok(())
    }

    /// 198.18.16.0/24 and up, and the same in IPv6.
    pub(super) fn addresses(&self, station: Station) -> (Ipv4Addr, Ipv6Addr) {
        let last = station as u8;
        let lan = 16 + self.number;
        let v6 = Ipv6Addr::new(0x2001, 2, 0, 0x1000 + u16::from(lan), 0, 0, 0, last.into());
        (Ipv4Addr::new(198, 18, lan, last), v6)
    }
}
