//! Thousands of forwarded ports: how long they take, and how much memory; and that none is left if one cannot be had.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vmnet_lab::sim::packets;
use vmnet_linux::lane::{
    self, Attachment, Forward, ForwardError, ForwardGuest, Handle, Ipv4, PortOptions, Protocol,
    Settings,
};
use vmnet_linux::sys::limits;
use vmnet_wire::ethernet::Mac;

const PORTS: u16 = 10_000;
const FIRST: u16 = 20_000;
/// An address of the loopback that nobody else uses, for a test of its own.
const HERE: Ipv4Addr = Ipv4Addr::new(127, 77, 1, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(127, 77, 1, 2);

fn start() -> Handle {
    let ipv4 = Ipv4::new("192.168.77.0/24".parse().unwrap());
    let mut settings = Settings::shared("forwards", ipv4, Duration::from_secs(3600));
    settings.resolvers = Some(Vec::new());
    lane::start(settings).unwrap()
}

fn forward(protocol: Protocol, address: Ipv4Addr, port: u16) -> Forward {
    Forward {
        protocol,
        listen: SocketAddr::from((address, port)),
        guest: ForwardGuest::Address([192, 168, 77, 2].into()),
        guest_port: port,
    }
}

/// Memory of this process that is in use, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.unwrap().parse::<usize>().unwrap() << 10
}

/// Half of them TCP, half UDP: one after the other in one process, so that nothing else is measured.
#[test]
fn ten_thousand_ports() {
    let enough = limits::raise_open_files() > u64::from(PORTS) + 1000;
    if !enough {
        let why = "skipped: the hard limit on open files is too low for 10,000 ports";
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "{why}"
        );
        return eprintln!("{why}");
    }
    let handle = start();
    // What is needed once is not a port's.
    let warm = handle.forward(forward(Protocol::Tcp, HERE, 1999)).unwrap();
    handle.remove_forward(warm);
    let before = resident();
    let forwards: Vec<_> = (FIRST..FIRST + PORTS)
        .map(|port| {
            let protocol = match port % 2 {
                0 => Protocol::Tcp,
                _ => Protocol::Udp,
            };
            forward(protocol, HERE, port)
        })
        .collect();
    let begun = Instant::now();
    let ids = handle.forward_all(forwards.clone()).unwrap();
    let took = begun.elapsed();
    let memory = resident().saturating_sub(before);
    println!(
        "{} ports: {} ms, {} KiB of memory",
        ids.len(),
        took.as_millis(),
        memory >> 10
    );
    assert_eq!(ids.len(), usize::from(PORTS));
    assert!(memory <= 8 << 20, "{memory} bytes");
    assert!(took < Duration::from_secs(5), "{took:?}");
    // They are there: a client is let in, and turned away by the guest's absence, not by the host.
    for port in [FIRST, FIRST + PORTS - 2] {
        let mut client = TcpStream::connect((HERE, port)).unwrap();
        let _refused = client.write(b"x");
        client
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let _nobody = client.read(&mut [0]);
    }
    // All again fails as a whole, and takes nothing away.
    let error = handle.forward_all(forwards.clone()).unwrap_err();
    assert!(
        matches!(error, ForwardError::InUse { listen, .. } if listen.port() == FIRST),
        "{error}"
    );
    let begun = Instant::now();
    handle.remove_forwards(ids);
    println!("removed: {} ms", begun.elapsed().as_millis());
    TcpListener::bind((HERE, FIRST)).expect("free again");
    // Nothing is left behind, so that they can be had again.
    let ids = handle.forward_all(forwards).unwrap();
    assert_eq!(ids.len(), usize::from(PORTS));
}

#[test]
fn one_that_fails_takes_all_with_it() {
    let handle = start();
    let taken = TcpListener::bind((THERE, 21_500)).unwrap();
    let forwards = (21_000..22_000).map(|port| forward(Protocol::Tcp, THERE, port));
    let error = handle.forward_all(forwards.clone().collect()).unwrap_err();
    assert!(
        matches!(error, ForwardError::InUse { listen, .. } if listen.port() == 21_500),
        "{error}"
    );
    TcpStream::connect((THERE, 21_000)).expect_err("none of them listens");
    drop(taken);
    assert_eq!(handle.forward_all(forwards.collect()).unwrap().len(), 1000);
    TcpStream::connect((THERE, 21_500)).expect("listens");
}

/// Whoever leads others to guests by rules of the kernel's is told at once, and not again while nothing changes.
#[test]
fn it_is_told_that_guests_have_other_addresses() {
    let ipv4 = Ipv4::new("192.168.77.0/24".parse().unwrap());
    let mut settings = Settings::shared("moved", ipv4, Duration::from_secs(3600));
    settings.resolvers = Some(Vec::new());
    let (told, hears) = UnixDatagram::pair().unwrap();
    told.set_nonblocking(true).unwrap();
    settings.moved = Some(Arc::new(told));
    let handle = lane::start(settings).unwrap();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    handle
        .attach(Attachment::Dgram(theirs.into()), PortOptions::default())
        .unwrap();
    let (mac, guest) = (
        Mac([0x52, 0x54, 0, 0, 0, 9]),
        Ipv4Addr::new(192, 168, 77, 9),
    );
    let of = || handle.addresses_of(vec![ForwardGuest::Mac(mac)])[0].0;
    assert_eq!(of(), None);
    let speak = |address| {
        let request = packets::arp_request(mac, (mac, address), Ipv4Addr::new(192, 168, 77, 1));
        ours.send(&request).unwrap();
    };
    // What was told before is of no interest; what comes now is waited for, however long the machine takes.
    hears
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    speak(guest);
    while of() != Some(guest) {
        hears.recv(&mut [0]).expect("it is told");
    }
    let other = Ipv4Addr::new(192, 168, 77, 10);
    speak(other);
    while of() != Some(other) {
        hears.recv(&mut [0]).expect("it is told that it has moved");
    }
    hears.set_nonblocking(true).unwrap();
    while hears.recv(&mut [0]).is_ok() {}
    speak(other);
    hears.set_nonblocking(false).unwrap();
    hears
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    assert!(hears.recv(&mut [0]).is_err(), "nothing is new");
}
