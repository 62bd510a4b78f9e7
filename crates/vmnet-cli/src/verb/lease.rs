//! `vmnet lease`.

use super::network::scope;
use super::scoped::Scoped;
use super::table::{Table, or_none};
use super::{VerbError, keeping_of, listing, of, show};
use crate::args::lease::{LeaseVerb, List, Reserve};
use crate::logging::say;
use crate::span;
use openvmnet::client::{CallError, Client};
use openvmnet::service::{Lease, LeaseState, Reservation, Reserved};
use serde::Serialize;
use std::net::IpAddr;

/// Leases, and addresses that are kept.
#[derive(Debug, Default, Serialize)]
pub(super) struct Addresses {
    pub(super) leases: Vec<Scoped<Lease>>,
    pub(super) reservations: Vec<Scoped<Reserved>>,
}

pub(crate) fn run(verb: LeaseVerb) -> Result<(), VerbError> {
    match verb {
        LeaseVerb::List(asked) => list(&asked),
        LeaseVerb::Reserve(asked) => reserve(asked),
        LeaseVerb::Unreserve(at) => {
            let address = at.address.to_string();
            Ok(of(&at.network)?.unreserve_lease(&at.network, &address)?)
        }
        LeaseVerb::Release(at) => {
            let address = at.address.to_string();
            Ok(of(&at.network)?.release_lease(&at.network, &address)?)
        }
    }
}

fn list(list: &List) -> Result<(), VerbError> {
    let network = list.network.as_deref();
    let mut all = Addresses::default();
    for mut client in listing(network, keeping_of)? {
        let more = addresses(&mut client, network)?;
        all.leases.extend(more.leases);
        all.reservations.extend(more.reservations);
    }
    let addresses = all;
    show(list.json, &addresses, || table(&addresses, span::now()))
}

/// What the service says of addresses.
pub(super) fn addresses(
    client: &mut Client,
    network: Option<&str>,
) -> Result<Addresses, CallError> {
    Ok(Addresses {
        leases: Scoped::of(client, |it| Ok(it.list_leases(network)?.leases))?,
        reservations: Scoped::of(client, |it| Ok(it.list_reservations(network)?.reservations))?,
    })
}

fn reserve(reserve: Reserve) -> Result<(), VerbError> {
    let reservation = Reservation {
        address: reserve.address.to_string(),
        mac: reserve.mac.map(|mac| mac.to_string()),
        client_id: reserve.client_id,
        name: reserve.name,
    };
    let mut client = of(&reserve.network)?;
    let before = client.list_reservations(Some(&reserve.network))?;
    client.reserve_lease(&reserve.network, reservation.clone())?;
    for before in before.reservations {
        if is_replaced(&before.reservation, &reservation) {
            // A guest has one of each family.
            say(format_args!(
                "{} was reserved until now ({}), and is so no more",
                before.reservation.address,
                reserved_by(None, Some(&reservation))
            ));
        }
    }
    Ok(())
}

/// Whether the one takes the place of the other: another address of the same family, for the same guest.
fn is_replaced(before: &Reservation, now: &Reservation) -> bool {
    let family = |one: &Reservation| one.address.contains(':');
    let guest = |one: &Reservation| {
        let lower = |text: &Option<String>| text.as_ref().map(|text| text.to_ascii_lowercase());
        (lower(&one.mac), lower(&one.client_id), lower(&one.name))
    };
    let is_other = before.address.parse::<IpAddr>() != now.address.parse::<IpAddr>();
    family(before) == family(now) && guest(before) == guest(now) && is_other
}

/// One line of the table.
struct Row<'a> {
    network: &'a str,
    scope: &'static str,
    address: &'a str,
    lease: Option<&'a Lease>,
    reservation: Option<&'a Reservation>,
}

impl Row<'_> {
    fn cells(&self, now: u64) -> [String; 9] {
        let lease = self.lease;
        let kept = self.reservation;
        let mac = lease.map(|lease| &lease.mac).or_else(|| kept?.mac.as_ref());
        let name = lease
            .and_then(|lease| lease.name.as_ref())
            .or_else(|| kept?.name.as_ref());
        let client_id = lease
            .and_then(|lease| lease.client_id.as_ref())
            .or_else(|| kept?.client_id.as_ref());
        [
            self.network.to_owned(),
            self.scope.to_owned(),
            self.address.to_owned(),
            or_none(mac),
            or_none(name),
            lease
                .map_or("reserved", |lease| state(lease.state))
                .to_owned(),
            or_none(lease.map(|lease| span::seen_from(now, lease.expires))),
            reserved_by(lease, kept),
            or_none(client_id),
        ]
    }
}

