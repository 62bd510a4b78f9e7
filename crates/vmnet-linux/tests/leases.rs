//! Leases of a running lane and its store: slow, failing, silent, and put back after a restart.

use std::io::{ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, SystemTime};

use vmnet_linux::lane::{
    Attachment, Handle, Ipv4, LeaseKeeper, LeaseRecord, LeaseState, LeaseWrite, PortOptions,
    Receipt, ReserveRefused, Reservee, Settings, start,
};
use vmnet_wire::ethernet::Mac;

const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;
const NAK: u8 = 6;
const LEASE: Duration = Duration::from_secs(3600);
/// Long enough for an answer on a busy machine.
const SOON: Duration = Duration::from_secs(20);
/// So long nothing may come.
const NEVER: Duration = Duration::from_millis(300);

fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 77, last)
}

fn mac(last: u8) -> Mac {
    Mac([0x52, 0x54, 0, 0, 0, last])
}

fn settings(keeper: Option<LeaseKeeper>) -> Settings {
    let ipv4 = Ipv4::new("192.168.77.0/28".parse().unwrap());
    let mut settings = Settings::shared("leases", ipv4, LEASE);
    settings.resolvers = Some(Vec::new());
    settings.leases = keeper;
    settings
}

/// A store whose batches come here, to be answered by the test.
fn store() -> (LeaseKeeper, Receiver<(Vec<LeaseWrite>, Receipt)>) {
    let (sender, batches) = channel();
    let keeper = LeaseKeeper::new(move |writes, receipt| {
        let _gone = sender.send((writes, receipt));
    });
    (keeper, batches)
}

fn put(writes: &[LeaseWrite]) -> Vec<LeaseRecord> {
    let put = |write: &LeaseWrite| match write {
        LeaseWrite::Put(record) => Some(record.clone()),
        LeaseWrite::Remove(_) => None,
    };
    writes.iter().filter_map(put).collect()
}

/// A machine on a stream socket that speaks DHCP only.
struct Guest {
    stream: UnixStream,
    mac: Mac,
}

impl Guest {
    fn new(network: &Handle, last: u8) -> Self {
        let (stream, end) = UnixStream::pair().unwrap();
        let options = PortOptions::default();
        network
            .attach(Attachment::Stream(end.into()), options)
            .unwrap();
        Self {
            stream,
            mac: mac(last),
        }
    }

    fn send(&mut self, kind: u8, options: &[(u8, Ipv4Addr)], ciaddr: Ipv4Addr) {
        let mut dhcp = vec![0; 240];
        dhcp[..4].copy_from_slice(&[1, 1, 6, 0]);
        dhcp[12..16].copy_from_slice(&ciaddr.octets());
        dhcp[28..34].copy_from_slice(&self.mac.0);
        dhcp[236..].copy_from_slice(&[99, 130, 83, 99]);
        dhcp.extend([53, 1, kind]);
        for (code, address) in options {
            dhcp.extend([*code, 4]);
            dhcp.extend(address.octets());
        }
        dhcp.push(255);
        let udp = u16::try_from(dhcp.len() + 8).unwrap();
        let mut packet = vec![0x45, 0];
        packet.extend((udp + 20).to_be_bytes());
        packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
        packet.extend(ciaddr.octets());
        packet.extend([255; 4]);
        let sum: u32 = packet
            .chunks(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend([0, 68, 0, 67]);
        packet.extend(udp.to_be_bytes());
        packet.extend([0, 0]);
        packet.extend(dhcp);
        let mut frame = vec![0xff; 6];
        frame.extend(self.mac.0);
        frame.extend([8, 0]);
        frame.extend(packet);
        let len = u32::try_from(frame.len()).unwrap();
        self.stream.write_all(&len.to_be_bytes()).unwrap();
        self.stream.write_all(&frame).unwrap();
    }

    fn discover(&mut self) -> Ipv4Addr {
        self.send(DISCOVER, &[], Ipv4Addr::UNSPECIFIED);
        let (kind, address) = self.answer(SOON).unwrap();
        assert_eq!(kind, OFFER);
        address
    }

    fn request(&mut self, address: Ipv4Addr) {
        let options = [(50, address), (54, ip(1))];
        self.send(REQUEST, &options, Ipv4Addr::UNSPECIFIED);
    }

    fn renew(&mut self, address: Ipv4Addr) {
        self.send(REQUEST, &[], address);
    }

    /// The next answer to this guest: its kind and `yiaddr`. `None`: none came.
    fn answer(&mut self, within: Duration) -> Option<(u8, Ipv4Addr)> {
        self.stream.set_read_timeout(Some(within)).unwrap();
        loop {
            let mut len = [0; 4];
            match self.stream.read_exact(&mut len) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) => panic!("{error}"),
            }
            let mut frame = vec![0; u32::from_be_bytes(len) as usize];
            self.stream.set_read_timeout(Some(SOON)).unwrap();
            self.stream.read_exact(&mut frame).unwrap();
            // A frame that others sent is for everybody.
            let is_reply = frame.get(34..38) == Some(&[0, 67, 0, 68][..]);
            if is_reply && frame[42 + 28..42 + 34] == self.mac.0 {
                let yiaddr: [u8; 4] = frame[42 + 16..42 + 20].try_into().unwrap();
                assert_eq!(frame[42 + 240..42 + 242], [53, 1]);
                return Some((frame[42 + 242], yiaddr.into()));
            }
        }
    }
}

