//! How the service comes and goes: one for many clients, none lost while it ends, and a clear word when it cannot start.

mod stage;

use rustix::process::Signal;
use stage::{NOBODY, Playing, Stage, eventually, is_superuser, output, processes_with, text};
use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::Read as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A network that is kept, so that looking for networks starts the service.
fn keep_a_network(stage: &Stage) {
    let (status, _, stderr) =
        output(
            stage
                .vmnet()
                .args(["network", "create", "kept", "--subnet", "10.213.60.0/24"]),
        );
    assert_eq!(status, Some(0), "{stderr}");
}

fn look(stage: &Stage) -> Command {
    let mut command = stage.vmnet();
    command.args(["network", "list"]);
    command
}

/// The services of a stage.
fn services(stage: &Stage) -> Vec<i32> {
    processes_with(&format!("{}\0daemon", stage.program().display()))
}

fn configure(stage: &Stage, content: &str) -> PathBuf {
    let folder = stage.path().join("config/vmnet");
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("vmnet.toml");
    fs::write(&file, content).unwrap();
    file
}

/// Makes something the test's user's.
fn give(path: &Path) {
    if is_superuser() {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

fn log(stage: &Stage) -> String {
    fs::read_to_string(stage.path().join("state/vmnet/daemon.log")).unwrap_or_default()
}

/// A service in the foreground that serves already.
fn daemon(stage: &Stage, options: &[&str]) -> Playing {
    let daemon = Playing::start(stage.vmnet().arg("daemon").args(options));
    eventually("the service serves", || {
        stage.service().pid() == Some(daemon.pid())
    });
    daemon
}

/// How it ended, and what it complained of.
fn ending(mut daemon: Playing) -> (Option<i32>, String) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while daemon.0.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "the service does not end");
        thread::sleep(Duration::from_millis(10));
    }
    let mut said = Vec::new();
    daemon
        .0
        .stderr
        .take()
        .unwrap()
        .read_to_end(&mut said)
        .unwrap();
    (daemon.0.wait().unwrap().code(), text(&said))
}

#[test]
fn a_log_that_is_full_ends_no_service() {
    let Some(stage) = Stage::new() else { return };
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = stage.vmnet();
    command.arg("daemon").stdout(Stdio::null()).stderr(full());
    let mut daemon = Playing(command.spawn().unwrap());
    eventually("the service serves", || {
        stage.service().pid() == Some(daemon.pid())
    });
    keep_a_network(&stage);
    assert!(daemon.0.try_wait().unwrap().is_none(), "it ended");
    // Nor does it change how a command ends, or what is missing.
    let mut run = stage.run(["--no-dhcp"], ["no-such-command-here"]);
    assert_eq!(run.stderr(full()).status().unwrap().code(), Some(127));
    let mut refused = stage.vmnet();
    refused
        .args(["network", "delete", "nowhere"])
        .stderr(full());
    assert_eq!(refused.status().unwrap().code(), Some(1));
    let mut help = stage.vmnet();
    let help = help.arg("--help").stdout(full()).output().unwrap();
    assert_eq!(help.status.code(), Some(1));
    assert!(text(&help.stderr).contains("standard output"), "{help:?}");
}

#[test]
fn a_service_that_is_to_outlive_its_terminal_does() {
    let Some(stage) = Stage::new() else { return };
    let mut command = Command::new("nohup");
    stage.as_nobody(&mut command);
    let daemon = Playing::start(command.arg(stage.program()).arg("daemon"));
    eventually("the service serves", || {
        stage.service().pid() == Some(daemon.pid())
    });
    daemon.kill(Signal::HUP);
    thread::sleep(Duration::from_millis(200));
    assert_eq!(stage.service().pid(), Some(daemon.pid()));
}

