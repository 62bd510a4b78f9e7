//! What a guest on a bridge sends to the host's loopback, or from there, comes nowhere.
//!
//! The host refuses such packets by itself, until clients on its loopback are to reach forwarded ports: then it takes them from the
//! whole bridge (`route_localnet`, kernel `Documentation/networking/ip-sysctl.rst`). Rules refuse them instead
//! ([`nft`](super::nft)), but somebody may flush all rules. So filters that are no rules stand at each member, where nothing
//! has been translated yet; an answer to such a client is not for the loopback there. They send a packet back to its guest. Since each
//! packet pays for them, they are set where the loopback is open, and before it is opened.

use super::route::{RouteError, Routes};
use super::traffic_control::{self, Filter, Key};

/// IPv4, by its version.
const IPV4: u32 = 0x4000_0000;
const VERSION: u32 = 0xf000_0000;
/// 127.0.0.0/8.
const LOOPBACK: u32 = 0x7f00_0000;
const NETWORK: u32 = 0xff00_0000;
/// Where an IPv4 packet has its source, and its destination.
const ADDRESSES: [i32; 2] = [12, 16];
/// The tag of no VLAN, and what its second half says to stand behind it. The host opens no others.
const NO_VLAN: u32 = 0x0fff_ffff;
/// What IPv4 is called behind a tag.
const ETH_P_IP: u32 = 0x0800;
/// Bytes of a VLAN tag.
const TAG: i32 = 4;

/// Sets the filters of a member of a bridge.
///
/// # Errors
///
/// See [`RouteError`]: not every kernel has filters.
pub(super) fn set(routes: &mut Routes, member: u32) -> Result<(), RouteError> {
    let behind = |tags: i32| {
        ADDRESSES.map(|at| {
            [
                key(tags * TAG, VERSION, IPV4),
                key(tags * TAG + at, NETWORK, LOOPBACK),
            ]
        })
    };
    let [from, to] = behind(0);
    let [from_behind, to_behind] = behind(1).map(|[version, address]| {
        let is_ipv4 = key(0, NO_VLAN, ETH_P_IP);
        [is_ipv4, version, address]
    });
    // A third tag. The host takes the tag of no VLAN for none, however many there are.
    let [more, service] = [libc::ETH_P_8021Q, libc::ETH_P_8021AD]
        .map(|tag| [key(0, NO_VLAN, u32::try_from(tag).unwrap_or_default())]);
    let plain: [&[Key]; 2] = [&from, &to];
    let tagged: [&[Key]; 6] = [&from, &to, &from_behind, &to_behind, &more, &service];
    traffic_control::prepare(routes, member)?;
    for (priority, of, selected) in [
        (1, libc::ETH_P_IP, &plain[..]),
        (2, libc::ETH_P_8021Q, &tagged),
        (3, libc::ETH_P_8021AD, &tagged),
    ] {
        let filter = Filter {
            priority,
            of,
            selected,
            to: member,
            comes_in: false,
        };
        traffic_control::set(routes, member, filter)?;
    }
    Ok(())
}

fn key(offset: i32, mask: u32, value: u32) -> Key {
    Key {
        offset,
        mask,
        value,
    }
}
