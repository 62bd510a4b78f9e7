//! `vmnet status`: looks, and starts nothing.

use super::lease::addresses;
use super::scoped::Scoped;
use super::table::sheet;
use super::{
    VerbError, forward, interface, machines, network, running, running_of, show, tell_of_lost_store,
};
use crate::args::status::Status as Asked;
use crate::span::Span;
use crate::startable;
use openvmnet::client::Client;
use openvmnet::place::{self, Scope};
use openvmnet::service::{Forward, Interface, Lease, LeaseState, Network, Reserved, Status};
use serde::Serialize;

/// The service and its networks.
#[derive(Debug, Default, Serialize)]
pub(super) struct Overview {
    pub(super) service: Option<Status>,
    /// The machine's beside it.
    pub(super) machine: Option<Status>,
    pub(super) networks: Vec<Network>,
}

/// One network and all that is on it.
#[derive(Debug, Serialize)]
pub(super) struct Closeup {
    pub(super) service: Status,
    pub(super) network: Network,
    pub(super) interfaces: Vec<Scoped<Interface>>,
    pub(super) forwards: Vec<Scoped<Forward>>,
    pub(super) leases: Vec<Scoped<Lease>>,
    pub(super) reservations: Vec<Scoped<Reserved>>,
}

pub(crate) fn run(asked: &Asked) -> Result<(), VerbError> {
    match &asked.network {
        None => {
            let overview = overview(running()?, machines()?)?;
            tell_of_lost_store();
            show(asked.json, &overview, || describe(&overview))
        }
        Some(name) => {
            let client =
                running_of(Some(name))?.ok_or_else(|| VerbError::NothingUp(name.clone()))?;
            for closeup in closeups(client, name)? {
                show(asked.json, &closeup, || describe_one(&closeup))?;
            }
            Ok(())
        }
    }
}

fn overview(service: Option<Client>, machine: Option<Client>) -> Result<Overview, VerbError> {
    let mut overview = Overview::default();
    for (client, place) in [
        (service, &mut overview.service),
        (machine, &mut overview.machine),
    ] {
        let Some(mut client) = client else { continue };
        *place = Some(client.status()?);
        let networks = client.list_networks(None)?.networks;
        overview.networks.extend(networks);
    }
    Ok(overview)
}

/// One, or none if the network ends while we look.
fn closeups(mut client: Client, name: &str) -> Result<Vec<Closeup>, VerbError> {
    let mut closeups = Vec::new();
    for network in client.list_networks(Some(name))?.networks {
        let addresses = addresses(&mut client, Some(&network.uuid))?;
        closeups.push(Closeup {
            service: client.status()?,
            interfaces: Scoped::of(&mut client, |it| {
                Ok(it.list_interfaces(Some(&network.uuid))?.interfaces)
            })?,
            forwards: Scoped::of(&mut client, |it| {
                Ok(it.list_forwards(Some(&network.uuid))?.forwards)
            })?,
            leases: addresses.leases,
            reservations: addresses.reservations,
            network,
        });
    }
    Ok(closeups)
}

fn describe(overview: &Overview) -> String {
    let mut text = match &overview.service {
        Some(status) => service(status),
        None => match startable::obstacle() {
            None => format!(
                "the service does not run; what needs it starts it, at {}\n",
                place::socket(Scope::User).display()
            ),
            Some(why) => format!("the service does not run, and cannot be started: {why}\n"),
        },
    };
    if let Some(machine) = &overview.machine {
        text.push('\n');
        text.push_str(&service(machine));
    }
    if overview.service.is_none() && overview.machine.is_none() {
        return text;
    }
    if overview.networks.is_empty() {
        text.push_str("\nno networks\n");
    } else {
        text.push('\n');
        text.push_str(&network::table(&overview.networks));
    }
    text
}

fn service(status: &Status) -> String {
    sheet(&[
        ("version", status.version.clone()),
        ("pid", status.pid.to_string()),
        ("scope", network::scope(status.scope).to_owned()),
        ("uptime", Span::seconds(status.uptime_seconds).to_string()),
        ("socket", status.socket.clone()),
        (
            "store",
            status
                .store
                .clone()
                .unwrap_or_else(|| "nothing is kept".to_owned()),
        ),
        (
            "configuration",
            status.configuration.clone().unwrap_or_default(),
        ),
        ("networks", status.networks.to_string()),
        ("interfaces", status.interfaces.to_string()),
        ("connections", status.connections.to_string()),
    ])
}

