//! Who holds what, and what is free when.
//!
//! | file | what |
//! | --- | --- |
//! | `identity` | ids, MACs and names |
//! | `forward` | rules |
//! | `kept` | what another service finds in the store |

mod forward;
mod identity;
mod kept;

use super::*;
use openvmnet::service::{InterfaceOptions, Kind, Lifetime, Mode, NetworkConfiguration, Started};
use std::os::unix::net::UnixStream;
use std::time::Duration;

type Change = fn(&mut NetworkConfiguration);

fn supervisor() -> Supervisor {
    over(Store::memory().unwrap())
}

fn over(store: Store) -> Supervisor {
    let about = About {
        scope: Scope::User,
        socket: PathBuf::from("vmnet.sock"),
        store: None,
        configuration: None,
        started: Instant::now(),
    };
    Supervisor::new(about, store, None)
}

fn named(name: &str) -> NetworkConfiguration {
    let mut asked = NetworkConfiguration::new(Mode::Shared);
    asked.name = Some(name.to_owned());
    asked
}

/// With a subnet that no host of ours uses, and no two tests' concern.
fn at(name: &str, subnet: &str) -> NetworkConfiguration {
    let mut asked = named(name);
    asked.subnet = Some(subnet.to_owned());
    asked
}

/// Starts an interface; the guest's end of it comes with it.
fn start(
    supervisor: &mut Supervisor,
    connection: ConnectionId,
    network: &str,
    change: impl FnOnce(&mut InterfaceOptions),
) -> Result<(Started, UnixStream), ServiceError> {
    let (ours, guest) = UnixStream::pair().unwrap();
    let mut options = InterfaceOptions::new(Kind::Stream);
    change(&mut options);
    supervisor
        .start_interface(connection, network, options, vec![ours.into()])
        .map(|started| (started, guest))
}

fn there(supervisor: &Supervisor, network: &str) -> bool {
    supervisor.look_up(network).is_some()
}

