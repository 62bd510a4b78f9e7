//! What each verb says to the service, what it prints of the answer, and how it ends: against a service that plays a part.

use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use tempfile::TempDir;

const UUID: &str = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";

/// An answer: parameters, or the name of an error and its reason.
type Answer = Result<Value, (&'static str, String)>;

/// Folders of its own, and perhaps somebody who answers on the socket.
struct Stage {
    folder: TempDir,
    calls: Arc<Mutex<Vec<Value>>>,
}

impl Stage {
    /// Nobody listens.
    fn empty() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            calls: Arc::default(),
        }
    }

    /// Somebody answers each call so; about itself it answers always.
    fn with(answer: fn(&str, &Value) -> Answer) -> Self {
        let stage = Self::empty();
        let listener = UnixListener::bind(stage.socket()).unwrap();
        let calls = Arc::clone(&stage.calls);
        // Ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                serve(stream.unwrap(), answer, &calls);
            }
        });
        stage
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("vmnet.sock")
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state/vmnet")
    }

    /// Status, standard output and standard error of `vmnet`.
    fn vmnet(&self, words: &str) -> (i32, String, String) {
        let Output {
            status,
            stdout,
            stderr,
        } = Command::new(env!("CARGO_BIN_EXE_vmnet"))
            .args(words.split_whitespace())
            .env("VMNET_SOCKET", self.socket())
            .env("XDG_STATE_HOME", self.folder.path().join("state"))
            .env("XDG_CONFIG_HOME", self.folder.path().join("config"))
            .env("VMNET_EXECUTABLE", "/bin/false")
            .env_remove("VMNET_CONFIG")
            .env_remove("VMNET_LOG")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code().unwrap(), text(stdout), text(stderr))
    }

    /// What it printed; it must have ended well and said nothing else.
    fn prints(&self, words: &str) -> String {
        let (status, stdout, stderr) = self.vmnet(words);
        assert_eq!((status, stderr.as_str()), (0, ""), "{words}: {stdout}");
        stdout
    }

    /// What it complained of; it must have ended with 1 and printed nothing.
    fn complains(&self, words: &str) -> String {
        let (status, stdout, stderr) = self.vmnet(words);
        assert_eq!((status, stdout.as_str()), (1, ""), "{words}: {stderr}");
        stderr
    }

    /// The calls so far, but those about the service itself: method and parameters.
    fn calls(&self) -> Vec<(String, Value)> {
        let calls = std::mem::take(&mut *self.calls.lock().unwrap());
        let name = |call: &Value| call["method"].as_str().unwrap().to_owned();
        calls
            .iter()
            .map(|call| {
                let method = name(call);
                let method = method.strip_prefix("org.openvmnet.Service.").unwrap();
                (method.to_owned(), call["parameters"].clone())
            })
            .filter(|(method, _)| method != "Status")
            .collect()
    }
}

/// Varlink: JSON objects, each ended by a zero.
fn serve(stream: UnixStream, answer: fn(&str, &Value) -> Answer, calls: &Mutex<Vec<Value>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    loop {
        let mut message = Vec::new();
        if reader.read_until(0, &mut message).unwrap_or(0) == 0 {
            return;
        }
        message.pop();
        let call: Value = serde_json::from_slice(&message).unwrap();
        let method = call["method"].as_str().unwrap();
        let method = method.strip_prefix("org.openvmnet.Service.").unwrap();
        let answer = match method {
            "Status" => Ok(status()),
            _ => answer(method, &call["parameters"]),
        };
        let reply = match answer {
            // What has nothing to say has no parameters.
            Ok(Value::Null) => json!({}),
            Ok(parameters) => json!({ "parameters": parameters }),
            Err((error, reason)) => json!({
                "error": format!("org.openvmnet.Service.{error}"),
                "parameters": { "reason": reason },
            }),
        };
        calls.lock().unwrap().push(call.clone());
        let mut bytes = serde_json::to_vec(&reply).unwrap();
        bytes.push(0);
        if writer.write_all(&bytes).is_err() {
            return;
        }
    }
}

fn status() -> Value {
    json!({
        "version": "0.1.0", "pid": 4242, "scope": "user", "uptime_seconds": 61, "socket": "/run/vmnet.sock",
        "store": null, "configuration": null, "networks": 1, "interfaces": 0, "connections": 1,
    })
}

