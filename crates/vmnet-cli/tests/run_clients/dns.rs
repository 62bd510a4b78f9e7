//! A real resolver asks the proxy on the gateway; a DNS server in a namespace answers and counts.

use std::net::{IpAddr, Ipv4Addr};

use vmnet_lab::process::Process;
use vmnet_lab::stage::Stage;
use vmnet_lab::world::dns::Transport;
use vmnet_lab::world::{DNS, FAR, UNREACHABLE};

use super::{SOON, stage};

fn dig(stage: &Stage, words: &str) -> String {
    let script = format!("dig +tries=3 +time=3 {words}");
    Process::run(stage.shell(&[], &script), SOON).success()
}

#[test]
fn dig_asks_over_udp() {
    let Some(stage) = stage(&["dig"]) else { return };
    assert_eq!(dig(&stage, "+short files.example.test"), "198.51.100.1");
    assert!(
        stage
            .world
            .dns()
            .asked("files.example.test", Transport::Udp)
            > 0
    );
}

#[test]
fn dig_asks_over_tcp() {
    let Some(stage) = stage(&["dig"]) else { return };
    assert_eq!(
        dig(&stage, "+tcp +short files.example.test"),
        "198.51.100.1"
    );
    let asked = |transport| stage.world.dns().asked("files.example.test", transport);
    assert!(asked(Transport::Tcp) + asked(Transport::Udp) > 0);
}

#[test]
fn a_truncated_answer_is_asked_for_again_over_tcp() {
    let Some(stage) = stage(&["dig"]) else { return };
    let cut = dig(&stage, "+ignore +noedns big.example.test TXT");
    let flags = cut
        .lines()
        .find(|line| line.contains("flags:"))
        .expect("flags");
    assert!(flags.contains(" tc"), "{cut}");
    let whole = dig(&stage, "+short big.example.test TXT");
    assert_eq!(whole.lines().count(), 16, "{whole}");
    assert!(stage.world.dns().asked("big.example.test", Transport::Tcp) > 0);
}

#[test]
fn a_name_that_does_not_exist_stays_so() {
    let Some(stage) = stage(&["dig"]) else { return };
    assert!(dig(&stage, "no.example.test").contains("NXDOMAIN"));
}

#[test]
fn many_names_at_once() {
    let Some(stage) = stage(&["dig"]) else { return };
    let script = "for i in $(seq 200); do echo n$i.many.example.test; done >$HOME/names
         dig +short +tries=3 +time=3 -f $HOME/names | grep -c '^198.51.100.1$'";
    assert_eq!(
        Process::run(stage.shell(&[], script), SOON).success(),
        "200"
    );
}

#[test]
fn a_dead_resolver_is_passed_over() {
    let Some(stage) = stage(&["dig"]) else { return };
    // Refused, unreachable, and then one that answers.
    stage
        .world
        .set_resolvers(&[FAR, UNREACHABLE, DNS].map(IpAddr::V4));
    let script = "dig +tries=4 +time=5 +short files.example.test";
    let said = Process::run(stage.shell(&[], script), SOON).success();
    assert_eq!(said.lines().last(), Some("198.51.100.1"));
}

#[test]
fn a_changed_resolv_conf_is_followed() {
    let Some(stage) = stage(&["dig"]) else { return };
    stage
        .world
        .set_resolvers(&[IpAddr::V4(Ipv4Addr::new(198, 51, 100, 77))]);
    let ask = "dig +short +tries=1 +time=1 files.example.test";
    let script = format!("{ask}; echo first; read line; {ask} +tries=5 +time=2; echo second");
    let mut process = Process::spawn(stage.shell(&[], &script));
    process.wait_for_output("first", SOON, |text| text.contains("first\n").then_some(()));
    assert!(
        !process.stdout().contains("198.51.100.1\n"),
        "nobody answers yet"
    );
    stage.world.set_resolvers(&[IpAddr::V4(DNS)]);
    process.write_line("go on");
    let said = process.wait(SOON).success();
    assert!(said.ends_with("198.51.100.1\nsecond"), "{said}");
}

#[test]
fn guests_know_each_other_by_name() {
    let Some(stage) = stage(&["dig", "ping"]) else {
        return;
    };
    let address = "ip -4 -o address show scope global | sed 's,.*inet \\([0-9.]*\\)/.*,\\1,'";
    let script = format!("{address}; {} listen-tcp 5000", stage.client_path());
    let alpha = Process::spawn(stage.shell(&["--network", "lab", "--name", "alpha"], &script));
    let found = alpha.wait_for_output("ready", SOON, |text| {
        text.contains("ready")
            .then(|| text.lines().next().unwrap_or_default().to_owned())
    });
    let script = format!(
        "dig +short alpha.vmnet.internal; dig +short -x {found}; dig +short gateway.vmnet.internal
         ip route | sed -n 's/^default via \\([0-9.]*\\) .*/\\1/p'
         ping -c 2 -W 5 {found} >&2 && echo pinged
         {} at-once alpha.vmnet.internal:5000 50",
        stage.client_path()
    );
    let command = stage.shell(&["--network", "lab", "--name", "beta"], &script);
    let said = Process::run(command, SOON).success();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], found);
    assert_eq!(lines[1], "alpha.vmnet.internal.");
    assert_eq!(lines[2], lines[3], "the gateway has a name");
    assert_eq!(lines[4], "pinged");
    assert!(lines[5].starts_with("ok "), "{said}");
    let seen = alpha.stdout();
    assert!(
        !seen.contains("198.51.100."),
        "guests reach each other without NAT: {seen}"
    );
}
