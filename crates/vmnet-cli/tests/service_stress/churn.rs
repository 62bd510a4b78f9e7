//! Twenty processes start and stop interfaces on one network. Nothing fails but conflicts, no MAC is given twice, and
//! when they are gone nothing is left.

use crate::daemon::{self, Chance, percentile};
use crate::guest::{self, Place, mac_of, numbered, plain};
use crate::play;
use openvmnet::client::{CallError, Client};
use openvmnet::service::{InterfaceOptions, NetworkConfiguration, ServiceError, Started};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use vmnet_wire::ethernet::Mac;

const NAME: &str = "churn::twenty_processes_start_and_stop_interfaces";
const PROCESSES: usize = 20;
/// Interfaces that a process has at most.
const MOST: usize = 6;
/// Ids, MACs and names that all processes want.
const WANTED: usize = 40;
const NETWORK: &str = "churn";

#[test]
fn twenty_processes_start_and_stop_interfaces() {
    play::as_user(NAME, |role| match role.split_once(' ') {
        Some((_, seed)) => one_of_twenty(seed.parse().unwrap()),
        None => all(),
    });
}

fn configuration() -> NetworkConfiguration {
    let mut configuration = NetworkConfiguration::new(openvmnet::service::Mode::Shared);
    configuration.subnet = Some("10.214.0.1/20".to_owned());
    configuration
}