fn drops(network: &Handle, name: &str) -> u64 {
    let rows = network.counters().rows;
    rows.iter()
        .find(|(row, _)| row == name)
        .map_or(0, |(_, count)| *count)
}

#[test]
fn a_slow_store_delays_the_answer_and_nothing_else() {
    let (keeper, batches) = store();
    let network = start(settings(Some(keeper))).unwrap();
    let mut slow = Guest::new(&network, 1);
    let address = slow.discover();
    slow.request(address);
    let (writes, receipt) = batches.recv_timeout(SOON).unwrap();
    let [record] = &put(&writes)[..] else {
        panic!("{writes:?}")
    };
    assert_eq!(
        (record.address, record.mac, record.state),
        (address.into(), mac(1), LeaseState::Bound)
    );
    let left = record.expires.duration_since(SystemTime::now()).unwrap();
    assert!(left > LEASE / 2 && left <= LEASE, "{left:?}");
    assert_eq!(slow.answer(NEVER), None, "not stored, not acknowledged");
    // A guest that asks again and again, and another one, make one more batch between them.
    for _ in 0..50 {
        slow.request(address);
    }
    let mut other = Guest::new(&network, 2);
    let second = other.discover();
    assert_ne!(second, address);
    other.request(second);
    assert_eq!(other.answer(NEVER), None);
    assert_eq!(
        batches.try_recv().err(),
        Some(std::sync::mpsc::TryRecvError::Empty),
        "one at a time"
    );
    receipt.done(true);
    let (writes, receipt) = batches.recv_timeout(SOON).unwrap();
    assert_eq!(put(&writes).len(), 2, "{writes:?}");
    std::thread::spawn(move || receipt.done(true))
        .join()
        .unwrap();
    assert_eq!(slow.answer(SOON), Some((ACK, address)));
    assert_eq!(other.answer(SOON), Some((ACK, second)));
    assert_eq!(slow.answer(NEVER), None, "one answer");
    assert_eq!(
        batches.recv_timeout(NEVER).err(),
        Some(RecvTimeoutError::Timeout)
    );
}

#[test]
fn a_store_that_fails_acknowledges_nothing() {
    let (keeper, batches) = store();
    let network = start(settings(Some(keeper))).unwrap();
    let mut guest = Guest::new(&network, 1);
    let address = guest.discover();
    guest.request(address);
    let (_, receipt) = batches.recv_timeout(SOON).unwrap();
    receipt.done(false);
    assert_eq!(guest.answer(NEVER), None);
    assert_eq!(drops(&network, "drop-lease-not-stored"), 1);
    assert!(network.leases().is_empty(), "nobody was told of one");
    guest.request(address);
    let (_, receipt) = batches.recv_timeout(SOON).unwrap();
    drop(receipt);
    assert_eq!(guest.answer(NEVER), None, "a lost receipt is a failure");
    guest.request(address);
    let (_, receipt) = batches.recv_timeout(SOON).unwrap();
    receipt.done(true);
    assert_eq!(guest.answer(SOON), Some((ACK, address)));
    // What was not asked for again is written again in time: here, that the lease has been given back.
    assert!(network.release(address.into()));
    let (writes, receipt) = batches.recv_timeout(SOON).unwrap();
    assert_eq!(writes, [LeaseWrite::Remove(address.into())]);
    receipt.done(false);
    let (writes, receipt) = batches.recv_timeout(SOON).unwrap();
    assert_eq!(writes, [LeaseWrite::Remove(address.into())]);
    receipt.done(true);
    assert!(!network.release(address.into()));
}

#[test]
fn a_store_that_never_answers_stops_leases_only() {
    let (keeper, batches) = store();
    let network = start(settings(Some(keeper))).unwrap();
    let mut guest = Guest::new(&network, 1);
    let address = guest.discover();
    guest.request(address);
    let held = batches.recv_timeout(SOON).unwrap();
    guest.request(address);
    assert_eq!(guest.answer(NEVER), None);
    assert_eq!(guest.discover(), address, "offers need no store");
    assert_eq!(network.ports().len(), 1);
    network.stop();
    // The lane is gone; the receipt finds nobody, and nothing breaks.
    held.1.done(true);
}