fn network(configuration: &Value) -> Value {
    json!({
        "uuid": UUID, "name": configuration["name"], "mode": configuration["mode"],
        "lifetime": "kept", "scope": "user", "subnet": "192.168.64.0/24", "gateway": "192.168.64.1",
        "dhcp_first": "192.168.64.2", "dhcp_last": "192.168.64.254", "mtu": 1500, "dhcp": true,
        "dns_proxy": true, "nat44": true, "ipv6_prefix": "fd12:3456:789a:1::/64",
        "ipv6_gateway": "fd12:3456:789a:1::1", "nat66": true, "router_advertisement": true, "dhcp6": true,
        "external_interface": null, "domain": "vmnet.internal",
        "lease_seconds": 86400, "isolation": false, "host_loopback": false, "datapath": "user", "host_interface": null, "private": false,
        "holders": 0, "interfaces": 0, "configuration": configuration,
    })
}

fn not_found(what: &str) -> Answer {
    Err(("NotFound", format!("there is no {what}")))
}

/// One network, `lab`, and what belongs to it.
fn lab(method: &str, parameters: &Value) -> Answer {
    let named = &parameters["network"];
    if !(named.is_null() || named == "lab" || named == UUID) {
        return not_found(&format!("network {named}"));
    }
    let lab = || network(&json!({ "mode": "shared", "name": "lab" }));
    match method {
        "ListNetworks" => Ok(json!({ "networks": [lab()] })),
        "CreateNetwork" => Ok(network(&parameters["configuration"])),
        "GetCounters" => Ok(json!({ "counters": { "drop-spoofed": 3 } })),
        "ListInterfaces" => Ok(json!({ "interfaces": [] })),
        "StopInterface" if parameters["interface"] != 7 => {
            not_found(&format!("interface {}", parameters["interface"]))
        }
        "AddForward" if parameters["rule"]["first"] == 81 => Err((
            "InUse",
            "0.0.0.0:81 is taken: another program listens there".to_owned(),
        )),
        "AddForward" => Ok(json!({
            "forward": parameters["rule"]["first"], "network": UUID, "network_name": "lab",
            "interface": null, "rule": parameters["rule"],
        })),
        "ListForwards" => Ok(json!({ "forwards": [
            forward(3, "0.0.0.0", 8080, 8080), forward(4, "0.0.0.0", 9000, 9009),
        ] })),
        "ListLeases" => Ok(json!({ "leases": [{
            "network": UUID, "network_name": "lab", "address": "192.168.64.2",
            "mac": "52:54:00:12:34:56", "client_id": null, "name": "evil\u{1b}[2J",
            "state": "bound", "expires": 1, "reserved": false,
        }] })),
        "ListReservations" => Ok(json!({ "reservations": [{
            "network": UUID, "network_name": "lab",
            "reservation": { "address": "192.168.64.10", "name": "web" },
        }] })),
        "ListIdentities" => Ok(json!({ "identities": [{
            "id": UUID, "mac": "52:54:00:12:34:56", "created": 1, "last_used": 2, "interface": null,
        }] })),
        _ => Ok(Value::Null),
    }
}

fn forward(number: u64, address: &str, first: u16, last: u16) -> Value {
    json!({
        "forward": number, "network": UUID, "network_name": "lab", "interface": null,
        "rule": {
            "protocol": "tcp", "address": address, "first": first, "last": last,
            "guest": { "name": "web" }, "guest_port": 80,
        },
    })
}

#[test]
fn networks() {
    let stage = Stage::with(lab);
    assert_eq!(
        stage.prints("network create office --no-dns --lease-time 1h30m --resolver 10.0.0.53"),
        "office: shared, 192.168.64.0/24, gateway 192.168.64.1, fd12:3456:789a:1::/64\n"
    );
    let asked = json!({
        "mode": "shared", "name": "office", "dns_proxy": false, "lease_seconds": 5400,
        "resolvers": ["10.0.0.53"],
    });
    let call = (
        "CreateNetwork".to_owned(),
        json!({ "configuration": asked }),
    );
    assert_eq!(stage.calls(), [call]);

    let created: Value = serde_json::from_str(&stage.prints("network create x --json")).unwrap();
    assert_eq!(
        (&created["name"], &created["uuid"]),
        (&json!("x"), &json!(UUID))
    );
    let table = stage.prints("network ls");
    assert!(table.lines().nth(1).unwrap().starts_with("lab "), "{table}");
    let listed: Value = serde_json::from_str(&stage.prints("network list --json")).unwrap();
    assert_eq!(listed["networks"][0]["name"], "lab");
    let sheet = stage.prints("network show lab --counters");
    assert!(sheet.contains("192.168.64.2-192.168.64.254"), "{sheet}");
    assert!(sheet.ends_with("\n\ndrop-spoofed  3\n"), "{sheet}");
    let shown: Value =
        serde_json::from_str(&stage.prints("network show lab --counters --json")).unwrap();
    assert_eq!(shown["counters"]["drop-spoofed"], 3);
    assert_eq!(shown["gateway"], "192.168.64.1");
}

