//! What a message asks, and the bytes of our own answers (RFC 1035 §4, RFC 6891, RFC 2308).
//!
//! The only file that knows `hickory-proto`. Messages that are passed on are never decoded and encoded again: only the
//! id is changed, so whatever we do not know of passes too (RFC 5625 §4).

use hickory_proto::op::{
    Edns, Header, Message, MessageType, Metadata, OpCode, Query, ResponseCode,
};
use hickory_proto::rr::rdata::{A, AAAA, NS, PTR, SOA};
use hickory_proto::rr::{Name, RData, Record};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use super::Transport;
use super::names::{Data, GATEWAY, Local, Names, Outcome};

/// Length of the header in front of the first question.
const HEADER: usize = 12;

/// Guests come and go, so nobody should remember for long.
const TTL: u32 = 10;

/// How long the absence of a name may be remembered (RFC 2308 §5).
const NEGATIVE_TTL: u32 = 5;

/// The largest answer over UDP that we ask for or build; it fits any link (RFC 9715 §3.2 names a little more).
const UDP_LIMIT: u16 = 1232;

/// The opcode of ordinary queries.
pub(super) const OPCODE_QUERY: u8 = 0;

/// The response codes we give or look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rcode {
    FormErr,
    NotImp,
    Refused,
    ServFail,
}

/// The first twelve bytes of a message, as far as they decide anything.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) id: u16,
    pub(super) is_answer: bool,
    pub(super) opcode: u8,
    pub(super) questions: u16,
    response_code: ResponseCode,
    records: u32,
}

impl Head {
    pub(super) fn read(message: &[u8]) -> Option<Self> {
        let header = Header::read(&mut BinDecoder::new(message)).ok()?;
        Some(Self {
            id: header.metadata.id,
            is_answer: header.metadata.message_type == MessageType::Response,
            opcode: header.metadata.op_code.into(),
            questions: header.counts.queries,
            response_code: header.metadata.response_code,
            records: u32::from(header.counts.answers)
                .saturating_add(header.counts.authorities.into()),
        })
    }

    /// Whether the resolver says that it cannot or will not help, so that another one is worth asking.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(
            self.response_code,
            ResponseCode::ServFail | ResponseCode::Refused
        )
    }

    /// Whether this is nothing but an error or, to something else than a query, an acknowledgement. Such answers may
    /// come without a question (RFC 2136 §3.8; servers that could not read the question).
    pub(super) fn may_lack_question(&self) -> bool {
        let error = !matches!(
            self.response_code,
            ResponseCode::NoError | ResponseCode::NXDomain
        );
        self.questions == 0 && self.records == 0 && (error || self.opcode != OPCODE_QUERY)
    }
}

/// The first question of a message.
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// Lower-case, the host first.
    pub(super) labels: Vec<Vec<u8>>,
    pub(super) kind: u16,
    pub(super) class: u16,
    /// How many bytes behind the header it takes.
    len: usize,
}

impl Question {
    /// `None` if it is cut off, or its name is not written out in full.
    pub(super) fn read(message: &[u8]) -> Option<Self> {
        let mut decoder = BinDecoder::new(message);
        Header::read(&mut decoder).ok()?;
        let query = Query::read(&mut decoder).ok()?;
        let len = decoder.index().checked_sub(HEADER)?;
        let labels: Vec<Vec<u8>> = query.name.iter().map(<[u8]>::to_ascii_lowercase).collect();
        // Before the first question there is no name that a compression pointer could mean.
        let written = labels
            .iter()
            .map(|label| label.len().saturating_add(1))
            .sum::<usize>();
        if written.checked_add(5)? != len {
            return None;
        }
        Some(Self {
            labels,
            kind: query.query_type.into(),
            class: query.query_class.into(),
            len,
        })
    }

    /// Its bytes, as the asker wrote them.
    pub(super) fn bytes<'a>(&self, message: &'a [u8]) -> &'a [u8] {
        message
            .get(HEADER..HEADER.saturating_add(self.len))
            .unwrap_or_default()
    }
}

/// Whether a message repeats this question byte for byte, letter case included.
pub(super) fn repeats(message: &[u8], question: &[u8]) -> bool {
    message
        .get(HEADER..)
        .is_some_and(|rest| rest.starts_with(question))
}

/// The same message under another id.
pub(super) fn with_id(message: &[u8], id: u16) -> Vec<u8> {
    let mut copy = message.to_vec();
    if let Some(place) = copy.first_chunk_mut() {
        *place = id.to_be_bytes();
    }
    copy
}

