//! `vmnet run`: the life of a command, without a network behind its interface.

mod stage;

use rustix::process::Signal;
use stage::{Playing, Stage, eventually, output, processes_with, skip};
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

#[test]
fn the_exit_status_passes_through() {
    let Some(stage) = Stage::new() else { return };
    for status in [0, 1, 7, 125, 255] {
        assert_eq!(
            output(&mut stage.script(&format!("exit {status}"))).0,
            Some(status)
        );
    }
    let ended = stage.script("kill -USR1 $$").status().unwrap();
    assert_eq!(ended.signal(), Some(Signal::USR1.as_raw()));
    let ended = stage.script("kill -KILL $$").status().unwrap();
    assert_eq!(ended.signal(), Some(Signal::KILL.as_raw()));
}

#[test]
fn what_cannot_be_executed_is_told_apart() {
    let Some(stage) = Stage::new() else { return };
    let (status, _, error) = output(&mut stage.run(["--no-dhcp"], ["no-such-command-here"]));
    assert_eq!(status, Some(127), "{error}");
    assert!(
        error.contains("no-such-command-here: command not found"),
        "{error}"
    );
    let (status, _, error) = output(&mut stage.run(["--no-dhcp"], ["/etc/passwd"]));
    assert_eq!(status, Some(126), "{error}");
    assert!(error.contains("/etc/passwd"), "{error}");
}

#[test]
fn the_command_is_who_the_caller_is_and_can_do_nothing_more() {
    let Some(stage) = Stage::new() else { return };
    let script = "id -u; id -g; grep -h ^Cap /proc/self/status; pwd; cat";
    let mut command = stage.script(script);
    let mut child = command
        .current_dir("/usr")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"through stdin")
        .unwrap();
    let text = stage::text(&child.wait_with_output().unwrap().stdout);
    let (uid, gid) = if stage::is_superuser() {
        (65534, 65534)
    } else {
        (
            rustix::process::getuid().as_raw(),
            rustix::process::getgid().as_raw(),
        )
    };
    assert!(text.starts_with(&format!("{uid}\n{gid}\n")), "{text}");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert!(
            text.contains(&format!("{set}:\t0000000000000000\n")),
            "{text}"
        );
    }
    assert!(text.ends_with("/usr\nthrough stdin"), "{text}");
}

#[test]
fn a_program_whose_file_has_capabilities_runs() {
    let Some(stage) = Stage::new() else { return };
    let missing = |program: &str| Command::new(program).arg("-V").output().is_err();
    if missing("ping") {
        return skip("there is no ping(8)");
    }
    // Debian gives the file cap_net_raw: without it in the bounding set there is no exec.
    let ping = ["ping", "-c1", "-W5", "192.168.99.1"];
    let (status, text, error) = output(&mut stage.run(["--subnet", "192.168.99.0/24"], ping));
    assert_eq!(status, Some(0), "{text}{error}");
    assert!(text.contains("1 received"), "{text}");
}

#[test]
fn the_superuser_gets_no_capabilities_either() {
    let Some(stage) = Stage::new() else { return };
    if !stage::is_superuser() {
        return skip("not the superuser");
    }
    let mut command = Command::new(stage.program());
    command.args([
        "run",
        "--no-dhcp",
        "--",
        "sh",
        "-c",
        "id -u; grep ^CapEff /proc/self/status; stat -c %u /etc/passwd",
    ]);
    let (status, text, error) = output(&mut command);
    assert_eq!(
        (status, text.as_str()),
        (Some(0), "0\nCapEff:\t0000000000000000\n0\n"),
        "{error}"
    );
}

#[test]
fn root_has_power_over_its_own_network_only() {
    let Some(stage) = Stage::new() else { return };
    let script = "id -u; ip link set eth0 mtu 1400 && ip -o link show eth0; hostname nothing-of-yours 2>&1 >/dev/null; mount -t tmpfs x /mnt && echo mounted";
    let (status, text, error) =
        output(&mut stage.run(["--no-dhcp", "--root"], ["sh", "-c", script]));
    assert_eq!(status, Some(0), "{error}");
    assert!(
        text.starts_with("0\n") && text.contains("mtu 1400") && text.contains("mounted"),
        "{text}{error}"
    );
    let (status, _, _) = output(&mut stage.script("ip link set eth0 mtu 1400 2>/dev/null"));
    assert_ne!(status, Some(0), "without --root");
}

