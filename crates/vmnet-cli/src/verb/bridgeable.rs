//! `vmnet network bridgeable`.

use super::table::{Table, or_none, yes_or_no};
use super::{VerbError, running, show};
use crate::args::network::List;
use openvmnet::client::CallError;
use openvmnet::service::{BridgeMethod, SharedInterface, SharedKind};

/// Asks the service, which may be of another namespace than this process; without one the kernel says the same.
pub(super) fn list(list: &List) -> Result<(), VerbError> {
    let found = match running()? {
        Some(mut client) => client.list_shared_interfaces()?,
        None => vmnet_daemon::shared_interfaces().map_err(CallError::Refused)?,
    };
    show(list.json, &found, || text(&found.interfaces))
}

/// A table, and below it why an interface is of no use.
fn text(interfaces: &[SharedInterface]) -> String {
    let mut table = Table::new(["NAME", "KIND", "UP", "MAC", "MTU", "METHODS", "MEMBER-OF"]);
    let mut notes = String::new();
    for interface in interfaces {
        let usable: Vec<&str> = interface
            .methods
            .iter()
            .filter(|state| state.usable)
            .map(|state| method(state.method))
            .collect();
        let shown = Some(usable.join(",")).filter(|_| !usable.is_empty());
        table.row([
            interface.name.clone(),
            kind(interface.kind).to_owned(),
            yes_or_no(interface.up),
            interface.mac.clone(),
            interface.mtu.to_string(),
            or_none(shown),
            or_none(interface.bridge.as_ref()),
        ]);
        let why = interface
            .methods
            .iter()
            .find_map(|state| state.reason.as_ref());
        if let (None, Some(why)) = (interface.method, why) {
            notes.push_str(&format!("{why}\n"));
        }
    }
    match notes.is_empty() {
        true => table.to_string(),
        false => format!("{table}\n{notes}"),
    }
}

fn method(method: BridgeMethod) -> &'static str {
    match method {
        BridgeMethod::Bridge => "bridge",
        BridgeMethod::Macvtap => "macvtap",
        BridgeMethod::Packet => "packet",
    }
}

fn kind(kind: SharedKind) -> &'static str {
    match kind {
        SharedKind::Ethernet => "ethernet",
        SharedKind::Vlan => "vlan",
        SharedKind::Bond => "bond",
        SharedKind::Bridge => "bridge",
        SharedKind::Wifi => "wifi",
    }
}

#[cfg(test)]
mod tests {
    use super::super::examples;
    use super::*;

    #[test]
    fn what_can_be_bridged_as_a_table() {
        let interfaces = [
            examples::shared_interface(),
            examples::bare_shared_interface(),
        ];
        insta::assert_snapshot!(text(&interfaces), @"");
    }
}