#[test]
fn what_was_stored_is_there_after_a_restart() {
    let record = |last: u8, state, expires| LeaseRecord {
        address: ip(last).into(),
        mac: mac(last),
        client_id: None,
        iaid: None,
        host_name: Some(format!("guest{last}")),
        state,
        expires,
    };
    let now = SystemTime::now();
    let stored = vec![
        record(4, LeaseState::Bound, now + LEASE / 2),
        // The clock was set back by years, or forward.
        record(5, LeaseState::Bound, now + LEASE * 24 * 3000),
        record(6, LeaseState::Bound, now - LEASE * 24 * 3000),
        record(7, LeaseState::Released, now - LEASE),
        // Of another network, and the gateway's.
        record(99, LeaseState::Bound, now + LEASE),
        record(1, LeaseState::Bound, now + LEASE),
    ];
    let (keeper, batches) = store();
    let network = start(Settings {
        restored: stored,
        reservations: vec![
            (Reservee::Mac(mac(8)), ip(8).into()),
            (Reservee::Mac(mac(9)), ip(200).into()),
        ],
        ..settings(Some(keeper))
    })
    .unwrap();
    // What ended meanwhile, and what was skipped, is put right in the store.
    let (writes, receipt) = batches.recv_timeout(SOON).unwrap();
    assert!(
        writes.contains(&LeaseWrite::Remove(ip(99).into())),
        "{writes:?}"
    );
    assert!(
        writes.contains(&LeaseWrite::Remove(ip(1).into())),
        "{writes:?}"
    );
    assert!(put(&writes).iter().all(|put| put.address == ip(6)));
    receipt.done(true);
    let rows = network.leases();
    let states: Vec<_> = rows.iter().map(|row| (row.address, row.state)).collect();
    assert_eq!(
        states,
        [
            (ip(4).into(), LeaseState::Bound),
            (ip(5).into(), LeaseState::Bound),
            (ip(6).into(), LeaseState::Expired),
            (ip(7).into(), LeaseState::Released),
        ]
    );
    assert_eq!(rows[0].name.as_deref(), Some("guest4"));
    assert!(rows[0].expires_in <= LEASE / 2 && rows[1].expires_in <= LEASE);
    assert!(rows[1].expires <= SystemTime::now() + LEASE);
    assert_eq!(
        network.reservations(),
        [(Reservee::Mac(mac(8)), ip(8).into())],
        "the other is not of this network"
    );
    let mut guest = Guest::new(&network, 4);
    guest.renew(ip(4));
    let (writes, receipt) = batches.recv_timeout(SOON).unwrap();
    assert_eq!(put(&writes)[0].address, ip(4));
    receipt.done(true);
    assert_eq!(guest.answer(SOON), Some((ACK, ip(4))));
    for last in [6, 7] {
        assert_eq!(
            Guest::new(&network, last).discover(),
            ip(last),
            "remembered"
        );
    }
}

#[test]
fn reservations_of_a_live_network() {
    let network = start(settings(None)).unwrap();
    let mut guest = Guest::new(&network, 1);
    let first = guest.discover();
    guest.request(first);
    assert_eq!(guest.answer(SOON), Some((ACK, first)));
    let refused = network
        .reserve(Reservee::Mac(mac(2)), first.into())
        .unwrap_err()
        .to_string();
    assert!(refused.contains(&mac(1).to_string()), "{refused}");
    for bad in [ip(1), ip(15), ip(0), ip(16)] {
        let refused = network.reserve(Reservee::Mac(mac(2)), bad.into());
        assert!(matches!(refused, Err(ReserveRefused::Conflict(_))), "{bad}");
    }
    let kept = if first == ip(9) { ip(10) } else { ip(9) };
    network.reserve(Reservee::Mac(mac(1)), kept.into()).unwrap();
    network.reserve(Reservee::Mac(mac(1)), kept.into()).unwrap();
    let taken = network.reserve(Reservee::Name("web".to_owned()), kept.into());
    assert!(taken.unwrap_err().to_string().contains("reserved for"));
    guest.renew(first);
    assert_eq!(guest.answer(SOON).map(|(kind, _)| kind), Some(NAK));
    assert_eq!(guest.discover(), kept, "it moves");
    guest.request(kept);
    assert_eq!(guest.answer(SOON), Some((ACK, kept)));
    let rows = network.leases();
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert!(rows[0].reserved && rows[0].address == kept);
    assert_eq!(network.unreserve(kept.into()), Some(Reservee::Mac(mac(1))));
    assert_eq!(network.unreserve(kept.into()), None);
    assert!(network.release(kept.into()));
    assert!(network.leases().is_empty());
}
