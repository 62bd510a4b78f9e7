//! What comes by a bridge of ours leaves by one interface and no other: a rule of policy routing (ip-rule(8)) has such packets
//! look into a table of their own, which has that interface's routes of the main table, and ends with "unreachable".
//!
//! Both are known by the table's number, which is made of the bridge's: nothing needs to be remembered, and what a killed
//! service has left is found. What a forwarded port has made is routed as the host routes: its clients come by any interface.

use super::nft::PREFIX;
use super::nft::render::ROUTED_BY_HOST;
use super::route::{RouteError, Routes, link_index};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHop, RouteNextHopFlags,
    RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::io;

/// Tables of ours begin here; the bridge's number is added.
const TABLES: u32 = 0x766d_0000;
/// Before the host's own rules, behind its own addresses.
const PRIORITY: u32 = 1000;
/// A route that all others come before.
const LAST: u32 = u32::MAX;

const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];

/// Has what comes by a bridge leave by this interface, by its routes as they are now; `None` takes that back. To be called again
/// when the host's routes may have changed.
///
/// # Errors
///
/// See [`RouteError`].
pub fn follow(bridge: &str, external: Option<&str>) -> Result<(), RouteError> {
    let Some(table) = table_of(bridge) else {
        return Ok(());
    };
    let mut routes = Routes::open()?;
    for family in FAMILIES {
        let wanted = match external {
            Some(external) => wanted(&mut routes, family, &[bridge, external], table)?,
            None => Vec::new(),
        };
        let there = of_table(&mut routes, family, table)?;
        // Routes by gateways need those to the gateways.
        for route in wanted.iter().filter(|route| !there.contains(route)) {
            routes.ask(
                RouteNetlinkMessage::NewRoute(route.clone()),
                NLM_F_CREATE | NLM_F_REPLACE,
                &format!("set a route of {bridge}"),
            )?;
        }
        rule(&mut routes, family, bridge, (table, external.is_some()))?;
        for route in there.into_iter().filter(|route| !wanted.contains(route)) {
            gone(routes.ask(
                RouteNetlinkMessage::DelRoute(route),
                0,
                &format!("remove a route of {bridge}"),
            ))?;
        }
    }
    Ok(())
}

/// Takes back what is there for bridges that are gone.
///
/// # Errors
///
/// See [`RouteError`].
pub fn sweep() -> Result<(), RouteError> {
    let mut routes = Routes::open()?;
    for family in FAMILIES {
        for rule in rules(&mut routes, family)? {
            let bridge = incoming(&rule).unwrap_or_default().to_owned();
            if link_index(&bridge).is_err() {
                follow(&bridge, None)?;
            }
        }
    }
    Ok(())
}

fn table_of(bridge: &str) -> Option<u32> {
    let number: u16 = bridge.strip_prefix(PREFIX)?.parse().ok()?;
    Some(TABLES | u32::from(number))
}

/// Sets or removes the rule of a bridge.
fn rule(
    routes: &mut Routes,
    family: AddressFamily,
    bridge: &str,
    (table, wanted): (u32, bool),
) -> Result<(), RouteError> {
    let all = rules(routes, family)?;
    let mut there = all
        .into_iter()
        .filter(|rule| incoming(rule) == Some(bridge));
    if wanted && there.by_ref().next().is_none() {
        let mut message = RuleMessage::default();
        message.header.family = family;
        message.header.action = RuleAction::ToTable;
        message.attributes = vec![
            RuleAttribute::Priority(PRIORITY),
            RuleAttribute::Iifname(bridge.to_owned()),
            RuleAttribute::FwMark(0),
            RuleAttribute::FwMask(ROUTED_BY_HOST),
            RuleAttribute::Table(table),
        ];
        return routes.ask(
            RouteNetlinkMessage::NewRule(message),
            NLM_F_CREATE | NLM_F_EXCL,
            &format!("set the rule of {bridge}"),
        );
    }
    // One that is wanted stays.
    for rule in there {
        gone(routes.ask(
            RouteNetlinkMessage::DelRule(rule),
            0,
            &format!("remove a rule of {bridge}"),
        ))?;
    }
    Ok(())
}

