//! Networks of the service: who makes them, who joins, what is left.

mod stage;

use openvmnet::client::Client;
use openvmnet::service::{Interface, Kind, Lifetime, Mode, Network, NetworkConfiguration};
use rustix::process::Signal;
use stage::{Playing, Stage, eventually, output};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::Command;

/// The network `lan`, if it is there.
fn lan(stage: &Stage) -> Option<Network> {
    let found = stage
        .service()
        .try_ask(|client| client.list_networks(Some("lan")).ok())??;
    found.networks.into_iter().next()
}

fn is_listener(interface: &Interface) -> bool {
    matches!(interface.kind, Kind::StreamListener | Kind::DgramListener)
}

fn guests(stage: &Stage) -> Vec<Interface> {
    let mut found = stage.service().interfaces("lan");
    found.retain(|interface| !is_listener(interface));
    found
}

fn listeners(stage: &Stage) -> Vec<Interface> {
    let mut found = stage.service().interfaces("lan");
    found.retain(is_listener);
    found
}

/// `vmnet run --network lan OPTIONS -- sh -c 'SCRIPT; sleep 1000'`, once the script has said a line, which is answered too.
fn guest(stage: &Stage, options: &[&str], script: &str) -> (Playing, String) {
    let script = format!("{script}; exec sleep 1000");
    let options = [&["--network", "lan"], options].concat();
    let mut playing = Playing::start(&mut stage.run(options, ["sh", "-c", script.as_str()]));
    let line = playing.line();
    if line.is_empty() {
        let mut error = String::new();
        let stderr = playing.0.stderr.as_mut().unwrap();
        std::io::Read::read_to_string(stderr, &mut error).unwrap();
        panic!("the guest did not start: {error}");
    }
    (playing, line)
}

/// `vmnet attach lan OPTIONS`, once it is attached; answers what it said too.
fn attach(stage: &Stage, options: &[&str]) -> (Playing, String) {
    let mut playing = Playing::start(stage.vmnet().args(["attach", "lan"]).args(options));
    let line = playing.line();
    assert!(line.starts_with("interface "), "{line}");
    (playing, line)
}

#[test]
fn the_first_who_joins_makes_a_network_and_the_last_takes_it_along() {
    let Some(stage) = Stage::new() else { return };
    assert!(lan(&stage).is_none());
    let options = ["--no-dhcp", "--subnet", "10.77.0.0/24", "--mtu", "4000"];
    let (first, line) = guest(&stage, &options, "ip -o link show eth0");
    assert!(line.contains("mtu 4000"), "{line}");
    let made = lan(&stage).unwrap();
    assert_eq!(made.subnet.as_deref(), Some("10.77.0.0/24"));
    assert_eq!((made.mode, made.lifetime), (Mode::Shared, Lifetime::Held));
    // Who asks for nothing, or the same, joins; who asks for something else does not.
    let (second, _) = guest(&stage, &["--no-dhcp"], "echo up");
    let (third, _) = guest(&stage, &["--no-dhcp", "--mtu", "4000"], "echo up");
    assert_eq!(lan(&stage).unwrap().interfaces, 3);
    let other = ["--network", "lan", "--mtu", "9000"];
    let (code, _, error) = output(&mut stage.run(other, ["true"]));
    assert_eq!(code, Some(125), "{error}");
    assert!(error.contains("lan") && error.contains("MTU"), "{error}");
    let by_uuid = ["--network", made.uuid.as_str(), "--no-dhcp"];
    assert_eq!(output(&mut stage.run(by_uuid, ["true"])).0, Some(0));
    drop((first, second));
    eventually("two have left", || {
        lan(&stage).is_some_and(|lan| lan.interfaces == 1)
    });
    drop(third);
    eventually("the network is gone", || lan(&stage).is_none());
    // Its subnet can be taken again at once.
    let (_again, _) = guest(&stage, &options, "echo up");
}

#[test]
fn a_name_that_is_none_is_refused() {
    let Some(stage) = Stage::new() else { return };
    let (status, _, error) = output(&mut stage.run(["--network", "../evil"], ["true"]));
    assert_eq!(status, Some(2), "{error}");
    assert!(error.contains("no network name"), "{error}");
    assert_eq!(stage.service().pid(), None, "a service was started for it");
}

