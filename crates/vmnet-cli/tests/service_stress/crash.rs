//! Ten thousand leases while the service is killed at random moments: no address is given to two guests, and what a guest
//! was told stays so. Ids too.

use crate::daemon::Chance;
use crate::guest::{self, Ask, Place, Told, mac_of, numbered, plain};
use crate::play;
use openvmnet::client::{CallError, Client};
use openvmnet::service::{LeaseState, Mode, NetworkConfiguration};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use vmnet_wire::ethernet::Mac;

const GUESTS: usize = 10_000;
const THREADS: usize = 8;
const KILLS: usize = 25;
/// Guests behind one port, of the 512 that it may have.
const BEHIND: usize = 400;
/// Guests of one port that ask at once.
const WINDOW: usize = 48;
/// Guests that ask for their old address after each crash, of each thread.
const SAMPLE: usize = 12;
const NETWORK: &str = "crash";
/// How long all this may take.
const PATIENCE: Duration = Duration::from_secs(200);

/// What was acknowledged.
#[derive(Debug, Default)]
struct Book {
    by_address: HashMap<Ipv4Addr, Mac>,
    by_mac: HashMap<Mac, Ipv4Addr>,
    /// Ids and their MACs.
    identities: HashMap<String, Mac>,
}

/// What all threads share.
struct Story {
    book: Mutex<Book>,
    acknowledged: AtomicUsize,
    asked_again: AtomicUsize,
    ended: AtomicBool,
    deadline: Instant,
}

#[test]
fn ten_thousand_leases_and_a_service_that_is_killed() {
    play::as_user(
        "crash::ten_thousand_leases_and_a_service_that_is_killed",
        |_| story(),
    );
}

fn story() {
    let mut chance = Chance::seeded();
    let mut configuration = NetworkConfiguration::new(Mode::Shared);
    configuration.name = Some(NETWORK.to_owned());
    configuration.subnet = Some("10.216.0.1/18".to_owned());
    Client::connect()
        .unwrap()
        .create_network(configuration)
        .unwrap();
    let story = Story {
        book: Mutex::default(),
        acknowledged: AtomicUsize::new(0),
        asked_again: AtomicUsize::new(0),
        ended: AtomicBool::new(false),
        deadline: Instant::now() + PATIENCE,
    };
    let begin = Instant::now();
    let mut restarts = Vec::new();
    std::thread::scope(|scope| {
        // If a thread panics, the others end as well.
        let _over = Over(&story);
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (story, chance) = (&story, chance.branch(u64::try_from(thread).unwrap()));
                scope.spawn(move || {
                    let over = Over(story);
                    guests(story, thread, chance);
                    std::mem::forget(over);
                })
            })
            .collect();
        let fresh = scope.spawn(|| fresh_identities(&story));
        kill_and_look(&story, &mut chance, &mut restarts);
        for thread in threads {
            thread.join().unwrap();
        }
        story.ended.store(true, Ordering::Relaxed);
        fresh.join().unwrap();
    });
    let took = begin.elapsed();
    restarts.sort();
    println!(
        "{GUESTS} leases in {took:?} with {} kills; {} asked for their address again; started again within {:?} (median), {:?} (longest)",
        restarts.len(),
        story.asked_again.load(Ordering::Relaxed),
        restarts[restarts.len() / 2],
        restarts.last().unwrap(),
    );
    assert!(restarts.len() >= 20);
    // Once more with everybody.
    kill();
    let client = look(&story);
    drop(client);
    everybody_asks_again(&story);
}

/// Ends the story if it is dropped early.
struct Over<'a>(&'a Story);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Relaxed);
    }
}

impl Story {
    fn goes_on(&self) -> bool {
        assert!(Instant::now() < self.deadline, "it takes too long");
        !self.ended.load(Ordering::Relaxed)
    }

