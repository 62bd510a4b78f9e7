//! How guests get onto the LAN of an interface of the host. All of it needs `CAP_NET_ADMIN` or `CAP_NET_RAW`.
//!
//! | file | what |
//! | --- | --- |
//! | [`bridge`] | a tap that joins a bridge |
//! | [`macvtap`] | a station of its own on an interface, for one guest |
//! | [`hostward`] | the way from guests to the host, where neither of them has it by nature |
//!
//! A packet socket, the third method, is [`lan_socket`](crate::sys::lan_socket).
//!
//! Nothing of the interface itself is changed: it keeps its addresses, routes, MTU, offloads and queueing. What is made
//! beside it is a tap, which goes when its descriptor is closed by whichever way; but a macvtap stays until somebody deletes
//! it. Both have an alias that says whose they are.

pub mod bridge;
pub mod hostward;
pub mod macvtap;

use super::nics::Nic;
use super::route::{LinkChange, RouteError, Routes, link_index};
use super::sysctl;
use super::tap::{self, TapError};
use std::io;
use std::os::fd::OwnedFd;

/// Frames that a tap holds on the way to us.
const QUEUE: u32 = 4096;

/// Guests cannot get onto the LAN.
#[derive(Debug, thiserror::Error)]
pub enum BridgingError {
    /// The kernel refused something about links.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// A tap could not be made.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// A setting could not be changed.
    #[error("{0}: {1}")]
    Setting(&'static str, #[source] io::Error),
    /// The device of a macvtap could not be opened.
    #[error(
        "{0}: {1}; let the service open it (contrib/udev/60-vmnet.rules), or use the method packet, as you must where \
         /dev is no devtmpfs"
    )]
    Device(String, #[source] io::Error),
    /// A device of the same name is another's.
    #[error("{0} belongs to another macvtap: use the method packet")]
    Foreign(String),
}

/// A tap that is down, has an alias, and carries no packets of the host itself: it has no IPv6 address of the link.
fn quiet_tap(name: &str, alias: &str) -> Result<(OwnedFd, u32), BridgingError> {
    let fd = tap::create(name, alias, false)?;
    let index = link_index(name).map_err(RouteError::from)?;
    forbid_ipv6(name)?;
    Ok((fd, index))
}

/// Lets the host have no IPv6 on a link; a host without IPv6 has none anyway.
fn forbid_ipv6(name: &str) -> Result<(), BridgingError> {
    match sysctl::write_ipv6(name, "disable_ipv6", "1") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(BridgingError::Setting("disable_ipv6", error))
        }
        _ => Ok(()),
    }
}

fn bring_up(routes: &mut Routes, index: u32) -> Result<(), RouteError> {
    let up = LinkChange {
        up: Some(true),
        ..LinkChange::default()
    };
    routes.change_link(index, up)
}

/// The largest packet, as that of the interface: a smaller one at a member would make its bridge's smaller.
fn like(nic: &Nic) -> LinkChange {
    LinkChange {
        mtu: Some(nic.mtu),
        queue_length: Some(QUEUE),
        ..LinkChange::default()
    }
}
