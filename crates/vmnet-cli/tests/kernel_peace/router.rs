//! The host forwards for our networks, and is no router between others by our doing.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use rustix::process::Signal;
use vmnet_lab::namespace::Namespace;
use vmnet_lab::stage::Stage;
use vmnet_lab::world::{HOST, HOST6, SERVER, SERVER6};

use crate::{SOON, eventually, stage};

/// Long for a datagram on one machine.
const SILENCE: Duration = Duration::from_millis(200);

/// Two that have the host between them: one behind an interface `up1` of it, and the server outside.
struct Ends {
    inside: UdpSocket,
    outside: UdpSocket,
}

impl Ends {
    fn new(stage: &Stage, behind: &Namespace, own: IpAddr, server: IpAddr) -> Self {
        let outside = stage.world.outside();
        let bound = |place: &Namespace, to: IpAddr| {
            place.enter(|| {
                let socket = UdpSocket::bind(SocketAddr::new(to, 9998)).unwrap();
                socket.set_read_timeout(Some(SILENCE)).unwrap();
                socket
            })
        };
        Self {
            inside: bound(behind, own),
            outside: bound(outside, server),
        }
    }

    /// Whether what each says comes to the other.
    fn reach(&self) -> [bool; 2] {
        let (inside, outside) = (&self.inside, &self.outside);
        [(inside, outside), (outside, inside)].map(|(from, to)| {
            from.send_to(b"x", to.local_addr().unwrap()).unwrap();
            to.recv(&mut [0; 10]).is_ok()
        })
    }
}

#[test]
fn others_do_not_reach_each_other_by_a_host_that_forwards_for_us() {
    let Some(mut stage) = stage(&[]) else { return };
    let behind = Namespace::new();
    let host = stage.world.host();
    host.connect("up1", &behind, "eth0");
    for (own, hosts, to) in [
        ("10.88.0.1/24", "10.88.0.2/24", HOST.to_string()),
        ("2001:db8:88::1/64", "2001:db8:88::2/64", HOST6.to_string()),
    ] {
        behind.ip(&["address", "add", own, "dev", "eth0", "nodad"]);
        host.ip(&["address", "add", hosts, "dev", "up1", "nodad"]);
        let (via, _) = hosts.split_once('/').unwrap();
        behind.ip(&["route", "add", "default", "via", via]);
        (stage.world.outside()).ip(&["route", "add", own.split_once('/').unwrap().0, "via", &to]);
    }
    let ends = [
        (IpAddr::from([10, 88, 0, 1]), IpAddr::from(SERVER)),
        ("2001:db8:88::1".parse().unwrap(), IpAddr::from(SERVER6)),
    ];
    let ends = ends.map(|(own, server)| Ends::new(&stage, &behind, own, server));
    let reach = || ends.each_ref().map(Ends::reach);
    let nobody = [[false; 2]; 2];
    assert_eq!(reach(), nobody, "a host is no router");
    stage.says("network create one");
    assert_eq!(reach(), nobody, "for one network");
    let record = |stage: &Stage| stage.on_host("nft list table inet vmnet-forwarding");
    assert!(!record(&stage).contains("chain"), "each packet would pay");
    stage.says("network create two");
    assert_eq!(reach(), nobody, "for two networks");
    stage.says("network delete one");
    assert_eq!(reach(), nobody, "without the first");
    // Somebody removes all rules, and has one of his own that has the kernel follow what begins.
    stage.machine().signal(Signal::STOP);
    stage.on_host("nft flush ruleset; nft 'table inet mine { chain f { type filter hook forward priority 0; ct state established counter; }; }'");
    assert_eq!(reach(), [[true; 2]; 2], "nothing keeps them apart");
    stage.machine().signal(Signal::CONT);
    eventually("what has begun ends", || reach() == nobody);
    stage.machine().signal(Signal::KILL);
    stage.machine().wait(SOON);
    assert_eq!(reach(), nobody, "without a service");
    stage.start_machine();
    eventually("the network is there", || {
        stage.says("network list").contains("two")
    });
    assert_eq!(reach(), nobody, "with another service");
    stage.says("network delete two");
    stage.on_host("! nft list table inet vmnet-forwarding");
    assert_eq!(reach(), nobody, "afterwards");
}
