//! A tap that joins a bridge: guests behind it are stations of the bridge's LAN, and the host reaches them as it does
//! everybody there.

use super::{BridgingError, bring_up, like, quiet_tap};
use crate::kernel::nics::{Nic, NicKind};
use crate::kernel::route::{LinkChange, Routes, link_index};
use std::io;
use std::os::fd::OwnedFd;

/// A tap of this name joins the bridge that the interface is, or is a member of. It leaves it when it is closed.
///
/// # Errors
///
/// See [`BridgingError`].
pub fn join(name: &str, alias: &str, nic: &Nic) -> Result<OwnedFd, BridgingError> {
    let bridge = match (&nic.bridge, nic.kind) {
        (Some(bridge), _) => link_index(bridge),
        (None, NicKind::Bridge) => Ok(nic.index),
        (None, _) => Err(io::ErrorKind::InvalidInput.into()),
    };
    let bridge = bridge.map_err(|error| BridgingError::Setting("the bridge", error))?;
    let (fd, index) = quiet_tap(name, alias)?;
    let mut routes = Routes::open()?;
    // A bridge without a MAC of its own takes the lowest of its members': it must not be this one's.
    let mut mac = [0; 6];
    rustix::rand::getrandom(&mut mac[..], rustix::rand::GetRandomFlags::empty())
        .map_err(|error| BridgingError::Setting("random bytes", error.into()))?;
    mac[0] = 0xfe;
    routes.change_link(
        index,
        LinkChange {
            mac: Some(mac),
            ..like(nic)
        },
    )?;
    routes.change_link(
        index,
        LinkChange {
            controller: Some(bridge),
            ..LinkChange::default()
        },
    )?;
    bring_up(&mut routes, index)?;
    Ok(fd)
}