#[test]
fn the_networks_shared_and_host_are_always_there() {
    let Some(stage) = Stage::new() else { return };
    for (network, start) in [("shared", "192.168."), ("host", "192.168.")] {
        let script = "ip -4 -o address show dev eth0; ip route";
        let (code, text, error) =
            output(&mut stage.run(["--network", network], ["sh", "-c", script]));
        assert_eq!(code, Some(0), "{error}");
        assert!(text.contains(start), "{network}: {text}");
    }
}

#[test]
fn a_command_joins_and_leaves() {
    let Some(stage) = Stage::new() else { return };
    let options = ["--no-dhcp", "--name", "web"];
    let (mut web, _) = guest(&stage, &options, "echo up");
    let found = guests(&stage);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].kind, Kind::Tap);
    assert_eq!(found[0].name.as_deref(), Some("web"));
    assert_eq!(found[0].pid, web.pid());
    let again = ["--network", "lan", "--no-dhcp", "--name", "web"];
    let (code, _, error) = output(&mut stage.run(again, ["true"]));
    assert_eq!(code, Some(125));
    assert!(error.contains("web"), "{error}");
    web.kill(Signal::KILL);
    web.0.wait().unwrap();
    eventually("the interface is gone", || guests(&stage).is_empty());
    // Who leaves by himself has left when he ends: nothing has to be waited for.
    for _ in 0..3 {
        let (code, _, error) = output(&mut stage.run(again, ["true"]));
        assert_eq!(code, Some(0), "{error}");
    }
    let (_guest, _) = guest(&stage, &["--name", "db"], "echo up");
    let address = guests(&stage)[0].address.clone();
    assert!(
        address.is_some_and(|text| text.starts_with("192.168.")),
        "it has leased one"
    );
}

#[test]
fn a_name_or_an_identity_keeps_its_mac() {
    let Some(stage) = Stage::new() else { return };
    let id = "6a1e4f2c-5d0b-4c57-9d0e-1f2a3b4c5d6e";
    for options in [["--name", "web"], ["--id", id]] {
        let mac = || {
            let options = [&["--network", "lan", "--no-dhcp"], &options[..]].concat();
            let (code, text, error) =
                output(&mut stage.run(options, ["ip", "-o", "link", "show", "eth0"]));
            assert_eq!(code, Some(0), "{error}");
            let (_, mac) = text.split_once("link/ether ").unwrap();
            mac[..17].to_owned()
        };
        let first = mac();
        assert_eq!(mac(), first, "{options:?}");
        stage.service().end();
        assert_eq!(mac(), first, "{options:?}, after a restart");
    }
    let known = stage
        .service()
        .ask(|client| client.list_identities().unwrap());
    assert_eq!(known.identities.len(), 1, "{known:?}");
    assert_eq!(known.identities[0].id, id);
}

#[test]
fn forwards_end_with_their_guest() {
    let Some(stage) = Stage::new() else { return };
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let spec = format!("{free}:80");
    let options = ["--no-dhcp", "-p", spec.as_str()];
    let (playing, _) = guest(&stage, &options, "echo up");
    std::net::TcpListener::bind(free).unwrap_err();
    let other = ["--network", "lan", "--no-dhcp", "-p", spec.as_str()];
    let (code, _, error) = output(&mut stage.run(other, ["true"]));
    assert_eq!(code, Some(125));
    assert!(error.contains(&free.port().to_string()), "{error}");
    playing.kill(Signal::TERM);
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
    let (_guest, _) = guest(&stage, &["--no-dhcp"], "echo up");
    let service = stage.service();
    let mut other = Command::new(stage.program());
    std::os::unix::process::CommandExt::uid(&mut other, 65_533);
    std::os::unix::process::CommandExt::gid(&mut other, 65_533);
    other
        .args(["run", "--network", "lan", "--", "true"])
        .env("VMNET_SOCKET", &service.socket)
        .env("XDG_STATE_HOME", stage.path().join("state-of-another"));
    let (code, _, error) = output(&mut other);
    assert_eq!(code, Some(125), "{error}");
    assert_eq!(guests(&stage).len(), 1);
}

