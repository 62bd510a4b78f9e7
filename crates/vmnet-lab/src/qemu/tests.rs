//! The harness itself, without the product: QEMU's own NAT, and a hub of a few lines.

use std::io::{self, Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::thread;

use super::*;
use crate::prerequisite::{Prerequisite, all_present};

const LIMIT: Duration = Duration::from_secs(60);

fn all_is_there() -> bool {
    all_present(&[
        Prerequisite::Root,
        Prerequisite::GuestKernel,
        Prerequisite::Program("qemu-system-x86_64"),
        Prerequisite::Program("busybox"),
        Prerequisite::Program("iperf3"),
        Prerequisite::Program("ip"),
    ])
}

/// Boot, lease, a server outside.
#[test]
fn qemu_boots_a_guest_that_takes_commands() {
    if !all_is_there() {
        return;
    }
    let world = World::new();
    let mut guest = Machine::new(&world).boot(&world, &Netdev::User, 7);
    assert_eq!(
        guest.shell("echo said; exit 3", LIMIT),
        (3, "said".to_owned())
    );
    assert!(guest.lease("alpha").starts_with("10.0.2."));
    assert!(
        guest
            .must("cat /sys/class/net/eth0/address", LIMIT)
            .ends_with(":07")
    );
    let said = guest.must("vmnet-lab-client get 198.51.100.1:80 3000000", LIMIT);
    assert!(said.starts_with("ok"), "{said}");
    guest.power_off();
}

/// Every frame of a client goes to all others.
fn stream_hub(path: &Path) {
    let listener = UnixListener::bind(path).unwrap();
    thread::spawn(move || {
        let clients = Arc::<Mutex<Vec<UnixStream>>>::default();
        for (number, stream) in listener.incoming().flatten().enumerate() {
            clients.lock().unwrap().push(stream.try_clone().unwrap());
            let clients = Arc::clone(&clients);
            thread::spawn(move || relay(stream, number, &clients));
        }
    });
}

fn relay(mut from: UnixStream, number: usize, clients: &Mutex<Vec<UnixStream>>) -> io::Result<()> {
    loop {
        let mut len = [0; 4];
        from.read_exact(&mut len)?;
        let mut message = len.to_vec();
        message.resize(4 + u32::from_be_bytes(len) as usize, 0);
        from.read_exact(&mut message[4..])?;
        for (other, client) in clients.lock().unwrap().iter_mut().enumerate() {
            if other != number {
                // It may be gone.
                let _ = client.write_all(&message);
            }
        }
    }
}

/// Every frame goes to all addresses seen before, but its own.
fn dgram_hub(path: &Path) {
    let socket = UnixDatagram::bind(path).unwrap();
    thread::spawn(move || {
        let mut seen: Vec<PathBuf> = Vec::new();
        let mut buffer = vec![0; 65_536];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let from = from
                .as_pathname()
                .expect("QEMU binds its socket")
                .to_owned();
            if !seen.contains(&from) {
                seen.push(from.clone());
            }
            for other in seen.iter().filter(|it| **it != from) {
                let _ = socket.send_to(&buffer[..len], other);
            }
        }
    });
}

fn two_guests_meet(hub: fn(&Path), netdev: fn(PathBuf) -> Netdev) {
    if !all_is_there() {
        return;
    }
    let world = World::new();
    let path = world.home().join("hub");
    hub(&path);
    chown(&path, Some(world.user().id()), None).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    let (machine, netdev) = (Machine::new(&world), netdev(path));
    let [mut one, mut two] = [1, 2].map(|number| {
        let mut guest = machine.boot(&world, &netdev, number);
        let line = format!("ip link set eth0 up; ip address add 10.0.0.{number}/24 dev eth0");
        guest.must(&line, LIMIT);
        guest
    });
    one.must("ping -c 3 -W 5 10.0.0.2", LIMIT);
    one.must("iperf3 -s -D >/dev/null 2>&1; sleep 1", LIMIT);
    let said = two.must("iperf3 -c 10.0.0.1 -t 1 -f k", LIMIT);
    assert!(said.contains("receiver"), "{said}");
}

#[test]
fn stream_guests_meet_through_a_hub() {
    two_guests_meet(stream_hub, Netdev::Stream);
}

#[test]
fn dgram_guests_meet_through_a_hub() {
    two_guests_meet(dgram_hub, Netdev::Dgram);
}
