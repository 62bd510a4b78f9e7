//! The verbs that list and change, against a real service: what is made is there, also when the service was killed.

mod stage;

use rustix::process::{Pid, Signal};
use serde_json::Value;
use stage::{Playing, Stage, eventually, output};
use std::io::Read as _;
use std::net::TcpStream;

/// What `vmnet` printed; it must have ended well.
#[track_caller]
fn prints(stage: &Stage, words: &str) -> String {
    let (status, stdout, stderr) = output(stage.vmnet().args(words.split_whitespace()));
    assert_eq!(status, Some(0), "{words}: {stderr}");
    stdout
}

#[track_caller]
fn json(stage: &Stage, words: &str) -> Value {
    serde_json::from_str(&prints(stage, &format!("{words} --json"))).unwrap()
}

/// What it complained of.
#[track_caller]
fn complains(stage: &Stage, words: &str) -> String {
    let (status, stdout, stderr) = output(stage.vmnet().args(words.split_whitespace()));
    assert_eq!(
        (status, stdout.as_str()),
        (Some(1), ""),
        "{words}: {stderr}"
    );
    stderr
}

/// A guest that says `ready` once it has its address, and stays.
fn guest(stage: &Stage, options: &[&str], script: &str) -> Playing {
    let mut guest = Playing::start(&mut stage.run(options, ["sh", "-c", script]));
    assert_eq!(guest.line(), "ready", "{options:?}");
    guest
}

const WAIT: &str = "echo ready; exec sleep 600";

fn kill_service(stage: &Stage) {
    let pid = stage.service().pid().unwrap();
    rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    eventually("the service is gone", || stage.service().pid().is_none());
}

#[test]
fn a_network_is_made_shown_and_deleted() {
    let Some(stage) = Stage::new() else { return };
    // Looking starts nothing.
    assert!(prints(&stage, "status").starts_with("the service does not run"));
    assert_eq!(prints(&stage, "network list").lines().count(), 1);
    assert_eq!(stage.service().pid(), None);

    let line = prints(
        &stage,
        "network create lab --subnet 10.213.7.0/24 --dhcp-range 10.213.7.50-10.213.7.60 \
         --lease-time 2h --mtu 1400 --domain lab.internal --isolation",
    );
    assert!(
        line.starts_with("lab: shared, 10.213.7.0/24, gateway 10.213.7.1, fd"),
        "{line}"
    );
    let shown = json(&stage, "network show lab");
    for (field, value) in [
        ("lifetime", Value::from("kept")),
        ("dhcp_first", "10.213.7.50".into()),
        ("dhcp_last", "10.213.7.60".into()),
        ("lease_seconds", 7200.into()),
        ("mtu", 1400.into()),
        ("domain", "lab.internal".into()),
        ("isolation", true.into()),
        ("interfaces", 0.into()),
    ] {
        assert_eq!(shown[field], value, "{field}");
    }
    // By its UUID too.
    let uuid = shown["uuid"].as_str().unwrap();
    assert_eq!(json(&stage, &format!("network show {uuid}")), shown);
    let counted = json(&stage, "network show lab --counters");
    assert!(
        counted["counters"].as_object().unwrap().len() > 5,
        "{counted}"
    );
    complains(&stage, "network create lab --subnet 10.213.8.0/24");
    complains(&stage, "network show other");
    assert!(json(&stage, "status")["service"]["pid"].is_u64());

    prints(&stage, "network delete lab");
    complains(&stage, "network delete lab");
    assert_eq!(
        json(&stage, "network list")["networks"],
        serde_json::json!([])
    );
}