fn state(state: LeaseState) -> &'static str {
    match state {
        LeaseState::Bound => "bound",
        LeaseState::Expired => "expired",
        LeaseState::Released => "released",
    }
}

fn reserved_by(lease: Option<&Lease>, kept: Option<&Reservation>) -> String {
    let Some(kept) = kept else {
        return "-".to_owned();
    };
    let property = match kept {
        Reservation { mac: Some(mac), .. } => format!("MAC {mac}"),
        Reservation {
            client_id: Some(id),
            ..
        } => format!("client id {id}"),
        Reservation {
            name: Some(name), ..
        } => format!("name {name}"),
        _ => "-".to_owned(),
    };
    match lease {
        // Somebody else had the address first.
        Some(lease) if !lease.reserved => format!("for another: {property}"),
        _ => property,
    }
}

fn table(addresses: &Addresses, now: u64) -> String {
    let mut rows: Vec<Row<'_>> = addresses
        .leases
        .iter()
        .map(|lease| Row {
            network: lease.network_name.as_ref().unwrap_or(&lease.network),
            scope: scope(lease.scope),
            address: &lease.address,
            lease: Some(&lease.row),
            reservation: addresses
                .reservations
                .iter()
                .find(|kept| {
                    (kept.scope, &kept.network) == (lease.scope, &lease.network)
                        && kept.reservation.address == lease.address
                })
                .map(|kept| &kept.reservation),
        })
        .collect();
    for kept in &addresses.reservations {
        let leased = addresses.leases.iter().any(|lease| {
            (lease.scope, &lease.network) == (kept.scope, &kept.network)
                && lease.address == kept.reservation.address
        });
        if !leased {
            rows.push(Row {
                network: kept.network_name.as_ref().unwrap_or(&kept.network),
                scope: scope(kept.scope),
                address: &kept.reservation.address,
                lease: None,
                reservation: Some(&kept.reservation),
            });
        }
    }
    rows.sort_by_key(|row| {
        (
            row.scope == "system",
            row.network,
            row.address.parse::<IpAddr>().ok(),
        )
    });
    let mut table = Table::new([
        "NETWORK",
        "SCOPE",
        "ADDRESS",
        "MAC",
        "NAME",
        "STATE",
        "EXPIRES",
        "RESERVED FOR",
        "CLIENT ID",
    ]);
    for row in rows {
        table.row(row.cells(now));
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::super::examples;
    use super::*;

    #[test]
    fn leases_and_reservations_as_one_table() {
        let mut stranger = examples::bare_lease();
        stranger.address = "10.77.0.20".into();
        let mut wanted = examples::reserved();
        wanted.reservation = Reservation {
            address: "10.77.0.20".into(),
            mac: None,
            client_id: None,
            name: Some("db".into()),
        };
        let mut waiting = wanted.clone();
        waiting.reservation.address = "10.77.0.9".into();
        let addresses = Addresses {
            leases: [examples::lease(), examples::bare_lease(), stranger]
                .map(examples::scoped)
                .into(),
            reservations: [examples::reserved(), wanted, waiting]
                .map(examples::scoped)
                .into(),
        };
        insta::assert_snapshot!(table(&addresses, examples::NOW), @r"
        NETWORK                               SCOPE  ADDRESS     MAC                NAME  STATE     EXPIRES    RESERVED FOR           CLIENT ID
        6ba7b810-9dad-41d1-80b4-00c04fd430c8  user   10.77.0.11  52:54:00:00:00:11  -     expired   3d ago     -                      -
        6ba7b810-9dad-41d1-80b4-00c04fd430c8  user   10.77.0.20  52:54:00:00:00:11  db    expired   3d ago     for another: name db   -
        lab                                   user   10.77.0.9   -                  db    reserved  -          name db                -
        lab                                   user   10.77.0.10  52:54:00:12:34:56  web   bound     in 11h56m  MAC 52:54:00:12:34:56  01525400123456
        ");
    }
}
