//! Which options go into an answer and in which order, and where the answer goes.

use super::config::Config;
use super::message::{self, Head, Message, Parameter, Verdict};
use super::{CLIENT_PORT, Reply};
use std::net::Ipv4Addr;
use vmnet_wire::ethernet::Mac;

/// The largest message a client must take (RFC 2131 §2), with its IP and UDP headers.
const MIN_MAX_SIZE: u16 = 576;
/// IP and UDP headers.
const HEADERS: u16 = 28;

mod code {
    pub(super) const MASK: u8 = 1;
    pub(super) const ROUTER: u8 = 3;
    pub(super) const RESOLVERS: u8 = 6;
    pub(super) const HOST_NAME: u8 = 12;
    pub(super) const DOMAIN: u8 = 15;
    pub(super) const MTU: u8 = 26;
    pub(super) const BROADCAST: u8 = 28;
    pub(super) const SEARCH: u8 = 119;
    pub(super) const ROUTES: u8 = 121;
}

/// What a client without a parameter request list gets.
const DEFAULT_LIST: [u8; 7] = [
    code::ROUTES,
    code::ROUTER,
    code::RESOLVERS,
    code::DOMAIN,
    code::MTU,
    code::BROADCAST,
    code::SEARCH,
];

/// What is granted with an address.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grant<'a> {
    pub(super) address: Ipv4Addr,
    pub(super) seconds: u32,
    /// The name the guest has in DNS.
    pub(super) name: Option<&'a str>,
}

/// An OFFER.
pub(super) fn offer(config: &Config, to: &Message, grant: Grant<'_>) -> Reply {
    let head = Head {
        ciaddr: Ipv4Addr::UNSPECIFIED,
        yiaddr: grant.address,
    };
    granted(config, to, grant, Verdict::Offer, head)
}

/// An ACK of a REQUEST.
pub(super) fn ack(config: &Config, to: &Message, grant: Grant<'_>) -> Reply {
    let ciaddr = to
        .ciaddr
        .filter(|_| to.server.is_none())
        .unwrap_or(Ipv4Addr::UNSPECIFIED);
    let head = Head {
        ciaddr,
        yiaddr: grant.address,
    };
    granted(config, to, grant, Verdict::Ack, head)
}

fn granted(config: &Config, to: &Message, grant: Grant<'_>, verdict: Verdict, head: Head) -> Reply {
    let (renewal, rebinding) = (grant.seconds / 2, grant.seconds - grant.seconds / 8);
    let mut parameters = vec![
        Parameter::Verdict(verdict),
        Parameter::Server(config.gateway),
        Parameter::LeaseTime(grant.seconds),
        Parameter::Renewal(renewal),
        Parameter::Rebinding(rebinding),
    ];
    parameters.extend(settings(config, to, grant.name));
    // RFC 2131 §4.1: to the address the client has; else to everybody if it cannot take unicast yet.
    let destination = if !head.ciaddr.is_unspecified() {
        (to.chaddr, head.ciaddr)
    } else if to.wants_broadcast() {
        (Mac::BROADCAST, Ipv4Addr::BROADCAST)
    } else {
        (to.chaddr, grant.address)
    };
    reply(config, to, head, parameters, destination)
}

/// A NAK: always to everybody, since the client's address may be another's (RFC 2131 §4.1).
pub(super) fn nak(config: &Config, to: &Message, reason: &'static str) -> Reply {
    let mut parameters = vec![
        Parameter::Verdict(Verdict::Nak),
        Parameter::Server(config.gateway),
        Parameter::Reason(reason),
    ];
    parameters.extend(to.client_id.clone().map(Parameter::ClientId));
    let head = Head {
        ciaddr: Ipv4Addr::UNSPECIFIED,
        yiaddr: Ipv4Addr::UNSPECIFIED,
    };
    reply(
        config,
        to,
        head,
        parameters,
        (Mac::BROADCAST, Ipv4Addr::BROADCAST),
    )
}

/// An ACK of an INFORM from `address`: settings without an address or times (RFC 2131 §4.3.5).
pub(super) fn informed(
    config: &Config,
    to: &Message,
    address: Ipv4Addr,
    name: Option<&str>,
) -> Reply {
    let mut parameters = vec![
        Parameter::Verdict(Verdict::Ack),
        Parameter::Server(config.gateway),
    ];
    parameters.extend(settings(config, to, name));
    let head = Head {
        ciaddr: to.ciaddr.unwrap_or(Ipv4Addr::UNSPECIFIED),
        yiaddr: Ipv4Addr::UNSPECIFIED,
    };
    reply(config, to, head, parameters, (to.chaddr, address))
}

/// The mask, which comes before the router (RFC 2132 §3.3); what the client listed, in its order; router
/// and resolvers even if it did not list them; its own id (RFC 6842).
fn settings(config: &Config, to: &Message, name: Option<&str>) -> Vec<Parameter> {
    let mut parameters = vec![Parameter::Mask(config.mask())];
    let listed = to.wanted.as_deref().unwrap_or(&DEFAULT_LIST);
    let always = [code::ROUTER, code::RESOLVERS];
    let mut seen = [code::MASK].to_vec();
    for code in listed.iter().chain(&always) {
        if !seen.contains(code) {
            // A code without a setting is not noted: `seen` stays short, whatever the list.
            let setting = setting(config, *code, name);
            seen.extend(setting.is_some().then_some(*code));
            parameters.extend(setting);
        }
    }
    parameters.extend(to.client_id.clone().map(Parameter::ClientId));
    parameters
}

fn setting(config: &Config, code: u8, name: Option<&str>) -> Option<Parameter> {
    match code {
        code::ROUTER => config.router.map(Parameter::Router),
        code::RESOLVERS => Some(config.resolvers.clone())
            .filter(|list| !list.is_empty())
            .map(Parameter::Resolvers),
        code::HOST_NAME => name.map(|name| Parameter::HostName(name.to_owned())),
        code::DOMAIN => Some(config.domain.clone())
            .filter(|name| !name.is_empty())
            .map(Parameter::Domain),
        code::MTU => Some(Parameter::Mtu(config.mtu)),
        code::BROADCAST => Some(Parameter::Broadcast(config.broadcast())),
        code::SEARCH => Some(config.search.clone())
            .filter(|list| !list.is_empty())
            .map(Parameter::Search),
        code::ROUTES => routes(config).map(Parameter::Routes),
        _ => None,
    }
}

/// All routes, the default one included: a client that takes option 121 ignores option 3 (RFC 3442).
fn routes(config: &Config) -> Option<Vec<(Ipv4Addr, u8, Ipv4Addr)>> {
    if config.routes.is_empty() {
        return None;
    }
    let mut routes = config.routes.clone();
    let default = routes.iter().any(|(_, prefix_len, _)| *prefix_len == 0);
    if let Some(router) = config.router.filter(|_| !default) {
        routes.push((Ipv4Addr::UNSPECIFIED, 0, router));
    }
    Some(routes)
}

fn reply(
    config: &Config,
    to: &Message,
    head: Head,
    parameters: Vec<Parameter>,
    (mac, address): (Mac, Ipv4Addr),
) -> Reply {
    let most = config.mtu.max(MIN_MAX_SIZE);
    let size = to
        .max_size
        .unwrap_or(MIN_MAX_SIZE)
        .clamp(MIN_MAX_SIZE, most);
    let payload = message::write(to, head, parameters, (size - HEADERS).into());
    Reply {
        mac,
        address,
        port: CLIENT_PORT,
        payload,
    }
}