    fn told(&self, ask: Ask, told: Told) {
        let mut book = self.book.lock().unwrap();
        match (ask, told) {
            (Ask::Any(mac), Told::Acknowledged(address)) => {
                let other = book.by_address.insert(address, mac);
                assert!(
                    other.is_none_or(|other| other == mac),
                    "{address} was acknowledged to {other:?} and to {mac}"
                );
                let before = book.by_mac.insert(mac, address);
                assert!(
                    before.is_none_or(|before| before == address),
                    "{mac} had {before:?} and was given {address}"
                );
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            (Ask::Same(mac, before), told) => {
                assert_eq!(
                    told,
                    Told::Acknowledged(before),
                    "{mac} asked for its address {before}"
                );
                self.asked_again.fetch_add(1, Ordering::Relaxed);
            }
            (ask, told) => panic!("{ask:?}: {told:?}"),
        }
    }
}

/// A connection and an interface with the id of this thread, which must have the same MAC each time.
fn attach(story: &Story, id: &str) -> Option<(Client, Place)> {
    loop {
        if !story.goes_on() {
            return None;
        }
        let Ok(mut client) = Client::connect() else {
            // Killed while we came.
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        let mut options = plain();
        options.id = Some(id.to_owned());
        match guest::start(&mut client, NETWORK, options) {
            Ok((started, place)) => {
                acknowledge_id(story, id, mac_of(&started));
                return Some((client, place));
            }
            Err(CallError::Gone) => {}
            Err(error) => panic!("an interface cannot be started: {error}"),
        }
    }
}

fn acknowledge_id(story: &Story, id: &str, mac: Mac) {
    let before = story
        .book
        .lock()
        .unwrap()
        .identities
        .insert(id.to_owned(), mac);
    assert!(
        before.is_none_or(|before| before == mac),
        "{id} had {before:?} and was given {mac}"
    );
}

fn is_gone(client: &Client) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(client, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// One thread's guests, one after the other, across all crashes.
fn guests(story: &Story, thread: usize, mut chance: Chance) {
    let id = format!("6ba7b810-9dad-41d1-80b4-00c04fd5{thread:04x}");
    let mut own = Vec::new();
    let first = thread * GUESTS / THREADS;
    let end = (thread + 1) * GUESTS / THREADS;
    let mut asks: Vec<Ask> = (first..end)
        .map(|guest| Ask::Any(numbered(guest)))
        .collect();
    asks.reverse();
    while !asks.is_empty() {
        let Some((client, place)) = attach(story, &id) else {
            return;
        };
        let mut some = asks.split_off(asks.len().saturating_sub(BEHIND));
        for _ in 0..SAMPLE.min(own.len()) {
            let (mac, address) = own[chance.below(own.len())];
            if !some.contains(&Ask::Same(mac, address)) {
                some.push(Ask::Same(mac, address));
            }
        }
        some.reverse();
        let mut left = place.ask_all(
            some,
            WINDOW,
            || story.goes_on() && !is_gone(&client),
            |ask, told| {
                story.told(ask, told);
                if let (Ask::Any(mac), Told::Acknowledged(address)) = (ask, told) {
                    own.push((mac, address));
                }
            },
        );
        left.reverse();
        asks.extend(left);
    }
}

/// Interfaces without an id get fresh ones all the time.
fn fresh_identities(story: &Story) {
    while story.goes_on() {
        let Ok(mut client) = Client::connect() else {
            continue;
        };
        while story.goes_on() {
            match guest::start(&mut client, NETWORK, plain()) {
                Ok((started, _)) => {
                    let id = started.interface.id.clone().unwrap();
                    let before = story.book.lock().unwrap().identities.contains_key(&id);
                    assert!(!before, "{id} is not fresh");
                    acknowledge_id(story, &id, mac_of(&started));
                    let _ = client.stop_interface(started.interface.interface);
                }
                Err(CallError::Gone) => break,
                Err(error) => panic!("no fresh id: {error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Kills the service, if it runs, and waits until its process is gone.
fn kill() -> Option<()> {
    let pid = Client::connect_running().ok()?.status().ok()?.pid;
    let process = Pid::from_raw(i32::try_from(pid).ok()?)?;
    kill_process(process, Signal::KILL).unwrap();
    Some(())
}

fn kill_and_look(story: &Story, chance: &mut Chance, restarts: &mut Vec<Duration>) {
    while story.goes_on() && story.acknowledged.load(Ordering::Relaxed) < GUESTS {
        let next = story.acknowledged.load(Ordering::Relaxed) + chance.below(2 * GUESTS / KILLS);
        let latest = Instant::now() + Duration::from_millis(3000);
        while story.goes_on()
            && story.acknowledged.load(Ordering::Relaxed) < next.min(GUESTS)
            && Instant::now() < latest
        {
            std::thread::sleep(Duration::from_micros(200));
        }
        if kill().is_none() {
            continue;
        }
        let begin = Instant::now();
        drop(look(story));
        restarts.push(begin.elapsed());
    }
}

/// What was acknowledged before this call is there.
fn look(story: &Story) -> Client {
    let (addresses, identities) = {
        let book = story.book.lock().unwrap();
        (book.by_address.clone(), book.identities.clone())
    };
    let (client, listed, known) = loop {
        if let Some(found) = lists() {
            break found;
        }
        assert!(Instant::now() < story.deadline, "it does not start again");
    };
    for (address, mac) in addresses {
        assert_eq!(listed.get(&address), Some(&mac), "{address} after a crash");
    }
    for (id, mac) in identities {
        assert_eq!(known.get(&id), Some(&mac), "{id} after a crash");
    }
    client
}

type Lists = (Client, HashMap<Ipv4Addr, Mac>, HashMap<String, Mac>);

fn lists() -> Option<Lists> {
    let mut client = Client::connect().ok()?;
    let leases = client.list_leases(Some(NETWORK)).ok()?.leases;
    let identities = client.list_identities().ok()?.identities;
    let bound = leases
        .into_iter()
        .filter(|lease| lease.state == LeaseState::Bound);
    let leases = bound.map(|lease| (lease.address.parse().unwrap(), lease.mac.parse().unwrap()));
    let identities = identities
        .into_iter()
        .map(|row| (row.id, row.mac.parse().unwrap()));
    let (leases, identities) = (leases.collect(), identities.collect());
    Some((client, leases, identities))
}

fn everybody_asks_again(story: &Story) {
    let all: Vec<Ask> = {
        let book = story.book.lock().unwrap();
        let known = book.by_mac.iter();
        known
            .map(|(mac, address)| Ask::Same(*mac, *address))
            .collect()
    };
    assert_eq!(all.len(), GUESTS);
    story.ended.store(false, Ordering::Relaxed);
    let begin = Instant::now();
    let mut client = Client::connect().unwrap();
    for some in all.chunks(BEHIND) {
        let (started, place) = guest::start(&mut client, NETWORK, plain()).unwrap();
        let asks = some.iter().copied();
        let left = place.ask_all(
            asks,
            WINDOW,
            || story.goes_on(),
            |ask, told| story.told(ask, told),
        );
        assert!(left.is_empty());
        client.stop_interface(started.interface.interface).unwrap();
    }
    println!(
        "all {GUESTS} have their address still: {:?}",
        begin.elapsed()
    );
}
