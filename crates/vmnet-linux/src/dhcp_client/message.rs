//! DHCP messages to bytes and back (RFC 2131 §2, options of RFC 2132, 3397, 3442).

use super::{Identity, Lease, Route};
use dhcproto::v4::{DhcpOption, HType, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable as _, Decoder, Encodable as _, Encoder};
use std::net::Ipv4Addr;
use std::time::Duration;

/// The shortest message a relay must pass (RFC 1542 §2.1).
const MIN_LENGTH: usize = 300;
/// What we take: an Ethernet packet without IP and UDP headers.
const MAX_LENGTH: u16 = 1472;
/// Longer than this no lease is believed, so that arithmetic with times stays in range: 10 years.
const MAX_DURATION: u32 = 315_360_000;

/// What a client asks (RFC 2131 §4.3.2, §4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// Who has an address?
    Discover,
    /// That offer, please.
    Request { address: Ipv4Addr, server: Ipv4Addr },
    /// May I keep it? For renewing and rebinding.
    Extend { address: Ipv4Addr },
    /// I need it no more.
    Release { address: Ipv4Addr, server: Ipv4Addr },
}

/// What a server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// You could have this.
    Offer { address: Ipv4Addr, server: Ipv4Addr },
    /// It is yours.
    Ack(Lease),
    /// You cannot have what you asked for.
    Nak,
}

/// The bytes of a question; `None` if they cannot be made, which needs a host name beyond 255 bytes.
pub(super) fn write(ask: Ask, identity: &Identity, xid: u32, seconds: u16) -> Option<Vec<u8>> {
    let nowhere = Ipv4Addr::UNSPECIFIED;
    let current = match ask {
        Ask::Extend { address } | Ask::Release { address, .. } => address,
        Ask::Discover | Ask::Request { .. } => nowhere,
    };
    let mut message =
        Message::new_with_id(xid, current, nowhere, nowhere, nowhere, &identity.mac.0);
    message
        .set_opcode(Opcode::BootRequest)
        .set_htype(HType::Eth)
        .set_secs(seconds);
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(match ask {
        Ask::Discover => MessageType::Discover,
        Ask::Request { .. } | Ask::Extend { .. } => MessageType::Request,
        Ask::Release { .. } => MessageType::Release,
    }));
    options.insert(DhcpOption::ClientIdentifier(client_id(identity)));
    match ask {
        Ask::Request { address, server } => {
            options.insert(DhcpOption::RequestedIpAddress(address));
            options.insert(DhcpOption::ServerIdentifier(server));
        }
        Ask::Release { server, .. } => {
            options.insert(DhcpOption::ServerIdentifier(server));
        }
        Ask::Discover | Ask::Extend { .. } => {}
    }
    if !matches!(ask, Ask::Release { .. }) {
        if let Some(name) = &identity.host_name {
            options.insert(DhcpOption::Hostname(name.clone()));
        }
        options.insert(DhcpOption::MaxMessageSize(MAX_LENGTH));
        options.insert(DhcpOption::ParameterRequestList(wanted()));
    }
    let mut bytes = Vec::with_capacity(MIN_LENGTH);
    message.encode(&mut Encoder::new(&mut bytes)).ok()?;
    if bytes.len() < MIN_LENGTH {
        bytes.resize(MIN_LENGTH, 0);
    }
    Some(bytes)
}

/// What we want to be told. RFC 3442 wants option 121 before option 3.
fn wanted() -> Vec<OptionCode> {
    vec![
        OptionCode::SubnetMask,
        OptionCode::ClasslessStaticRoute,
        OptionCode::Router,
        OptionCode::DomainNameServer,
        OptionCode::DomainName,
        OptionCode::InterfaceMtu,
        OptionCode::AddressLeaseTime,
        OptionCode::ServerIdentifier,
        OptionCode::Renewal,
        OptionCode::Rebinding,
        OptionCode::DomainSearch,
    ]
}

/// Type 1, Ethernet, and the MAC (RFC 2132 §9.14).
fn client_id(identity: &Identity) -> Vec<u8> {
    let mut id = vec![1];
    id.extend_from_slice(&identity.mac.0);
    id
}

/// What a server's bytes say to us; `None` if they are no answer, not to us, or lack what RFC 2131 table 3 demands.
pub(super) fn read(bytes: &[u8], identity: &Identity, xid: u32) -> Option<Answer> {
    let message = Message::decode(&mut Decoder::new(bytes)).ok()?;
    let to_us = message.opcode() == Opcode::BootReply
        && message.xid() == xid
        && message.hlen() == 6
        && message.chaddr().get(..6) == Some(&identity.mac.0);
    if !to_us {
        return None;
    }
    // RFC 6842 §3: a client identifier that comes back must be ours.
    if let Some(DhcpOption::ClientIdentifier(id)) = message.opts().get(OptionCode::ClientIdentifier)
        && *id != client_id(identity)
    {
        return None;
    }
    match message.opts().msg_type()? {
        MessageType::Offer => Some(Answer::Offer {
            address: given(&message)?,
            server: server(&message)?,
        }),
        MessageType::Ack => lease(&message).map(Answer::Ack),
        MessageType::Nak => Some(Answer::Nak),
        _ => None,
    }
}