#[test]
fn the_namespace_is_as_promised() {
    let Some(stage) = Stage::new() else { return };
    let script = "hostname; cat /etc/resolv.conf; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; \
                  cat /proc/sys/net/ipv4/ping_group_range; cat /sys/class/net/lo/operstate; echo $$; \
                  ip -o link show lo | grep -c LOOPBACK,UP; ip -o link show eth0";
    let (status, text, error) = output(&mut stage.run(
        ["--no-dhcp", "--name", "Web", "--mtu", "9000"],
        ["sh", "-c", script],
    ));
    assert_eq!(status, Some(0), "{error}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..3], ["web", "# No lease yet.", "0"], "{text}");
    let range: Vec<u32> = lines[3]
        .split_whitespace()
        .map(|word| word.parse().unwrap())
        .collect();
    let group = if stage::is_superuser() {
        65534
    } else {
        rustix::process::getgid().as_raw()
    };
    assert!((range[0]..=range[1]).contains(&group), "{range:?}");
    assert_eq!(lines[6], "1", "the loopback is not up");
    assert!(
        lines[5].parse::<u32>().unwrap() < 10,
        "no pid namespace: {}",
        lines[5]
    );
    assert!(
        lines[7].contains("mtu 9000") && lines[7].contains("qlen 4096"),
        "{}",
        lines[7]
    );
}

#[test]
fn a_name_keeps_its_mac() {
    let Some(stage) = Stage::new() else { return };
    let mac = |name: &str| {
        let (_, text, _) = output(&mut stage.run(
            ["--no-dhcp", "--name", name],
            ["cat", "/sys/class/net/eth0/address"],
        ));
        let (_, link, _) = output(&mut stage.run(
            ["--no-dhcp", "--name", name],
            ["ip", "-o", "link", "show", "eth0"],
        ));
        (
            text,
            link.split("link/ether ")
                .nth(1)
                .map(|rest| rest[..17].to_owned()),
        )
    };
    let (web, db) = (mac("web").1.unwrap(), mac("db").1.unwrap());
    assert_eq!(mac("web").1.unwrap(), web);
    assert_ne!(web, db);
    let given = ["--no-dhcp", "--mac", "02:00:00:00:00:09"];
    let (_, link, _) = output(&mut stage.run(given, ["ip", "-o", "link", "show", "eth0"]));
    assert!(link.contains("02:00:00:00:00:09"), "{link}");
}

#[test]
fn signals_reach_the_command_once() {
    let Some(stage) = Stage::new() else { return };
    let script = "trap 'echo term' TERM; trap 'echo hup' HUP; trap 'echo int' INT; trap 'echo usr1; exit 9' USR1; \
                  echo ready; while :; do sleep 0.05; done";
    let mut playing = Playing::start(&mut stage.script(script));
    assert_eq!(playing.line(), "ready");
    for (signal, word) in [
        (Signal::TERM, "term"),
        (Signal::HUP, "hup"),
        (Signal::INT, "int"),
        (Signal::USR1, "usr1"),
    ] {
        playing.kill(signal);
        assert_eq!(playing.line(), word);
    }
    assert_eq!(playing.0.wait().unwrap().code(), Some(9));
}

#[test]
fn nothing_is_left_when_the_command_ends() {
    let Some(stage) = Stage::new() else { return };
    let mark = format!("{}", stage.path().join("daemon").display());
    let script = format!("setsid sh -c 'sleep 1000; : {mark}' >/dev/null 2>&1 & sleep 0.1; exit 3");
    assert_eq!(output(&mut stage.script(&script)).0, Some(3));
    assert_eq!(processes_with(&mark), [0; 0]);
}

#[test]
fn nothing_is_left_after_kill_9() {
    let Some(stage) = Stage::new() else { return };
    let mark = format!("{}", stage.path().join("daemon").display());
    let script =
        format!("setsid sh -c 'sleep 1000; : {mark}' >/dev/null 2>&1 & echo ready; sleep 1000");
    let mut playing = Playing::start(&mut stage.script(&script));
    assert_eq!(playing.line(), "ready");
    eventually("the daemon is there", || processes_with(&mark).len() >= 3);
    playing.kill(Signal::KILL);
    playing.0.wait().unwrap();
    eventually("all are gone", || processes_with(&mark).is_empty());
}

#[test]
fn the_reader_of_a_pipe_sees_when_the_command_closes_it() {
    let Some(stage) = Stage::new() else { return };
    let mut playing = Playing::start(&mut stage.script("echo one; exec >&-; sleep 1000"));
    assert_eq!(playing.line(), "one");
    // Would wait for ever if vmnet held the pipe too.
    assert_eq!(playing.line(), "");
}

/// Types into a terminal that a shell runs in; answers what was shown.
fn terminal(stage: &Stage, keys: &[(&str, u64)]) -> Option<String> {
    if Command::new("script").arg("--version").output().is_err() {
        skip("there is no script(1)");
        return None;
    }
    let mut command = Command::new("script");
    stage.as_nobody(&mut command);
    command
        .args(["-qec", "bash --norc -i", "/dev/null"])
        .env("PS1", "> ");
    let mut playing = Playing::start(command.stdin(Stdio::piped()));
    let mut input = playing.0.stdin.take().unwrap();
    for (text, pause) in keys {
        input.write_all(text.as_bytes()).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(*pause));
    }
    drop(input);
    let mut shown = String::new();
    std::io::Read::read_to_string(playing.0.stdout.as_mut().unwrap(), &mut shown).unwrap();
    Some(shown)
}