#[test]
fn what_is_refused_is_said_and_the_rest_is_done() {
    let stage = Stage::with(lab);
    assert_eq!(
        stage.complains("network show wrong"),
        "vmnet: there is no network \"wrong\"\n"
    );
    stage.calls();
    let said = stage.complains("network rm --force wrong lab worse");
    assert_eq!(
        said,
        "vmnet: there is no network \"wrong\"\nvmnet: there is no network \"worse\"\n"
    );
    let deleted: Vec<Value> = stage.calls().into_iter().map(|(_, call)| call).collect();
    let delete = |network| json!({ "network": network, "force": true });
    assert_eq!(deleted, [delete("wrong"), delete("lab"), delete("worse")]);
    assert_eq!(stage.prints("interface stop 7"), "");
    assert_eq!(
        stage.complains("interface stop 7 8"),
        "vmnet: there is no interface 8\n"
    );
    for words in [
        "network create",
        "lease reserve lab 192.168.64.9",
        "forward add lab 80:80",
        "network create -lab",
        "network create lab --uuid nonsense",
        "identity forget nonsense",
        "forward remove lab",
        "forward remove lab web",
        "forward remove 3 lab",
        "forward add lab 9000:web:80 --except 9000",
    ] {
        assert_eq!(stage.vmnet(words).0, 2, "{words}");
    }
}

#[test]
fn forwards_are_all_added_or_none() {
    let stage = Stage::with(lab);
    let said = stage.complains("forward add lab 79:web:79 80:web:80 81:web:81 82:web:82");
    assert_eq!(
        said,
        "vmnet: 0.0.0.0:81 is taken: another program listens there\n"
    );
    let verbs: Vec<String> = stage.calls().into_iter().map(|(verb, _)| verb).collect();
    let (add, remove) = ("AddForward", "RemoveForward");
    assert_eq!(verbs, [add, add, add, remove, remove]);

    let added =
        stage.prints("forward add lab 90-99:52:54:00:12:34:56:90-99/udp --except 92,95-97 --json");
    let added: Value = serde_json::from_str(&added).unwrap();
    let rule = json!({
        "protocol": "udp", "address": "::", "first": 90, "last": 99,
        "except": [92, 95, 96, 97], "guest": { "mac": "52:54:00:12:34:56" }, "guest_port": 90,
    });
    assert_eq!(added["forwards"][0]["rule"], rule);
    let (_, call) = stage.calls().remove(0);
    assert_eq!((&call["network"], &call["rule"]), (&json!("lab"), &rule));
}

#[test]
fn forwards_are_removed_by_number_or_port() {
    let stage = Stage::with(lab);
    let removed = |stage: &Stage| -> Vec<Value> {
        let calls = stage.calls().into_iter();
        calls
            .filter(|(verb, _)| verb == "RemoveForward")
            .map(|(_, call)| call["forward"].clone())
            .collect()
    };
    stage.prints("forward rm 3 4");
    assert_eq!(removed(&stage), [3, 4]);
    stage.prints("forward remove lab 9000-9009/tcp 8080");
    assert_eq!(removed(&stage), [4, 3]);
    let said = stage.complains("forward remove lab 8080 9005");
    assert!(
        said.contains("9005/tcp is a part of the forward 4"),
        "{said}"
    );
    assert!(removed(&stage).is_empty(), "nothing, when one is not found");
}

