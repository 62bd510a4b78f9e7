//! The chain of extension headers (RFC 8200 §4).

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::ip::Protocol;
use crate::ipv6::{CHAIN_MAX, Header, Malformed};

/// Where the fixed header has the number of what follows it.
const FIRST_NUMBER: usize = 6;
const OFFSET_MASK: u16 = 0xfff8;
const MORE_FRAGMENTS: u16 = 1;
/// Options that are passed over: padding, and the router alert of multicast listeners (RFC 8200 §4.2, RFC 2711).
const PAD1: u8 = 0;
const PADN: u8 = 1;
const ROUTER_ALERT: u8 = 5;

/// Codes of "parameter problem" (RFC 4443 §3.4).
const ERRONEOUS_FIELD: u8 = 0;
const UNKNOWN_NEXT_HEADER: u8 = 1;
const UNKNOWN_OPTION: u8 = 2;

/// The eight bytes of a fragment header (RFC 8200 §4.5).
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct FragmentHeader {
    next_header: u8,
    reserved: u8,
    offset_more: U16,
    id: U32,
}

impl FragmentHeader {
    /// Bytes of the header.
    pub const LEN: usize = 8;

    /// A header from its fields. An offset beyond what 13 bits hold is cut.
    #[must_use]
    pub fn new(next_header: Protocol, id: u32, offset: usize, more: bool) -> Self {
        let offset = u16::try_from(offset).unwrap_or(OFFSET_MASK) & OFFSET_MASK;
        Self {
            next_header: next_header.0,
            reserved: 0,
            offset_more: U16::new(offset | u16::from(more)),
            id: U32::new(id),
        }
    }
}

/// What a fragment header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// Names the packet among those between the same two.
    pub id: u32,
    /// Where this piece stands in what was cut, in bytes: a multiple of 8.
    pub offset: usize,
    /// Others follow.
    pub more: bool,
    /// What follows the fragment header in the first piece: a protocol or an extension header.
    pub next_header: Protocol,
    /// Where the fragment header stands, in bytes from the start of the packet.
    pub at: usize,
}

/// Who hears of a [`Problem`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// Nobody.
    Nobody,
    /// The sender of a packet to one.
    IfToOne,
    /// The sender, even of a packet to many.
    Always,
}

/// Something that its receiver must not pass over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Problem {
    /// ICMPv6 code of "parameter problem".
    pub code: u8,
    /// The byte in question.
    pub at: u32,
    /// Who hears of it.
    pub told: Told,
}

/// What the walk found.
pub(super) struct Chain {
    pub(super) protocol: Protocol,
    pub(super) end: usize,
    pub(super) fragment: Option<Fragment>,
    pub(super) problem: Option<Problem>,
}

/// Walks the headers behind the fixed one. `packet` ends where the packet does, or earlier.
pub(super) fn walk(packet: &[u8], first: Protocol) -> Result<Chain, Malformed> {
    let mut chain = Chain {
        protocol: first,
        end: Header::LEN,
        fragment: None,
        problem: None,
    };
    let mut number_at = FIRST_NUMBER;
    for _ in 0..=CHAIN_MAX {
        let rest = packet.get(chain.end..).ok_or(Malformed::Chain)?;
        let (len, problem) = match chain.protocol {
            Protocol::FRAGMENT => {
                let fragment = read_fragment(rest, chain.end).ok_or(Malformed::Chain)?;
                if chain.fragment.replace(fragment).is_some() {
                    return Err(Malformed::Chain);
                }
                (FragmentHeader::LEN, None)
            }
            Protocol::HOP_BY_HOP | Protocol::DESTINATION_OPTIONS => {
                let header = header(rest, 8).ok_or(Malformed::Chain)?;
                let misplaced = chain.protocol == Protocol::HOP_BY_HOP && chain.end != Header::LEN;
                let problem = if misplaced {
                    problem(UNKNOWN_NEXT_HEADER, number_at, Told::Always)
                } else {
                    options(header, chain.end)
                };
                (header.len(), problem)
            }
            Protocol::ROUTING => {
                let header = header(rest, 8).ok_or(Malformed::Chain)?;
                (header.len(), routing(header, chain.end))
            }
            // Nobody here can do what these ask for, but others must see behind them.
            Protocol::MOBILITY | Protocol::HIP | Protocol::SHIM6 => {
                let header = header(rest, 8).ok_or(Malformed::Chain)?;
                let problem = problem(UNKNOWN_NEXT_HEADER, number_at, Told::Always);
                (header.len(), problem)
            }
            Protocol::AUTHENTICATION => {
                let header = header(rest, 4).ok_or(Malformed::Chain)?;
                let problem = problem(UNKNOWN_NEXT_HEADER, number_at, Told::Always);
                (header.len(), problem)
            }
            _ => return Ok(chain),
        };
        chain.problem = chain.problem.or(problem);
        let next = rest.first().ok_or(Malformed::Chain)?;
        (chain.protocol, number_at) = (Protocol(*next), chain.end);
        chain.end += len;
        // What follows the head of a piece is the middle of something.
        if chain.fragment.is_some_and(|fragment| fragment.offset > 0) {
            return Ok(chain);
        }
    }
    Err(Malformed::Chain)
}

/// A header whose second byte counts units behind its first eight bytes: of eight bytes, or of four (RFC 4302 §2.2).
fn header(bytes: &[u8], unit: usize) -> Option<&[u8]> {
    bytes.get(..8 + usize::from(*bytes.get(1)?) * unit)
}

fn read_fragment(bytes: &[u8], at: usize) -> Option<Fragment> {
    let (header, _) = FragmentHeader::ref_from_prefix(bytes).ok()?;
    let offset = header.offset_more.get();
    Some(Fragment {
        id: header.id.get(),
        offset: usize::from(offset & OFFSET_MASK),
        more: offset & MORE_FRAGMENTS != 0,
        next_header: Protocol(header.next_header),
        at,
    })
}

fn problem(code: u8, at: usize, told: Told) -> Option<Problem> {
    let at = u32::try_from(at).unwrap_or(u32::MAX);
    Some(Problem { code, at, told })
}

/// A routing header that is not at its end; of no type that we follow (RFC 8200 §4.4, RFC 5095).
fn routing(header: &[u8], at: usize) -> Option<Problem> {
    let left = *header.get(3)?;
    (left > 0).then(|| problem(ERRONEOUS_FIELD, at + 2, Told::Always))?
}

/// The first option that must not be passed over: the highest two bits of its type say so (RFC 8200 §4.2).
fn options(header: &[u8], start: usize) -> Option<Problem> {
    let mut at = 2;
    while let Some(kind) = header.get(at) {
        let told = match kind >> 6 {
            _ if matches!(*kind, PAD1 | PADN | ROUTER_ALERT) => None,
            0 => None,
            1 => Some(Told::Nobody),
            2 => Some(Told::Always),
            _ => Some(Told::IfToOne),
        };
        if let Some(told) = told {
            return problem(UNKNOWN_OPTION, start + at, told);
        }
        at += match (*kind, header.get(at + 1)) {
            (PAD1, _) => 1,
            (_, Some(len)) => 2 + usize::from(*len),
            (_, None) => return problem(ERRONEOUS_FIELD, start + at, Told::Always),
        };
    }
    None
}
