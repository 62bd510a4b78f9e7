//! Two machines started from two shells on the network `dev`: they find each other by name, and a port of the host leads to
//! one of them.

mod asking;

use asking::Service;
use std::time::Duration;
use vmnet_lab::prerequisite::Prerequisite;
use vmnet_lab::qemu::{Guest, Machine, Netdev};
use vmnet_lab::stage::Stage;

const NEEDS: [Prerequisite; 3] = [
    Prerequisite::GuestKernel,
    Prerequisite::Program("qemu-system-x86_64"),
    Prerequisite::Program("busybox"),
];
const SOON: Duration = Duration::from_secs(30);

/// `vmnet qemu --network dev OPTIONS -- qemu-system-x86_64 ...`
fn boot(stage: &Stage, machine: &Machine, options: &[&str]) -> Guest {
    let words = [&["qemu", "--network", "dev"], options, &["--"]].concat();
    let mut command = stage.vmnet(&words);
    command.arg("qemu-system-x86_64");
    command.args(machine.arguments(&Netdev::Absent, 1));
    Guest::wait_for(command)
}

/// Asks a web server from outside; what it answered.
fn fetch(stage: &Stage, at: &str) -> Result<String, String> {
    let at = at.parse().expect("an address");
    stage.world.outside().enter(move || {
        use std::io::{Read as _, Write as _};
        let said = |error: std::io::Error| error.to_string();
        let second = Duration::from_secs(1);
        let mut stream = std::net::TcpStream::connect_timeout(&at, second).map_err(said)?;
        stream.set_read_timeout(Some(5 * second)).map_err(said)?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").map_err(said)?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map_err(said)?;
        Ok(text)
    })
}

#[test]
fn two_shells_meet_on_a_network() {
    let Some(stage) = Stage::new(env!("CARGO_BIN_EXE_vmnet"), &NEEDS) else {
        return;
    };
    let machine = Machine::new(&stage.world);
    let mut web = boot(&stage, &machine, &["--name", "web", "-p", "8080:80"]);
    let mut db = boot(&stage, &machine, &["--name", "db"]);
    assert_ne!(web.lease("web"), db.lease("db"));
    web.must("ping -c 3 -W 5 db.vmnet.internal", SOON);
    db.must("ping -c 3 -W 5 web.vmnet.internal", SOON);

    web.must(
        "mkdir /www; echo hello from web >/www/index.html; httpd -f -v -p 80 -h /www 2>/tmp/log & sleep 1",
        SOON,
    );
    let page = fetch(&stage, "198.51.100.2:8080").expect("a page");
    assert!(page.contains("hello from web"), "{page}");
    let log = web.must("cat /tmp/log", SOON);
    assert!(
        log.contains("198.51.100.1"),
        "the client's own address is in the log: {log}"
    );
    let page = db.must("wget -q -O - http://web.vmnet.internal/", SOON);
    assert_eq!(page, "hello from web");

    web.power_off();
    assert!(
        fetch(&stage, "198.51.100.2:8080").is_err(),
        "the port went with its guest"
    );
    db.power_off();
    let service = Service(&stage);
    assert!(service.interfaces("dev").is_empty());
    service.end();
    stage.wait_until_nothing_runs(SOON);
}