/// Rules of ours of all bridges.
fn rules(routes: &mut Routes, family: AddressFamily) -> Result<Vec<RuleMessage>, RouteError> {
    let mut request = RuleMessage::default();
    request.header.family = family;
    let mut found = Vec::new();
    routes.dump(
        RouteNetlinkMessage::GetRule(request),
        "list the rules of routing",
        |message| {
            if let RouteNetlinkMessage::NewRule(rule) = message {
                let ours = incoming(&rule).and_then(table_of);
                let is_it =
                    |it: &RuleAttribute| matches!(it, RuleAttribute::Table(n) if Some(*n) == ours);
                if ours.is_some() && rule.attributes.iter().any(is_it) {
                    found.push(rule);
                }
            }
        },
    )?;
    Ok(found)
}

fn incoming(rule: &RuleMessage) -> Option<&str> {
    rule.attributes.iter().find_map(|it| match it {
        RuleAttribute::Iifname(name) => Some(name.as_str()),
        _ => None,
    })
}

/// The routes that a table of ours is to have, in the order in which they can be set: those of these interfaces. The bridge's
/// own is for `rp_filter`, which asks this table where a packet to the bridge may come from.
fn wanted(
    routes: &mut Routes,
    family: AddressFamily,
    interfaces: &[&str],
    table: u32,
) -> Result<Vec<RouteMessage>, RouteError> {
    let mut wanted = Vec::new();
    let main = of_table(routes, family, RouteHeader::RT_TABLE_MAIN.into())?;
    // One that is gone has no routes.
    for index in interfaces.iter().filter_map(|name| link_index(name).ok()) {
        let by = main
            .iter()
            .filter_map(|route| by_interface(route.clone(), index));
        wanted.extend(by.map(|route| in_table(route, table)));
    }
    wanted.sort_by_key(is_by_gateway);
    let mut last = RouteMessage::default();
    last.header.address_family = family;
    last.header.protocol = RouteProtocol::Static;
    last.header.kind = RouteType::Unreachable;
    last.header.scope = RouteScope::Universe;
    last.attributes.push(RouteAttribute::Priority(LAST));
    wanted.push(in_table(last, table));
    Ok(wanted)
}

/// The routes of a table, each in one form.
fn of_table(
    routes: &mut Routes,
    family: AddressFamily,
    table: u32,
) -> Result<Vec<RouteMessage>, RouteError> {
    let mut request = RouteMessage::default();
    request.header.address_family = family;
    let mut found = Vec::new();
    routes.dump(
        RouteNetlinkMessage::GetRoute(request),
        "list the routes",
        |message| {
            if let RouteNetlinkMessage::NewRoute(route) = message
                && number_of(&route) == table
            {
                found.push(in_table(route, table));
            }
        },
    )?;
    Ok(found)
}

fn number_of(route: &RouteMessage) -> u32 {
    let long = route.attributes.iter().find_map(|it| match it {
        RouteAttribute::Table(number) => Some(*number),
        _ => None,
    });
    long.unwrap_or_else(|| route.header.table.into())
}

