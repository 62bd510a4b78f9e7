//! Named networks: who holds them, who joins, what is left.

mod stage;

use rustix::process::Signal;
use stage::{Playing, Stage, eventually, output};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::Command;

/// `vmnet up NAME OPTIONS`, once it is up; answers what it said too.
fn up(stage: &Stage, options: &[&str]) -> (Playing, String) {
    let mut playing = Playing::start(stage.vmnet().args(["up", "lan"]).args(options));
    let mut said = String::new();
    while !said.contains("Ctrl-C ends it") {
        let line = playing.line();
        assert!(!line.is_empty(), "ended: {said}");
        said = said + &line + "\n";
    }
    (playing, said)
}

fn status(stage: &Stage) -> serde_json::Value {
    let (_, text, error) = output(stage.vmnet().args(["status", "lan", "--json"]));
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{error}"))
}

fn ports(stage: &Stage) -> usize {
    status(stage)["ports"].as_array().unwrap().len()
}

fn listeners(stage: &Stage) -> usize {
    status(stage)["listeners"].as_array().unwrap().len()
}

#[test]
fn a_network_that_is_not_up_is_named_with_the_remedy() {
    let Some(stage) = Stage::new() else { return };
    let run = stage.run(["--network", "lan", "--no-dhcp"], ["true"]);
    for mut command in [run, stage.vmnet(), stage.vmnet()]
        .into_iter()
        .zip([&[][..], &["leases", "lan"], &["status", "lan"]])
        .map(|(mut command, args)| {
            command.args(args);
            command
        })
    {
        let (status, _, error) = output(&mut command);
        assert_eq!(status, Some(125), "{error}");
        assert!(error.contains("`vmnet up lan` holds it"), "{error}");
    }
    assert_eq!(output(stage.vmnet().arg("status")).1, "no network is up\n");
    let (status, _, error) = output(stage.vmnet().args(["up", "../evil"]));
    assert_eq!(status, Some(2), "{error}");
    assert!(error.contains("no network name"), "{error}");
}

#[test]
fn a_name_is_held_once_and_nothing_is_left_of_it() {
    let Some(stage) = Stage::new() else { return };
    let path = stage.sockets().join("vm.sock");
    let path = path.to_str().unwrap();
    let (mut playing, said) = up(&stage, &["--stream", path, "--subnet", "10.77.0.0/24"]);
    assert!(
        said.contains("10.77.0.0/24") && said.contains(path),
        "{said}"
    );
    let (code, _, error) = output(stage.vmnet().args(["up", "lan"]));
    assert_eq!(code, Some(125));
    assert!(
        error.contains(&format!("held by process {}", playing.pid())),
        "{error}"
    );
    let about = status(&stage);
    assert_eq!(
        (about["name"].as_str(), about["subnet"].as_str()),
        (Some("lan"), Some("10.77.0.0/24"))
    );
    assert_eq!(about["pid"].as_i64(), Some(playing.pid().into()));
    assert_eq!((listeners(&stage), ports(&stage)), (1, 0));
    playing.kill(Signal::TERM);
    assert_eq!(playing.0.wait().unwrap().code(), Some(0));
    assert_eq!(
        std::fs::read_dir(stage.sockets()).unwrap().count(),
        0,
        "something is left"
    );
}

#[test]
fn what_a_killed_holder_left_is_replaced() {
    let Some(stage) = Stage::new() else { return };
    let stream = stage.sockets().join("s");
    let dgram = stage.sockets().join("d");
    let options = [
        "--stream",
        stream.to_str().unwrap(),
        "--dgram",
        dgram.to_str().unwrap(),
    ];
    let (mut playing, _) = up(&stage, &options);
    playing.kill(Signal::KILL);
    playing.0.wait().unwrap();
    assert!(stream.exists() && dgram.exists());
    assert_eq!(output(stage.vmnet().arg("status")).1, "no network is up\n");
    let (playing, _) = up(&stage, &options);
    assert_eq!(status(&stage)["pid"].as_i64(), Some(playing.pid().into()));
    // A living one is not replaced.
    let (code, _, error) = output(stage.vmnet().args(["up", "other"]).args(&options[..2]));
    assert_eq!(code, Some(125));
    assert!(error.contains("in use by another program"), "{error}");
}