#[test]
fn twenty_clients_at_once_start_one_service() {
    let Some(stage) = Stage::new() else { return };
    keep_a_network(&stage);
    for round in 0..10 {
        stage.service().end();
        thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| {
                    let (status, stdout, stderr) = output(&mut look(&stage));
                    assert_eq!(status, Some(0), "round {round}: {stderr}");
                    assert!(stdout.contains("kept"), "round {round}: {stdout}");
                });
            }
        });
        let pid = stage.service().pid().unwrap();
        assert_eq!(services(&stage), [pid], "round {round}");
    }
}

#[test]
fn no_client_fails_while_idle_services_end() {
    let Some(stage) = Stage::new() else { return };
    keep_a_network(&stage);
    stage.service().end();
    configure(&stage, "[daemon]\nidle-timeout = 0\n");
    let over = AtomicU32::new(0);
    let mut pids = BTreeSet::new();
    thread::scope(|scope| {
        for client in 0_u64..4 {
            let (stage, over) = (&stage, &over);
            scope.spawn(move || {
                for turn in 0..25_u64 {
                    let (status, stdout, stderr) = output(&mut look(stage));
                    assert_eq!(status, Some(0), "client {client}, turn {turn}: {stderr}");
                    assert!(stdout.contains("kept"), "{stdout}");
                    thread::sleep(Duration::from_millis((client * 7 + turn * 3) % 40));
                }
                over.fetch_add(1, Ordering::Relaxed);
            });
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        while over.load(Ordering::Relaxed) < 4 && Instant::now() < deadline {
            pids.extend(stage.service().pid());
            thread::sleep(Duration::from_millis(5));
        }
    });
    assert!(pids.len() > 1, "it ended and came back: {pids:?}");
    eventually("the last one ends too", || services(&stage).is_empty());
    assert!(!stage.service().socket.exists());
}

#[test]
fn what_a_service_left_behind_does_not_matter() {
    let Some(stage) = Stage::new() else { return };
    keep_a_network(&stage);
    let socket = stage.service().socket;
    stage.service().end();
    // Killed, it left its socket and its lock.
    assert!(socket.exists() && socket.with_extension("sock.lock").exists());
    let (status, _, stderr) = output(&mut look(&stage));
    assert_eq!(status, Some(0), "{stderr}");
    stage.service().end();
    fs::remove_file(&socket).unwrap();
    fs::write(&socket, "not ours").unwrap();
    give(&socket);
    for command in [&mut look(&stage), stage.vmnet().arg("daemon")] {
        let (status, _, stderr) = output(command);
        assert_eq!(status, Some(1), "{stderr}");
        for word in [&*socket.to_string_lossy(), "VMNET_SOCKET"] {
            assert!(stderr.contains(word), "{stderr}");
        }
    }
    assert_eq!(fs::read_to_string(&socket).unwrap(), "not ours");
}

#[test]
fn a_folder_that_others_may_write_to_is_not_trusted() {
    let Some(stage) = Stage::new() else { return };
    let folder = stage.path().join("run/vmnet");
    fs::create_dir_all(&folder).unwrap();
    give(&folder);
    fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
    for words in [&["network", "create", "x"][..], &["daemon"], &["status"]] {
        let (status, _, stderr) = output(stage.vmnet().env_remove("VMNET_SOCKET").args(words));
        assert_eq!(status, Some(1), "{words:?}: {stderr}");
        assert!(
            stderr.contains("run/vmnet") && stderr.contains("open to others"),
            "{stderr}"
        );
    }
}

#[test]
fn a_look_makes_nothing_and_a_start_makes_a_socket_closed_to_others() {
    let Some(stage) = Stage::new() else { return };
    let folder = stage.path().join("run/vmnet");
    // The stage's own trial has made it: `vmnet run` covers it.
    let _gone = fs::remove_dir(&folder);
    let mut command = stage.vmnet();
    let (status, _, stderr) = output(command.env_remove("VMNET_SOCKET").arg("status"));
    assert_eq!(status, Some(0), "{stderr}");
    assert!(!folder.exists(), "it made the folder of the socket");
    keep_a_network(&stage);
    let about = fs::metadata(stage.service().socket).unwrap();
    assert_eq!(about.permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_relative_socket_is_refused() {
    let Some(stage) = Stage::new() else { return };
    for words in [&["network", "create", "x"][..], &["daemon"], &["status"]] {
        let (status, _, stderr) = output(stage.vmnet().env("VMNET_SOCKET", "q2.sock").args(words));
        assert_eq!(status, Some(1), "{words:?}: {stderr}");
        assert!(
            stderr.contains("VMNET_SOCKET is q2.sock"),
            "{words:?}: {stderr}"
        );
    }
}

#[test]
fn it_ends_when_idle_and_not_while_somebody_is_connected() {
    let Some(stage) = Stage::new() else { return };
    let daemon = daemon(&stage, &["--idle-timeout", "1s"]);
    let pid = daemon.pid();
    stage.service().ask(move |client| {
        thread::sleep(Duration::from_millis(2500));
        assert_eq!(client.status().unwrap().pid, u32::try_from(pid).unwrap());
    });
    let asked = Instant::now();
    assert_eq!(ending(daemon).0, Some(0));
    assert!(
        asked.elapsed() > Duration::from_millis(800),
        "{:?}",
        asked.elapsed()
    );
    assert!(!stage.service().socket.exists());
}

#[test]
fn a_signal_ends_it_cleanly() {
    let Some(stage) = Stage::new() else { return };
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let daemon = daemon(&stage, &[]);
        let (status, _, stderr) = output(stage.vmnet().arg("daemon"));
        assert_eq!(status, Some(1), "{stderr}");
        assert!(
            stderr.contains("already") && stderr.contains("vmnet status"),
            "{stderr}"
        );
        daemon.kill(signal);
        assert_eq!(ending(daemon).0, Some(0), "{signal:?}");
        assert!(!stage.service().socket.exists());
    }
}

#[test]
fn a_service_does_not_remove_the_socket_of_another() {
    let Some(stage) = Stage::new() else { return };
    let first = daemon(&stage, &["--no-state"]);
    fs::remove_file(stage.service().socket).unwrap();
    let _second = daemon(&stage, &["--no-state"]);
    first.kill(Signal::TERM);
    assert_eq!(ending(first).0, Some(0));
    assert!(stage.service().pid().is_some());
}

#[test]
fn systemd_passes_the_socket_and_is_told() {
    let Some(stage) = Stage::new() else { return };
    let socket = stage.service().socket;
    let listener = UnixListener::bind(&socket).unwrap();
    let told = stage.sockets().join("notify");
    let manager = UnixDatagram::bind(&told).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    for path in [&socket, &told] {
        fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
    }
    let mut command = Command::new("sh");
    let script =
        "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" daemon --idle-timeout 1s";
    command.args(["-c", script]).arg(stage.program());
    stage.as_nobody(&mut command);
    command
        .env("NOTIFY_SOCKET", &told)
        .stdin(std::os::fd::OwnedFd::from(listener.try_clone().unwrap()));
    let daemon = Playing::start(&mut command);
    let mut message = [0; 256];
    let mut said = || {
        let length = manager.recv(&mut message).unwrap();
        text(&message[..length])
    };
    assert!(said().contains("READY=1"));
    assert_eq!(stage.service().pid(), Some(daemon.pid()));
    assert!(said().contains("STOPPING=1"));
    let (status, stderr) = ending(daemon);
    assert_eq!(status, Some(0), "{stderr}");
    // systemd listens on.
    assert!(socket.exists());
}

#[test]
fn two_services_do_not_share_a_store() {
    let Some(stage) = Stage::new() else { return };
    let _first = daemon(&stage, &[]);
    let other = stage.sockets().join("other.sock");
    let (status, _, stderr) = output(stage.vmnet().env("VMNET_SOCKET", &other).arg("daemon"));
    assert_eq!(status, Some(1), "{stderr}");
    assert!(
        stderr.contains("state/vmnet") && stderr.contains("in use"),
        "{stderr}"
    );
    assert!(!other.exists());
    // A client that starts one is told where the reason stands.
    let mut client = stage.vmnet();
    client
        .env("VMNET_SOCKET", &other)
        .args(["network", "create", "x"]);
    let (status, _, stderr) = output(&mut client);
    assert_eq!(status, Some(1), "{stderr}");
    assert!(stderr.contains("daemon.log"), "{stderr}");
    assert!(log(&stage).contains("in use by another"), "{}", log(&stage));
}

#[test]
fn a_store_that_is_damaged_is_set_aside() {
    let Some(stage) = Stage::new() else { return };
    keep_a_network(&stage);
    stage.service().end();
    let folder = stage.path().join("state/vmnet");
    let store = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("store")
        })
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap();
    fs::write(&store, vec![0x5a; 70_000]).unwrap();
    let (status, stdout, stderr) = output(&mut look(&stage));
    assert_eq!(status, Some(0), "{stderr}");
    assert!(!stdout.contains("kept"), "{stdout}");
    let said = log(&stage);
    assert!(
        said.contains("damaged") && said.contains("kept as"),
        "{said}"
    );
    keep_a_network(&stage);
    // Who looks hears of it, until the file that was set aside is removed.
    for verb in [
        &["network", "list"][..],
        &["status"],
        &["network", "list", "--json"],
    ] {
        let (status, _, stderr) = output(stage.vmnet().args(verb));
        assert_eq!(status, Some(0), "{stderr}");
        assert!(stderr.contains("the store was damaged"), "{stderr}");
        assert!(stderr.contains("store.redb.corrupt-"), "{stderr}");
    }
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.display().to_string().contains("corrupt") {
            fs::remove_file(path).unwrap();
        }
    }
    let (_, stdout, stderr) = output(&mut look(&stage));
    assert_eq!(stderr, "");
    assert!(stdout.contains("kept"), "{stdout}");
}