fn describe_one(closeup: &Closeup) -> String {
    let bound = |lease: &&Scoped<Lease>| lease.state == LeaseState::Bound;
    let leased = closeup.leases.iter().filter(bound).count();
    let reserved = closeup.reservations.len();
    let mut lines = network::properties(&closeup.network);
    lines.push(("addresses", format!("{leased} leased, {reserved} reserved")));
    let mut text = sheet(&lines);
    if !closeup.interfaces.is_empty() {
        text.push('\n');
        text.push_str(&interface::table(&closeup.interfaces));
    }
    if !closeup.forwards.is_empty() {
        text.push('\n');
        text.push_str(&forward::table(&closeup.forwards));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::examples;
    use super::*;

    #[test]
    fn the_service_and_its_networks() {
        let overview = Overview {
            service: Some(examples::status()),
            machine: None,
            networks: vec![examples::network()],
        };
        insta::assert_snapshot!(describe(&overview), @r"
        version        0.1.0
        pid            4242
        scope          user
        uptime         1d1h
        socket         /run/user/1000/vmnet/vmnet.sock
        store          /home/u/.local/state/vmnet/store.redb
        configuration  /home/u/.config/vmnet/vmnet.toml
        networks       1
        interfaces     2
        connections    3

        NAME  SCOPE  MODE    SUBNET        LIFETIME  INTERFACES  UUID
        lab   user   shared  10.77.0.0/24  kept      2           6ba7b810-9dad-41d1-80b4-00c04fd430c8
        ");
        let overview = Overview {
            service: Some(examples::bare_status()),
            machine: None,
            networks: Vec::new(),
        };
        insta::assert_snapshot!(describe(&overview), @r"
        version        0.1.0
        pid            4242
        scope          user
        uptime         1d1h
        socket         /run/user/1000/vmnet/vmnet.sock
        store          nothing is kept
        configuration  -
        networks       1
        interfaces     2
        connections    3

        no networks
        ");
        let mut machine = examples::status();
        machine.scope = Scope::System;
        let overview = Overview {
            machine: Some(machine),
            ..Overview::default()
        };
        let text = describe(&overview);
        assert!(text.starts_with("the service does not run"), "{text}");
        assert!(text.contains("scope          system"), "{text}");
        let text = describe(&Overview::default());
        assert!(text.starts_with("the service does not run"), "{text}");
    }

    #[test]
    fn one_network_with_all_that_is_on_it() {
        insta::assert_snapshot!(describe_one(&examples::closeup()), @r"
        name                  lab
        uuid                  6ba7b810-9dad-41d1-80b4-00c04fd430c8
        scope                 user
        mode                  shared
        subnet                10.77.0.0/24
        gateway               10.77.0.1
        mtu                   9000
        dhcp                  10.77.0.2-10.77.0.254
        lease time            12h
        dns proxy             yes
        resolvers             10.0.0.53 [fd00::53]:5353
        domain                lab.internal
        nat44                 yes
        ipv6 prefix           fd12:3456:789a:1::/64
        ipv6 gateway          fd12:3456:789a:1::1
        nat66                 yes
        router advertisement  yes
        dhcp6                 yes
        external interface    eth0
        isolation             no
        host loopback         yes
        datapath              kernel, by the bridge vmnet0
        lifetime              kept
        holders               1
        interfaces            2
        addresses             1 leased, 1 reserved

        NUMBER  NETWORK  SCOPE  KIND    NAME  ADDRESS    MAC                MTU   PID   ID
        7       lab      user   stream  web   10.77.0.2  52:54:00:12:34:56  9000  4711  0b1d9f6e-2c1a-4b7e-9f0a-3d1c5e7f9a2b

        NUMBER  NETWORK  SCOPE  LISTEN             GUEST            PROTOCOL  EXCEPT          INTERFACE
        3       lab      user   0.0.0.0:8000-8009  10.77.0.2:80-89  tcp       8001-8003,8007  7
        ");
    }
}