#[test]
fn a_command_joins_and_leaves() {
    let Some(stage) = Stage::new() else { return };
    let (_holder, _) = up(&stage, &["--mtu", "4000"]);
    let options = ["--network", "lan", "--no-dhcp", "--name", "web"];
    let script = "ip -o link show eth0; sleep 1000";
    let mut guest = Playing::start(&mut stage.run(options, ["sh", "-c", script]));
    assert!(guest.line().contains("mtu 4000"));
    let about = status(&stage);
    let port = &about["ports"][0];
    assert_eq!(
        (port["kind"].as_str(), port["name"].as_str()),
        (Some("tap"), Some("web"))
    );
    assert_eq!(port["pid"].as_i64(), Some(guest.pid().into()));
    let (code, _, error) = output(&mut stage.run(options, ["true"]));
    assert_eq!(code, Some(125));
    assert!(
        error.contains("a guest named web is there already"),
        "{error}"
    );
    guest.kill(Signal::KILL);
    eventually("the port is free", || ports(&stage) == 0);
    assert_eq!(output(&mut stage.run(options, ["true"])).0, Some(0));
    let words = ["sh", "-c", "echo up; sleep 1000"];
    let mut guest = Playing::start(&mut stage.run(["--network", "lan"], words));
    assert_eq!(guest.line(), "up");
    let about = status(&stage);
    let address = about["ports"][0]["address"].as_str();
    assert!(
        address.is_some_and(|text| text.starts_with("192.168.")),
        "{about}"
    );
}

#[test]
fn forwards_end_with_their_guest() {
    let Some(stage) = Stage::new() else { return };
    let (_holder, _) = up(&stage, &[]);
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let spec = format!("{free}:80");
    let options = ["--network", "lan", "--no-dhcp", "-p", spec.as_str()];
    let mut guest = Playing::start(&mut stage.run(options, ["sh", "-c", "echo up; sleep 1000"]));
    guest.line();
    std::net::TcpListener::bind(free).unwrap_err();
    let (code, _, error) = output(&mut stage.run(options, ["true"]));
    assert_eq!(code, Some(125));
    assert!(error.contains("another program listens there"), "{error}");
    guest.kill(Signal::TERM);
    eventually("the host port is free", || {
        std::net::TcpListener::bind(free).is_ok()
    });
}

#[test]
fn other_users_are_not_heard() {
    let Some(stage) = Stage::new() else { return };
    if !stage::is_superuser() {
        return stage::skip("only the superuser can be another user");
    }
    let (_holder, _) = up(&stage, &[]);
    let mut stream = UnixStream::connect(stage.sockets().join("lan.sock")).unwrap();
    // The holder may have hung up before.
    let _unheard = std::io::Write::write_all(&mut stream, b"{\"method\":\"status\"}\n");
    let mut answer = String::new();
    let end = std::io::Read::read_to_string(&mut stream, &mut answer);
    assert!(end.is_err() || answer.is_empty(), "{answer}");
    let (code, _, error) = output(
        Command::new(stage.program())
            .args(["status", "lan"])
            .env("VMNET_SOCKET", stage.sockets()),
    );
    assert_eq!(code, Some(125));
    assert!(error.contains("belongs to another user"), "{error}");
}

#[test]
fn sockets_are_attached_for_as_long_as_somebody_waits() {
    let Some(stage) = Stage::new() else { return };
    let (_holder, _) = up(&stage, &[]);
    let stream = stage.sockets().join("s");
    let dgram = stage.sockets().join("d");
    for (option, path, kind) in [
        ("--stream", &stream, "stream-listener"),
        ("--dgram", &dgram, "dgram-listener"),
    ] {
        let mut waiting = Playing::start(stage.vmnet().args(["attach", "lan", option]).arg(path));
        eventually("the listener is there", || listeners(&stage) == 1);
        assert_eq!(status(&stage)["listeners"][0]["kind"].as_str(), Some(kind));
        let reached = match option {
            "--stream" => UnixStream::connect(path).map(drop),
            _ => UnixDatagram::unbound().unwrap().connect(path),
        };
        reached.unwrap();
        waiting.kill(Signal::INT);
        assert_eq!(waiting.0.wait().unwrap().code(), Some(0));
        assert!(!path.exists());
        eventually("the listener is gone", || listeners(&stage) == 0);
    }
    let listener = UnixListener::bind(stage.path().join("inherited")).unwrap();
    let mut command = stage.vmnet();
    command
        .args(["attach", "lan", "--fd", "0"])
        .stdin(std::os::fd::OwnedFd::from(listener));
    let mut waiting = Playing::start(&mut command);
    eventually("the listener is there", || listeners(&stage) == 1);
    waiting.kill(Signal::TERM);
    waiting.0.wait().unwrap();
    let stream = stage.sockets().join("one");
    let path = stream.to_str().unwrap();
    let mut command = stage.vmnet();
    command.args([
        "attach",
        "lan",
        "--stream",
        path,
        "-p",
        "127.0.0.1:47110:80",
    ]);
    let (code, _, error) = output(&mut command);
    assert_eq!(code, Some(125));
    assert!(error.contains("`vmnet up lan -p"), "{error}");
}

/// An Ethernet frame to everybody from this station.
fn frame(station: u8) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, station, 0x88, 0xb5]);
    frame.resize(60, 0);
    frame
}