fn given(message: &Message) -> Option<Ipv4Addr> {
    let address = message.yiaddr();
    let usable = !address.is_unspecified()
        && !address.is_multicast()
        && !address.is_broadcast()
        && !address.is_loopback();
    usable.then_some(address)
}

fn server(message: &Message) -> Option<Ipv4Addr> {
    match message.opts().get(OptionCode::ServerIdentifier) {
        Some(DhcpOption::ServerIdentifier(server)) => Some(*server),
        _ => None,
    }
}

fn lease(message: &Message) -> Option<Lease> {
    let address = given(message)?;
    let number = |code| match message.opts().get(code) {
        Some(
            DhcpOption::AddressLeaseTime(seconds)
            | DhcpOption::Renewal(seconds)
            | DhcpOption::Rebinding(seconds),
        ) => Some(*seconds),
        _ => None,
    };
    let seconds = number(OptionCode::AddressLeaseTime)?.clamp(1, MAX_DURATION);
    let duration = Duration::from_secs(seconds.into());
    // RFC 2131 §4.4.5: half and seven eighths, unless the server says otherwise and it makes sense.
    let rebind_after = number(OptionCode::Rebinding)
        .filter(|&t2| t2 < seconds)
        .map_or(duration * 7 / 8, |t2| Duration::from_secs(t2.into()));
    let renew_after = number(OptionCode::Renewal)
        .map(|t1| Duration::from_secs(t1.into()))
        .filter(|&t1| t1 < rebind_after)
        .unwrap_or_else(|| (duration / 2).min(rebind_after));
    let prefix_len = prefix_len(message, address);
    Some(Lease {
        address,
        prefix_len,
        server: server(message)?,
        duration,
        renew_after,
        rebind_after,
        routes: routes(message, address, prefix_len),
        resolvers: match message.opts().get(OptionCode::DomainNameServer) {
            Some(DhcpOption::DomainNameServer(resolvers)) => resolvers.clone(),
            _ => Vec::new(),
        },
        domain: match message.opts().get(OptionCode::DomainName) {
            Some(DhcpOption::DomainName(name)) => domain(name),
            _ => None,
        },
        search: match message.opts().get(OptionCode::DomainSearch) {
            Some(DhcpOption::DomainSearch(names)) => names
                .iter()
                .filter_map(|name| domain(&name.to_string()))
                .collect(),
            _ => Vec::new(),
        },
        mtu: match message.opts().get(OptionCode::InterfaceMtu) {
            // RFC 2132 §5.1: 68 is the least.
            Some(DhcpOption::InterfaceMtu(mtu)) if *mtu >= 68 => Some(*mtu),
            _ => None,
        },
    })
}

/// From the mask; without one, by the address' class, as in the days without masks.
fn prefix_len(message: &Message, address: Ipv4Addr) -> u8 {
    if let Some(DhcpOption::SubnetMask(mask)) = message.opts().get(OptionCode::SubnetMask) {
        let ones = u32::from(*mask).leading_ones();
        return u8::try_from(ones).unwrap_or(32);
    }
    match address.octets() {
        [0..128, ..] => 8,
        [128..192, ..] => 16,
        _ => 24,
    }
}

/// RFC 3442: option 121 replaces option 3. A router beyond the subnet is first made reachable on the link.
fn routes(message: &Message, address: Ipv4Addr, prefix_len: u8) -> Vec<Route> {
    let mut routes = Vec::new();
    if let Some(DhcpOption::ClasslessStaticRoute(given)) =
        message.opts().get(OptionCode::ClasslessStaticRoute)
    {
        for (network, gateway) in given {
            routes.push(Route {
                network: network.trunc().addr(),
                prefix_len: network.prefix_len(),
                gateway: (!gateway.is_unspecified()).then_some(*gateway),
            });
        }
    } else if let Some(DhcpOption::Router(routers)) = message.opts().get(OptionCode::Router)
        && let Some(router) = routers.first()
    {
        routes.push(Route {
            network: Ipv4Addr::UNSPECIFIED,
            prefix_len: 0,
            gateway: Some(*router),
        });
    }
    let hosts = u32::MAX.checked_shr(prefix_len.into()).unwrap_or(0);
    let on_subnet = |router: Ipv4Addr| (u32::from(router) ^ u32::from(address)) & !hosts == 0;
    let mut ordered: Vec<Route> = routes
        .iter()
        .copied()
        .filter(|route| route.gateway.is_none())
        .collect();
    for route in &routes {
        if let Some(gateway) = route.gateway {
            let direct = Route {
                network: gateway,
                prefix_len: 32,
                gateway: None,
            };
            if !on_subnet(gateway) && !ordered.contains(&direct) {
                ordered.push(direct);
            }
        }
    }
    ordered.extend(routes.into_iter().filter(|route| route.gateway.is_some()));
    ordered
}

/// A domain that may stand in a resolver file: nothing that could end the line or the word.
fn domain(name: &str) -> Option<String> {
    let name = name.trim_end_matches(['.', '\0']);
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (!name.is_empty() && name.bytes().all(fine)).then(|| name.to_owned())
}

#[cfg(test)]
#[path = "message/tests.rs"]
pub(super) mod tests;
