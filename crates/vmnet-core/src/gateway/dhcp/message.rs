//! Bytes to messages and back. The only file that knows `dhcproto`.
//!
//! `dhcproto` walks the options and writes them; what it gives for an option are raw bytes, which are read
//! here: its typed reader asserts lengths that a guest chooses. Options that come in several pieces are put
//! together over the options, `file` and `sname` fields (RFC 3396 §7), the latter two if option 52 says so.

use super::Drop;
use crate::gateway::register::MAX_CLIENT_ID;
use dhcproto::v4::borrowed::{self, DhcpOptionIterator};
use dhcproto::v4::{DhcpOption, HType, MAGIC, MessageType, Opcode, OptionCode, UnknownOption};
use dhcproto::{Encodable, Encoder};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use vmnet_wire::ethernet::Mac;

/// What a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An offer.
    Discover,
    /// An address, or more time for it.
    Request,
    /// Another address: this one is in use.
    Decline,
    /// Nothing more: the address is given back.
    Release,
    /// Parameters only.
    Inform,
}

/// A request, as far as a server cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: Kind,
    pub(super) xid: u32,
    pub(super) flags: u16,
    /// The address the client has; `None` is 0.0.0.0.
    pub(super) ciaddr: Option<Ipv4Addr>,
    pub(super) chaddr: Mac,
    /// Option 50.
    pub(super) requested: Option<Ipv4Addr>,
    /// Option 51, in seconds.
    pub(super) lease_time: Option<u32>,
    /// Option 54.
    pub(super) server: Option<Ipv4Addr>,
    /// Option 55, a code each.
    pub(super) wanted: Option<Vec<u8>>,
    /// Option 57.
    pub(super) max_size: Option<u16>,
    /// Option 61, not empty.
    pub(super) client_id: Option<Vec<u8>>,
    /// Option 12.
    pub(super) host_name: Option<Vec<u8>>,
    /// Option 81.
    pub(super) fqdn: Option<Vec<u8>>,
}

impl Message {
    /// Whether the client cannot take unicast before it has an address (RFC 2131 §4.1).
    pub(super) fn wants_broadcast(&self) -> bool {
        self.flags & 0x8000 != 0
    }
}

/// Reads a request.
pub(super) fn read(payload: &[u8]) -> Result<Message, Drop> {
    let header = borrowed::Message::new(payload).map_err(|_| Drop::Malformed)?;
    if header.opcode() != Opcode::BootRequest {
        return Err(Drop::NotARequest);
    }
    let chaddr = payload
        .get(28..34)
        .and_then(|bytes| bytes.try_into().ok())
        .map(Mac);
    let chaddr = chaddr
        .filter(|mac| header.htype() == HType::Eth && header.hlen() == 6 && mac.is_unicast())
        .ok_or(Drop::NotEthernet)?;
    if header.giaddr() != Ipv4Addr::UNSPECIFIED {
        return Err(Drop::Relayed);
    }
    if payload.get(236..240) != Some(&MAGIC) {
        return Err(Drop::Bootp);
    }
    let mut options = options(&header, payload)?;
    let mut text = |code: OptionCode| {
        options
            .remove(&code.into())
            .filter(|bytes| !bytes.is_empty())
    };
    let client_id = text(OptionCode::ClientIdentifier);
    if client_id
        .as_ref()
        .is_some_and(|id| id.len() > MAX_CLIENT_ID)
    {
        return Err(Drop::ClientIdTooLong);
    }
    let (host_name, fqdn) = (text(OptionCode::Hostname), text(OptionCode::ClientFQDN));
    let wanted = text(OptionCode::ParameterRequestList);
    let address = |code| Ok::<_, Drop>(fixed(&options, code)?.map(Ipv4Addr::from));
    Ok(Message {
        kind: kind(&options)?,
        xid: header.xid(),
        flags: header.flags().into(),
        ciaddr: Some(header.ciaddr()).filter(|address| !address.is_unspecified()),
        chaddr,
        requested: address(OptionCode::RequestedIpAddress)?
            .filter(|address| !address.is_unspecified()),
        lease_time: fixed(&options, OptionCode::AddressLeaseTime)?.map(u32::from_be_bytes),
        server: address(OptionCode::ServerIdentifier)?,
        wanted,
        max_size: fixed(&options, OptionCode::MaxMessageSize)?.map(u16::from_be_bytes),
        client_id,
        host_name,
        fqdn,
    })
}