/// An answer that holds nothing but an error.
pub(super) fn error(query: &[u8], code: Rcode) -> Vec<u8> {
    let code = match code {
        Rcode::FormErr => ResponseCode::FormErr,
        Rcode::NotImp => ResponseCode::NotImp,
        Rcode::Refused => ResponseCode::Refused,
        Rcode::ServFail => ResponseCode::ServFail,
    };
    let mut answer = start(query);
    answer.metadata.response_code = code;
    answer.edns = Message::from_vec(query)
        .ok()
        .and_then(|query| query.edns)
        .map(|asked| edns(&asked));
    encode(&answer, query, usize::MAX)
}

/// The answer to a question about one of our own names.
pub(super) fn local(query: &[u8], found: &Local, names: &Names, transport: Transport) -> Vec<u8> {
    let Ok(asked) = Message::from_vec(query) else {
        return error(query, Rcode::FormErr);
    };
    let mut answer = start(query);
    answer.edns = asked.edns.as_ref().map(edns);
    let limit = match transport {
        Transport::Udp => usize::from(asked.max_payload().min(UDP_LIMIT)),
        Transport::Tcp => usize::from(u16::MAX),
    };
    if asked.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        answer.metadata.response_code = ResponseCode::BADVERS;
    } else if fill(&mut answer, found, names).is_none() {
        return error(query, Rcode::ServFail);
    }
    encode(&answer, query, limit)
}

/// A header that fits the query, and its question if it has exactly one that can be read.
fn start(query: &[u8]) -> Message {
    let mut decoder = BinDecoder::new(query);
    let Ok(header) = Header::read(&mut decoder) else {
        return Message::response(0, OpCode::Query);
    };
    let mut answer = Message::response(header.metadata.id, header.metadata.op_code);
    answer.metadata = Metadata::response_from_request(&header.metadata);
    answer.metadata.recursion_available = true;
    if header.counts.queries == 1
        && Question::read(query).is_some()
        && let Ok(question) = Query::read(&mut decoder)
    {
        answer.add_query(question);
    }
    answer
}

fn edns(asked: &Edns) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_LIMIT)
        .set_version(0)
        .set_dnssec_ok(asked.flags().dnssec_ok);
    edns
}

/// `None` if a name does not fit, which the limits of [`Names`] exclude.
fn fill(answer: &mut Message, found: &Local, names: &Names) -> Option<()> {
    let name = answer.queries.first()?.name.clone();
    let zone = name.trim_to(found.zone_labels);
    answer.metadata.authoritative = true;
    answer.metadata.response_code = match found.outcome {
        Outcome::Exists => ResponseCode::NoError,
        Outcome::Missing => ResponseCode::NXDomain,
        Outcome::Refused => {
            answer.metadata.authoritative = false;
            answer.metadata.response_code = ResponseCode::Refused;
            return Some(());
        }
    };
    for data in &found.records {
        let data = match data {
            Data::Address(std::net::IpAddr::V4(v4)) => RData::A(A(*v4)),
            Data::Address(std::net::IpAddr::V6(v6)) => RData::AAAA(AAAA(*v6)),
            Data::Host(label) => RData::PTR(PTR(host(label, names)?)),
            Data::Server => RData::NS(NS(host(GATEWAY, names)?)),
            Data::Authority => RData::SOA(authority(names)?),
        };
        answer.add_answer(Record::from_rdata(name.clone(), TTL, data));
    }
    if found.records.is_empty() {
        let data = RData::SOA(authority(names)?);
        answer.add_authority(Record::from_rdata(zone, NEGATIVE_TTL, data));
    }
    Some(())
}

fn authority(names: &Names) -> Option<SOA> {
    let server = host(GATEWAY, names)?;
    let mailbox = host("hostmaster", names)?;
    Some(SOA::new(
        server,
        mailbox,
        names.serial(),
        3600,
        600,
        86400,
        NEGATIVE_TTL,
    ))
}

fn host(label: &str, names: &Names) -> Option<Name> {
    let labels = std::iter::once(label).chain(names.domain().iter().map(String::as_str));
    Name::from_labels(labels.map(str::as_bytes)).ok()
}

/// Falls back to a bare header if the library cannot write the message, and to a truncated one if it is too long.
fn encode(answer: &Message, query: &[u8], limit: usize) -> Vec<u8> {
    let bytes = match answer.to_vec() {
        Ok(bytes) if bytes.len() > limit => answer.truncate().to_vec(),
        other => other,
    };
    bytes.unwrap_or_else(|_| {
        let [id_high, id_low, flags, ..] = *query.first_chunk::<HEADER>().unwrap_or(&[0; HEADER]);
        // QR, with opcode and RD as asked; RA and SERVFAIL.
        vec![
            id_high,
            id_low,
            0x80 | (flags & 0x79),
            0x82,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
        ]
    })
}
