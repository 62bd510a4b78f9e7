//! Which options go into an answer, and their bytes. The only file that knows `dhcproto::v6`.

use super::config::Config;
use super::message::{Message, Of};
use dhcproto::v6::{
    DhcpOption, DhcpOptions, IAAddr, IANA, IAPD, IATA, OptionCode, Status, StatusCode,
    UnknownOption,
};
use dhcproto::{Encodable, Encoder};
use std::net::Ipv6Addr;

/// Options that a client may want.
mod code {
    pub(super) const RESOLVERS: u16 = 23;
    pub(super) const SEARCH: u16 = 24;
    pub(super) const REFRESH: u16 = 32;
    pub(super) const FQDN: u16 = 39;
    pub(super) const SOLICIT_MAX: u16 = 82;
    pub(super) const INFORMATION_MAX: u16 = 83;
}

/// What a client that wants nothing by name gets.
const DEFAULT_LIST: [u16; 2] = [code::RESOLVERS, code::SEARCH];
/// When a client with settings alone asks again (RFC 8415 §21.23), in seconds.
const REFRESH: u32 = 3600;
/// How long a client that was refused may wait before it asks again (RFC 8415 §21.24, §21.25), in seconds: not an hour, since
/// the network may have been changed, nor the least, since nobody is in a hurry to be refused.
const LONGEST_WAIT: u32 = 300;

/// A message of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This could be yours.
    Advertise,
    /// So be it.
    Reply,
}

/// What a client is told of one association, or of its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// It went well.
    Success,
    /// No address is free, or none more for this guest.
    NoAddress,
    /// There are no prefixes.
    NoPrefix,
    /// The client has no such address here.
    NoBinding,
    /// An address is not of this link.
    NotOnLink,
    /// This must be sent to all servers.
    UseMulticast,
}

/// One association in an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Granted {
    pub(super) iaid: u32,
    pub(super) of: Of,
    /// The address, and how many seconds it is the client's; 0 if it is no longer.
    pub(super) addresses: Vec<(Ipv6Addr, u32)>,
    pub(super) told: Option<Told>,
}

/// The answer to a message, before it is bytes.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    pub(super) verdict: Verdict,
    pub(super) to: &'a Message,
    pub(super) granted: Vec<Granted>,
    pub(super) told: Option<Told>,
    /// The answer to a SOLICIT that asked for it.
    pub(super) rapid_commit: bool,
    /// With the network's settings.
    pub(super) settings: bool,
    /// The name the guest has in DNS.
    pub(super) name: Option<&'a str>,
}

impl<'a> Draft<'a> {
    /// A REPLY with nothing but the ids.
    pub(super) fn reply(to: &'a Message) -> Self {
        Self {
            verdict: Verdict::Reply,
            to,
            granted: Vec::new(),
            told: None,
            rapid_commit: false,
            settings: false,
            name: None,
        }
    }

    /// Its bytes.
    pub(super) fn write(self, config: &Config) -> Vec<u8> {
        let kind = match self.verdict {
            Verdict::Advertise => 2,
            Verdict::Reply => 7,
        };
        let [a, b, c] = self.to.transaction;
        let mut bytes = vec![kind, a, b, c];
        let client = self.to.client.clone();
        let mut options = vec![DhcpOption::ServerId(config.duid())];
        options.extend(client.map(DhcpOption::ClientId));
        options.extend(self.granted.iter().map(granted));
        options.extend(self.told.map(status));
        options.extend(self.rapid_commit.then_some(DhcpOption::RapidCommit));
        if self.verdict == Verdict::Advertise {
            // There is no other server to wait for (RFC 8415 §18.2.1).
            options.push(DhcpOption::Preference(u8::MAX));
        }
        if self.settings {
            self.settings(config, &mut options);
        }
        for option in options {
            bytes.extend(encode(&option));
        }
        bytes
    }

    /// What the client listed; its name also if it told one (RFC 4704 §4).
    fn settings(&self, config: &Config, options: &mut Vec<DhcpOption>) {
        let listed = self.to.wanted.as_deref().unwrap_or(&DEFAULT_LIST);
        let told = self.to.fqdn.as_ref().map(|_| code::FQDN);
        let mut seen = Vec::new();
        for code in listed.iter().copied().chain(told) {
            if seen.contains(&code) {
                continue;
            }
            // A code without a setting is not noted: `seen` stays short, whatever the list.
            if let Some(option) = self.setting(config, code) {
                seen.push(code);
                options.push(option);
            }
        }
    }