type Options = BTreeMap<u8, Vec<u8>>;

/// Every option with its pieces put together.
fn options(header: &borrowed::Message<'_>, payload: &[u8]) -> Result<Options, Drop> {
    let mut options = Options::new();
    gather(&mut options, header.opts());
    let overload = fixed(&options, OptionCode::OptionOverload)?.map_or(0, |[bits]| bits);
    if overload & 1 != 0 {
        gather(
            &mut options,
            DhcpOptionIterator::new(payload.get(108..236).unwrap_or_default()),
        );
    }
    if overload & 2 != 0 {
        gather(
            &mut options,
            DhcpOptionIterator::new(payload.get(44..108).unwrap_or_default()),
        );
    }
    Ok(options)
}

fn gather(options: &mut Options, field: DhcpOptionIterator<'_>) {
    for option in field {
        options
            .entry(option.code().into())
            .or_default()
            .extend_from_slice(option.data());
    }
}

/// An option of a fixed length.
fn fixed<const N: usize>(options: &Options, code: OptionCode) -> Result<Option<[u8; N]>, Drop> {
    let bytes = options.get(&code.into());
    bytes
        .map(|bytes| bytes.as_slice().try_into().map_err(|_| Drop::Malformed))
        .transpose()
}

fn kind(options: &Options) -> Result<Kind, Drop> {
    let [kind] = fixed(options, OptionCode::MessageType)?.ok_or(Drop::Bootp)?;
    match MessageType::from(kind) {
        MessageType::Discover => Ok(Kind::Discover),
        MessageType::Request => Ok(Kind::Request),
        MessageType::Decline => Ok(Kind::Decline),
        MessageType::Release => Ok(Kind::Release),
        MessageType::Inform => Ok(Kind::Inform),
        MessageType::Offer
        | MessageType::Ack
        | MessageType::Nak
        | MessageType::ForceRenew
        | MessageType::LeaseQuery
        | MessageType::LeaseUnassigned
        | MessageType::LeaseUnknown
        | MessageType::LeaseActive
        | MessageType::BulkLeaseQuery
        | MessageType::LeaseQueryDone
        | MessageType::ActiveLeaseQuery
        | MessageType::LeaseQueryStatus
        | MessageType::Tls
        | MessageType::Unknown(_) => Err(Drop::UnknownMessage),
    }
}

/// What a server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This address could be yours.
    Offer,
    /// So be it.
    Ack,
    /// Not that address; start anew.
    Nak,
}

/// An option of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Parameter {
    Verdict(Verdict),
    Server(Ipv4Addr),
    LeaseTime(u32),
    Renewal(u32),
    Rebinding(u32),
    Mask(Ipv4Addr),
    Router(Ipv4Addr),
    Resolvers(Vec<Ipv4Addr>),
    HostName(String),
    Domain(String),
    Mtu(u16),
    Broadcast(Ipv4Addr),
    Search(Vec<String>),
    Routes(Vec<(Ipv4Addr, u8, Ipv4Addr)>),
    Reason(&'static str),
    ClientId(Vec<u8>),
}

impl Parameter {
    /// Whether a client cannot do without, so that it comes before all others where space is short.
    fn is_needed(&self) -> bool {
        match self {
            Self::Verdict(_)
            | Self::Server(_)
            | Self::LeaseTime(_)
            | Self::Renewal(_)
            | Self::Rebinding(_)
            | Self::Mask(_)
            | Self::Router(_)
            | Self::Resolvers(_)
            | Self::ClientId(_) => true,
            Self::HostName(_)
            | Self::Domain(_)
            | Self::Mtu(_)
            | Self::Broadcast(_)
            | Self::Search(_)
            | Self::Routes(_)
            | Self::Reason(_) => false,
        }
    }