/// A route as it stands in a table: what the kernel tells of its state is left out.
fn in_table(mut route: RouteMessage, table: u32) -> RouteMessage {
    route.header.table = u8::try_from(table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
    route.header.flags &= RouteFlags::Onlink;
    let is_given = |it: &RouteAttribute| {
        matches!(
            it,
            RouteAttribute::Destination(_)
                | RouteAttribute::Source(_)
                | RouteAttribute::Gateway(_)
                | RouteAttribute::Via(_)
                | RouteAttribute::PrefSource(_)
                | RouteAttribute::Oif(_)
                | RouteAttribute::Priority(_)
                | RouteAttribute::MultiPath(_)
                | RouteAttribute::Preference(_)
        )
    };
    route.attributes.retain(is_given);
    // Each kernel has its order.
    route.attributes.sort_by_key(|it| match it {
        RouteAttribute::Destination(_) => 0,
        RouteAttribute::Source(_) => 1,
        RouteAttribute::Oif(_) => 2,
        RouteAttribute::Gateway(_) => 3,
        RouteAttribute::Via(_) => 4,
        RouteAttribute::PrefSource(_) => 5,
        RouteAttribute::Priority(_) => 6,
        RouteAttribute::Preference(_) => 7,
        _ => 8,
    });
    route.attributes.push(RouteAttribute::Table(table));
    route
}

/// A route as far as it goes by this interface.
fn by_interface(mut route: RouteMessage, index: u32) -> Option<RouteMessage> {
    if route.header.kind != RouteType::Unicast {
        return None;
    }
    let is_by = |it: &RouteAttribute| matches!(it, RouteAttribute::Oif(oif) if *oif == index);
    if route.attributes.iter().any(is_by) {
        return Some(route);
    }
    let at = route
        .attributes
        .iter()
        .position(|it| matches!(it, RouteAttribute::MultiPath(_)))?;
    let RouteAttribute::MultiPath(hops) = route.attributes.remove(at) else {
        return None;
    };
    let is_by = |hop: &RouteNextHop| hop.interface_index == index;
    let hop = hops.into_iter().find(is_by)?;
    if hop.flags.contains(RouteNextHopFlags::Onlink) {
        route.header.flags |= RouteFlags::Onlink;
    }
    route.attributes.push(RouteAttribute::Oif(index));
    route.attributes.extend(hop.attributes);
    Some(route)
}

fn is_by_gateway(route: &RouteMessage) -> bool {
    let is_it =
        |it: &RouteAttribute| matches!(it, RouteAttribute::Gateway(_) | RouteAttribute::Via(_));
    route.attributes.iter().any(is_it)
}

/// What goes with its interface may be gone already.
fn gone(answer: Result<(), RouteError>) -> Result<(), RouteError> {
    match answer {
        Err(RouteError::Refused { source, .. })
            if matches!(
                source.raw_os_error(),
                Some(libc::ESRCH | libc::ENOENT | libc::ENODEV)
            ) || source.kind() == io::ErrorKind::NotFound =>
        {
            Ok(())
        }
        answer => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bridge_has_a_table_of_its_own_and_nothing_else_has() {
        assert_eq!(table_of("vmnet0"), Some(0x766d_0000));
        assert_eq!(table_of("vmnet9999"), Some(0x766d_270f));
        for other in ["", "eth0", "vmnet", "vmnet0-gw", "vmnet-1", "vmnet70000"] {
            assert_eq!(table_of(other), None, "{other}");
        }
    }

    #[test]
    fn of_several_paths_the_interfaces_own_is_taken() {
        let hop = |interface_index| {
            let mut hop = RouteNextHop::default();
            hop.interface_index = interface_index;
            hop.attributes = vec![RouteAttribute::Gateway(
                std::net::Ipv4Addr::new(10, 0, 0, u8::try_from(interface_index).unwrap()).into(),
            )];
            hop
        };
        let mut route = RouteMessage::default();
        route.header.kind = RouteType::Unicast;
        route.attributes = vec![RouteAttribute::MultiPath(vec![hop(2), hop(3)])];
        let found = in_table(by_interface(route.clone(), 3).unwrap(), 7);
        let gateway = std::net::Ipv4Addr::new(10, 0, 0, 3).into();
        let expected = [
            RouteAttribute::Oif(3),
            RouteAttribute::Gateway(gateway),
            RouteAttribute::Table(7),
        ];
        assert_eq!(found.attributes, expected);
        assert_eq!(by_interface(route, 4), None);
    }
}
