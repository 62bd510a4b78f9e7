//! Guests of frames, at taps of a bridge and at sockets of the service.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use openvmnet::client::Client;
use openvmnet::place::Scope;
use openvmnet::service::{InterfaceOptions, Kind};
use rustix::event::{PollFd, PollFlags, poll};
use vmnet_lab::sim::packets::{self, Ends};
use vmnet_lab::sim::packets6::{self, Ends6};
use vmnet_lab::stage::Stage;
use vmnet_linux::kernel::tap;
use vmnet_wire::ethernet::{EtherType, Mac};

pub(crate) const SOON: Duration = Duration::from_secs(30);
/// Long for a frame on one machine.
pub(crate) const SILENCE: Duration = Duration::from_millis(300);
pub(crate) const ALL: Mac = Mac([0xff; 6]);
/// Set aside for experiments (IEEE 802).
const EXPERIMENT: EtherType = EtherType(0x88b5);

pub(crate) fn stage() -> Option<Stage> {
    let stage = Stage::of_machine(env!("CARGO_BIN_EXE_vmnet"), &[])?;
    // SAFETY: no other thread of this process reads its environment now.
    unsafe { std::env::set_var("VMNET_SYSTEM_SOCKET", stage.world.machine_socket()) };
    Some(stage)
}

pub(crate) fn client(stage: &Stage) -> Client {
    let host = stage.world.host();
    host.enter(|| Client::connect_running_to(Scope::System).expect("the service"))
}

fn mac(number: u8) -> Mac {
    Mac([0x52, 0x54, 0, 0, 0, number])
}

pub(crate) fn options(kind: Kind, number: u8, isolated: bool) -> InterfaceOptions {
    InterfaceOptions {
        mac: Some(mac(number).to_string()),
        isolated: Some(isolated),
        ..InterfaceOptions::new(kind)
    }
}

/// A guest of frames.
pub(crate) struct Guest {
    pub(crate) mac: Mac,
    frames: OwnedFd,
    /// Bytes before each frame.
    header: usize,
    _service: Option<Client>,
}

impl Guest {
    pub(crate) fn at_tap(stage: &Stage, network: &str, number: u8, isolated: bool) -> Self {
        Self::at_tap_with(stage, network, number, |it| it.isolated = Some(isolated))
    }

    pub(crate) fn at_tap_with(
        stage: &Stage,
        network: &str,
        number: u8,
        set: impl FnOnce(&mut InterfaceOptions),
    ) -> Self {
        let mut service = client(stage);
        let (_, queues) = service.open_tap(network, 1).expect("a tap");
        let frames = queues.into_iter().next().expect("a queue");
        let mut options = options(Kind::BridgeTap, number, false);
        set(&mut options);
        let tap = frames.try_clone().unwrap();
        service
            .start_interface(network, options, vec![tap])
            .expect("an interface");
        Self {
            mac: mac(number),
            frames,
            header: 12,
            _service: Some(service),
        }
    }

    /// One at a tap that an administrator has joined to the bridge `vmnet0` himself.
    pub(crate) fn at_strange_tap(stage: &Stage, name: &str, number: u8) -> Self {
        let frames = (stage.world.host()).enter(|| tap::open(name).expect("a tap"));
        stage.on_host(&format!("ip link set {name} up master vmnet0"));
        Self {
            mac: mac(number),
            frames,
            header: 12,
            _service: None,
        }
    }

    /// One that comes by the service.
    pub(crate) fn at_socket(stage: &Stage, network: &str, number: u8, isolated: bool) -> Self {
        let mut service = client(stage);
        let (ours, its) = UnixDatagram::pair().unwrap();
        let options = options(Kind::Dgram, number, isolated);
        service
            .start_interface(network, options, vec![its.into()])
            .expect("an interface");
        Self {
            mac: mac(number),
            frames: ours.into(),
            header: 0,
            _service: Some(service),
        }
    }

    /// Its addresses of the network `lan`.
    pub(crate) fn v4(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 9, 100 + self.mac.0[5])
    }

    pub(crate) fn v6(&self) -> Ipv6Addr {
        packets6::v6(&format!("fd77:9::{}", 100 + self.mac.0[5]))
    }

    pub(crate) fn send(&self, frame: &[u8]) {
        let mut bytes = vec![0; self.header];
        bytes.extend(frame);
        bytes.resize(bytes.len().max(self.header + 60), 0);
        let deadline = Instant::now() + SOON;
        // A tap takes nothing before it is up.
        while let Err(error) = rustix::io::write(&self.frames, &bytes) {
            assert!(Instant::now() < deadline, "{error}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn say(&self, to: Mac, word: &str) {
        self.send(&packets::frame((self.mac, to), EXPERIMENT, word.as_bytes()));
    }

    /// The first frame in time of which something is so.
    pub(crate) fn hears(&self, within: Duration, so: impl Fn(&[u8]) -> bool) -> bool {
        let deadline = Instant::now() + within;
        let mut bytes = vec![0; 70_000];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let left = rustix::event::Timespec::try_from(left).unwrap();
            let mut readable = [PollFd::new(&self.frames, PollFlags::IN)];
            poll(&mut readable, Some(&left)).unwrap();
            if readable[0].revents().is_empty() {
                continue;
            }
            match rustix::io::read(&self.frames, &mut bytes) {
                Ok(len) if so(&bytes[self.header.min(len)..len]) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

pub(crate) fn holds(frame: &[u8], word: &str) -> bool {
    frame
        .windows(word.len())
        .any(|part| part == word.as_bytes())
}

/// Whether what one says to all, and to the other, comes to that.
pub(crate) fn reach(from: &Guest, to: &Guest, within: Duration) -> (bool, bool) {
    let words = [ALL, to.mac].map(|receiver| {
        let word = format!("{} to {receiver}", from.mac);
        from.say(receiver, &word);
        to.hears(within, |frame| holds(frame, &word))
    });
    (words[0], words[1])
}

/// Sends to the other's address by this MAC, by IPv4 and by IPv6, and tells the words that are in it.
pub(crate) fn say_by(by: Mac, from: &Guest, to: &Guest) -> [String; 2] {
    let macs = (from.mac, by);
    let words = ["4", "6"].map(|family| format!("{} to {} by {by}, {family}", from.mac, to.mac));
    let [v4, v6] = &words;
    let ips = (from.v4(), to.v4());
    from.send(&packets::udp(Ends { macs, ips }, (7, 7), 64, v4.as_bytes()));
    let ips = (from.v6(), to.v6());
    from.send(&packets6::udp(Ends6 { macs, ips }, (7, 7), v6.as_bytes()));
    words
}

/// Whether that comes there.
pub(crate) fn reach_by(by: Mac, from: &Guest, to: &Guest, within: Duration) -> [bool; 2] {
    let words = say_by(by, from, to);
    words.map(|word| to.hears(within, |frame| holds(frame, &word)))
}

/// The host knows where an address of the network is.
pub(crate) fn is_known(stage: &Stage, address: IpAddr, mac: Mac) {
    let at = format!("{address} lladdr {mac} dev vmnet0");
    stage.on_host(&format!("ip neigh replace {at}"));
}

/// The MAC of a link of the host.
pub(crate) fn mac_of(stage: &Stage, link: &str) -> Mac {
    let said = stage.on_host(&format!("ip -o link show {link}"));
    let (_, said) = said.split_once("link/ether ").expect("a MAC");
    said.split(' ').next().unwrap_or_default().parse().unwrap()
}