#[test]
fn what_is_kept_outlives_the_service() {
    let Some(stage) = Stage::new() else { return };
    prints(&stage, "network create lab --subnet 10.213.9.0/24");
    prints(&stage, "lease reserve lab 10.213.9.20 --name web");
    prints(
        &stage,
        "lease reserve lab 10.213.9.21 --mac 52:54:00:12:34:56",
    );
    prints(
        &stage,
        "lease reserve lab 10.213.9.22 --client-id 01:52:54:00:12:34:57",
    );
    prints(&stage, "lease unreserve lab 10.213.9.21");
    // A guest has one address of each family: another one takes the first from it, which is said.
    let reserve = |address: &str| {
        let words = ["lease", "reserve", "lab", address, "--name", "moved"];
        let (status, _, stderr) = output(stage.vmnet().args(words));
        assert_eq!(status, Some(0), "{stderr}");
        stderr
    };
    assert_eq!(reserve("10.213.9.30"), "");
    assert_eq!(reserve("10.213.9.30"), "");
    let said = reserve("10.213.9.31");
    assert!(said.contains("10.213.9.30 was reserved"), "{said}");
    prints(&stage, "lease unreserve lab 10.213.9.31");
    prints(
        &stage,
        "forward add lab 127.0.0.1:28471:web:80 127.0.0.1:28480-28489:10.213.9.20:80-89 --except 28485",
    );
    prints(&stage, "forward remove lab 127.0.0.1:28471");
    let network = json(&stage, "network show lab");
    let without_numbers = |list: Value| -> Vec<Value> {
        let list = list["forwards"].as_array().unwrap().clone();
        list.into_iter()
            .map(|forward| forward["rule"].clone())
            .collect()
    };
    let leases = json(&stage, "lease list");
    let forwards = without_numbers(json(&stage, "forward list"));
    assert_eq!(
        leases["reservations"].as_array().unwrap().len(),
        2,
        "{leases}"
    );
    assert_eq!(forwards.len(), 1, "{forwards:?}");
    assert_eq!(forwards[0]["except"], serde_json::json!([28485]));

    kill_service(&stage);
    assert!(prints(&stage, "status").starts_with("the service does not run"));
    assert_eq!(json(&stage, "network show lab"), network);
    assert_eq!(json(&stage, "lease list"), leases);
    assert_eq!(without_numbers(json(&stage, "forward list lab")), forwards);
}

#[test]
fn guests_are_listed_with_their_leases_and_stopped() {
    let Some(stage) = Stage::new() else { return };
    prints(&stage, "network create lab");
    let mut web = guest(&stage, &["--network", "lab", "--name", "web"], WAIT);
    let interfaces = json(&stage, "interface list lab");
    let interface = &interfaces["interfaces"][0];
    assert_eq!(interface["name"], "web");
    let leases = json(&stage, "lease list lab");
    let lease = &leases["leases"][0];
    assert_eq!(lease["address"], interface["address"], "{leases}");
    assert_eq!(
        (&lease["name"], &lease["state"]),
        (&"web".into(), &"bound".into())
    );
    let table = prints(&stage, "lease list");
    let expires = |text| table.lines().nth(1).unwrap().contains(text);
    assert!(expires("in 23h59m") || expires("in 1d"), "{table}");
    let all = json(&stage, "status lab");
    assert_eq!(all["interfaces"], interfaces["interfaces"]);

    complains(&stage, "network delete lab");
    complains(&stage, "interface stop 999999");
    prints(
        &stage,
        &format!("interface stop {}", interface["interface"]),
    );
    assert_eq!(
        json(&stage, "interface list")["interfaces"],
        serde_json::json!([])
    );
    web.kill(Signal::TERM);
    web.0.wait().unwrap();
    eventually("nobody holds it", || {
        json(&stage, "network show lab")["holders"] == 0
    });
    prints(
        &stage,
        &format!("lease release lab {}", lease["address"].as_str().unwrap()),
    );
    prints(&stage, "network delete lab");
}