#[track_caller]
fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !so() {
        assert!(Instant::now() < deadline, "{what}: not within ten seconds");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[track_caller]
fn in_use<T: std::fmt::Debug>(outcome: Result<T, ServiceError>, word: &str) {
    match outcome {
        Err(ServiceError::InUse { reason }) => assert!(reason.contains(word), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn invalid<T: std::fmt::Debug>(outcome: Result<T, ServiceError>, word: &str) {
    match outcome {
        Err(ServiceError::InvalidArgument { reason }) => assert!(reason.contains(word), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn not_found<T: std::fmt::Debug>(outcome: Result<T, ServiceError>, word: &str) {
    match outcome {
        Err(ServiceError::NotFound { reason }) => assert!(reason.contains(word), "{reason}"),
        other => panic!("{other:?}"),
    }
}

/// What may happen to a network that two clients know.
#[derive(Debug, Clone, Copy)]
enum Step {
    Opens(usize),
    Starts(usize),
    Stops,
    GuestLeaves,
    Closes(usize),
    Dies(usize),
    Creates,
    Deletes,
}

#[test]
fn a_network_lives_as_long_as_somebody_holds_it() {
    use Step::{Closes, Creates, Deletes, Dies, GuestLeaves, Opens, Starts, Stops};
    let lives: &[(&[Step], bool)] = &[
        (&[Opens(0)], true),
        (&[Opens(0), Closes(0)], false),
        (&[Opens(0), Dies(0)], false),
        // Held by whoever joined, whoever made it.
        (&[Opens(0), Opens(1), Dies(0)], true),
        (&[Opens(0), Opens(1), Closes(0), Dies(1)], false),
        // An interface holds it too.
        (&[Opens(0), Starts(0), Closes(0)], true),
        (&[Opens(0), Starts(0), Closes(0), Stops], false),
        (&[Opens(0), Starts(0), Closes(0), GuestLeaves], false),
        (&[Opens(0), Starts(0), Dies(0)], false),
        (&[Opens(0), Starts(1), Dies(0)], true),
        (&[Opens(0), Starts(1), Dies(0), Dies(1)], false),
        (&[Opens(0), Starts(0), Stops], true),
        (&[Opens(0), Opens(0), Closes(0)], false),
        // One that was created stays.
        (&[Creates], true),
        (&[Creates, Opens(0), Dies(0)], true),
        (&[Creates, Opens(0), Starts(0), Dies(0)], true),
        (&[Creates, Deletes], false),
        // One that was held is kept from now on.
        (&[Opens(0), Creates, Dies(0)], true),
        (&[Opens(0), Starts(0), Creates, Deletes], false),
    ];
    for (steps, lives) in lives {
        let mut service = supervisor();
        let clients = [service.connected(1), service.connected(2)];
        let mut guests = Vec::new();
        for step in *steps {
            match *step {
                Opens(client) => {
                    let opened = service.open_network(clients[client], None, Some(named("dev")));
                    opened.unwrap();
                }
                Starts(client) => {
                    guests.push(start(&mut service, clients[client], "dev", |_| {}).unwrap());
                }
                Stops => {
                    let (started, _guest) = guests.pop().unwrap();
                    service.stop_interface(started.interface.interface).unwrap();
                }
                GuestLeaves => {
                    guests.clear();
                    eventually("the guest is gone", || {
                        service.list_interfaces(None).unwrap().is_empty()
                    });
                }
                Closes(client) => service.close_network(clients[client], "dev").unwrap(),
                Dies(client) => service.disconnected(clients[client]),
                Creates => drop(service.create_network(named("dev")).unwrap()),
                Deletes => service.delete_network(clients[1], "dev", true).unwrap(),
            }
        }
        assert_eq!(there(&service, "dev"), *lives, "{steps:?}");
        if !lives {
            assert_eq!(service.status().interfaces, 0, "{steps:?}");
        }
    }
}

#[test]
fn a_subnet_that_is_freed_can_be_taken_at_once() {
    let mut service = supervisor();
    for round in 0..20 {
        let client = service.connected(1);
        let name = format!("round-{round}");
        let made = service.open_network(client, None, Some(at(&name, "10.213.20.0/24")));
        assert_eq!(made.unwrap().subnet.as_deref(), Some("10.213.20.0/24"));
        let (_, _guest) = start(&mut service, client, &name, |_| {}).unwrap();
        let other = service.connected(2);
        let taken = service.open_network(other, None, Some(at("other", "10.213.20.128/25")));
        in_use(taken, &name);
        service.disconnected(client);
        service.disconnected(other);
    }
}

#[test]
fn a_network_in_use_is_deleted_only_by_force() {
    let mut service = supervisor();
    let (one, other) = (service.connected(1), service.connected(2));
    service.create_network(named("dev")).unwrap();
    service.open_network(one, Some("dev"), None).unwrap();
    in_use(
        service.delete_network(other, "dev", false),
        "another client has",
    );
    let (_, guest) = start(&mut service, one, "dev", |_| {}).unwrap();
    in_use(
        service.delete_network(one, "dev", false),
        "1 interface: end it",
    );
    // Nobody minds when the guest has gone by itself and the client is the one that has it open.
    drop(guest);
    eventually("it is deleted", || {
        service.delete_network(one, "dev", false).is_ok()
    });
    service.create_network(named("dev")).unwrap();
    service.open_network(one, Some("dev"), None).unwrap();
    let (started, _guest) = start(&mut service, one, "dev", |_| {}).unwrap();
    service.delete_network(other, "dev", true).unwrap();
    not_found(
        service.stop_interface(started.interface.interface),
        "interface",
    );
    not_found(service.close_network(one, "dev"), "dev");
    not_found(service.delete_network(one, "dev", true), "dev");
    // What dies later does not mind either.
    service.disconnected(one);
}

#[test]
fn a_client_closes_only_what_it_opened() {
    let mut service = supervisor();
    let (one, other) = (service.connected(1), service.connected(2));
    service.open_network(one, None, Some(named("dev"))).unwrap();
    not_found(service.close_network(other, "dev"), "this connection");
    assert!(there(&service, "dev"));
}

#[test]
fn an_interface_of_another_client_can_be_stopped() {
    let mut service = supervisor();
    let (one, other) = (service.connected(1), service.connected(2));
    service.open_network(one, None, Some(named("dev"))).unwrap();
    let (started, mut guest) = start(&mut service, one, "dev", |_| {}).unwrap();
    service.open_network(other, Some("dev"), None).unwrap();
    service.stop_interface(started.interface.interface).unwrap();
    // The guest sees it at once.
    guest
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    // What the router advertised meanwhile comes first.
    while io::Read::read(&mut guest, &mut [0; 2048]).unwrap() > 0 {}
    not_found(
        service.stop_interface(started.interface.interface),
        "interface",
    );
}

#[test]
fn what_is_asked_for_must_be_what_is_there() {
    let mut service = supervisor();
    let client = service.connected(1);
    service
        .open_network(client, None, Some(named("dev")))
        .unwrap();
    let mut other = named("dev");
    other.mtu = Some(9000);
    let refused = service.open_network(client, Some("dev"), Some(other.clone()));
    assert!(
        matches!(refused, Err(ServiceError::Exists { .. })),
        "{refused:?}"
    );
    let refused = service.create_network(other);
    assert!(
        matches!(refused, Err(ServiceError::Exists { .. })),
        "{refused:?}"
    );
    invalid(
        service.open_network(client, Some("lab"), Some(named("other"))),
        "lab",
    );
    assert!(!there(&service, "other") && !there(&service, "lab"));
    not_found(service.open_network(client, Some("lab"), None), "lab");
    invalid(service.open_network(client, None, None), "which network");
    invalid(
        service.create_network(NetworkConfiguration::new(Mode::Host)),
        "name",
    );
    // By a UUID that is not there yet (vmnet: `network_identifier`).
    let uuid = "2835E074-9892-4a79-affb-7e41d2605678";
    let mut private = NetworkConfiguration::new(Mode::Host);
    private.private = Some(true);
    let made = service
        .open_network(client, Some(uuid), Some(private))
        .unwrap();
    assert_eq!(made.uuid, uuid.to_lowercase());
    assert_eq!((made.subnet, made.dhcp), (None, false));
    // Created twice is once too often.
    service.create_network(named("dev")).unwrap();
    let refused = service.create_network(named("dev"));
    assert!(
        matches!(refused, Err(ServiceError::Exists { .. })),
        "{refused:?}"
    );
}

#[test]
fn what_the_datapath_refuses_is_the_askers_mistake() {
    let mut service = supervisor();
    let client = service.connected(1);
    let cases: [(&str, Change); 5] = [
        ("nowhere0", |asked| {
            asked.external_interface = Some("nowhere0".to_owned())
        }),
        ("10.213.99.9", |asked| {
            asked.dhcp_first = Some("10.213.99.9".to_owned())
        }),
        ("10.213.21.9", |asked| {
            asked.dhcp_first = Some("10.213.21.9".to_owned());
            asked.dhcp_last = Some("10.213.21.8".to_owned());
        }),
        ("lease", |asked| asked.lease_seconds = Some(0)),
        ("", |asked| asked.domain = Some("no domain..".to_owned())),
    ];
    for (word, change) in cases {
        let mut asked = at("dev", "10.213.21.0/24");
        change(&mut asked);
        invalid(
            service.open_network(client, None, Some(asked.clone())),
            word,
        );
        invalid(service.create_network(asked), word);
        assert!(!there(&service, "dev"), "{word}");
    }
    assert_eq!(service.store.networks().len(), 0);
}

#[test]
fn default_networks_are_there_for_the_asking() {
    let mut service = supervisor();
    let client = service.connected(1);
    for (name, mode) in [("shared", Mode::Shared), ("host", Mode::Host)] {
        let network = service.open_network(client, Some(name), None).unwrap();
        assert_eq!((network.mode, network.lifetime), (mode, Lifetime::Held));
    }
    service.disconnected(client);
    assert_eq!(service.status().networks, 0);
}
