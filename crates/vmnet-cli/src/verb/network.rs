//! `vmnet network`.

use super::table::{Table, or_none, sheet, yes_or_no};
use super::{VerbError, bridgeable, each, keeping, machines, of, show, tell_of_lost_store};
use crate::args::network::{Create, Delete, List, Method, Mode as Leading, NetworkVerb, Show};
use crate::network::subnet;
use crate::span::Span;
use openvmnet::choice::{self, Wanted};
use openvmnet::client::Client;
use openvmnet::service::{
    BridgeMethod, Datapath, Lifetime, Mode, Network, NetworkConfiguration, Networks, Scope,
};
use serde::Serialize;
use std::collections::BTreeMap;

/// A network with what it counted.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    #[serde(flatten)]
    pub(super) network: Network,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) counters: Option<BTreeMap<String, u64>>,
}

pub(crate) fn run(verb: NetworkVerb) -> Result<(), VerbError> {
    match verb {
        NetworkVerb::Create(asked) => create(*asked),
        NetworkVerb::List(asked) => list(&asked),
        NetworkVerb::Bridgeable(asked) => bridgeable::list(&asked),
        NetworkVerb::Show(asked) => one(&asked),
        NetworkVerb::Delete(asked) => delete(&asked),
    }
}

fn create(create: Create) -> Result<(), VerbError> {
    let json = create.json;
    let configuration = configuration(create);
    let privileges = configuration.takes_privileges();
    if privileges.is_none() {
        choice::refuse_machines(configuration.name.as_deref().unwrap_or_default())?;
    }
    let mut client = Client::connect_for(Wanted {
        network: None,
        privileges,
    })?;
    let network = client.create_network(configuration)?;
    if let Some(Ok(subnet)) = network.subnet.as_deref().map(str::parse) {
        subnet::warn_of_public(subnet);
    }
    show(json, &network, || line(&network) + "\n")
}

/// What was typed is what is asked for; what was not typed is the service's to choose.
fn configuration(create: Create) -> NetworkConfiguration {
    let no = |said: bool| said.then_some(false);
    let yes = |said: bool| said.then_some(true);
    let mode = match create.mode {
        Some(Leading::Host) => Mode::Host,
        Some(Leading::Bridged) => Mode::Bridged,
        Some(Leading::Shared) => Mode::Shared,
        // What a network of this name is that is there for the asking.
        None if create.private || create.name == "host" => Mode::Host,
        None => Mode::Shared,
    };
    let (first, last) = create.dhcp_range.unzip();
    NetworkConfiguration {
        mode,
        name: Some(create.name),
        uuid: create.uuid,
        subnet: create.subnet,
        dhcp_first: first.map(|address| address.to_string()),
        dhcp_last: last.map(|address| address.to_string()),
        mtu: create.mtu,
        dhcp: no(create.no_dhcp),
        dns_proxy: no(create.no_dns),
        nat44: no(create.no_nat44),
        ipv6: no(create.no_ipv6),
        ipv6_prefix: create.ipv6_prefix.map(|prefix| prefix.to_string()),
        nat66: no(create.no_nat66),
        router_advertisement: no(create.no_router_advertisement),
        dhcp6: no(create.no_dhcp6),
        external_interface: create.external_interface.or(create.interface),
        bridge_method: create.method.and_then(method),
        domain: create.domain,
        resolvers: Some(create.resolvers).filter(|resolvers| !resolvers.is_empty()),
        lease_seconds: create
            .lease_time
            .map(|span| u32::try_from(span.seconds).unwrap_or(u32::MAX)),
        isolation: yes(create.isolation),
        host_loopback: yes(create.host_loopback),
        datapath: create.datapath.map(Into::into),
        private: yes(create.private),
    }
}

fn method(method: Method) -> Option<BridgeMethod> {
    match method {
        Method::Auto => None,
        Method::Bridge => Some(BridgeMethod::Bridge),
        Method::Packet => Some(BridgeMethod::Packet),
        Method::Macvtap => Some(BridgeMethod::Macvtap),
    }
}

