//! Networks that the kernel carries on hosts where others have rules: these let our networks pass, block what they blocked
//! before, and are afterwards the same to the byte.
//!
//! | file | what |
//! | --- | --- |
//! | `router` | the host is no router between others |
//! | `rules` | what Docker, firewalld, ufw and libvirt have in the kernel |

mod router;
mod rules;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rules::{DOCKER, FIREWALLD, LIBVIRT, UFW};
use rustix::process::Signal;
use vmnet_lab::client;
use vmnet_lab::namespace::Namespace;
use vmnet_lab::prerequisite::Prerequisite;
use vmnet_lab::process::Process;
use vmnet_lab::stage::{NETWORK, Stage};
use vmnet_lab::world::{HOST, HOST6};

const SOON: Duration = Duration::from_secs(30);
const SECOND: Duration = Duration::from_secs(1);
/// What a guest says to the outside, in both families.
const OUTWARD: &str = "at-once 198.51.100.1:7 5 && $client at-once [2001:db8:1::1]:7 5 && \
                       $client udp-echo 198.51.100.1:7 5 1200 && $client resolve files.example.test";

fn stage(also: &[&'static str]) -> Option<Stage> {
    let also: Vec<_> = also.iter().copied().map(Prerequisite::Program).collect();
    Stage::of_machine(env!("CARGO_BIN_EXE_vmnet"), &also)
}

/// All rules of the host, without what they have counted.
fn ruleset(stage: &Stage) -> String {
    stage.on_host("nft -s list ruleset; if command -v iptables-legacy-save >/dev/null; then iptables-legacy-save | grep -v ^# || true; fi")
}

#[track_caller]
fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !so() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A guest that listens behind a forwarded port, and says at each line it is given how the outside is.
fn guest(stage: &Stage) -> Process {
    let client = stage.client_path();
    let script = format!(
        "export client={client}; until ip -6 -o address show scope global dev eth0 | grep -qv tentative; do sleep 0.1; done; \
         $client listen-tcp 80 >/dev/null & while read word; do timeout 8 sh -c '$client {OUTWARD}' >/dev/null 2>&1; echo $word $?; done"
    );
    Process::spawn(stage.shell(&["-p", "8080:80"], &script))
}

/// Whether the guest gets out now.
fn gets_out(guest: &mut Process, word: &str) -> bool {
    guest.write_line(word);
    let begin = format!("{word} ");
    guest.wait_for_output(word, SOON, |text| {
        let (_, status) = text.split_once(&begin)?;
        status.split_once('\n').map(|(status, _)| status == "0")
    })
}

fn is_reached(stage: &Stage) {
    for host in [IpAddr::from(HOST), HOST6.into()] {
        let at = SocketAddr::new(host, 8080);
        eventually("the forwarded port answers", || {
            let asked = || client::connect::at_once(at, 3).is_ok();
            stage.world.outside().enter(asked)
        });
    }
}

/// Somebody on a network that is not ours, for whom the host would be the router.
struct Neighbour(Namespace);

impl Neighbour {
    fn new(stage: &Stage) -> Self {
        let (host, own) = (stage.world.host(), Namespace::new());
        host.connect("other", &own, "wire");
        host.ip(&["address", "add", "10.44.0.1/24", "dev", "other"]);
        own.ip(&["address", "add", "10.44.0.2/24", "dev", "wire"]);
        own.ip(&["route", "add", "default", "via", "10.44.0.1"]);
        let outside = stage.world.outside();
        outside.ip(&["route", "add", "10.44.0.0/24", "via", &HOST.to_string()]);
        Self(own)
    }

    fn gets_out(&self) -> bool {
        let at = "198.51.100.1:7".parse().unwrap();
        let (outcome, _) = self.0.enter(|| client::connect::outcome(at, SECOND));
        outcome == "connected"
    }
}

/// Guests pass where others block, before and behind a crash, and nothing is left of it.
fn peace(rules: &str, blocks: bool, still_work: &str) {
    let Some(mut stage) = stage(&["iptables", "ip6tables"]) else {
        return;
    };
    let neighbour = Neighbour::new(&stage);
    stage.on_host(rules);
    let before = ruleset(&stage);
    assert_eq!(neighbour.gets_out(), !blocks, "as it is without us");
    stage.says(&format!("network create {NETWORK}"));
    let mut one = guest(&stage);
    assert!(gets_out(&mut one, "first"), "{}", ruleset(&stage));
    is_reached(&stage);
    let words = |line: &str| line.contains("comment \"openvmnet\"") && line.contains("accept");
    let ours = |rules: &str| rules.lines().filter(|line| words(line)).count();
    let during = ruleset(&stage);
    assert_eq!(ours(&during) > 0, blocks, "{during}");
    assert_eq!(neighbour.gets_out(), !blocks, "what is not ours");
    // Their own programs read and change their rules as before.
    stage.on_host(still_work);

    stage.machine().signal(Signal::KILL);
    stage.machine().wait(SOON);
    stage.start_machine();
    eventually("the guest is back", || {
        stage.says("interface list").contains(NETWORK)
    });
    assert!(gets_out(&mut one, "second"), "{}", ruleset(&stage));
    is_reached(&stage);
    assert_eq!(ours(&ruleset(&stage)), ours(&during), "not twice");
    one.close_stdin();
    one.wait(SOON);
    stage.machine().signal(Signal::TERM);
    stage.machine().wait(SOON);
    assert_eq!(ruleset(&stage), before);
    assert_eq!(neighbour.gets_out(), !blocks, "as before");
}

#[test]
fn beside_docker() {
    // A container is started and ended.
    let container = "iptables -A DOCKER -d 172.17.0.2 ! -i docker0 -o docker0 -p tcp --dport 80 -j ACCEPT && \
                     iptables -D DOCKER -d 172.17.0.2 ! -i docker0 -o docker0 -p tcp --dport 80 -j ACCEPT && \
                     iptables -C FORWARD -j DOCKER-USER && iptables -S >/dev/null && ip6tables -S >/dev/null";
    peace(DOCKER, true, container);
}

#[test]
fn beside_firewalld() {
    peace(FIREWALLD, true, "nft list table inet firewalld >/dev/null");
}

#[test]
fn beside_ufw() {
    let rule = "iptables -A ufw-user-forward -p tcp --dport 99 -j ACCEPT && \
                iptables -D ufw-user-forward -p tcp --dport 99 -j ACCEPT && iptables-save >/dev/null";
    peace(UFW, true, rule);
}

#[test]
fn beside_libvirt() {
    let guest = "iptables -I LIBVIRT_FWI -o virbr1 -j REJECT && iptables -D LIBVIRT_FWI -o virbr1 -j REJECT";
    peace(LIBVIRT, false, guest);
}

/// Those who come, or read their rules anew, while a network is there.
fn later(rules: &str) {
    let Some(mut stage) = stage(&["iptables", "ip6tables"]) else {
        return;
    };
    stage.says(&format!("network create {NETWORK}"));
    let mut one = guest(&stage);
    assert!(gets_out(&mut one, "before"));
    stage.on_host(rules);
    let mut tries = (0..).map(|number| format!("again-{number}."));
    eventually("it gets out again", || {
        gets_out(&mut one, &tries.next().unwrap())
    });
    is_reached(&stage);
    one.close_stdin();
    one.wait(SOON);
    stage.machine().signal(Signal::TERM);
    stage.machine().wait(SOON);
    let alone = Namespace::new();
    let mut expected = alone.command("sh");
    expected.args([
        "-c",
        &format!("{{ {rules}\n}} >/dev/null; nft -s list ruleset"),
    ]);
    let expected = Process::run(expected, SOON).success();
    assert_eq!(stage.on_host("nft -s list ruleset"), expected);
}

#[test]
fn docker_comes_later() {
    later(DOCKER);
}

#[test]
fn firewalld_is_reloaded() {
    later(FIREWALLD);
}

/// Rules of the old iptables are of another kind, which nobody's rules of the new kind can be put into.
#[test]
fn what_cannot_be_opened_is_named_with_what_to_do() {
    let Some(stage) = stage(&["iptables-legacy"]) else {
        return;
    };
    stage.on_host("iptables-legacy -P FORWARD DROP");
    let before = ruleset(&stage);
    stage.says(&format!("network create {NETWORK}"));
    let mut one = guest(&stage);
    assert!(!gets_out(&mut one, "blocked"));
    let doctor = format!("{} doctor --json", env!("CARGO_BIN_EXE_vmnet"));
    let diagnosis: serde_json::Value = serde_json::from_str(&stage.on_host(&doctor)).unwrap();
    let findings = diagnosis["findings"].as_array().unwrap();
    let finding = findings
        .iter()
        .find(|one| one["name"] == "iptables-legacy")
        .unwrap_or_else(|| panic!("{diagnosis}"));
    assert_eq!(finding["state"], "limited");
    let remedy = finding["remedy"].as_str().unwrap();
    let (commands, _) = remedy.split_once(" (as root)").unwrap();
    assert!(ruleset(&stage).starts_with(&before) || ruleset(&stage).contains("FORWARD DROP"));
    stage.on_host(commands);
    assert!(gets_out(&mut one, "opened"), "{commands}");
}