#[test]
fn addresses_and_identities() {
    let stage = Stage::with(lab);
    let table = stage.prints("lease list lab");
    assert!(
        table.contains("192.168.64.10") && table.contains("name web"),
        "{table}"
    );
    assert!(!table.contains('\u{1b}'), "{table:?}");
    let listed: Value = serde_json::from_str(&stage.prints("lease list --json")).unwrap();
    assert_eq!(listed["leases"][0]["address"], "192.168.64.2");
    assert_eq!(listed["reservations"][0]["reservation"]["name"], "web");
    stage.calls();

    stage.prints("lease reserve lab 192.168.64.9 --client-id 01:AB");
    stage.prints("lease reserve lab 192.168.64.9 --mac 52:54:00:AB:CD:EF");
    stage.prints("lease unreserve lab 192.168.64.9");
    stage.prints("lease release lab 192.168.64.2");
    stage.prints(&format!("identity forget {UUID}"));
    let address = |address| json!({ "network": "lab", "address": address });
    let reserve = |reservation| json!({ "network": "lab", "reservation": reservation });
    // Whose address this replaces is said.
    let look = || ("ListReservations".to_owned(), json!({ "network": "lab" }));
    assert_eq!(
        stage.calls(),
        [
            look(),
            (
                "ReserveLease".to_owned(),
                reserve(json!({ "address": "192.168.64.9", "client_id": "01ab" }))
            ),
            look(),
            (
                "ReserveLease".to_owned(),
                reserve(json!({ "address": "192.168.64.9", "mac": "52:54:00:ab:cd:ef" }))
            ),
            ("UnreserveLease".to_owned(), address("192.168.64.9")),
            ("ReleaseLease".to_owned(), address("192.168.64.2")),
            ("ForgetIdentity".to_owned(), json!({ "id": UUID })),
        ]
    );
    let table = stage.prints("identity ls");
    assert!(table.contains("52:54:00:12:34:56"), "{table}");
}

#[test]
fn the_service_and_a_network_on_it() {
    let stage = Stage::with(lab);
    let text = stage.prints("status");
    assert!(
        text.contains("uptime         1m1s\n") && text.contains("\nlab "),
        "{text}"
    );
    let all: Value = serde_json::from_str(&stage.prints("status lab --json")).unwrap();
    assert_eq!(all["service"]["pid"], 4242);
    assert_eq!(all["forwards"].as_array().unwrap().len(), 2);
    assert_eq!(all["network"]["uuid"], UUID);
    stage.complains("status wrong");
}

#[test]
fn without_a_service_nothing_is_started_in_vain() {
    let stage = Stage::empty();
    // /bin/false would be the service: whoever starts it, fails.
    for (words, field) in [
        ("network list", "networks"),
        ("interface list", "interfaces"),
        ("identity list", "identities"),
        ("forward list", "forwards"),
        ("lease list", "leases"),
    ] {
        assert_eq!(stage.prints(words).lines().count(), 1, "{words}");
        let listed: Value =
            serde_json::from_str(&stage.prints(&format!("{words} --json"))).unwrap();
        assert_eq!(listed[field], json!([]), "{words}");
    }
    let text = stage.prints("status");
    assert!(text.starts_with("the service does not run"), "{text}");
    let overview: Value = serde_json::from_str(&stage.prints("status --json")).unwrap();
    assert_eq!(
        overview,
        json!({ "service": null, "machine": null, "networks": [] })
    );
    for (words, part) in [
        ("status lab", "`vmnet network show lab` starts it"),
        ("interface stop 7", "`vmnet interface list`"),
        ("forward remove 7", "`vmnet forward list`"),
        ("network create lab", "the service /bin/false did not start"),
    ] {
        let said = stage.complains(words);
        assert!(said.contains(part), "{words}: {said}");
    }
}

#[test]
fn what_is_kept_is_worth_a_start() {
    let stage = Stage::empty();
    fs::create_dir_all(stage.state()).unwrap();
    fs::write(stage.state().join("daemon.log"), "").unwrap();
    stage.prints("network list");
    fs::write(stage.state().join("store.redb"), "").unwrap();
    for words in [
        "network list",
        "identity list",
        "forward list",
        "lease list",
    ] {
        let said = stage.complains(words);
        assert!(said.contains("/bin/false did not start"), "{words}: {said}");
    }
    // Interfaces end with the service.
    stage.prints("interface list");
    stage.prints("status");
}

#[test]
fn what_is_no_service_is_named() {
    let stage = Stage::with(|_, _| Ok(json!({ "networks": 5 })));
    let said = stage.complains("network list");
    assert!(said.contains("does not understand"), "{said}");
    let stage = Stage::empty();
    fs::write(stage.socket(), "no socket").unwrap();
    let said = stage.complains("network create lab");
    assert!(
        said.contains("vmnet.sock: is there and is no socket"),
        "{said}"
    );
}