#[test]
fn a_socket_with_too_long_a_path_is_refused_in_words() {
    let Some(stage) = Stage::new() else { return };
    let long = format!("/tmp/{}/vmnet.sock", "long".repeat(30));
    for verb in [
        &["network", "create", "x"][..],
        &["daemon"],
        &["network", "list"],
    ] {
        let (status, _, stderr) = output(stage.vmnet().env("VMNET_SOCKET", &long).args(verb));
        assert_eq!(status, Some(1), "{stderr}");
        assert!(stderr.contains("too long for a socket"), "{stderr}");
        assert!(stderr.contains("let VMNET_SOCKET name"), "{stderr}");
    }
}

#[test]
fn networks_of_the_configuration_file_are_there() {
    let Some(stage) = Stage::new() else { return };
    configure(
        &stage,
        "[networks.dev]\nsubnet = \"10.213.61.0/24\"\nmtu = 1400\n",
    );
    let (status, stdout, stderr) = output(&mut look(&stage));
    assert_eq!(status, Some(0), "{stderr}");
    assert!(
        stdout.contains("dev") && stdout.contains("10.213.61.0/24"),
        "{stdout}"
    );
    let (status, _, stderr) = output(stage.vmnet().args(["network", "delete", "dev"]));
    assert_eq!(status, Some(1));
    assert!(stderr.contains("configuration file"), "{stderr}");
}