fn list(list: &List) -> Result<(), VerbError> {
    let mut networks = Vec::new();
    for mut client in [keeping()?, machines()?].into_iter().flatten() {
        networks.extend(client.list_networks(None)?.networks);
    }
    tell_of_lost_store();
    let networks = Networks { networks };
    show(list.json, &networks, || table(&networks.networks))
}

fn one(asked: &Show) -> Result<(), VerbError> {
    let mut client = of(&asked.network)?;
    let networks = client.list_networks(Some(&asked.network))?.networks;
    for network in networks {
        let counters = if asked.counters {
            Some(client.get_counters(&network.uuid)?.counters)
        } else {
            None
        };
        let shown = Shown { network, counters };
        show(asked.json, &shown, || describe(&shown))?;
    }
    Ok(())
}

fn delete(delete: &Delete) -> Result<(), VerbError> {
    // All of one command are of one service: the one that has the first.
    let Some(first) = delete.networks.first() else {
        return Ok(());
    };
    let mut client = of(first)?;
    each(&delete.networks, |network| {
        client.delete_network(network, delete.force)
    })
}

pub(super) fn table(networks: &[Network]) -> String {
    let headings = [
        "NAME",
        "SCOPE",
        "MODE",
        "SUBNET",
        "LIFETIME",
        "INTERFACES",
        "UUID",
    ];
    let mut table = Table::new(headings);
    for network in networks {
        table.row([
            or_none(network.name.as_ref()),
            scope(network.scope).to_owned(),
            kind(network).to_owned(),
            or_none(network.subnet.as_ref()),
            lifetime(network).to_owned(),
            network.interfaces.to_string(),
            network.uuid.clone(),
        ]);
    }
    table.to_string()
}

/// A network in one line.
fn line(network: &Network) -> String {
    let name = network.name.as_ref().unwrap_or(&network.uuid);
    let mut text = format!("{name}: {}", kind(network));
    if let Some(subnet) = &network.subnet {
        text.push_str(&format!(", {subnet}"));
    }
    if let Some(gateway) = &network.gateway {
        text.push_str(&format!(", gateway {gateway}"));
    }
    if let Some(prefix) = &network.ipv6_prefix {
        text.push_str(&format!(", {prefix}"));
    }
    let lan = network
        .external_interface
        .as_ref()
        .zip(network.bridge_method);
    if let Some((interface, method)) = lan.filter(|_| network.mode == Mode::Bridged) {
        let method = bridgeable::method(method);
        text.push_str(&format!(", to the LAN of {interface} by {method}"));
    }
    text
}

pub(super) fn kind(network: &Network) -> &'static str {
    match network.mode {
        _ if network.private => "private",
        Mode::Host => "host",
        Mode::Shared => "shared",
        Mode::Bridged => "bridged",
    }
}

pub(super) fn scope(scope: Scope) -> &'static str {
    match scope {
        Scope::User => "user",
        Scope::System => "system",
    }
}

fn lifetime(network: &Network) -> &'static str {
    match network.lifetime {
        Lifetime::Kept => "kept",
        Lifetime::Configured => "configured",
        Lifetime::Held => "held",
    }
}

/// All of a network, and what it counted.
fn describe(shown: &Shown) -> String {
    let mut text = sheet(&properties(&shown.network));
    if let Some(counters) = &shown.counters {
        let lines: Vec<(&str, String)> = counters
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_string()))
            .collect();
        text.push('\n');
        text.push_str(&sheet(&lines));
    }
    text
}

