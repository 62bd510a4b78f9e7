//! Interfaces of the host that can be bridged to (`vmnet_copy_shared_interface_list`).

use crate::client::Client;
use crate::service;
use crate::status::Error;

pub use crate::service::SharedKind as SharedInterfaceKind;

/// An interface of the host whose LAN guests can be on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedInterface {
    /// Its name, for [`InterfaceConfiguration::bridged`](crate::InterfaceConfiguration::bridged).
    pub name: String,
    /// What it is.
    pub kind: SharedInterfaceKind,
    /// Its largest packet, which is that of guests too.
    pub mtu: u32,
    /// It is switched on, and its carrier is there.
    pub up: bool,
}

/// The interfaces of the host that can be bridged to (`vmnet_copy_shared_interface_list`). Those that there is no method for
/// are left out.
///
/// # Errors
/// [`Status::Failure`](crate::Status::Failure): the service cannot be reached.
pub fn shared_interfaces() -> Result<Vec<SharedInterface>, Error> {
    let all = Client::connect()?.list_shared_interfaces()?.interfaces;
    let usable = all.into_iter().filter(|one| one.method.is_some());
    Ok(usable.map(of).collect())
}

fn of(one: service::SharedInterface) -> SharedInterface {
    SharedInterface {
        name: one.name,
        kind: one.kind,
        mtu: one.mtu,
        up: one.up,
    }
}
