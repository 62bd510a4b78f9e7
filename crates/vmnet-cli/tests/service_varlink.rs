//! The control socket, spoken to without our client: what is malformed, huge, slow, foreign or without descriptors is
//! answered or turned away, and others are served meanwhile.

mod stage;

use openvmnet::client::CallError;
use openvmnet::service::ServiceError;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde_json::{Value, json};
use stage::service::Service;
use stage::{Playing, Stage, eventually, is_superuser, output, skip};
use std::fs::{self, File, Permissions};
use std::io::{IoSlice, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A service, and how many descriptors it had before anybody came.
struct Bed {
    stage: Stage,
    daemon: Playing,
    before: usize,
}

impl Bed {
    fn new() -> Option<Self> {
        let stage = Stage::new()?;
        let daemon = Playing::start(stage.vmnet().args(["daemon", "--no-state"]));
        eventually("the service serves", || stage.service().pid().is_some());
        let mut bed = Self {
            stage,
            daemon,
            before: 0,
        };
        eventually("nobody is there", || bed.connections() == 1);
        bed.before = bed.descriptors();
        Some(bed)
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.stage.service().socket).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
    }

    fn connections(&self) -> u32 {
        self.stage
            .service()
            .ask(|client| client.status().unwrap().connections)
    }

    fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.daemon.pid()))
            .unwrap()
            .count()
    }

    /// Others are served, nothing has leaked, and memory is bounded.
    #[track_caller]
    fn is_well(&self) {
        eventually("everybody is gone", || self.connections() == 1);
        eventually("no descriptor is left", || {
            self.descriptors() <= self.before
        });
        let status = fs::read_to_string(format!("/proc/{}/status", self.daemon.pid())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        eprintln!("the service has {kib} KiB");
        assert!(kib < 256 * 1024, "{line}");
    }
}

fn message(method: &str, parameters: &Value) -> Vec<u8> {
    let method = if method.contains('.') {
        method.to_owned()
    } else {
        format!("org.openvmnet.Service.{method}")
    };
    let mut text =
        serde_json::to_vec(&json!({"method": method, "parameters": parameters})).unwrap();
    text.push(0);
    text
}

/// The next reply; `None`: the service hung up.
fn reply(stream: &mut UnixStream) -> Option<Value> {
    let mut text = Vec::new();
    let mut byte = [0];
    loop {
        match stream.read(&mut byte) {
            Ok(1) if byte == [0] => return Some(serde_json::from_slice(&text).unwrap()),
            Ok(1) => text.push(byte[0]),
            Ok(_) => return None,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
            Err(error) => panic!("{error}"),
        }
    }
}

fn call(stream: &mut UnixStream, method: &str, parameters: &Value) -> Value {
    stream.write_all(&message(method, parameters)).unwrap();
    reply(stream).unwrap()
}

