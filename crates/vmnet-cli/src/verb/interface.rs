//! `vmnet interface`.

use super::network::scope;
use super::scoped::Scoped;
use super::table::{Table, or_none};
use super::{VerbError, each, listing, running, running_of, show};
use crate::args::interface::{InterfaceVerb, List, Stop};
use openvmnet::client::Client;
use openvmnet::service::{Interface, Kind};
use serde::Serialize;

/// Interfaces of both services.
#[derive(Debug, Serialize)]
pub(super) struct Interfaces {
    pub(super) interfaces: Vec<Scoped<Interface>>,
}

pub(crate) fn run(verb: &InterfaceVerb) -> Result<(), VerbError> {
    match verb {
        InterfaceVerb::List(asked) => list(asked),
        InterfaceVerb::Stop(asked) => stop(asked),
    }
}

/// Interfaces end with the service: without one there are none.
fn list(list: &List) -> Result<(), VerbError> {
    let network = list.network.as_deref();
    let of = |client: &mut Client| Ok(client.list_interfaces(network)?.interfaces);
    let interfaces = Interfaces {
        interfaces: Scoped::of_all(listing(network, running_of)?, of)?,
    };
    show(list.json, &interfaces, || table(&interfaces.interfaces))
}

fn stop(stop: &Stop) -> Result<(), VerbError> {
    let mut client = running()?.ok_or(VerbError::NoNumbers("interface"))?;
    each(&stop.numbers, |&number| client.stop_interface(number))
}

pub(super) fn table(interfaces: &[Scoped<Interface>]) -> String {
    let mut table = Table::new([
        "NUMBER", "NETWORK", "SCOPE", "KIND", "NAME", "ADDRESS", "MAC", "MTU", "PID", "ID",
    ]);
    for interface in interfaces {
        table.row([
            interface.interface.to_string(),
            interface
                .network_name
                .as_ref()
                .unwrap_or(&interface.network)
                .clone(),
            scope(interface.scope).to_owned(),
            kind(interface.kind).to_owned(),
            or_none(interface.name.as_ref()),
            or_none(interface.address.as_ref()),
            or_none(interface.mac.as_ref()),
            interface.mtu.to_string(),
            interface.pid.to_string(),
            or_none(interface.id.as_ref()),
        ]);
    }
    table.to_string()
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Tap => "tap",
        Kind::BridgeTap => "bridge tap",
        Kind::Stream => "stream",
        Kind::StreamListener => "stream-listener",
        Kind::Dgram => "dgram",
        Kind::DgramListener => "dgram-listener",
        Kind::VhostUser => "vhost-user",
        Kind::VhostUserClient => "vhost-user-client",
        Kind::VhostUserConnected => "vhost-user-connected",
    }
}

#[cfg(test)]
mod tests {
    use super::super::examples;
    use super::*;

    #[test]
    fn interfaces_as_a_table() {
        let interfaces = [examples::interface(), examples::bare_interface()].map(examples::scoped);
        insta::assert_snapshot!(table(&interfaces), @r"
        NUMBER  NETWORK                               SCOPE  KIND            NAME  ADDRESS    MAC                MTU   PID   ID
        7       lab                                   user   stream          web   10.77.0.2  52:54:00:12:34:56  9000  4711  0b1d9f6e-2c1a-4b7e-9f0a-3d1c5e7f9a2b
        12      01234567-89ab-4cde-8f01-23456789abcd  user   dgram-listener  -     -          -                  9000  4711  -
        ");
    }
}
