//! The service is killed, and its guests do not notice: they keep address and MAC, and open new connections within a second.

mod asking;

use asking::Service;
use std::time::{Duration, Instant};
use vmnet_lab::prerequisite::Prerequisite;
use vmnet_lab::process::Process;
use vmnet_lab::qemu::{Guest, Machine, Netdev};
use vmnet_lab::stage::Stage;

const NEEDS: [Prerequisite; 3] = [
    Prerequisite::GuestKernel,
    Prerequisite::Program("qemu-system-x86_64"),
    Prerequisite::Program("busybox"),
];
const SOON: Duration = Duration::from_secs(30);
/// What is promised.
const WITHIN: Duration = Duration::from_secs(1);
/// What a test may take for it on a machine that builds something meanwhile.
const AT_MOST: Duration = Duration::from_secs(5);

fn service_of(stage: &Stage) -> Service<'_> {
    Service(stage)
}

/// Kills the service; answers when. Nobody but its guests starts another.
fn kill(service: Service<'_>) -> Instant {
    let killed = service.kill();
    let now = Instant::now();
    println!("killed {killed}");
    now
}

fn must_be_soon(what: &str, since: Instant) {
    let took = since.elapsed();
    println!("{what} after {took:?}");
    assert!(took < AT_MOST, "{what} after {took:?}");
    if took > WITHIN {
        eprintln!("{what}: later than the promised {WITHIN:?}; is the machine busy?");
    }
}

/// A connection from outside to a forwarded port.
fn reach(stage: &Stage, at: &str) -> bool {
    let at = at.parse().expect("an address");
    stage.world.outside().enter(move || {
        use std::io::{Read as _, Write as _};
        let quarter = Duration::from_millis(250);
        let ask = || {
            let mut stream = std::net::TcpStream::connect_timeout(&at, quarter)?;
            stream.set_read_timeout(Some(quarter))?;
            stream.write_all(b"GET /pattern/1 HTTP/1.0\r\n\r\n")?;
            let mut answer = [0; 4];
            stream.read_exact(&mut answer)?;
            std::io::Result::Ok(answer == *b"HTTP")
        };
        ask().unwrap_or(false)
    })
}

#[test]
fn a_command_keeps_its_address_and_connects_again() {
    let Some(stage) = Stage::new(env!("CARGO_BIN_EXE_vmnet"), &[]) else {
        return;
    };
    let service = service_of(&stage);
    // Says its address, then connects whenever it is told to, trying for a while, and says it again.
    let script = format!(
        "address() {{ ip -4 -o address show dev eth0 | sed 's,.*inet \\([0-9.]*\\)/.*,\\1,'; ip -o link show dev eth0 | sed 's,.*ether \\([^ ]*\\) .*,\\1,'; }}
         address; echo ready
         while read -r line; do
             until timeout 0.5 {0} at-once 198.51.100.1:7 1 >/dev/null 2>&1; do :; done
             echo connected; address
         done",
        stage.client_path()
    );
    let options = ["--network", "dev", "--name", "web", "-p", "8080:80"];
    let mut guest = Process::spawn(stage.shell(&options, &script));
    let before = guest.wait_for_output("ready", SOON, |text| {
        Some(text.split_once("ready")?.0.to_owned())
    });
    let lease = service.leases("dev");
    for round in 1..=3 {
        let since = kill(service);
        guest.write_line("go");
        let seen = guest.wait_for_output("connected", SOON, |text| {
            let said = text.split("connected\n").nth(round)?.to_owned();
            (said.lines().count() == 2).then_some(said)
        });
        must_be_soon("a new connection", since);
        assert_eq!(seen, before, "address and MAC stay");
        let again = service.leases("dev");
        assert_eq!(again.len(), 1, "{again:?}");
        assert_eq!(again[0].address, lease[0].address);
        assert_eq!(again[0].mac, lease[0].mac);
        assert_eq!(service.interfaces("dev").len(), 1);
        let forwards = service.forwards("dev");
        assert_eq!(forwards.len(), 1, "{forwards:?}");
    }
    let said = guest.stderr();
    assert_eq!(said.matches("joining dev again").count(), 3, "{said}");
    // The service was started by a thread that has signals blocked, and hears them all the same.
    let ended = service.terminate();
    let gone = Instant::now() + SOON;
    while service.pid() == Some(ended) {
        assert!(Instant::now() < gone, "the service does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_machine_keeps_its_address_and_connects_again() {
    let Some(stage) = Stage::new(env!("CARGO_BIN_EXE_vmnet"), &NEEDS) else {
        return;
    };
    let service = service_of(&stage);
    let machine = Machine::new(&stage.world);
    let mut command = stage.vmnet(&[
        "qemu",
        "--network",
        "dev",
        "--name",
        "web",
        "-p",
        "8080:80",
        "--",
    ]);
    command.arg("qemu-system-x86_64");
    command.args(machine.arguments(&Netdev::Absent, 1));
    let mut guest = Guest::wait_for(command);
    let address = guest.lease("web");
    guest.must(
        "mkdir /www; echo hello >/www/index.html; httpd -p 80 -h /www",
        SOON,
    );
    let gateway = guest.must(
        "ip route | sed -n 's/^default via \\([0-9.]*\\).*/\\1/p'",
        SOON,
    );
    assert!(reach(&stage, "198.51.100.2:8080"));
    let mac = service.interfaces("dev")[0].mac.clone();
    // Idle, and in the middle of a transfer that fills the socket.
    for busy in [false, true] {
        if busy {
            guest.must(
                "(wget -q -O /dev/null http://198.51.100.1/pattern/2000000000 &) ; sleep 1",
                SOON,
            );
        }
        let since = kill(service);
        guest.must(
            &format!("until ping -c 1 -W 1 {gateway} >/dev/null; do :; done"),
            SOON,
        );
        must_be_soon("the gateway answers", since);
        guest.must(
            "until timeout 2 wget -q -O /dev/null http://198.51.100.1/pattern/1; do :; done",
            SOON,
        );
        must_be_soon("HTTP outward", since);
        while !reach(&stage, "198.51.100.2:8080") {
            assert!(
                since.elapsed() < SOON,
                "the forwarded port does not come back"
            );
        }
        must_be_soon("HTTP inward by a forwarded port", since);
        let there = service.interfaces("dev");
        assert_eq!(there.len(), 1);
        assert_eq!(there[0].mac, mac);
        guest.must("killall wget 2>/dev/null || true", SOON);
    }
    // The lease is still ours: a new question gets the same answer.
    assert_eq!(guest.lease("web"), address);
    guest.power_off();
}
