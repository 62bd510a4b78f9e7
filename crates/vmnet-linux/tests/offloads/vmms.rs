//! VMMs that share their guests' memory: they go, come back, stop in the middle, and lie. Each costs its own port only.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use vmnet_lab::sim::packets::{self, Ends};
use vmnet_linux::lane::{Attachment, Handle, PortId, PortOptions, VhostUserSocket};
use vmnet_virtio::driver::Receive;
use vmnet_virtio::frontend::{Frontend, Plan, Queue};
use vmnet_virtio::net::Features;

use crate::client::{self, take};
use crate::{address, mac, settle, start};

const SOON: Duration = Duration::from_secs(10);

fn plan() -> Plan {
    Plan {
        features: Features::ALL.without(Features::RING_PACKED),
        ring_size: 64,
        transmit_buffer: 2048,
        receive_buffer: 2048,
        ..Plan::new()
    }
}

fn ends(from: usize, to: usize) -> Ends {
    Ends {
        macs: (mac(from), mac(to)),
        ips: (address(from), address(to)),
    }
}

/// Sends frames of this number of bytes, as many as fit. Says how many.
fn send(vmm: &mut Frontend, ends: Ends, first: u32, count: u32) -> u32 {
    let queue = &mut vmm.pairs[0].transmit;
    queue.driver.reclaim().unwrap();
    let mut sent = 0;
    for number in first..first + count {
        let frame = packets::udp(ends, (1, 2), 64, &number.to_be_bytes().repeat(100));
        if queue.driver.send(&[0; 12], &[&frame]).is_err() {
            break;
        }
        sent += 1;
    }
    queue.flush().unwrap();
    sent
}

/// The number that the next frame carries, once it is there. What else came is passed over.
fn hear(vmm: &mut Frontend, within: Duration) -> Option<u32> {
    let end = Instant::now() + within;
    let queue = &mut vmm.pairs[0].receive;
    loop {
        while let Some(bytes) = take(queue) {
            if let Some((_, (1, 2), payload)) = packets::read_udp(&bytes[12..]) {
                let numbers: Vec<&[u8]> = payload.chunks(4).collect();
                assert!(numbers.iter().all(|number| *number == numbers[0]));
                return Some(u32::from_be_bytes(numbers[0].try_into().unwrap()));
            }
        }
        if Instant::now() > end {
            return None;
        }
        if !queue.driver.enable_calls() {
            queue.wait(Duration::from_millis(5)).unwrap();
        }
    }
}

/// Tells the network where a guest is.
fn greet(vmm: &mut Frontend, number: usize) {
    let own = (mac(number), address(number));
    let frame = packets::arp_request(own.0, own, [192, 168, 77, 9].into());
    let queue = &mut vmm.pairs[0].transmit;
    queue.driver.send(&[0; 12], &[&frame]).unwrap();
    queue.flush().unwrap();
}

/// Two VMMs whose frames reach each other.
fn speak(one: &mut Frontend, other: &mut Frontend) {
    for (from, to, number) in [(1, 2, 11), (2, 1, 12)] {
        let (sender, receiver) = match from {
            1 => (&mut *one, &mut *other),
            _ => (&mut *other, &mut *one),
        };
        assert_eq!(send(sender, ends(from, to), number, 1), 1);
        assert_eq!(hear(receiver, SOON), Some(number));
    }
}

fn listening(handle: &Handle, path: &Path) -> PortId {
    let listener = UnixListener::bind(path).unwrap();
    let attachment = Attachment::VhostUser(VhostUserSocket::Listen(listener));
    handle.attach(attachment, PortOptions::default()).unwrap()
}

fn connect(path: &Path, plan: &Plan) -> Frontend {
    let stream = UnixStream::connect(path).unwrap();
    let mut vmm = Frontend::connect(stream, plan).unwrap();
    for pair in &mut vmm.pairs {
        pair.receive.flush().unwrap();
    }
    vmm
}

