//! A network lives as long as somebody holds it, whoever made it; then its subnet is free at once.

use crate::guest::{self, Ask, Told, mac_of, plain};
use crate::play;
use openvmnet::client::{CallError, Client};
use openvmnet::service::{Mode, NetworkConfiguration, ServiceError};
use rustix::process::Signal;
use std::io::Write as _;
use std::time::{Duration, Instant};

const NAME: &str = "holders::the_maker_dies_and_the_network_lives_on";
const ROUNDS: usize = 100;
const NETWORK: &str = "held";
/// A guest's patience.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn the_maker_dies_and_the_network_lives_on() {
    play::as_user(NAME, |role| match role {
        "maker" => make(),
        _ => story(),
    });
}

fn configuration(name: &str) -> NetworkConfiguration {
    let mut configuration = NetworkConfiguration::new(Mode::Shared);
    configuration.name = Some(name.to_owned());
    configuration.subnet = Some("10.218.0.1/24".to_owned());
    configuration
}

/// Makes the network, has a guest on it, and waits to be killed.
fn make() {
    let mut client = Client::connect().unwrap();
    client
        .open_network(None, Some(configuration(NETWORK)))
        .unwrap();
    let (started, place) = guest::start(&mut client, NETWORK, plain()).unwrap();
    place.lease(mac_of(&started));
    println!("\nthe maker is ready");
    std::io::stdout().flush().unwrap();
    std::thread::sleep(Duration::from_secs(600));
}

fn story() {
    let mut watcher = Client::connect().unwrap();
    let (mut late, mut longest) = (0, Duration::ZERO);
    for round in 0..ROUNDS {
        let (tries, took) = one_round(&mut watcher, round);
        late += usize::from(tries > 0);
        longest = longest.max(took);
    }
    println!(
        "{ROUNDS} rounds; the subnet was free at the first try in {}, after {longest:?} at the latest",
        ROUNDS - late
    );
}

fn one_round(watcher: &mut Client, round: usize) -> (usize, Duration) {
    let mut maker = play::other(NAME, "maker");
    while maker.line() != "the maker is ready" {}
    let mut client = Client::connect().unwrap();
    let joined = client.open_network(Some(NETWORK), None).unwrap();
    assert_eq!((joined.holders, joined.interfaces), (2, 1), "{round}");
    let (started, place) = guest::start(&mut client, NETWORK, plain()).unwrap();
    let mac = mac_of(&started);
    let address = place.lease(mac);
    // Another network cannot have the subnet now.
    let taken = watcher.open_network(None, Some(configuration("other")));
    assert!(is_in_use(&taken), "{taken:?}");

    maker.kill(Signal::KILL);
    maker.0.wait().unwrap();
    crate::stage::eventually("the maker's things are gone", || {
        let network = &watcher.list_networks(Some(NETWORK)).unwrap().networks[0];
        (network.holders, network.interfaces) == (1, 1)
    });
    assert_eq!(
        place.ask(Ask::Same(mac, address), SOON),
        Some(Told::Acknowledged(address)),
        "the other's guest goes on"
    );
    // The last one goes: by closing, or by ending.
    if round.is_multiple_of(2) {
        drop(client);
    } else {
        let number = started.interface.interface;
        client.stop_interface(number).unwrap();
        client.close_network(NETWORK).unwrap();
    }
    let begin = Instant::now();
    let mut tries = 0;
    loop {
        let next = watcher.open_network(None, Some(configuration("next")));
        if next.is_ok() {
            break;
        }
        assert!(is_in_use(&next), "{next:?}");
        assert!(begin.elapsed() < Duration::from_secs(1), "{next:?}");
        tries += 1;
    }
    let took = begin.elapsed();
    watcher.close_network("next").unwrap();
    assert!(watcher.list_networks(None).unwrap().networks.is_empty());
    (tries, took)
}

fn is_in_use<T>(outcome: &Result<T, CallError>) -> bool {
    matches!(outcome, Err(CallError::Refused(ServiceError::InUse { .. })))
}

#[test]
fn a_guest_that_left_by_itself_holds_nothing() {
    play::as_user("holders::a_guest_that_left_by_itself_holds_nothing", |_| {
        let mut watcher = Client::connect().unwrap();
        for look in [false, true] {
            let mut client = Client::connect().unwrap();
            client
                .open_network(None, Some(configuration(NETWORK)))
                .unwrap();
            let (_, place) = guest::start_packets(&mut client, NETWORK, plain()).unwrap();
            client.close_network(NETWORK).unwrap();
            drop(place);
            if look {
                crate::stage::eventually("it has left", || {
                    watcher.list_interfaces(None).unwrap().interfaces.is_empty()
                });
            }
            drop(client);
            crate::stage::eventually("the network has ended", || {
                watcher.list_networks(None).unwrap().networks.is_empty()
            });
        }
    });
}
