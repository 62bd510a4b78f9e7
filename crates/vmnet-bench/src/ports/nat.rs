//! Bulk TCP of a guest in shared memory through the NAT, to and from a server behind the host: the guest is a thread of ours
//! (`flow.rs`), the server's end is the kernel's. What the guest sends lies in its memory already, as when a program there
//! sends a file; what it receives it leaves where it came: its own copying is no part of the network.

use super::flow::{self, Flow, HEAD, HEADERS, Outgoing};
use super::{Driver, Failure, NAP, attach, network};
use crate::measure::Values;
use crate::sys;
use crate::testbed::Testbed;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use vmnet_lab::sim::packets;
use vmnet_linux::lane::Handle;
use vmnet_virtio::frontend::{Frontend, Pair, Plan};
use vmnet_virtio::net::Features;
use vmnet_wire::ethernet::Mac;

const MAC: Mac = Mac([2, 0, 0, 0, 0, 10]);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 10);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
/// The first port of the guest.
const PORTS: u16 = 40_000;
/// Descriptors of a ring: what `vmnet qemu` gives its guests.
const RING: u16 = 1024;
const SOON: Duration = Duration::from_secs(5);

pub(super) fn measure(
    up: bool,
    flows: usize,
    time: Duration,
    testbed: &Testbed,
) -> Result<Values, Failure> {
    let listener = within(testbed.server_side(), || TcpListener::bind("0.0.0.0:0"))??;
    let port = listener.local_addr()?.port();
    let moved = serve(listener, up, flows);
    let handle = within(&testbed.host, network)??;
    let server = match testbed.server_port(crate::rows::Family::V4, port) {
        std::net::SocketAddr::V4(server) => server,
        std::net::SocketAddr::V6(_) => return Err("the server has an IPv4 address".into()),
    };
    let folder = tempfile::tempdir_in(testbed.scratch().join(""))?;
    let socket = folder.path().join("guest");
    let rate = drive((&handle, &socket), server, (up, flows), time, &moved)?;
    let direction = if up { "up" } else { "down" };
    Ok(vec![(format!("nat_{direction}_{flows}"), rate)])
}

/// Does something in a namespace, in a thread of its own: what it starts stays there.
fn within<T: Send>(
    namespace: &crate::namespace::Namespace,
    work: impl FnOnce() -> T + Send,
) -> Result<T, Failure> {
    thread::scope(|scope| {
        let inside = scope.spawn(|| sys::enter(namespace.as_fd()).map(|()| work()));
        let done = inside.join().map_err(|_| "a thread panicked")?;
        Ok(done?)
    })
}

/// Takes so many connections, and takes or gives bytes until they end. Answers what counts the bytes that came.
fn serve(listener: TcpListener, up: bool, flows: usize) -> Arc<AtomicU64> {
    let moved = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&moved);
    thread::spawn(move || {
        for stream in listener.incoming().take(flows).flatten() {
            let count = Arc::clone(&count);
            thread::spawn(move || exchange(stream, up, &count));
        }
    });
    moved
}

fn exchange(mut stream: TcpStream, up: bool, moved: &AtomicU64) {
    let mut bytes = vec![7; 256 << 10];
    loop {
        let done = if up {
            stream.read(&mut bytes)
        } else {
            stream.write(&bytes)
        };
        match done {
            Ok(0) | Err(_) => return drop(stream.shutdown(Shutdown::Both)),
            Ok(count) => moved.fetch_add(count as u64, Ordering::Relaxed),
        };
    }
}

/// The guest: moves bytes by all flows for that time. Answers Gbit/s at the receiver.
fn drive(
    (handle, socket): (&Handle, &Path),
    server: SocketAddrV4,
    (up, flows): (bool, usize),
    time: Duration,
    moved: &AtomicU64,
) -> Result<f64, Failure> {
    attach(handle, socket)?;
    let plan = Plan {
        features: Features::ALL.without(Features::RING_PACKED),
        ring_size: RING,
        ..Plan::new()
    };
    let mut frontend = Frontend::connect(UnixStream::connect(socket)?, &plan)?;
    let [pair] = frontend.pairs.as_mut_slice() else {
        return Err("one pair of rings".into());
    };
    let gateway = find_gateway(pair)?;
    let mut guest = Guest {
        pair,
        flows: (0..flows)
            .map(|number| {
                let port = PORTS + u16::try_from(number).unwrap_or(0);
                Flow::new((MAC, gateway), SocketAddrV4::new(ADDRESS, port), server)
            })
            .collect(),
        up,
        turn: 0,
    };
    for number in 0..flows {
        let syn = guest.flows[number].syn();
        guest.send(&syn)?;
    }
    guest.run(time / 4)?;
    let (before, begun) = (guest.arrived(moved), Instant::now());
    guest.run(time)?;
    let bytes = guest.arrived(moved) - before;
    let elapsed = begun.elapsed();
    let idle = |flow: &&Flow| {
        if up {
            flow.acknowledged() == 0
        } else {
            flow.received == 0
        }
    };
    if let Some(flow) = guest.flows.iter().find(idle) {
        return Err(format!("by the flow from port {} nothing moved", flow.port()).into());
    }
    Ok(bytes as f64 * 8e-9 / elapsed.as_secs_f64())
}

