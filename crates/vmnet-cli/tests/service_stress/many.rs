//! A thousand interfaces on one daemon: on one network, and on twenty. Each guest gets an address of its own.

use crate::daemon::{self, Usage, percentile};
use crate::guest::{self, Place, mac_of, plain};
use crate::play;
use openvmnet::client::Client;
use openvmnet::service::{Mode, NetworkConfiguration};
use std::collections::HashSet;
use std::time::{Duration, Instant};
use vmnet_wire::ethernet::Mac;

const INTERFACES: usize = 1000;
/// Threads that play guests.
const THREADS: usize = 8;

#[test]
fn a_thousand_interfaces_on_one_network() {
    play::as_user("many::a_thousand_interfaces_on_one_network", |_| {
        a_thousand_on(1, 20);
    });
}

#[test]
fn a_thousand_interfaces_on_twenty_networks() {
    play::as_user("many::a_thousand_interfaces_on_twenty_networks", |_| {
        a_thousand_on(20, 24);
    });
}

fn a_thousand_on(networks: usize, length: usize) {
    vmnet_linux::sys::limits::raise_open_files();
    let mut watcher = Client::connect().unwrap();
    let empty = daemon::usage(&mut watcher);
    let mut client = Client::connect().unwrap();
    for number in 0..networks {
        let mut configuration = NetworkConfiguration::new(Mode::Shared);
        configuration.subnet = Some(format!("10.215.{number}.1/{length}"));
        client
            .open_network(Some(&name(number)), Some(configuration))
            .unwrap();
    }
    let idle = daemon::usage(&mut watcher);
    let (mut places, mut times) = start_all(&mut client, networks);
    let started = daemon::usage(&mut watcher);
    println!(
        "{INTERFACES} starts on {networks} networks: p50 {:?}, p99 {:?}, all {:?}",
        percentile(&mut times, 50),
        percentile(&mut times, 99),
        times.iter().sum::<Duration>(),
    );
    lease_all(&places);
    let leased = daemon::usage(&mut watcher);
    listed(&mut watcher);
    println!(
        "memory: {} KiB without networks, {:.1} KiB for each network, {:.2} KiB for each port, {:.2} KiB when its guest has an address",
        empty.memory,
        each(empty, idle, networks),
        each(idle, started, INTERFACES),
        each(idle, leased, INTERFACES),
    );
    assert!(
        each(idle, leased, INTERFACES) < 1200.0,
        "a port may keep 1 MiB for a guest that does not read"
    );
    let begin = Instant::now();
    // Some by call, most with their connection.
    for (_, interface, _) in places.drain(..100) {
        watcher.stop_interface(interface).unwrap();
    }
    drop(client);
    crate::stage::eventually("the networks have ended", || {
        watcher.list_networks(None).unwrap().networks.is_empty()
    });
    let after = daemon::files_come_back(&mut watcher, empty.files);
    println!("all ended within {:?}: {after:?}", begin.elapsed());
    assert!(watcher.list_interfaces(None).unwrap().interfaces.is_empty());
}

fn name(number: usize) -> String {
    format!("many{number}")
}

/// A guest: its place, the number of its interface, its MAC.
type Guest = (Place, u64, Mac);

fn start_all(client: &mut Client, networks: usize) -> (Vec<Guest>, Vec<Duration>) {
    let mut times = Vec::with_capacity(INTERFACES);
    let guests = (0..INTERFACES).map(|number| {
        let begin = Instant::now();
        let network = name(number % networks);
        let (started, place) = guest::start(client, &network, plain()).unwrap();
        times.push(begin.elapsed());
        (place, started.interface.interface, mac_of(&started))
    });
    (guests.collect(), times)
}

fn lease_all(guests: &[Guest]) {
    let begin = Instant::now();
    let addresses: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = guests
            .chunks(INTERFACES / THREADS)
            .map(|some| {
                scope.spawn(move || {
                    let leased = some.iter().map(|(place, _, mac)| {
                        // What others broadcast is read too, as a guest does.
                        some.iter().for_each(|(place, ..)| place.drain());
                        place.lease(*mac)
                    });
                    leased.collect::<Vec<_>>()
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    println!("{} leases in {:?}", addresses.len(), begin.elapsed());
    let distinct: HashSet<_> = addresses.iter().collect();
    assert_eq!(distinct.len(), INTERFACES, "an address was given twice");
}

fn listed(client: &mut Client) {
    let begin = Instant::now();
    let interfaces = client.list_interfaces(None).unwrap().interfaces;
    let interfaces_took = begin.elapsed();
    let begin = Instant::now();
    let leases = client.list_leases(None).unwrap().leases;
    let leases_took = begin.elapsed();
    let begin = Instant::now();
    client.list_networks(None).unwrap();
    println!(
        "interfaces listed in {interfaces_took:?}, leases in {leases_took:?}, networks in {:?}",
        begin.elapsed()
    );
    assert_eq!((interfaces.len(), leases.len()), (INTERFACES, INTERFACES));
    assert!(
        interfaces.iter().all(|row| row.address.is_some()),
        "each has an address"
    );
    assert!(interfaces_took.max(leases_took) < Duration::from_secs(1));
}

/// KiB for each of so many.
fn each(before: Usage, after: Usage, many: usize) -> f64 {
    let grown = i32::try_from(after.memory - before.memory).unwrap();
    f64::from(grown) / f64::from(u32::try_from(many).unwrap())
}