    fn setting(&self, config: &Config, code: u16) -> Option<DhcpOption> {
        let seconds = |code, seconds: u32| raw(code, seconds.to_be_bytes().to_vec());
        match code {
            code::RESOLVERS => Some(config.resolvers.clone())
                .filter(|list| !list.is_empty())
                .map(DhcpOption::DomainNameServers),
            code::SEARCH => Some(&config.domain)
                .filter(|domain| !domain.is_empty())
                .map(|domain| raw(OptionCode::DomainSearchList, wire_name(domain))),
            code::REFRESH if self.granted.is_empty() => {
                Some(DhcpOption::InformationRefreshTime(REFRESH))
            }
            code::SOLICIT_MAX => Some(seconds(OptionCode::SolMaxRt, LONGEST_WAIT)),
            code::INFORMATION_MAX => Some(seconds(OptionCode::InfMaxRt, LONGEST_WAIT)),
            code::FQDN => self.name(config),
            _ => None,
        }
    }

    /// RFC 4704 §4.1, §6: names are in DNS by our doing alone, whatever the client wants to do about it.
    fn name(&self, config: &Config) -> Option<DhcpOption> {
        /// The server keeps the client's name in DNS.
        const S: u8 = 1;
        /// ... though the client did not say so.
        const O: u8 = 2;
        /// Nobody does.
        const N: u8 = 4;
        let wish = self.to.fqdn.as_ref().map(|(flags, _)| *flags);
        let (flags, name) = match (self.name, &self.to.fqdn) {
            (Some(name), _) => {
                let whole = if config.domain.is_empty() {
                    name.to_owned()
                } else {
                    format!("{name}.{}", config.domain)
                };
                let overrides = wish.is_some_and(|wish| wish & S == 0);
                (if overrides { S | O } else { S }, wire_name(&whole))
            }
            (None, Some((_, told))) => (N, told.clone()),
            (None, None) => return None,
        };
        let value = [&[flags], name.as_slice()].concat();
        Some(raw(OptionCode::ClientFqdn, value))
    }
}

/// RFC 8415 §21.4 with T1 and T2 at 0.5 and 0.8 of the shortest lifetime.
fn granted(granted: &Granted) -> DhcpOption {
    let mut opts = DhcpOptions::new();
    for (addr, seconds) in &granted.addresses {
        opts.insert(DhcpOption::IAAddr(IAAddr {
            addr: *addr,
            preferred_life: *seconds,
            valid_life: *seconds,
            opts: DhcpOptions::new(),
        }));
    }
    granted
        .told
        .map(status)
        .into_iter()
        .for_each(|told| opts.insert(told));
    let id = granted.iaid;
    let lifetimes = granted.addresses.iter().map(|(_, seconds)| *seconds);
    let shortest = lifetimes.filter(|seconds| *seconds > 0).min().unwrap_or(0);
    let (t1, t2) = (shortest / 2, shortest / 5 * 4);
    match &granted.of {
        Of::Address(_) => DhcpOption::IANA(IANA { id, t1, t2, opts }),
        Of::Temporary => DhcpOption::IATA(IATA { id, opts }),
        Of::Prefixes => DhcpOption::IAPD(IAPD { id, t1, t2, opts }),
    }
}

fn status(told: Told) -> DhcpOption {
    let (status, msg) = match told {
        Told::Success => (Status::Success, "done"),
        Told::NoAddress => (Status::NoAddrsAvail, "no address is free for you"),
        Told::NoPrefix => (Status::NoPrefixAvail, "there are no prefixes here"),
        Told::NoBinding => (Status::NoBinding, "you have no such address"),
        Told::NotOnLink => (Status::NotOnLink, "not an address of this network"),
        Told::UseMulticast => (Status::UseMulticast, "ask all servers, by ff02::1:2"),
    };
    let msg = msg.to_owned();
    DhcpOption::StatusCode(StatusCode { status, msg })
}

fn raw(code: OptionCode, value: Vec<u8>) -> DhcpOption {
    DhcpOption::Unknown(UnknownOption::new(code, value))
}

/// A name in DNS wire format (RFC 8415 §10).
fn wire_name(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap_or(0));
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

fn encode(option: &DhcpOption) -> Vec<u8> {
    let mut bytes = Vec::new();
    match option.encode(&mut Encoder::new(&mut bytes)) {
        Ok(()) => bytes,
        Err(_) => Vec::new(),
    }
}
