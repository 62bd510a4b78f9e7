//! Bytes to messages (RFC 8415 §8, §21).
//!
//! The walk over options is written here: a codec that makes a tree of a message goes as deep as a guest wants.
//! Options in associations are read one level deep, which is as deep as they have a meaning for a server, and of
//! each list only the first few count.

use super::Drop;
use crate::gateway::register::MAX_CLIENT_ID;
use std::net::Ipv6Addr;

/// Associations of one message that are answered.
const MAX_ASSOCIATIONS: usize = 8;
/// Addresses of one association that are looked at.
const MAX_ADDRESSES: usize = 8;
/// Codes of an option request that are looked at.
const MAX_WANTED: usize = 128;

/// Options that a server reads.
mod code {
    pub(super) const CLIENT: u16 = 1;
    pub(super) const SERVER: u16 = 2;
    pub(super) const NON_TEMPORARY: u16 = 3;
    pub(super) const TEMPORARY: u16 = 4;
    pub(super) const ADDRESS: u16 = 5;
    pub(super) const WANTED: u16 = 6;
    pub(super) const RAPID_COMMIT: u16 = 14;
    pub(super) const PREFIXES: u16 = 25;
    pub(super) const FQDN: u16 = 39;
}

/// What a client wants (RFC 8415 §7.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An offer.
    Solicit,
    /// An address that was offered.
    Request,
    /// To know whether its addresses fit to this link.
    Confirm,
    /// More time for its addresses.
    Renew,
    /// The same, of any server.
    Rebind,
    /// Nothing more: its addresses are given back.
    Release,
    /// Other addresses: these are in use.
    Decline,
    /// Settings only.
    InformationRequest,
}

/// One association: an address that a client wants under a number of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Association {
    pub(super) iaid: u32,
    pub(super) of: Of,
}

/// What an association is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Of {
    /// An address (`IA_NA`), with those that the client has or wishes.
    Address(Vec<Ipv6Addr>),
    /// A temporary address (`IA_TA`).
    Temporary,
    /// Prefixes (`IA_PD`).
    Prefixes,
}

/// A request, as far as a server cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: Kind,
    pub(super) transaction: [u8; 3],
    /// Option 1, a DUID.
    pub(super) client: Option<Vec<u8>>,
    /// Option 2, a DUID.
    pub(super) server: Option<Vec<u8>>,
    /// Options 3, 4 and 25, in their order.
    pub(super) associations: Vec<Association>,
    /// Option 6.
    pub(super) wanted: Option<Vec<u16>>,
    /// Option 14.
    pub(super) rapid_commit: bool,
    /// Option 39: flags, and a name in DNS wire format, whole or not.
    pub(super) fqdn: Option<(u8, Vec<u8>)>,
}

/// Reads a request.
pub(super) fn read(payload: &[u8]) -> Result<Message, Drop> {
    let ([kind, transaction @ ..], options) =
        payload.split_first_chunk::<4>().ok_or(Drop::Malformed)?;
    let mut message = Message {
        kind: kind_of(*kind)?,
        transaction: *transaction,
        client: None,
        server: None,
        associations: Vec::new(),
        wanted: None,
        rapid_commit: false,
        fqdn: None,
    };
    for option in Options(options) {
        let (code, value) = option?;
        read_option(&mut message, code, value)?;
    }
    Ok(message)
}

fn read_option(message: &mut Message, code: u16, value: &[u8]) -> Result<(), Drop> {
    match code {
        // Options that are there once: the first counts.
        code::CLIENT => _ = message.client.get_or_insert(duid(value)?),
        code::SERVER => _ = message.server.get_or_insert(duid(value)?),
        code::NON_TEMPORARY | code::TEMPORARY | code::PREFIXES => {
            let association = association(code, value)?;
            if message.associations.len() < MAX_ASSOCIATIONS {
                message.associations.push(association);
            }
        }
        code::WANTED => {
            let (codes, []) = value.as_chunks::<2>() else {
                return Err(Drop::Malformed);
            };
            let codes = codes.iter().copied().map(u16::from_be_bytes);
            message.wanted = Some(codes.take(MAX_WANTED).collect());
        }
        code::RAPID_COMMIT => message.rapid_commit = true,
        code::FQDN => {
            let (flags, name) = value.split_first().ok_or(Drop::Malformed)?;
            message.fqdn = Some((*flags, name.to_vec()));
        }
        _ => {}
    }
    Ok(())
}

fn kind_of(kind: u8) -> Result<Kind, Drop> {
    match kind {
        1 => Ok(Kind::Solicit),
        3 => Ok(Kind::Request),
        4 => Ok(Kind::Confirm),
        5 => Ok(Kind::Renew),
        6 => Ok(Kind::Rebind),
        8 => Ok(Kind::Release),
        9 => Ok(Kind::Decline),
        11 => Ok(Kind::InformationRequest),
        // ADVERTISE, REPLY, RECONFIGURE.
        2 | 7 | 10 => Err(Drop::NotARequest),
        // RELAY-FORW, RELAY-REPL.
        12 | 13 => Err(Drop::Relayed),
        _ => Err(Drop::UnknownMessage),
    }
}

/// RFC 8415 §11.1: a type of two bytes, and 1 to 128 more.
fn duid(value: &[u8]) -> Result<Vec<u8>, Drop> {
    let fits = (3..=MAX_CLIENT_ID).contains(&value.len());
    fits.then(|| value.to_vec()).ok_or(Drop::BadDuid)
}

/// RFC 8415 §21.4, §21.5, §21.21.
fn association(code: u16, value: &[u8]) -> Result<Association, Drop> {
    let (iaid, rest) = value.split_first_chunk::<4>().ok_or(Drop::Malformed)?;
    let of = match code {
        code::TEMPORARY => Of::Temporary,
        code::PREFIXES => Of::Prefixes,
        _ => {
            // T1 and T2 are wishes, which are not looked at.
            let (_, options) = rest.split_first_chunk::<8>().ok_or(Drop::Malformed)?;
            Of::Address(addresses(options)?)
        }
    };
    let iaid = u32::from_be_bytes(*iaid);
    Ok(Association { iaid, of })
}

/// RFC 8415 §21.6.
fn addresses(options: &[u8]) -> Result<Vec<Ipv6Addr>, Drop> {
    let mut addresses = Vec::new();
    for option in Options(options) {
        let (code, value) = option?;
        if code != code::ADDRESS {
            continue;
        }
        let (address, rest) = value.split_first_chunk::<16>().ok_or(Drop::Malformed)?;
        if rest.len() < 8 {
            return Err(Drop::Malformed);
        }
        let address = Ipv6Addr::from_octets(*address);
        if !address.is_unspecified() && addresses.len() < MAX_ADDRESSES {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

/// Options one after the other: a code, a length, a value (RFC 8415 §21.1).
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = Result<(u16, &'a [u8]), Drop>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let option = self.split();
        if option.is_none() {
            self.0 = &[];
        }
        Some(option.ok_or(Drop::Malformed))
    }
}

impl<'a> Options<'a> {
    fn split(&mut self) -> Option<(u16, &'a [u8])> {
        let ([a, b, c, d], rest) = self.0.split_first_chunk::<4>()?;
        let len = u16::from_be_bytes([*c, *d]);
        let (value, rest) = rest.split_at_checked(len.into())?;
        self.0 = rest;
        Some((u16::from_be_bytes([*a, *b]), value))
    }
}

#[cfg(test)]
mod tests;