#[test]
fn ctrl_c_arrives_once() {
    let Some(stage) = Stage::new() else { return };
    let vmnet = stage.program();
    let line = format!(
        "{} run --no-dhcp -- sh -c 'trap \"echo caught o$((1-1))ce\" INT; sleep 2; sleep 1'; echo ended with $?\n",
        vmnet.display()
    );
    let keys = [(line.as_str(), 1000), ("\x03", 2000), ("exit\n", 300)];
    let Some(shown) = terminal(&stage, &keys) else {
        return;
    };
    assert_eq!(shown.matches("caught o0ce").count(), 1, "{shown}");
    assert!(shown.contains("ended with 0"), "{shown}");
}

#[test]
fn ctrl_z_stops_and_the_shell_goes_on() {
    let Some(stage) = Stage::new() else { return };
    let vmnet = stage.program();
    let line = format!(
        "{} run --no-dhcp -- sh -c 'sleep 1; echo wo\"\"ke; sleep 50'\n",
        vmnet.display()
    );
    let keys = [
        (line.as_str(), 500),
        ("\x1a", 500),
        ("echo shell is ba\"\"ck; jobs\n", 1500),
        ("fg\n", 1500),
        ("\x03", 500),
        ("echo sta\"\"tus $?\n", 300),
        ("exit\n", 300),
    ];
    let Some(shown) = terminal(&stage, &keys) else {
        return;
    };
    assert!(
        shown.contains("shell is back") && shown.contains("Stopped"),
        "{shown}"
    );
    let (before, after) = shown.split_once("shell is back").unwrap();
    assert!(
        !before.contains("woke") && after.contains("woke"),
        "{shown}"
    );
    assert!(after.contains("status 130"), "{shown}");
}

#[test]
fn a_taken_port_is_refused_with_the_remedy() {
    let Some(stage) = Stage::new() else { return };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!("127.0.0.1:{}:80", listener.local_addr().unwrap().port());
    let (status, _, error) = output(&mut stage.run(["--no-dhcp", "-p", port.as_str()], ["true"]));
    assert_eq!(status, Some(125), "{error}");
    assert!(
        error.contains("another program listens there") && error.contains("ss -lnp"),
        "{error}"
    );
}