#[test]
fn guests_of_sockets_are_listed_and_leave_with_them() {
    let Some(stage) = Stage::new() else { return };
    let (_holder, _) = up(&stage, &[]);
    let [stream, dgram, own] = ["s", "d", "guest"].map(|name| stage.sockets().join(name));
    let attach = |option: &str, path: &std::path::Path| {
        Playing::start(stage.vmnet().args(["attach", "lan", option]).arg(path))
    };
    let mut of_stream = attach("--stream", &stream);
    let of_dgram = attach("--dgram", &dgram);
    eventually("both listen", || listeners(&stage) == 2);
    let mut client = UnixStream::connect(&stream).unwrap();
    let one = frame(1);
    let length = u32::try_from(one.len()).unwrap().to_be_bytes();
    std::io::Write::write_all(&mut client, &[&length[..], &one].concat()).unwrap();
    let other = UnixDatagram::bind(&own).unwrap();
    // The holder, another user than the test, answers there.
    std::fs::set_permissions(&own, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    other.send_to(&frame(2), &dgram).unwrap();
    let seen = |kind: &str, mac: &str, pid: i32| {
        let about = status(&stage);
        let ports = about["ports"].as_array().unwrap();
        ports.iter().any(|port| {
            port["kind"].as_str() == Some(kind)
                && port["mac"].as_str() == Some(mac)
                && port["pid"].as_i64() == Some(pid.into())
        })
    };
    eventually("the guest of the stream is seen", || {
        seen("stream", "02:00:00:00:00:01", of_stream.pid())
    });
    eventually("the guest of the datagrams is seen", || {
        seen("dgram", "02:00:00:00:00:02", of_dgram.pid())
    });
    let (_, text, _) = output(stage.vmnet().args(["status", "lan"]));
    assert!(text.contains("02:00:00:00:00:01"), "{text}");
    of_stream.kill(Signal::INT);
    of_stream.0.wait().unwrap();
    eventually("the listener's guest is gone", || {
        (listeners(&stage), ports(&stage)) == (1, 1)
    });
    // Its connection is closed; what came before may be read or lost.
    client
        .set_read_timeout(Some(std::time::Duration::from_secs(10)))
        .unwrap();
    let end = std::io::Read::read_to_end(&mut client, &mut Vec::new());
    assert!(
        end.as_ref()
            .err()
            .is_none_or(|error| error.kind() == std::io::ErrorKind::ConnectionReset),
        "{end:?}"
    );
    assert!(seen("dgram", "02:00:00:00:00:02", of_dgram.pid()));
}

#[test]
fn qemu_gets_a_card_on_an_open_socket() {
    let Some(stage) = Stage::new() else { return };
    // A stand-in that shows what QEMU would see; the real one is in the guests' tests.
    let fake = stage.path().join("qemu-system-x86_64");
    let script = "#!/bin/sh\nfor word; do echo \"$word\"; last=$fd; case $word in *addr.str=*) fd=${word##*addr.str=};; esac; done\n\
                  test -S /proc/self/fd/$fd && echo is a socket\nexit 5\n";
    std::fs::write(&fake, script).unwrap();
    std::fs::set_permissions(&fake, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let run = |options: &[&str]| {
        output(
            stage
                .vmnet()
                .arg("qemu")
                .args(options)
                .arg("--")
                .arg(&fake)
                .args(["-name", "My VM", "-m", "64"]),
        )
    };
    let (code, text, error) = run(&[]);
    assert_eq!(code, Some(5), "{error}");
    assert!(
        text.contains("stream,id=vmnet0,server=off,addr.type=fd,addr.str="),
        "{text}"
    );
    assert!(
        text.contains("virtio-net-pci,netdev=vmnet0,mac=") && text.contains("is a socket"),
        "{text}"
    );
    assert_eq!(run(&[]).1, text, "the MAC does not stay");
    let (_, other, _) = run(&["--name", "other"]);
    assert_ne!(other, text);
    let (_holder, _) = up(&stage, &["--mtu", "9000"]);
    let (code, text, error) = run(&["--network", "lan"]);
    assert_eq!(code, Some(5), "{error}");
    assert!(text.contains("host_mtu=9000"), "{text}");
    let (code, _, error) = output(stage.vmnet().args(["qemu", "--", "no-such-qemu"]));
    assert_eq!(code, Some(127), "{error}");
}

#[test]
fn qemu_ends_with_a_killed_vmnet() {
    let Some(stage) = Stage::new() else { return };
    let fake = stage.path().join("qemu-fake");
    std::fs::write(
        &fake,
        "#!/bin/sh\necho ready\nwhile :; do sleep 0.1; done\n",
    )
    .unwrap();
    std::fs::set_permissions(&fake, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut playing = Playing::start(stage.vmnet().args(["qemu", "--"]).arg(&fake));
    assert_eq!(playing.line(), "ready");
    let word = fake.display().to_string();
    assert_eq!(stage::processes_with(&word).len(), 2);
    playing.kill(Signal::KILL);
    playing.0.wait().unwrap();
    eventually("QEMU is gone", || stage::processes_with(&word).is_empty());
}