#[test]
fn a_configuration_that_cannot_be_followed_is_said_to_whoever_starts_the_service() {
    let Some(stage) = Stage::new() else { return };
    for (content, words) in [
        ("[networks.dev\n", &["vmnet.toml:1: "][..]),
        ("[daemon]\nidle = 3\n", &["vmnet.toml:2: ", "idle"]),
        (
            "[networks.dev]\nmtuu = 3\n",
            &["vmnet.toml:2: ", "dev", "mtuu"],
        ),
        (
            "\n[networks.dev]\nmtu = 3\n",
            &["vmnet.toml:2: network dev", "576"],
        ),
        (
            "[networks.dev]\nmtu = 99999\n",
            &["vmnet.toml:2: ", "99999 is out of range"],
        ),
        (
            "[networks.dev]\nsubnet = \"10.0.0.0\"\n",
            &["dev", "ADDRESS/LENGTH"],
        ),
    ] {
        let file = configure(&stage, content);
        let (status, _, stderr) = output(stage.vmnet().arg("daemon"));
        assert_eq!(status, Some(1), "{content}: {stderr}");
        for word in words {
            assert!(stderr.contains(word), "{content}: {stderr}");
        }
        assert!(!stage.service().socket.exists());
        // Found in the usual place, and where it is said to be.
        let began = Instant::now();
        let (status, _, stderr) = output(
            stage
                .vmnet()
                .env("VMNET_CONFIG", &file)
                .args(["network", "create", "x"]),
        );
        assert_eq!(status, Some(1), "{content}");
        assert!(stderr.contains("daemon.log"), "{content}: {stderr}");
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{:?}",
            began.elapsed()
        );
        for word in words {
            assert!(log(&stage).contains(word), "{content}: {}", log(&stage));
        }
        eventually("it is gone", || services(&stage).is_empty());
        // Who looks whether all is well is told, too, if it shows in the file alone.
        if !words.contains(&"576") && !words.contains(&"ADDRESS/LENGTH") {
            assert!(is_said_beforehand(&stage, words), "{content}");
        }
    }
    let named: [&mut dyn FnMut(&mut Command); 2] = [
        &mut |command| {
            command.args(["--config", "/nowhere/vmnet.toml"]);
        },
        &mut |command| {
            command.env("VMNET_CONFIG", "/nowhere/vmnet.toml");
        },
    ];
    for name in named {
        let mut command = stage.vmnet();
        name(command.arg("daemon"));
        let (status, _, stderr) = output(&mut command);
        assert_eq!(status, Some(1));
        let why = "configuration file /nowhere/vmnet.toml: there is no such file";
        assert!(stderr.contains(why), "{stderr}");
    }
}