fn counter(handle: &Handle, name: &str) -> u64 {
    let rows = handle.counters().rows;
    let found = rows.iter().find(|(row, _)| row == name);
    found.map_or(0, |(_, count)| *count)
}

/// Waits until `done` says so.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !done() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_vmm_that_is_killed_mid_burst_comes_back_and_others_go_on() {
    let handle = start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vmm");
    let port = listening(&handle, &path);
    let (_, mut one) = client::vmm(&handle, &plan());
    let (_, mut two) = client::vmm(&handle, &plan());
    greet(&mut one, 1);
    greet(&mut two, 2);
    settle(&handle, 2);
    speak(&mut one, &mut two);
    for round in 0..20 {
        let mut killed = connect(&path, &plan());
        greet(&mut killed, 3);
        until("the guest is heard", || {
            let rows = handle.ports();
            rows.iter()
                .any(|row| row.id == port && row.mac == Some(mac(3)))
        });
        // In the middle of a burst to it, and of one from it.
        send(&mut one, ends(1, 3), 0, 60);
        send(&mut killed, ends(3, 2), 100, round * 3);
        drop(killed);
        while hear(&mut two, Duration::ZERO).is_some() {}
    }
    // Frames to a port without a VMM are dropped, by their own cause.
    until("frames for nobody are counted", || {
        one.pairs[0].transmit.driver.reclaim().unwrap();
        send(&mut one, ends(1, 3), 0, 1);
        counter(&handle, "drop-port-away") > 0
    });
    while hear(&mut two, Duration::from_millis(20)).is_some() {}
    while hear(&mut one, Duration::from_millis(20)).is_some() {}
    speak(&mut one, &mut two);
}

#[test]
fn a_second_vmm_waits_until_the_first_has_gone() {
    let handle = start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vmm");
    listening(&handle, &path);
    let first = connect(&path, &plan());
    let stream = UnixStream::connect(&path).unwrap();
    let waiting = std::thread::spawn(move || Frontend::connect(stream, &plan()).map(drop));
    std::thread::sleep(Duration::from_millis(100));
    assert!(!waiting.is_finished());
    drop(first);
    waiting.join().unwrap().unwrap();
}

#[test]
fn a_vmm_that_listens_is_found_again_and_again() {
    let handle = start();
    let folder = tempfile::tempdir().unwrap();
    let directory = std::fs::File::open(folder.path()).unwrap();
    let socket = VhostUserSocket::Connect(directory.into(), "vmm".to_owned());
    let attachment = Attachment::VhostUser(socket);
    handle.attach(attachment, PortOptions::default()).unwrap();
    let (_, mut one) = client::vmm(&handle, &plan());
    greet(&mut one, 1);
    for _ in 0..3 {
        let path = folder.path().join("vmm");
        let listener = UnixListener::bind(&path).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let mut two = Frontend::connect(stream, &plan()).unwrap();
        two.pairs[0].receive.flush().unwrap();
        greet(&mut two, 2);
        settle(&handle, 2);
        speak(&mut one, &mut two);
        drop(two);
        std::fs::remove_file(path).unwrap();
    }
}

type Lie = fn(&Frontend);