fn all() {
    let mut chance = Chance::seeded();
    fs::create_dir(macs()).unwrap();
    let mut client = Client::connect().unwrap();
    client
        .open_network(Some(NETWORK), Some(configuration()))
        .unwrap();
    let before = daemon::usage(&mut client);
    let processes: Vec<_> = (0..PROCESSES)
        .map(|_| play::other(NAME, &format!("one {}", chance.next())))
        .collect();
    let readers: Vec<_> = processes
        .into_iter()
        .map(|mut process| {
            std::thread::spawn(move || {
                let output = process.0.stdout.take().unwrap();
                let lines: Vec<_> = BufReader::new(output)
                    .lines()
                    .map_while(Result::ok)
                    .collect();
                (process.0.wait().unwrap(), lines)
            })
        })
        .collect();
    while !readers.iter().all(std::thread::JoinHandle::is_finished) {
        no_mac_twice(&mut client);
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut times = Vec::new();
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for reader in readers {
        let (status, lines) = reader.join().unwrap();
        assert!(status.success(), "{status}");
        for line in lines {
            if let Some(time) = line.strip_prefix("took ") {
                times.push(time.parse::<u64>().unwrap());
            } else if let Some(counted) = line.strip_prefix("count ") {
                let (number, what) = counted.split_once(' ').unwrap();
                *counts.entry(what.to_owned()).or_default() += number.parse::<u64>().unwrap();
            }
        }
    }
    println!(
        "{} starts by {PROCESSES} processes in {:?}: p50 {} us, p99 {} us, longest {} us",
        times.len(),
        play::duration(),
        percentile(&mut times, 50),
        percentile(&mut times, 99),
        percentile(&mut times, 100),
    );
    println!("{counts:#?}");
    assert!(times.len() > PROCESSES * 10, "too few to mean anything");
    assert!(counts.get("refused").copied() > Some(0), "no conflict came");
    nothing_is_left(&mut client, before, times.len());
}

fn nothing_is_left(client: &mut Client, before: daemon::Usage, starts: usize) {
    crate::stage::eventually("no interface is left", || {
        client.list_interfaces(None).unwrap().interfaces.is_empty()
    });
    let after = daemon::files_come_back(client, before.files);
    println!("before {before:?}, after {after:?}");
    // The ids are known for ever; each is held twice.
    let ids = 2 * i64::try_from(starts).unwrap();
    assert!(
        after.memory - before.memory < (16 << 10) + ids,
        "memory was not given back"
    );
    let network = client.list_networks(Some(NETWORK)).unwrap().networks;
    assert_eq!((network[0].holders, network[0].interfaces), (1, 0));
}

fn no_mac_twice(client: &mut Client) {
    let interfaces = client.list_interfaces(Some(NETWORK)).unwrap().interfaces;
    let mut seen = BTreeSet::new();
    for interface in interfaces {
        let mac = interface.mac.expect("each was given one");
        assert!(seen.insert(mac.clone()), "{mac} twice");
    }
}

/// A file for each MAC that a process believes its own.
fn macs() -> PathBuf {
    play::folder().join("run/macs")
}

/// One interface of this process.
struct Own {
    started: Started,
    mac: Mac,
    place: Place,
}

impl Own {
    fn claim(started: Started, place: Place) -> Self {
        let mac = mac_of(&started);
        let claimed = fs::File::create_new(macs().join(mac.to_string()));
        claimed.unwrap_or_else(|error| panic!("{mac} is another's too: {error}"));
        Self {
            started,
            mac,
            place,
        }
    }

    /// To be called before it ends: from then on another may have the MAC.
    fn disclaim(&self) {
        fs::remove_file(macs().join(self.mac.to_string())).unwrap();
    }
}

fn one_of_twenty(seed: u64) {
    let mut chance = Chance::of(seed);
    let deadline = Instant::now() + play::duration();
    let mut times = Vec::new();
    let mut refused = 0;
    let mut leased = 0;
    while Instant::now() < deadline {
        let mut client = Client::connect().unwrap();
        client.open_network(Some(NETWORK), None).unwrap();
        let mut own: Vec<Own> = Vec::new();
        // The connection ends now and then, and everything with it.
        for _ in 0..20 + chance.below(80) {
            if Instant::now() > deadline {
                break;
            }
            if own.len() < MOST && chance.below(2) == 0 {
                let begin = Instant::now();
                let options = options(&mut chance);
                let started = match chance.below(2) {
                    0 => guest::start(&mut client, NETWORK, options),
                    _ => guest::start_packets(&mut client, NETWORK, options),
                };
                match started {
                    Ok((started, place)) => {
                        times.push(begin.elapsed());
                        own.push(Own::claim(started, place));
                    }
                    Err(CallError::Refused(ServiceError::InUse { .. })) => refused += 1,
                    Err(error) => panic!("{error}"),
                }
            } else if !own.is_empty() {
                let one = own.swap_remove(chance.below(own.len()));
                if chance.below(4) == 0 {
                    one.place.lease(one.mac);
                    leased += 1;
                }
                end(&mut client, &one, chance.below(3) == 0);
            }
        }
        own.iter().for_each(Own::disclaim);
    }
    for time in &times {
        println!("took {}", time.as_micros());
    }
    println!("count {} started", times.len());
    println!("count {refused} refused");
    println!("count {leased} leased");
}

/// The guest goes by itself, or its interface is stopped.
fn end(client: &mut Client, one: &Own, by_itself: bool) {
    one.disclaim();
    if !by_itself {
        let number = one.started.interface.interface;
        client.stop_interface(number).unwrap();
    }
}

fn options(chance: &mut Chance) -> InterfaceOptions {
    let mut options = plain();
    let id = |number: usize| format!("6ba7b810-9dad-41d1-80b4-00c04fd4{number:04x}");
    match chance.below(6) {
        0 => options.id = Some(id(chance.below(WANTED))),
        1 => options.mac = Some(numbered(chance.below(WANTED)).to_string()),
        2 => {
            options.id = Some(id(chance.below(WANTED)));
            options.mac = Some(numbered(WANTED + chance.below(WANTED)).to_string());
        }
        _ => {}
    }
    if chance.below(4) == 0 {
        options.name = Some(format!("guest-{}", chance.below(WANTED)));
    }
    options.only_mac = Some(chance.below(2) == 0);
    options
}