#[test]
fn identities_are_listed_and_forgotten() {
    let Some(stage) = Stage::new() else { return };
    let id = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";
    let options = ["--network", "lab", "--id", id];
    let mut one = guest(&stage, &options, WAIT);
    let listed = json(&stage, "identity list");
    let identity = &listed["identities"][0];
    assert_eq!(identity["id"], id);
    assert!(identity["interface"].is_u64(), "{identity}");
    let said = complains(&stage, &format!("identity forget {id}"));
    assert!(said.contains(id), "{said}");
    one.kill(Signal::TERM);
    one.0.wait().unwrap();
    eventually("the guest left", || {
        json(&stage, "identity list")["identities"][0]["interface"].is_null()
    });
    prints(&stage, &format!("identity forget {id}"));
    assert_eq!(
        json(&stage, "identity list")["identities"],
        serde_json::json!([])
    );
    complains(&stage, &format!("identity forget {id}"));
}

#[test]
fn a_forward_leads_to_a_guest_by_its_name_and_no_longer() {
    let Some(stage) = Stage::new() else { return };
    prints(&stage, "network create lab");
    // Before the guest is there.
    let added = prints(&stage, "forward add lab 127.0.0.1:28571:web:80");
    assert!(
        added.contains("127.0.0.1:28571") && added.contains("web:80"),
        "{added}"
    );
    let server = "python3 -c 'import socket
s = socket.create_server((\"\", 80))
print(\"ready\", flush=True)
while True:
    c, _ = s.accept()
    c.sendall(b\"hello\")
    c.close()'";
    let _web = guest(&stage, &["--network", "lab", "--name", "web"], server);
    let mut text = String::new();
    let mut stream = TcpStream::connect("127.0.0.1:28571").unwrap();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    let said = complains(&stage, "forward add lab 127.0.0.1:28571:db:80");
    assert!(said.contains("28571"), "{said}");
    prints(&stage, "forward remove lab 28571/tcp");
    assert!(TcpStream::connect("127.0.0.1:28571").is_err());
    complains(&stage, "forward remove lab 28571/tcp");
}

#[test]
fn one_port_leads_to_an_address_of_each_family() {
    let Some(stage) = Stage::new() else { return };
    prints(
        &stage,
        "network create lab --subnet 10.213.47.0/24 --ipv6-prefix fd12:3456:789a:47::/64",
    );
    // Answers with the family that it was asked by, and says its addresses first.
    let server = "python3 -c 'import socket, threading
def serve(s, word):
    while True:
        c, _ = s.accept()
        c.sendall(word)
        c.close()
for family, gateway, word in ((socket.AF_INET, \"10.213.47.1\", b\"four\"),
                              (socket.AF_INET6, \"fd12:3456:789a:47::1\", b\"six\")):
    s = socket.create_server((\"\", 80), family=family)
    threading.Thread(target=serve, args=(s, word)).start()
    d = socket.socket(family, socket.SOCK_DGRAM)
    d.connect((gateway, 9))
    print(d.getsockname()[0], flush=True)'";
    let mut guest = Playing::start(&mut stage.run(["--network", "lab"], ["sh", "-c", server]));
    let (v4, v6) = (guest.line(), guest.line());
    prints(
        &stage,
        &format!("forward add lab 28671:[{v6}]:80 0.0.0.0:28671:{v4}:80"),
    );
    let listed = prints(&stage, "forward list lab");
    assert!(listed.contains(&format!("[{v6}]:80")), "{listed}");
    for (host, word) in [("127.0.0.1", "four"), ("::1", "six")] {
        let mut said = String::new();
        let mut stream = TcpStream::connect((host, 28671)).unwrap();
        stream.read_to_string(&mut said).unwrap();
        assert_eq!(said, word, "{host}");
    }
    for wrong in ["fd12:3456:789a:48::9", "fd12:3456:789a:47::1"] {
        let said = complains(&stage, &format!("forward add lab 28672:[{wrong}]:80"));
        assert!(said.contains("fd12:3456:789a:47::/64"), "{said}");
    }
}