/// Asks who has the gateway's address.
fn find_gateway(pair: &mut Pair) -> Result<Mac, Failure> {
    let request = packets::arp_request(MAC, (MAC, ADDRESS), GATEWAY);
    pair.receive.flush()?;
    pair.transmit.driver.send(&[0; 12], &[&request])?;
    pair.transmit.flush()?;
    let begun = Instant::now();
    let mut bytes = [0; 128];
    while begun.elapsed() < SOON {
        if let Some(frame) = pair.receive.driver.receive()? {
            let mut filled = 0;
            for part in frame.parts {
                filled += part.copy_to(&mut bytes[filled..]);
            }
            // An ARP answer: its sender's MAC is behind 22 bytes.
            if bytes.get(12..14) == Some(&[8, 6]) && bytes.get(20..22) == Some(&[0, 2]) {
                let mac = bytes.get(22..28).and_then(|mac| mac.try_into().ok());
                return mac.map(Mac).ok_or_else(|| "no answer".into());
            }
        }
        pair.receive.flush()?;
    }
    Err("the gateway does not answer".into())
}

struct Guest<'p> {
    pair: &'p mut Pair,
    flows: Vec<Flow>,
    up: bool,
    turn: usize,
}

impl Guest<'_> {
    /// Bytes at the receiver.
    fn arrived(&self, moved: &AtomicU64) -> u64 {
        if self.up {
            moved.load(Ordering::Relaxed)
        } else {
            self.flows.iter().map(|flow| flow.received).sum()
        }
    }

    fn receive(&mut self) -> Result<usize, Failure> {
        let (mut count, mut head) = (0, [0; HEAD]);
        while count < 64 {
            let Some(frame) = self.pair.receive.driver.receive()? else {
                break;
            };
            count += 1;
            let Some((port, segment, payload)) = flow::read(frame.parts, frame.len, &mut head)
            else {
                continue;
            };
            let number = usize::from(port.wrapping_sub(PORTS));
            if let Some(flow) = self.flows.get_mut(number) {
                flow.receive(&segment, payload);
            }
        }
        Ok(count)
    }

    fn send(&mut self, segment: &Outgoing) -> Result<(), Failure> {
        let body = segment.body as usize;
        let len = segment.virtio.len() + segment.headers.len() + body;
        debug_assert!(body == 0 || segment.headers.len() == HEADERS, "no options");
        self.pair.transmit.driver.send_with(len, |buffer| {
            let (virtio, rest) = buffer.split_at(segment.virtio.len());
            virtio.copy_from(&segment.virtio);
            rest.split_at(segment.headers.len())
                .0
                .copy_from(&segment.headers);
        })?;
        Ok(())
    }
}

impl Driver for Guest<'_> {
    /// None: a third thread that looks takes a processor from the network or from the server, where there are two.
    const LOOK: Duration = Duration::ZERO;

    fn step(&mut self) -> Result<bool, Failure> {
        let received = self.receive()?;
        let mut worked = received > 0;
        worked |= self.pair.transmit.driver.reclaim()? > 0;
        for number in 0..self.flows.len() {
            // In turns: each flow is the first now and then.
            let at = (self.turn + number) % self.flows.len();
            while self.up && self.pair.transmit.driver.room() > self.flows.len() {
                let Some(segment) = self.flows[at].bytes() else {
                    break;
                };
                self.send(&segment)?;
                worked = true;
            }
            if let Some(segment) = self.flows[at].acknowledgement() {
                self.send(&segment)?;
            }
        }
        self.turn += 1;
        self.pair.transmit.flush()?;
        self.pair.receive.flush()?;
        Ok(worked)
    }

    fn sleep(&mut self) -> Result<(), Failure> {
        if !self.pair.receive.driver.enable_calls() {
            self.pair.receive.wait(NAP)?;
        }
        self.pair.receive.driver.disable_calls();
        Ok(())
    }
}