/// All of a network, each with its name.
pub(super) fn properties(network: &Network) -> Vec<(&'static str, String)> {
    let pool = match (&network.dhcp_first, &network.dhcp_last) {
        (Some(first), Some(last)) if network.dhcp => format!("{first}-{last}"),
        _ => yes_or_no(network.dhcp),
    };
    let is_bridged = network.mode == Mode::Bridged;
    // What has no effect is not shown.
    let resolvers = match &network.configuration.resolvers {
        _ if network.private || is_bridged => "-".to_owned(),
        Some(resolvers) => resolvers.join(" "),
        None => "the host's".to_owned(),
    };
    let way_out = match &network.external_interface {
        Some(interface) if is_bridged => interface.clone(),
        _ if !network.nat44 && !network.nat66 => "-".to_owned(),
        Some(interface) => interface.clone(),
        None => "as the host routes".to_owned(),
    };
    let lease_time = Span::seconds(network.lease_seconds.into());
    let lease_time = or_none(network.dhcp.then_some(lease_time));
    let domain = or_none((!network.private && !is_bridged).then_some(&network.domain));
    let method = network.bridge_method.filter(|_| is_bridged);
    let mut properties = vec![
        ("name", or_none(network.name.as_ref())),
        ("uuid", network.uuid.clone()),
        ("scope", scope(network.scope).to_owned()),
        ("mode", kind(network).to_owned()),
        ("subnet", or_none(network.subnet.as_ref())),
        ("gateway", or_none(network.gateway.as_ref())),
        ("mtu", network.mtu.to_string()),
        ("dhcp", pool),
        ("lease time", lease_time),
        ("dns proxy", yes_or_no(network.dns_proxy)),
        ("resolvers", resolvers),
        ("domain", domain),
        ("nat44", yes_or_no(network.nat44)),
        ("ipv6 prefix", or_none(network.ipv6_prefix.as_ref())),
        ("ipv6 gateway", or_none(network.ipv6_gateway.as_ref())),
        ("nat66", yes_or_no(network.nat66)),
        (
            "router advertisement",
            yes_or_no(network.router_advertisement),
        ),
        ("dhcp6", yes_or_no(network.dhcp6)),
        ("external interface", way_out),
        ("isolation", yes_or_no(network.isolation)),
        ("host loopback", yes_or_no(network.host_loopback)),
        (
            "datapath",
            match (network.datapath, &network.host_interface) {
                (Datapath::User, _) => "user".to_owned(),
                (Datapath::Kernel, None) => "kernel".to_owned(),
                (Datapath::Kernel, Some(bridge)) => format!("kernel, by the bridge {bridge}"),
            },
        ),
        ("lifetime", lifetime(network).to_owned()),
        ("holders", network.holders.to_string()),
        ("interfaces", network.interfaces.to_string()),
    ];
    properties
        .extend(method.map(|method| ("bridge method", bridgeable::method(method).to_owned())));
    properties
}

#[cfg(test)]
mod tests {
    use super::super::examples;
    use super::*;
    use crate::args::service::ServiceVerb;
    use crate::args::{Args, Verb};
    use clap::Parser as _;