#[test]
fn it_describes_itself() {
    let Some(bed) = Bed::new() else { return };
    let mut stream = bed.connect();
    let info = call(&mut stream, "org.varlink.service.GetInfo", &json!({}));
    assert_eq!(info["parameters"]["product"], "vmnet");
    let ours = json!({"interface": "org.openvmnet.Service"});
    let described = call(
        &mut stream,
        "org.varlink.service.GetInterfaceDescription",
        &ours,
    );
    let text = described["parameters"]["description"].as_str().unwrap();
    for word in [
        "interface org.openvmnet.Service",
        "method Status",
        "method CreateNetwork",
        "method DeleteNetwork",
        "method OpenNetwork",
        "method CloseNetwork",
        "method ListNetworks",
        "method GetCounters",
        "method StartInterface",
        "method StopInterface",
        "method ListInterfaces",
        "method ListSharedInterfaces",
        "method AddForward",
        "method RemoveForward",
        "method ListForwards",
        "method ListLeases",
        "method ReleaseLease",
        "method ReserveLease",
        "method UnreserveLease",
        "method ListReservations",
        "method ListIdentities",
        "method ForgetIdentity",
        "type NetworkConfiguration",
        "type InterfaceOptions",
        "type ForwardRule",
        "type Reservation",
        "type Kind",
        "type Mode",
        "type Lifetime",
        "type Guest",
        "error InvalidArgument",
        "error InUse",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert_eq!(text.matches("\nmethod ").count(), 22, "{text}");
    drop(stream);
    bed.is_well();
}

#[test]
fn a_malformed_call_is_answered_and_the_next_is_served() {
    let Some(bed) = Bed::new() else { return };
    let mut stream = bed.connect();
    for (method, parameters, error, named) in [
        (
            "Nothing",
            json!({}),
            "MethodNotFound",
            "org.openvmnet.Service.Nothing",
        ),
        (
            "org.example.Nothing",
            json!({}),
            "InterfaceNotFound",
            "org.example",
        ),
        ("Status", json!({"x": 1}), "InvalidParameter", "x"),
        ("Status", json!([]), "InvalidParameter", "object"),
        (
            "ListLeases",
            json!({"netwrk": "a"}),
            "InvalidParameter",
            "netwrk",
        ),
        (
            "StopInterface",
            json!({"interface": "1"}),
            "InvalidParameter",
            "interface",
        ),
        (
            "CreateNetwork",
            json!({"configuration": {"mode": "shared", "mtuu": 1}}),
            "InvalidParameter",
            "mtuu",
        ),
        (
            "CreateNetwork",
            json!({"configuration": {"mode": "bridge"}}),
            "InvalidParameter",
            "bridge",
        ),
        (
            "CreateNetwork",
            json!({"configuration": {"mode": "shared", "mtu": 70000}}),
            "InvalidParameter",
            "70000",
        ),
    ] {
        let said = call(&mut stream, method, &parameters);
        assert_eq!(
            said["error"],
            format!("org.varlink.service.{error}"),
            "{method}: {said}"
        );
        assert!(
            said["parameters"].to_string().contains(named),
            "{method}: {said}"
        );
        assert!(call(&mut stream, "Status", &json!({}))["parameters"]["pid"].is_u64());
    }
    drop(stream);
    bed.is_well();
}

#[test]
fn what_is_no_call_ends_its_connection() {
    let Some(bed) = Bed::new() else { return };
    for garbage in [
        &b"\0"[..],
        b"garbage\0",
        b"{}\0",
        b"[1]\0",
        b"{\"method\":3}\0",
        &[0xff, 0xfe, 0],
        b"GET / HTTP/1.1\r\n\r\n\0",
    ] {
        let mut stream = bed.connect();
        stream.write_all(garbage).unwrap();
        assert_eq!(reply(&mut stream), None, "{garbage:?}");
    }
    let mut deep = b"{\"method\":\"org.openvmnet.Service.Status\",\"parameters\":".to_vec();
    deep.extend(vec![b'['; 100_000]);
    deep.push(0);
    let mut other = bed.connect();
    let _hung_up = other.write_all(&deep);
    assert_eq!(reply(&mut other), None);
    drop(other);
    bed.is_well();
}

#[test]
fn huge_slow_and_many_messages() {
    let Some(bed) = Bed::new() else { return };
    // Endless, and nothing but a call's beginning.
    let mut endless = bed.connect();
    let block = vec![b'a'; 65_536];
    let sent = (0..1000)
        .take_while(|_| endless.write_all(&block).is_ok())
        .count();
    assert!(sent < 64, "{sent} blocks were taken");
    let mut silent = bed.connect();
    silent.write_all(b"{\"method\":\"org.open").unwrap();
    // One byte at a time.
    let mut slow = bed.connect();
    for byte in message("Status", &json!({})) {
        slow.write_all(&[byte]).unwrap();
    }
    assert!(reply(&mut slow).unwrap()["parameters"]["pid"].is_u64());
    // All at once.
    let mut many = bed.connect();
    let mut writer = many.try_clone().unwrap();
    let all = message("ListNetworks", &json!({})).repeat(10_000);
    let writing = std::thread::spawn(move || writer.write_all(&all).unwrap());
    let mut replies = std::io::BufReader::new(&mut many);
    for number in 0..10_000 {
        let mut text = Vec::new();
        std::io::BufRead::read_until(&mut replies, 0, &mut text).unwrap();
        assert!(text.starts_with(b"{\"parameters\""), "{number}");
    }
    writing.join().unwrap();
    drop((endless, silent, slow, many));
    bed.is_well();
}

#[test]
fn who_never_reads_is_dropped_and_hinders_nobody() {
    let Some(bed) = Bed::new() else { return };
    let mut deaf = bed.connect();
    deaf.set_write_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let calls = message(
        "org.varlink.service.GetInterfaceDescription",
        &json!({"interface": "org.openvmnet.Service"}),
    )
    .repeat(100);
    while deaf.write_all(&calls).is_ok() {}
    assert_eq!(bed.connections(), 2);
    // Though its end of the socket is open all the while.
    bed.is_well();
    drop(deaf);
}

fn send(stream: &UnixStream, text: &[u8], descriptors: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(descriptors.is_empty() || control.push(SendAncillaryMessage::ScmRights(descriptors)));
    rustix::net::sendmsg(
        stream,
        &[IoSlice::new(text)],
        &mut control,
        SendFlags::NOSIGNAL,
    )
    .unwrap();
}

#[test]
fn descriptors_that_do_not_belong_are_closed() {
    let Some(bed) = Bed::new() else { return };
    let mut stream = bed.connect();
    let opened = call(&mut stream, "OpenNetwork", &json!({"network": "shared"}));
    assert!(opened["parameters"]["uuid"].is_string(), "{opened}");
    let (one, _other) = UnixStream::pair().unwrap();
    let file = File::open("/dev/null").unwrap();
    let start = message(
        "StartInterface",
        &json!({"network": "shared", "options": {"kind": "stream"}}),
    );
    let status = message("Status", &json!({}));
    for _ in 0..50 {
        for count in [0, 2, 8] {
            send(&stream, &start, &vec![one.as_fd(); count]);
            let said = reply(&mut stream).unwrap();
            assert_eq!(said["error"], "org.openvmnet.Service.InvalidArgument");
            assert!(
                said["parameters"]["reason"]
                    .as_str()
                    .unwrap()
                    .contains(&format!("{count} came")),
                "{said}"
            );
        }
        send(&stream, &start, &[file.as_fd()]);
        let said = reply(&mut stream).unwrap();
        assert!(
            said["parameters"]["reason"]
                .as_str()
                .unwrap()
                .contains("unix socket"),
            "{said}"
        );
        send(&stream, &status, &[file.as_fd(); 8]);
        assert!(reply(&mut stream).unwrap()["parameters"]["pid"].is_u64());
    }
    // Descriptors without an end.
    let flood = bed.connect();
    for _ in 0..2 {
        send(&flood, b" ", &[file.as_fd(); 8]);
    }
    let mut flood = flood;
    assert_eq!(reply(&mut flood), None);
    drop((stream, flood));
    bed.is_well();
}

#[test]
fn another_user_is_told_why_not() {
    let Some(bed) = Bed::new() else { return };
    if !is_superuser() {
        return skip("another user's connection needs the superuser");
    }
    let socket = bed.stage.service().socket;
    fs::set_permissions(socket.parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&socket, Permissions::from_mode(0o777)).unwrap();
    // Threads may be of different users, as far as the kernel is concerned.
    let refused = std::thread::spawn(move || {
        use rustix::process::{Gid, Uid};
        let (uid, gid) = (Uid::from_raw(65533), Gid::from_raw(65533));
        rustix::thread::set_thread_groups(&[]).unwrap();
        rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
        rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        Service::new(&socket).ask(|client| client.status().unwrap_err())
    });
    let refused = refused.join().unwrap();
    match refused {
        CallError::Refused(ServiceError::NotAuthorized { reason }) => {
            assert!(
                reason.contains("65533") && reason.contains("VMNET_SOCKET"),
                "{reason}"
            );
        }
        other => panic!("{other:?}"),
    }
    bed.is_well();
}

#[test]
fn a_guest_that_finds_the_socket_is_refused() {
    let Some(bed) = Bed::new() else { return };
    let link = bed.stage.sockets().join("found.sock");
    fs::hard_link(bed.stage.service().socket, &link).unwrap();
    // On a busy machine a second passes between the two.
    let script = "import socket, sys, time
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
time.sleep(2)
s.sendall(b'{\"method\":\"org.openvmnet.Service.Status\"}\\0')
print(s.recv(4096))";
    let mut guest = bed.stage.run(
        ["--no-dhcp"],
        ["python3", "-c", script, link.to_str().unwrap()],
    );
    let (status, stdout, stderr) = output(&mut guest);
    assert_eq!(status, Some(0), "{stderr}");
    assert!(
        stdout.contains("NotAuthorized") && stdout.contains("another network namespace"),
        "{stdout}"
    );
}

#[test]
fn thousands_of_connections_do_no_harm() {
    let Some(bed) = Bed::new() else { return };
    let limits = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let all = rustix::process::Rlimit {
        current: limits.maximum,
        maximum: limits.maximum,
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, all).unwrap();
    if limits.maximum.is_some_and(|most| most < 5000) {
        return skip("this test needs 5000 descriptors");
    }
    let mut held: Vec<UnixStream> = (0..4200).map(|_| bed.connect()).collect();
    let last = held.last_mut().unwrap();
    last.write_all(&message("Status", &json!({}))).unwrap();
    if let Some(said) = reply(last) {
        assert_eq!(said["error"], "org.openvmnet.Service.Exhausted", "{said}");
    }
    assert!(call(&mut held[0], "Status", &json!({}))["parameters"]["pid"].is_u64());
    drop(held);
    bed.is_well();
}
