//! What is told to clients as text, and read from them.

use super::invalid;
use openvmnet::service::ServiceError;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use uuid::Uuid;
use vmnet_linux::lane::{Ipv4, Prefix, PrefixError, Subnet};
use vmnet_wire::ethernet::Mac;

/// `ADDRESS/LENGTH`: the gateway's address, or the subnet's, whose first host is the gateway then.
pub(crate) fn ipv4(text: &str) -> Result<Ipv4, ServiceError> {
    let form = || {
        invalid(format!(
            "`{text}` is no subnet: say ADDRESS/LENGTH, like 192.168.64.0/24"
        ))
    };
    let (address, length) = text.split_once('/').ok_or_else(form)?;
    let address: Ipv4Addr = address.parse().map_err(|_| form())?;
    let length: u8 = length.parse().map_err(|_| form())?;
    let mask = u32::MAX
        .checked_shl(32 - u32::from(length.min(32)))
        .unwrap_or(0);
    let network = Ipv4Addr::from_bits(address.to_bits() & mask);
    let subnet = Subnet::new(network, length).map_err(|error| invalid(error.to_string()))?;
    if address == network {
        return Ok(Ipv4::new(subnet));
    }
    Ipv4::with_gateway(subnet, address).map_err(|error| invalid(error.to_string()))
}

/// The reverse of [`ipv4`].
pub(crate) fn gateway_and_length(ipv4: &Ipv4) -> String {
    format!("{}/{}", ipv4.gateway(), ipv4.subnet().prefix_len())
}

/// `ADDRESS/64` or `ADDRESS`: any address of the prefix, as some clients give its first host's.
pub(crate) fn prefix(text: &str) -> Result<Prefix, ServiceError> {
    let form = || {
        invalid(format!(
            "`{text}` is no IPv6 prefix: say ADDRESS/64, like fd12:3456:789a:1::/64"
        ))
    };
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, length.parse().map_err(|_| form())?),
        None => (text, Prefix::LEN),
    };
    let address: Ipv6Addr = address.parse().map_err(|_| form())?;
    let refused = |error: PrefixError| invalid(error.to_string());
    if length != Prefix::LEN {
        return Err(refused(PrefixError::Len(length)));
    }
    Prefix::of(address).map_err(refused)
}

pub(crate) fn address(text: &str) -> Result<Ipv4Addr, ServiceError> {
    text.parse()
        .map_err(|_| invalid(format!("`{text}` is no IPv4 address")))
}

/// An address of either family.
pub(crate) fn any_address(text: &str) -> Result<IpAddr, ServiceError> {
    text.parse()
        .map_err(|_| invalid(format!("`{text}` is no IP address")))
}

pub(crate) fn mac(text: &str) -> Result<Mac, ServiceError> {
    let mac: Mac = text
        .parse()
        .map_err(|_| invalid(format!("`{text}` is no MAC: say it like 52:54:00:12:34:56")))?;
    if !mac.is_unicast() {
        return Err(invalid(format!(
            "{mac} is a group or no address: the first byte is even, like in 52:54:00:12:34:56"
        )));
    }
    Ok(mac)
}

pub(crate) fn uuid(text: &str) -> Result<Uuid, ServiceError> {
    Uuid::try_parse(text).map_err(|_| {
        invalid(format!(
            "`{text}` is no UUID: say it like 2835e074-9892-4a79-affb-7e41d2605678"
        ))
    })
}

/// `ADDRESS` or `ADDRESS:PORT`, IPv6 addresses in brackets if a port follows.
pub(crate) fn resolver(text: &str) -> Result<SocketAddr, ServiceError> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(SocketAddr::new(address, 53));
    }
    text.parse().map_err(|_| {
        invalid(format!(
            "`{text}` is no resolver: say ADDRESS or ADDRESS:PORT"
        ))
    })
}

/// Bytes in hexadecimal, with or without colons.
pub(crate) fn from_hex(text: &str) -> Result<Vec<u8>, ServiceError> {
    let bad = || {
        invalid(format!(
            "`{text}` is no client id: say it in hexadecimal, like 01:52:54:00:12:34:56"
        ))
    };
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() || digits.is_empty() {
        return Err(bad());
    }
    let byte = |pair: &[u8; 2]| {
        let pair = std::str::from_utf8(pair).ok()?;
        // A sign is no digit.
        pair.bytes()
            .all(|digit| digit.is_ascii_hexdigit())
            .then(|| u8::from_str_radix(pair, 16).ok())?
    };
    pairs
        .iter()
        .map(|pair| byte(pair).ok_or_else(bad))
        .collect()
}

/// Bytes as two digits each, with colons between them.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let pairs: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    pairs.join(":")
}

/// Names that mean something else to every resolver, or to guests of ours: the gateway's DNS gives them to no guest.
const NOT_GUESTS: [&str; 5] = ["gateway", "host", "localhost", "wpad", "isatap"];

/// A guest's name: one label of a host name (RFC 1123 §2.1), in lower case.
pub(crate) fn guest_name(text: &str) -> Result<String, ServiceError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let inner = !text.starts_with('-') && !text.ends_with('-');
    if text.is_empty() || text.len() > 63 || !inner || !text.bytes().all(allowed) {
        return Err(invalid(format!(
            "`{text}` is no guest name: use 1 to 63 of the letters a-z, digits and -, with a letter or digit first and last"
        )));
    }
    let name = text.to_ascii_lowercase();
    if NOT_GUESTS.contains(&&*name) {
        return Err(invalid(format!(
            "`{name}` is no guest's name: it means something else to every resolver; choose another"
        )));
    }
    Ok(name)
}