    fn into_option(self) -> DhcpOption {
        let raw = |code, bytes| DhcpOption::Unknown(UnknownOption::new(code, bytes));
        match self {
            Self::Verdict(Verdict::Offer) => DhcpOption::MessageType(MessageType::Offer),
            Self::Verdict(Verdict::Ack) => DhcpOption::MessageType(MessageType::Ack),
            Self::Verdict(Verdict::Nak) => DhcpOption::MessageType(MessageType::Nak),
            Self::Server(address) => DhcpOption::ServerIdentifier(address),
            Self::LeaseTime(seconds) => DhcpOption::AddressLeaseTime(seconds),
            Self::Renewal(seconds) => DhcpOption::Renewal(seconds),
            Self::Rebinding(seconds) => DhcpOption::Rebinding(seconds),
            Self::Mask(mask) => DhcpOption::SubnetMask(mask),
            Self::Router(address) => DhcpOption::Router(vec![address]),
            Self::Resolvers(addresses) => DhcpOption::DomainNameServer(addresses),
            Self::HostName(name) => DhcpOption::Hostname(name),
            Self::Domain(name) => DhcpOption::DomainName(name),
            Self::Mtu(mtu) => DhcpOption::InterfaceMtu(mtu),
            Self::Broadcast(address) => DhcpOption::BroadcastAddr(address),
            Self::Search(names) => raw(OptionCode::DomainSearch, search_list(&names)),
            Self::Routes(routes) => raw(OptionCode::ClasslessStaticRoute, route_list(&routes)),
            Self::Reason(text) => DhcpOption::Message(text.to_owned()),
            Self::ClientId(id) => DhcpOption::ClientIdentifier(id),
        }
    }
}

/// Names in DNS wire format, one behind the other (RFC 3397 §2), without compression: some clients cannot
/// follow pointers over the border of two pieces.
fn search_list(names: &[String]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for name in names {
        for label in name.split('.') {
            bytes.push(u8::try_from(label.len()).unwrap_or(0));
            bytes.extend_from_slice(label.as_bytes());
        }
        bytes.push(0);
    }
    bytes
}

/// Prefix length, the significant bytes of the network, and the router, of each route (RFC 3442).
fn route_list(routes: &[(Ipv4Addr, u8, Ipv4Addr)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (network, prefix_len, router) in routes {
        let mask = u32::MAX
            .checked_shl(32 - u32::from(*prefix_len))
            .unwrap_or(0);
        let network = (u32::from(*network) & mask).to_be_bytes();
        bytes.push(*prefix_len);
        bytes.extend(network.iter().take(prefix_len.div_ceil(8).into()));
        bytes.extend(router.octets());
    }
    bytes
}

/// The fields of a reply that are not options.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) ciaddr: Ipv4Addr,
    pub(super) yiaddr: Ipv4Addr,
}

/// The smallest reply; older clients and relays refuse shorter ones (RFC 1542 §2.1).
const MIN_LEN: usize = 300;

/// Writes a reply to `to`: at most `limit` bytes, for which parameters that are not needed are left out
/// from the end; the order stays.
pub(super) fn write(to: &Message, head: Head, parameters: Vec<Parameter>, limit: usize) -> Vec<u8> {
    let mut payload = header(to, head);
    let mut room = limit.saturating_sub(payload.len() + 1);
    let options: Vec<(bool, Vec<u8>)> = parameters
        .into_iter()
        .map(|p| (p.is_needed(), encode(&p.into_option())))
        .collect();
    let needed: usize = options
        .iter()
        .filter(|(needed, _)| *needed)
        .map(|(_, b)| b.len())
        .sum();
    room = room.saturating_sub(needed);
    for (needed, bytes) in options {
        if !needed {
            let Some(left) = room.checked_sub(bytes.len()) else {
                continue;
            };
            room = left;
        }
        payload.extend(bytes);
    }
    payload.extend(encode(&DhcpOption::End));
    payload.resize(payload.len().max(MIN_LEN), 0);
    payload
}

/// The first 240 bytes (RFC 2131 §2, table 3).
fn header(to: &Message, head: Head) -> Vec<u8> {
    let mut payload = Vec::with_capacity(MIN_LEN);
    payload.extend([Opcode::BootReply.into(), HType::Eth.into(), 6_u8, 0]);
    payload.extend(to.xid.to_be_bytes());
    payload.extend([0, 0]);
    payload.extend(to.flags.to_be_bytes());
    payload.extend(head.ciaddr.octets());
    payload.extend(head.yiaddr.octets());
    payload.extend([0; 8]);
    payload.extend(to.chaddr.0);
    payload.resize(236, 0);
    payload.extend(MAGIC);
    payload
}

/// An option, cut into pieces of 255 bytes (RFC 3396 §5).
fn encode(option: &DhcpOption) -> Vec<u8> {
    let mut bytes = Vec::new();
    match option.encode(&mut Encoder::new(&mut bytes)) {
        Ok(()) => bytes,
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
