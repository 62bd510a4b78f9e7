//! The host's interfaces whose LAN guests can be on, in the service's words.

use crate::plan::shown_method as shown;
use crate::supervisor::chain;
use openvmnet::service::{
    MethodState, ServiceError, SharedInterface, SharedInterfaces, SharedKind,
};
use vmnet_linux::kernel::nics::{self, Method, Nic, NicKind};
use vmnet_wire::ethernet::Mac;

/// Reads them. Needs no service and no privilege.
///
/// # Errors
/// As netlink says.
pub fn interfaces() -> Result<SharedInterfaces, ServiceError> {
    let nics = nics::all().map_err(|error| ServiceError::Failed {
        reason: chain(&error),
    })?;
    Ok(SharedInterfaces {
        interfaces: nics.iter().map(show).collect(),
    })
}

fn show(nic: &Nic) -> SharedInterface {
    SharedInterface {
        name: nic.name.clone(),
        kind: match nic.kind {
            NicKind::Ethernet => SharedKind::Ethernet,
            NicKind::Vlan => SharedKind::Vlan,
            NicKind::Bond => SharedKind::Bond,
            NicKind::Bridge => SharedKind::Bridge,
            NicKind::Wifi => SharedKind::Wifi,
        },
        mac: Mac(nic.mac).to_string(),
        mtu: nic.mtu,
        up: nic.up,
        bridge: nic.bridge.clone(),
        method: nic.best().map(shown),
        methods: Method::ALL
            .into_iter()
            .map(|one| {
                let reason = nic.refuses(one);
                MethodState {
                    method: shown(one),
                    usable: reason.is_none(),
                    reason,
                }
            })
            .collect(),
    }
}