#[test]
fn sockets_are_attached_for_as_long_as_somebody_waits() {
    let Some(stage) = Stage::new() else { return };
    for (option, name, kind) in [
        ("--stream", "s", Kind::StreamListener),
        ("--dgram", "d", Kind::DgramListener),
    ] {
        let path = stage.sockets().join(name);
        let (mut waiting, _) = attach(&stage, &[option, path.to_str().unwrap()]);
        assert_eq!(listeners(&stage)[0].kind, kind);
        let reached = match option {
            "--stream" => UnixStream::connect(&path).map(drop),
            _ => UnixDatagram::unbound().unwrap().connect(&path),
        };
        reached.unwrap();
        waiting.kill(Signal::INT);
        assert_eq!(waiting.0.wait().unwrap().code(), Some(0));
        assert!(!path.exists());
        assert!(listeners(&stage).is_empty());
    }
    let listener = UnixListener::bind(stage.path().join("inherited")).unwrap();
    let mut command = stage.vmnet();
    command
        .args(["attach", "lan", "--fd", "0"])
        .stdin(std::os::fd::OwnedFd::from(listener));
    let mut waiting = Playing::start(&mut command);
    assert!(waiting.line().starts_with("interface "));
    assert_eq!(listeners(&stage).len(), 1);
    waiting.kill(Signal::TERM);
    waiting.0.wait().unwrap();
    let path = stage.sockets().join("one");
    let mut command = stage.vmnet();
    command
        .args(["attach", "lan", "-p", "127.0.0.1:47110:80", "--stream"])
        .arg(path);
    let (code, _, error) = output(&mut command);
    assert_eq!(code, Some(125));
    assert!(error.contains("`vmnet forward add`"), "{error}");
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
    let [stream, dgram, own] = ["s", "d", "guest"].map(|name| stage.sockets().join(name));
    let (mut of_stream, _) = attach(&stage, &["--stream", stream.to_str().unwrap()]);
    let (of_dgram, _) = attach(&stage, &["--dgram", dgram.to_str().unwrap()]);
    assert_eq!(listeners(&stage).len(), 2);
    let mut client = UnixStream::connect(&stream).unwrap();
    let one = frame(1);
    let length = u32::try_from(one.len()).unwrap().to_be_bytes();
    std::io::Write::write_all(&mut client, &[&length[..], &one].concat()).unwrap();
    let other = UnixDatagram::bind(&own).unwrap();
    // The service, another user than the test, answers there.
    std::fs::set_permissions(&own, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    other.send_to(&frame(2), &dgram).unwrap();
    let seen = |kind: Kind, mac: &str, pid: i32| {
        guests(&stage).iter().any(|guest| {
            guest.kind == kind && guest.mac.as_deref() == Some(mac) && guest.pid == pid
        })
    };
    eventually("the guest of the stream is seen", || {
        seen(Kind::Stream, "02:00:00:00:00:01", of_stream.pid())
    });
    eventually("the guest of the datagrams is seen", || {
        seen(Kind::Dgram, "02:00:00:00:00:02", of_dgram.pid())
    });
    of_stream.kill(Signal::INT);
    of_stream.0.wait().unwrap();
    eventually("the listener's guest is gone", || {
        (listeners(&stage).len(), guests(&stage).len()) == (1, 1)
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
    assert!(seen(Kind::Dgram, "02:00:00:00:00:02", of_dgram.pid()));
}

#[test]
fn qemu_gets_a_card_on_an_open_socket() {
    let Some(stage) = Stage::new() else { return };
    // A stand-in that shows what QEMU would see; the real one is in the guests' tests.
    let fake = stage.path().join("qemu-system-x86_64");
    let script = "#!/bin/sh\nfor word; do echo \"$word\"; case $word in *.str=*) fd=${word##*.str=};; esac; done\n\
                  test -S /proc/self/fd/$fd && echo is a socket\nexit 5\n";
    std::fs::write(&fake, script).unwrap();
    std::fs::set_permissions(&fake, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let run = |options: &[&str]| {
        output(
            stage
                .vmnet()
                .args(["qemu", "--nic", "socket"])
                .args(options)
                .arg("--")
                .arg(&fake)
                .args(["-name", "My VM", "-m", "64"]),
        )
    };
    let mac_in = |text: &str| {
        let (_, mac) = text.split_once(",mac=").unwrap();
        mac[..17].to_owned()
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
    assert_ne!(mac_in(&other), mac_in(&text));
    let (code, text, error) = run(&["--network", "lan", "--mtu", "9000"]);
    assert_eq!(code, Some(5), "{error}");
    assert!(text.contains("host_mtu=9000"), "{text}");
    assert!(
        text.contains("dgram,id=vmnet0,local.type=fd,local.str=") && text.contains("is a socket"),
        "{text}"
    );
    // An identity's MAC is known before QEMU starts.
    let id = [
        "--network",
        "lan",
        "--id",
        "6a1e4f2c-5d0b-4c57-9d0e-1f2a3b4c5d6e",
    ];
    let (code, text, error) = run(&id);
    assert_eq!(code, Some(5), "{error}");
    assert_eq!(mac_in(&run(&id).1), mac_in(&text));
    let (code, _, error) = output(stage.vmnet().args(["qemu", "--", "no-such-qemu"]));
    assert_eq!(code, Some(127), "{error}");
    let (code, _, error) =
        output(
            stage
                .vmnet()
                .args(["qemu", "--network", "lan", "--", "no-such-qemu"]),
        );
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
    for options in [&[][..], &["--network", "lan"]] {
        let mut command = stage.vmnet();
        command.arg("qemu").args(options).arg("--").arg(&fake);
        let mut playing = Playing::start(&mut command);
        assert_eq!(playing.line(), "ready");
        let word = fake.display().to_string();
        // The shell is two for a moment when it starts something.
        eventually("vmnet and QEMU are there", || {
            stage::processes_with(&word).len() == 2
        });
        playing.kill(Signal::KILL);
        playing.0.wait().unwrap();
        eventually("QEMU is gone", || stage::processes_with(&word).is_empty());
        eventually("its interface is gone", || guests(&stage).is_empty());
    }
}

#[test]
fn a_command_does_not_see_the_service() {
    let Some(stage) = Stage::new() else { return };
    let service = stage.service();
    let folder = service.socket.parent().unwrap().display().to_string();
    let (mut playing, line) = guest(
        &stage,
        &["--no-dhcp"],
        &format!("ls -A {folder} | wc -l; while read line; do ls -A {folder} | wc -l; done"),
    );
    assert_eq!(line, "0");
    // Nor the one that comes after it.
    let killed = service.kill();
    eventually("another service runs", || {
        service.pid().is_some_and(|pid| pid != killed)
    });
    drop(playing.0.stdin.take());
    let (code, text, error) = output(&mut stage.run(
        ["--network", "lan", "--no-dhcp"],
        [
            "sh",
            "-c",
            &format!("ls -A {folder} $XDG_RUNTIME_DIR/vmnet"),
        ],
    ));
    assert_eq!(code, Some(0), "{error}");
    assert!(!text.contains("sock"), "{text}");
}

#[test]
fn a_command_cannot_start_a_service_of_its_own() {
    let Some(stage) = Stage::new() else { return };
    let (_guest, _) = guest(&stage, &["--no-dhcp"], "echo up");
    stage.service().ask(|client| {
        let mut configuration = NetworkConfiguration::new(Mode::Shared);
        configuration.name = Some("kept".to_owned());
        client.create_network(configuration).unwrap();
    });
    let vmnet = stage.program().display().to_string();
    // Where the socket is said to be, and where it usually is.
    for unset in ["", "unset VMNET_SOCKET; "] {
        for words in ["network create zz", "daemon", "status"] {
            let script = format!("{unset}exec {vmnet} {words}");
            let (code, _, error) = output(&mut stage.script(&script));
            assert_eq!(code, Some(1), "{script}: {error}");
            assert!(
                error.contains("inside `vmnet run`") && error.contains("no say over networks"),
                "{script}: {error}"
            );
        }
    }
    // With a socket elsewhere it still has not what the user's service keeps.
    let elsewhere = stage.sockets().join("own.sock").display().to_string();
    let script = format!(
        "ls -A {}/vmnet; VMNET_SOCKET={elsewhere} exec {vmnet} daemon",
        stage.path().join("state").display()
    );
    let (code, text, error) = output(&mut stage.script(&script));
    assert_eq!((code, text.as_str()), (Some(1), ""), "{error}");
    assert!(error.contains("store.lock"), "{error}");
}

#[test]
fn an_interface_that_was_stopped_is_not_started_again() {
    let Some(stage) = Stage::new() else { return };
    let path = stage.sockets().join("s");
    let (mut waiting, _) = attach(&stage, &["--stream", path.to_str().unwrap()]);
    let (mut running, _) = guest(&stage, &["--no-dhcp"], "echo up");
    // It keeps the network, so that what is stopped is not deleted with it.
    let (_stays, _) = guest(&stage, &["--no-dhcp"], "echo up");
    let all = stage.service().interfaces("lan");
    assert_eq!(all.len(), 3);
    let pids = [waiting.pid(), running.pid()];
    let ours = all.iter().filter(|one| pids.contains(&one.pid));
    let numbers: Vec<u64> = ours.map(|one| one.interface).collect();
    stage.service().ask(move |client: &mut Client| {
        for number in numbers {
            client.stop_interface(number).unwrap();
        }
    });
    ends(&mut waiting, "the interface on the network lan was stopped");
    assert!(!path.exists(), "its socket stayed");
    let said = one_line_of(running.0.stderr.as_mut().unwrap());
    assert!(
        said.contains("lan was stopped; the command goes on"),
        "{said}"
    );
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(
        running.0.try_wait().unwrap().is_none(),
        "the command goes on"
    );
    assert_eq!(stage.service().interfaces("lan").len(), 1);
}

#[test]
fn guests_of_a_network_that_is_deleted_hear_of_it() {
    let Some(stage) = Stage::new() else { return };
    let path = stage.sockets().join("s");
    let (mut waiting, _) = attach(&stage, &["--stream", path.to_str().unwrap()]);
    let (mut running, _) = guest(&stage, &["--no-dhcp"], "echo up");
    let delete = ["network", "delete", "lan", "--force"];
    let (status, _, error) = output(stage.vmnet().args(delete));
    assert_eq!(status, Some(0), "{error}");
    ends(&mut waiting, "the network lan was deleted");
    assert!(!path.exists(), "its socket stayed");
    let said = one_line_of(running.0.stderr.as_mut().unwrap());
    assert!(
        said.contains("lan was deleted; the command goes on"),
        "{said}"
    );
}

#[test]
fn who_attached_a_tap_hears_that_it_was_deleted() {
    let Some(stage) = Stage::new() else { return };
    // In namespaces of its own, in which this user may make taps.
    let vmnet = stage.program().display().to_string();
    let script = format!(
        "ip tuntap add dev t0 mode tap && {vmnet} attach lan --tap t0 & sleep 1; ip link delete t0; wait $!"
    );
    let mut command = Command::new("unshare");
    stage.as_nobody(&mut command);
    command.args(["-Urn", "sh", "-c", &script]);
    let mut playing = Playing::start(&mut command);
    ends(&mut playing, "the tap on the network lan is gone");
}

/// Waits until it ends with 125, and has said this: soon, and not only when the service is asked the next time.
#[track_caller]
fn ends(playing: &mut Playing, said: &str) {
    eventually("it ends", || playing.0.try_wait().unwrap().is_some());
    let mut error = String::new();
    std::io::Read::read_to_string(playing.0.stderr.as_mut().unwrap(), &mut error).unwrap();
    assert_eq!(playing.0.wait().unwrap().code(), Some(125), "{error}");
    assert!(error.contains(said), "{error}");
}

/// The next line that is written there, awaited as long as it takes.
fn one_line_of(reader: &mut impl std::io::Read) -> String {
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(reader), &mut line).unwrap();
    line
}

#[test]
fn a_guest_comes_back_to_a_network_that_was_configured_anew() {
    let Some(stage) = Stage::new() else { return };
    let folder = stage.path().join("config/vmnet");
    std::fs::create_dir_all(&folder).unwrap();
    let configure = |text: &str| std::fs::write(folder.join("vmnet.toml"), text).unwrap();
    configure("[networks.lan]\nsubnet = \"10.213.64.0/24\"\nmtu = 1500\n");
    let (mut playing, _) = guest(&stage, &["--no-dhcp"], "echo up");
    let before = lan(&stage).unwrap();
    assert_eq!((before.mtu, before.interfaces), (1500, 1));
    configure("[networks.lan]\nsubnet = \"10.213.64.0/24\"\nmtu = 1400\n");
    let killed = stage.service().kill();
    eventually("the guest is back", || {
        stage.service().pid().is_some_and(|pid| pid != killed) && guests(&stage).len() == 1
    });
    let after = lan(&stage).unwrap();
    assert_eq!((after.mtu, after.uuid), (1400, before.uuid));
    assert!(playing.0.try_wait().unwrap().is_none());
}

#[test]
fn a_guest_waits_for_a_network_that_cannot_run_yet() {
    let Some(stage) = Stage::new() else { return };
    let folder = stage.path().join("config/vmnet");
    std::fs::create_dir_all(&folder).unwrap();
    let (_playing, _) = guest(
        &stage,
        &["--no-dhcp", "--subnet", "10.213.65.0/24"],
        "echo up",
    );
    let before = lan(&stage).unwrap();
    // Another network has its subnet now: it can be made again when that is gone.
    let file = folder.join("vmnet.toml");
    std::fs::write(&file, "[networks.dev]\nsubnet = \"10.213.65.0/24\"\n").unwrap();
    let killed = stage.service().kill();
    eventually("another service runs", || {
        stage.service().pid().is_some_and(|pid| pid != killed)
    });
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(lan(&stage).is_none());
    std::fs::remove_file(&file).unwrap();
    stage.service().kill();
    eventually("the guest is back", || {
        lan(&stage).is_some_and(|lan| lan.uuid == before.uuid && lan.interfaces == 1)
    });
}

#[test]
fn a_deleted_network_is_not_made_again() {
    let Some(stage) = Stage::new() else { return };
    let (_first, _) = guest(&stage, &["--no-dhcp"], "echo up");
    stage.service().ask(|client| {
        let mut configuration = NetworkConfiguration::new(Mode::Shared);
        configuration.name = Some("kept".to_owned());
        client.create_network(configuration).unwrap();
    });
    let mut command = stage.run(
        ["--network", "kept", "--no-dhcp"],
        ["sh", "-c", "echo up; exec sleep 1000"],
    );
    let mut playing = Playing::start(&mut command);
    assert_eq!(playing.line(), "up");
    stage
        .service()
        .ask(|client| client.delete_network("kept", true).unwrap());
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(
        playing.0.try_wait().unwrap().is_none(),
        "the command goes on"
    );
    let left = stage
        .service()
        .ask(|client| client.list_networks(None).unwrap());
    let kept = left
        .networks
        .iter()
        .any(|one| one.name.as_deref() == Some("kept"));
    assert!(!kept, "{left:?}");
}

/// Where a VMM comes, and where we go to one: an interface each, before anybody is there.
#[test]
fn places_for_vmms_are_attached_for_as_long_as_somebody_waits() {
    let Some(stage) = Stage::new() else { return };
    for (options, kind) in [
        (&["--vhost-user"][..], Kind::VhostUser),
        (&["--connect", "--vhost-user"][..], Kind::VhostUserClient),
    ] {
        let path = stage.sockets().join("vmm");
        let arguments = [options, &[path.to_str().unwrap()]].concat();
        let (mut waiting, _) = attach(&stage, &arguments);
        let there = guests(&stage);
        assert_eq!(there.len(), 1);
        assert_eq!(there[0].kind, kind);
        assert_eq!(path.exists(), kind == Kind::VhostUser);
        waiting.kill(Signal::INT);
        assert_eq!(waiting.0.wait().unwrap().code(), Some(0));
        assert!(!path.exists());
        assert!(guests(&stage).is_empty());
    }
}

/// A VMM that comes again and is not accepted would stand still.
#[test]
fn a_stopped_place_refuses_vmms_at_once() {
    let Some(stage) = Stage::new() else { return };
    let path = stage.sockets().join("vmm");
    let (_waiting, _) = attach(&stage, &["--vhost-user", path.to_str().unwrap()]);
    assert!(UnixStream::connect(&path).is_ok());
    let number = guests(&stage)[0].interface;
    let stop = |client: &mut Client| client.stop_interface(number).unwrap();
    stage.service().ask(stop);
    eventually("connects are refused", || {
        UnixStream::connect(&path)
            .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    });
}