/// What drivers may write into their rings, in place of what they should.
fn lies() -> Vec<(&'static str, Lie)> {
    fn word(vmm: &Frontend, addr: u64) -> impl Fn(u16) + '_ {
        move |value| {
            let word = vmm.memory_map().user_word::<AtomicU16>(addr).unwrap();
            word.store(value, Ordering::SeqCst);
        }
    }
    fn descriptors(vmm: &Frontend, words: [u64; 2]) {
        let config = vmm.pairs[0].transmit.driver.config();
        let table = vmm.memory_map();
        let table = table.user_words::<[AtomicU64; 2]>(config.descriptors, 64);
        for descriptor in table.unwrap().iter() {
            descriptor[0].store(words[0], Ordering::SeqCst);
            descriptor[1].store(words[1], Ordering::SeqCst);
        }
        let offered = word(vmm, config.driver + 2);
        offered(40);
    }
    /// Flags of a descriptor, in the word that has its length too.
    const NEXT: u64 = 1 << 32;
    const INDIRECT: u64 = 4 << 32;
    vec![
        ("the index jumps ahead", |vmm| {
            let config = vmm.pairs[0].transmit.driver.config();
            word(vmm, config.driver + 2)(30_000);
        }),
        ("a chain without an end", |vmm| {
            descriptors(vmm, [0x1_0000_0000, 64 | NEXT]);
        }),
        ("a table that is nowhere", |vmm| {
            descriptors(vmm, [u64::MAX - 64, 32 | INDIRECT]);
        }),
        ("buffers outside of memory", |vmm| {
            descriptors(vmm, [0x7fff_0000_0000, 1000]);
        }),
        ("lengths that overflow", |vmm| {
            descriptors(vmm, [u64::MAX - 3, 0xffff_ffff]);
        }),
        ("descriptors that are not there", |vmm| {
            let config = vmm.pairs[0].transmit.driver.config();
            let ring = vmm.memory_map();
            let ring = ring.user_words::<AtomicU16>(config.driver + 4, 64).unwrap();
            ring.iter()
                .for_each(|entry| entry.store(999, Ordering::SeqCst));
            word(vmm, config.driver + 2)(20);
        }),
        ("buffers to receive into that are nowhere", |vmm| {
            let config = vmm.pairs[0].receive.driver.config();
            let table = vmm.memory_map();
            let table = table.user_words::<[AtomicU64; 2]>(config.descriptors, 64);
            for descriptor in table.unwrap().iter() {
                descriptor[0].store(0x7fff_0000_0000, Ordering::SeqCst);
            }
        }),
    ]
}

#[test]
fn a_guest_that_lies_in_its_rings_costs_its_own_port_only() {
    let handle = start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("liar");
    listening(&handle, &path);
    let (_, mut one) = client::vmm(&handle, &plan());
    let (_, mut two) = client::vmm(&handle, &plan());
    greet(&mut one, 1);
    greet(&mut two, 2);
    settle(&handle, 2);
    for (what, lie) in lies() {
        let mut liar = connect(&path, &plan());
        greet(&mut liar, 3);
        settle(&handle, 3);
        speak(&mut one, &mut two);
        lie(&liar);
        liar.pairs[0].transmit.kick().unwrap();
        // Frames go to it and to others meanwhile.
        for number in 0..200 {
            send(&mut one, ends(1, 3), number, 10);
            if number % 20 == 0 {
                while hear(&mut two, Duration::ZERO).is_some() {}
                let end = Instant::now() + SOON;
                while send(&mut one, ends(1, 2), 7_000 + number, 1) == 0 {
                    assert!(
                        Instant::now() < end,
                        "{what}: the ring of another stands still"
                    );
                }
                assert_eq!(hear(&mut two, SOON), Some(7_000 + number), "{what}");
            }
        }
        drop(liar);
        until("all is sent", || {
            one.pairs[0].transmit.driver.reclaim().unwrap();
            one.pairs[0].transmit.driver.room() == 64
        });
        // The port is as good as new for the next one.
        let mut honest = connect(&path, &plan());
        greet(&mut honest, 3);
        until("the next guest is heard", || {
            send(&mut one, ends(1, 3), 5, 1);
            hear(&mut honest, Duration::from_millis(20)) == Some(5)
        });
    }
}

