//! The way from guests to the host at an interface by whose LAN both are reached, but not each other.
//!
//! A frame that is sent out by an interface is not seen by the host as having come in. So what is for the host is given to
//! a tap whose every frame the kernel takes for one that came in by the interface (tc-mirred(8), `ingress redirect`). The
//! filter stands at the tap, and goes with it; the interface's own queueing is not touched.

use super::{BridgingError, bring_up, like, quiet_tap};
use crate::kernel::nics::Nic;
use crate::kernel::route::{LinkChange, Routes};
use crate::kernel::traffic_control::{self, Filter, Key};
use std::os::fd::OwnedFd;

/// A tap of this name: what is written to it comes to the host as if it had come in by the interface. It goes when it is
/// closed.
///
/// # Errors
///
/// See [`BridgingError`].
pub fn open(name: &str, alias: &str, nic: &Nic) -> Result<OwnedFd, BridgingError> {
    let (fd, index) = quiet_tap(name, alias)?;
    let mut routes = Routes::open()?;
    routes.change_link(
        index,
        LinkChange {
            // The kernel judges by the tap's MAC whether a frame is for the host, and does not judge again.
            mac: Some(nic.mac),
            arp: Some(false),
            ..like(nic)
        },
    )?;
    traffic_control::prepare(&mut routes, index)?;
    let every = Filter {
        priority: 1,
        of: libc::ETH_P_ALL,
        selected: &[&[Key::ANY]],
        to: nic.index,
        comes_in: true,
    };
    traffic_control::set(&mut routes, index, every)?;
    bring_up(&mut routes, index)?;
    Ok(fd)
}