#[test]
fn a_subnet_of_the_host_is_refused_by_its_interface() {
    let Some(stage) = Stage::new() else { return };
    // Inside a namespace of our own, where an address is set for the purpose.
    let vmnet = stage.program().display().to_string();
    let script = format!(
        "ip addr add 10.77.0.1/24 dev eth0; {vmnet} run --no-dhcp --subnet 10.77.0.0/25 -- true; echo $?; \
         ip addr add 192.168.64.9/24 dev eth0; {vmnet} -v run --no-dhcp -- true"
    );
    let (status, text, error) =
        output(&mut stage.run(["--no-dhcp", "--root"], ["sh", "-c", &script]));
    assert_eq!((status, text.as_str()), (Some(0), "125\n"), "{error}");
    assert!(
        error.contains("10.77.0.0/25 is taken") && error.contains("interface eth0"),
        "{error}"
    );
    assert!(error.contains("192.168.65.0/24"), "{error}");
}

#[test]
fn closed_user_namespaces_are_named() {
    let Some(stage) = Stage::new() else { return };
    // The setting is per user namespace: inside one of ours it may be closed.
    let vmnet = stage.program().display().to_string();
    let script =
        format!("echo 0 > /proc/sys/user/max_user_namespaces && {vmnet} run --no-dhcp -- true");
    let (status, _, error) = output(&mut stage.run(["--no-dhcp", "--root"], ["sh", "-c", &script]));
    assert_eq!(status, Some(125), "{error}");
    assert!(
        error.contains("sysctl user.max_user_namespaces=15000"),
        "{error}"
    );
}

#[test]
fn a_user_with_too_many_processes_is_told_so() {
    let Some(stage) = Stage::new() else { return };
    // A number that nobody else has processes of, and one of its own.
    let words = [
        "--nproc=1",
        "--",
        "setpriv",
        "--reuid=64999",
        "--clear-groups",
    ];
    let mut command = Command::new("prlimit");
    command.args(words).arg(stage.program());
    command.args(["run", "--", "true"]).current_dir("/");
    if !stage::is_superuser() {
        return skip("needs root to be another user");
    }
    let (code, _, error) = output(&mut command);
    assert_eq!(code, Some(125), "{error}");
    assert!(error.contains("as many processes as it may"), "{error}");
    assert!(!error.contains("policy"), "{error}");
}

#[test]
fn a_qemu_that_is_not_there_is_all_that_is_said() {
    let Some(stage) = Stage::new() else { return };
    for name in ["no-such-qemu", "./no-such-qemu", "/nowhere/qemu"] {
        let (code, _, error) = output(stage.vmnet().args(["qemu", "--", name]));
        assert_eq!(code, Some(127), "{error}");
        assert_eq!(error, format!("vmnet: {name}: command not found\n"));
    }
}

#[test]
fn a_gateway_is_where_its_subnet_says() {
    let Some(stage) = Stage::new() else { return };
    for (subnet, gateway) in [("10.98.0.4/30", "10.98.0.5"), ("10.98.0.6/30", "10.98.0.6")] {
        let mut command = stage.run(["--subnet", subnet], ["ip", "-4", "route"]);
        let (code, text, error) = output(&mut command);
        assert_eq!(code, Some(0), "{error}");
        let route = format!("default via {gateway} ");
        assert!(text.contains(&route), "{text}");
    }
}