    fn asked(words: &str) -> NetworkConfiguration {
        let words = format!("vmnet network create {words}");
        match Args::parse_from(words.split_whitespace()).verb {
            Verb::Service(ServiceVerb::Network(network)) => match network.verb {
                NetworkVerb::Create(create) => configuration(*create),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_not_typed_is_not_asked_for() {
        let mut expected = NetworkConfiguration::new(Mode::Shared);
        expected.name = Some("lab".into());
        assert_eq!(asked("lab"), expected);
        expected.mode = Mode::Host;
        assert_eq!(asked("lab --mode host"), expected);
        expected.private = Some(true);
        assert_eq!(asked("lab --private"), expected);
        assert_eq!(asked("host").mode, Mode::Host);
        assert_eq!(asked("host --mode shared").mode, Mode::Shared);
    }

    #[test]
    fn everything_can_be_typed() {
        let configuration = asked(
            "lab --mode shared --subnet 10.77.0.1/24 --dhcp-range 10.77.0.100-10.77.0.199 --mtu 9000 \
             --no-dns --no-nat44 --ipv6-prefix fd12:3456:789a:1::1 --no-nat66 --no-router-advertisement \
             --no-dhcp6 --external-interface eth0 --domain lab.internal --resolver 10.0.0.53 \
             --resolver [fd00::53]:5353 --lease-time 12h --isolation --host-loopback \
             --uuid 6ba7b810-9dad-41d1-80b4-00c04fd430c8",
        );
        insta::assert_snapshot!(serde_json::to_string_pretty(&configuration).unwrap(), @r#"
        {
          "mode": "shared",
          "name": "lab",
          "uuid": "6ba7b810-9dad-41d1-80b4-00c04fd430c8",
          "subnet": "10.77.0.1/24",
          "dhcp_first": "10.77.0.100",
          "dhcp_last": "10.77.0.199",
          "mtu": 9000,
          "dns_proxy": false,
          "nat44": false,
          "ipv6_prefix": "fd12:3456:789a:1::/64",
          "nat66": false,
          "router_advertisement": false,
          "dhcp6": false,
          "external_interface": "eth0",
          "domain": "lab.internal",
          "resolvers": [
            "10.0.0.53",
            "[fd00::53]:5353"
          ],
          "lease_seconds": 43200,
          "isolation": true,
          "host_loopback": true
        }
        "#);
        assert_eq!(asked("lab --no-dhcp").dhcp, Some(false));
        assert_eq!(asked("lab --no-ipv6").ipv6, Some(false));
    }

    #[test]
    fn what_cannot_be_together_is_refused() {
        for words in [
            "lab --no-dhcp --lease-time 1h",
            "lab --no-ipv6 --ipv6-prefix fd12::/64",
            "lab --no-ipv6 --no-nat66",
            "lab --private --domain x",
            "lab --mtu 500",
            "lab --mode nowhere",
            "lab --mode bridged --method packet",
            "lab --interface eth0 --external-interface eth1",
            "",
        ] {
            let words = format!("vmnet network create {words}");
            assert!(
                Args::try_parse_from(words.split_whitespace()).is_err(),
                "{words}"
            );
        }
    }

    #[test]
    fn networks_as_a_table() {
        let networks = [examples::network(), examples::bare_network()];
        insta::assert_snapshot!(table(&networks), @r"
        NAME  SCOPE  MODE     SUBNET        LIFETIME  INTERFACES  UUID
        lab   user   shared   10.77.0.0/24  kept      2           6ba7b810-9dad-41d1-80b4-00c04fd430c8
        -     user   private  -             held      0           01234567-89ab-4cde-8f01-23456789abcd
        ");
        assert_eq!(
            line(&networks[0]),
            "lab: shared, 10.77.0.0/24, gateway 10.77.0.1, fd12:3456:789a:1::/64"
        );
        assert_eq!(
            line(&networks[1]),
            "01234567-89ab-4cde-8f01-23456789abcd: private"
        );
    }

    #[test]
    fn a_network_in_full() {
        let counters = BTreeMap::from([
            ("drop-spoofed".to_owned(), 7),
            ("frames-forwarded".to_owned(), 12_345),
        ]);
        let shown = Shown {
            network: examples::network(),
            counters: Some(counters),
        };
        insta::assert_snapshot!(describe(&shown), @r"
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

        drop-spoofed      7
        frames-forwarded  12345
        ");
        let shown = Shown {
            network: examples::bare_network(),
            counters: None,
        };
        insta::assert_snapshot!(describe(&shown), @r"
        name                  -
        uuid                  01234567-89ab-4cde-8f01-23456789abcd
        scope                 user
        mode                  private
        subnet                -
        gateway               -
        mtu                   1500
        dhcp                  no
        lease time            -
        dns proxy             no
        resolvers             -
        domain                -
        nat44                 no
        ipv6 prefix           -
        ipv6 gateway          -
        nat66                 no
        router advertisement  no
        dhcp6                 no
        external interface    -
        isolation             no
        host loopback         no
        datapath              user
        lifetime              held
        holders               1
        interfaces            0
        ");
    }
}