/// A guest that takes nothing keeps nobody from others for long, and gets what its queue holds when it wakes up.
#[test]
fn a_guest_without_buffers_keeps_others_waiting_for_a_moment_only() {
    let handle = start();
    let (_, mut one) = client::vmm(&handle, &plan());
    let (_, mut asleep) = client::vmm(&handle, &plan());
    let (_, mut two) = client::vmm(&handle, &plan());
    greet(&mut one, 1);
    greet(&mut two, 2);
    greet(&mut asleep, 3);
    settle(&handle, 3);
    let mut sent = 0;
    let begin = Instant::now();
    while sent < 500 {
        sent += send(&mut one, ends(1, 3), sent, 500 - sent);
    }
    while send(&mut one, ends(1, 2), 77, 1) == 0 {}
    assert_eq!(hear(&mut two, SOON), Some(77));
    assert!(
        begin.elapsed() < Duration::from_secs(2),
        "{:?}",
        begin.elapsed()
    );
    for number in 0..500 {
        assert_eq!(hear(&mut asleep, SOON), Some(number), "in order, none lost");
    }
}

/// Frames wait in their ring for a guest that is only a little slower: none is lost, however many there are.
#[test]
fn a_slower_guest_loses_nothing() {
    let handle = start();
    let (_, mut one) = client::vmm(&handle, &plan());
    let (_, mut two) = client::vmm(&handle, &plan());
    greet(&mut one, 1);
    greet(&mut two, 2);
    settle(&handle, 2);
    let count = 20_000;
    let sender = std::thread::spawn(move || {
        let mut sent = 0;
        let end = Instant::now() + SOON * 3;
        while sent < count && Instant::now() < end {
            sent += send(&mut one, ends(1, 2), sent, (count - sent).min(64));
            std::thread::yield_now();
        }
        one
    });
    for number in 0..count {
        assert_eq!(hear(&mut two, SOON), Some(number));
    }
    drop(sender.join().unwrap());
    assert_eq!(counter(&handle, "drop-port-full"), 0);
}

#[test]
fn answers_come_by_the_pair_by_which_was_asked() {
    let handle = start();
    let plan = Plan {
        queue_pairs: 4,
        ..plan()
    };
    let (_, mut one) = client::vmm(&handle, &plan);
    let (_, mut two) = client::vmm(&handle, &plan);
    greet(&mut one, 1);
    greet(&mut two, 2);
    settle(&handle, 2);
    // The greetings of both are there too.
    let hears = |queue: &mut Queue<Receive>, what: &[u8]| {
        take(queue).is_some_and(|bytes| bytes.windows(what.len()).any(|part| part == what))
    };
    for pair in [3, 0, 2, 1] {
        let frame = packets::udp(ends(1, 2), (5000, 6000), 64, b"question");
        let queue = &mut one.pairs[pair].transmit;
        queue.driver.send(&[0; 12], &[&frame]).unwrap();
        queue.flush().unwrap();
        let mut came = None;
        until("the question comes", || {
            came = (0..4).find(|pair| hears(&mut two.pairs[*pair].receive, b"question"));
            came.is_some()
        });
        let frame = packets::udp(ends(2, 1), (6000, 5000), 64, b"answer");
        let queue = &mut two.pairs[came.unwrap()].transmit;
        queue.driver.send(&[0; 12], &[&frame]).unwrap();
        queue.flush().unwrap();
        until("the answer comes by the same pair", || {
            hears(&mut one.pairs[pair].receive, b"answer")
        });
    }
}

#[test]
fn a_network_ends_while_vmms_are_there() {
    let handle = start();
    let (port, mut one) = client::vmm(&handle, &plan());
    let (_, mut two) = client::vmm(&handle, &plan());
    greet(&mut one, 1);
    greet(&mut two, 2);
    settle(&handle, 2);
    handle.detach(port);
    until("the port is gone", || handle.ports().len() == 1);
    until("its VMM hears of it", || one.enable(0, false).is_err());
    let begin = Instant::now();
    handle.stop();
    assert!(
        begin.elapsed() < Duration::from_secs(2),
        "{:?}",
        begin.elapsed()
    );
    let _gone = two.enable(0, false).unwrap_err();
}