/// Whether `status` and `doctor` say why the service, which does not run, could not be started.
fn is_said_beforehand(stage: &Stage, words: &[&str]) -> bool {
    let all = |text: &str| words.iter().all(|word| text.contains(word));
    let (status, stdout, stderr) = output(stage.vmnet().arg("status"));
    assert_eq!(status, Some(0), "{stderr}");
    let (_, found, _) = output(stage.vmnet().args(["doctor", "--json"]));
    let doubted = stdout.contains("cannot be started") && found.contains("cannot be started");
    doubted && all(&stdout) && all(&found)
}

#[test]
fn what_keeps_the_service_from_starting_is_known_beforehand() {
    let Some(stage) = Stage::new() else { return };
    assert!(!is_said_beforehand(&stage, &[]));
    let socket = stage.service().socket.clone();
    let folder = socket.parent().unwrap().to_owned();
    fs::create_dir_all(&folder).unwrap();
    give(&folder);
    fs::set_permissions(&folder, Permissions::from_mode(0o500)).unwrap();
    assert!(is_said_beforehand(&stage, &["ermission denied"]));
    fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
    fs::write(&socket, "").unwrap();
    give(&socket);
    assert!(is_said_beforehand(&stage, &["is no socket"]));
    fs::remove_file(&socket).unwrap();
    let state = stage.path().join("state");
    fs::set_permissions(&state, Permissions::from_mode(0o500)).unwrap();
    assert!(is_said_beforehand(&stage, &["state", "ermission denied"]));
    fs::set_permissions(&state, Permissions::from_mode(0o700)).unwrap();
    assert!(!is_said_beforehand(&stage, &[]));
}

#[test]
fn a_service_that_cannot_write_its_state_says_so() {
    let Some(stage) = Stage::new() else { return };
    let state = stage.path().join("state");
    fs::set_permissions(&state, Permissions::from_mode(0o500)).unwrap();
    let (status, _, stderr) = output(stage.vmnet().args(["network", "create", "dev"]));
    assert_eq!(status, Some(1), "{stderr}");
    assert!(stderr.contains("ended at once: "), "{stderr}");
    assert!(stderr.contains("ermission denied"), "{stderr}");
}