#[test]
fn a_replaced_resolver_file_stays_covered() {
    let Some(stage) = Stage::new() else { return };
    if !stage::is_superuser() {
        return skip("only the superuser has an /etc of its own to replace files in");
    }
    // An outer mount namespace plays the host, with an /etc/resolv.conf that is replaced by rename.
    let vmnet = stage.program().display().to_string();
    let etc = stage.path().join("etc");
    let script = format!(
        "set -e; mkdir {etc}; cp -a /etc/. {etc}; mount --bind {etc} /etc; rm -f /etc/resolv.conf; echo host1 > /etc/resolv.conf
         until_is() {{ until [ -e {marks}/$1 ]; do sleep 0.02; done; }}
         inside='cat /etc/resolv.conf; : > {marks}/begun1; until [ -e {marks}/moved1 ]; do sleep 0.02; done; sleep 1; cat /etc/resolv.conf'
         {vmnet} run --no-dhcp -- sh -c \"$inside\" &
         until_is begun1; echo host2 > /etc/new; mv /etc/new /etc/resolv.conf; cat /etc/resolv.conf; : > {marks}/moved1; wait
         inside=': > {marks}/begun2; until [ -e {marks}/moved2 ]; do sleep 0.02; done; sleep 3; cat /etc/resolv.conf'
         {vmnet} run --no-dhcp -- sh -c \"$inside\" &
         until_is begun2; rm /etc/resolv.conf; sleep 0.5; echo host3 > /etc/resolv.conf; cat /etc/resolv.conf; : > {marks}/moved2; wait",
        marks = stage.path().display(),
        etc = etc.display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]);
    let (status, text, error) = output(&mut command);
    assert_eq!(
        (status, text.as_str()),
        (
            Some(0),
            "# No lease yet.\nhost2\n# No lease yet.\nhost3\n# No lease yet.\n"
        ),
        "{error}"
    );
}

#[test]
fn a_resolver_file_that_leads_to_run_is_covered() {
    let Some(stage) = Stage::new() else { return };
    if !stage::is_superuser() {
        return skip("only the superuser has an /etc of its own to replace files in");
    }
    let vmnet = stage.program().display().to_string();
    let etc = stage.path().join("etc");
    let script = format!(
        "set -e; mkdir {etc}; cp -a /etc/. {etc}; mount --bind {etc} /etc; mount -t tmpfs x /run
         mkdir -p /run/systemd/resolve; echo host > /run/systemd/resolve/stub-resolv.conf
         ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
         {vmnet} run --no-dhcp -- sh -c 'cat /etc/resolv.conf; ls /run/systemd/resolve; sleep 1; cat /etc/resolv.conf' &
         sleep 0.5; echo host2 > /run/new; mv /run/new /run/systemd/resolve/stub-resolv.conf; wait; cat /etc/resolv.conf",
        etc = etc.display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]);
    let (status, text, error) = output(&mut command);
    let expected = "# No lease yet.\nstub-resolv.conf\n# No lease yet.\nhost2\n";
    assert_eq!((status, text.as_str()), (Some(0), expected), "{error}");
}

#[test]
fn a_host_that_hides_parts_of_proc_is_good_enough() {
    let Some(stage) = Stage::new() else { return };
    // As containers do: the kernel then refuses a fresh /proc to those inside.
    let vmnet = stage.program().display().to_string();
    let script = format!(
        "mount -t tmpfs x /proc/fs && {vmnet} -vv run --no-dhcp -- sh -c 'cat /etc/resolv.conf; test -d /proc/1'"
    );
    let words = ["sh", "-c", script.as_str()];
    let (status, text, error) = output(&mut stage.run(["--no-dhcp", "--root"], words));
    assert_eq!(
        (status, text.as_str()),
        (Some(0), "# No lease yet.\n"),
        "{error}"
    );
    assert!(error.contains("refuses a fresh /proc"), "{error}");
}

#[test]
fn a_missing_or_closed_tun_device_is_named_with_the_remedy() {
    let Some(stage) = Stage::new() else { return };
    if !stage::is_superuser() {
        return skip("only the superuser can hide /dev/net/tun");
    }
    let vmnet = stage.program().display().to_string();
    let run =
        format!("setpriv --reuid=65534 --regid=65534 --clear-groups {vmnet} run --no-dhcp -- true");
    for (device, remedy) in [
        (":", "modprobe tun"),
        (
            "mknod -m 0600 /dev/net/tun c 10 200",
            "chmod 0666 /dev/net/tun",
        ),
    ] {
        let script = format!("mount -t tmpfs -o mode=755,dev x /dev/net && {device} && {run}");
        let (status, _, error) =
            output(Command::new("unshare").args(["--mount", "sh", "-c", &script]));
        assert_eq!(status, Some(125), "{error}");
        assert!(error.contains(remedy), "{error}");
    }
}
