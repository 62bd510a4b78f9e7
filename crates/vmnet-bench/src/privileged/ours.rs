//! The machine's service on a host of its own. On a network that the kernel carries the guest has the tap that `vmnet qemu`
//! gives to a virtual machine; on a bridged one, whose frames the service carries, its own tap is attached.

use super::host::{CARD, Host, MTU, Shape, Station};
use super::relay::{Core, INTERFACE, MAC};
use super::{Guest, Method, Network, relay};
use crate::control::Refusal;
use crate::namespace::Namespace;
use crate::options::Options;
use crate::path::{self, Instance};
use crate::process::Guarded;
use crate::sys;
use crate::testbed::Testbed;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use vmnet_linux::kernel::tap;
use vmnet_linux::sys::process::keep_over_exec;

const NETWORK: &str = "bench";
const PATIENCE: Duration = Duration::from_secs(10);
/// By then the service has looked through the host's rules a second time, as it does two seconds after they have changed, and the
/// kernel has taken away what was there before. Whoever has nothing of that waits as long.
const SETTLED: Duration = Duration::from_secs(3);

/// The network that guests are on behind their host.
pub(super) struct Behind;
pub(super) const BEHIND: Behind = Behind;

impl Behind {
    pub(super) fn v4(&self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 98, 0, last)
    }

    pub(super) fn v6(&self, last: u8) -> Ipv6Addr {
        Ipv6Addr::new(0xfd98, 1, 2, 3, 0, 0, 0, last.into())
    }
}

pub(super) fn start(
    name: &str,
    network: Network,
    testbed: &mut Testbed,
    options: &Options,
) -> Result<Guest, Refusal> {
    path::install_ours(testbed, options)?;
    let shape = match network {
        Network::Bridged(Method::Bridge) => Shape::Bridge,
        _ => Shape::Plain,
    };
    let host = Host::new(shape, testbed)?;
    let service = Service::start(name, network, &host.namespace, testbed)?;
    let subnet = format!("{}/24", BEHIND.v4(0));
    let prefix = format!("{}/64", BEHIND.v6(0));
    let how = match network {
        Network::Kernel => vec![
            "--datapath",
            "kernel",
            "--subnet",
            &subnet,
            "--ipv6-prefix",
            &prefix,
        ],
        Network::Bridged(method) => vec![
            "--mode",
            "bridged",
            "--interface",
            CARD,
            "--method",
            method.name(),
        ],
    };
    let words = [&["network", "create", NETWORK], how.as_slice()].concat();
    service.say(&words, &host.namespace)?;
    let inside = Namespace::new()?;
    let (command, tap) = match network {
        Network::Kernel => {
            let words = [
                "qemu",
                "--network",
                NETWORK,
                "--nic",
                "tap",
                "--mac",
                MAC,
                "--",
            ];
            let mut command = service.vmnet(&words);
            command
                .arg(testbed.program())
                .args(["relay", "--inside", &inside.path()]);
            (command, None)
        }
        Network::Bridged(_) => {
            let tap = own_tap(&inside)?;
            let number = tap.as_raw_fd().to_string();
            let words = ["attach", NETWORK, "--fd", &number, "--mac", MAC];
            (service.vmnet(&words), Some(tap))
        }
    };
    let client = testbed.start_as_root(relay::on(Core::Frames, &command), &host.namespace, name)?;
    drop(tap);
    let carries = match network {
        Network::Kernel => None,
        Network::Bridged(_) => Some(service.daemon.pid()),
    };
    let processes = vec![client, service.daemon];
    guest(name, network, (host, inside), carries, processes, testbed)
}

/// A tap in a namespace that the service is given.
fn own_tap(inside: &Namespace) -> Result<OwnedFd, Refusal> {
    let open = || -> Result<OwnedFd, String> {
        sys::enter(inside.as_fd()).map_err(|error| error.to_string())?;
        tap::open(INTERFACE).map_err(|error| error.to_string())
    };
    let opened = std::thread::scope(|scope| scope.spawn(open).join());
    let tap = opened.map_err(|_| "opening a tap panicked".to_owned())??;
    keep_over_exec(&tap).map_err(|error| error.to_string())?;
    Ok(tap)
}

/// The guest's addresses and load generator.
pub(super) fn guest(
    name: &str,
    network: Network,
    (host, inside): (Host, Namespace),
    carries: Option<u32>,
    processes: Vec<Guarded>,
    testbed: &Testbed,
) -> Result<Guest, Refusal> {
    relay::await_interface(&inside, MTU)?;
    match network {
        Network::Kernel => {
            for line in [
                format!("addr add {}/24 dev {INTERFACE}", BEHIND.v4(3)),
                format!("addr add {}/64 dev {INTERFACE} nodad", BEHIND.v6(3)),
                format!("route add default via {}", BEHIND.v4(1)),
                format!("-6 route add default via {}", BEHIND.v6(1)),
            ] {
                inside.ip(&line)?;
            }
        }
        Network::Bridged(_) => {
            host.give(&inside, INTERFACE, Station::Guest)?;
            host.lead_out(&inside)?;
        }
    }
    let own = format!("{name}-client");
    let mut process = testbed.start(
        relay::on(Core::Load, &testbed.client_command(&own)),
        &inside,
        name,
    )?;
    let (agent, _) = testbed.await_agent(&own, &mut process)?;
    let seen = host.seen(network);
    std::thread::sleep(SETTLED);
    Ok(Guest {
        instance: Instance::behind(agent, carries, inside, seen, process),
        _processes: processes,
        _host: host,
    })
}

/// A machine's service.
struct Service {
    program: PathBuf,
    home: PathBuf,
    daemon: Guarded,
}

impl Service {
    fn start(
        name: &str,
        network: Network,
        host: &Namespace,
        testbed: &Testbed,
    ) -> Result<Self, Refusal> {
        let broken = |error: std::io::Error| format!("cannot prepare the service: {error}");
        let home = testbed.scratch().directory_of(name, 0).map_err(broken)?;
        // The machine's own is not for it.
        std::fs::write(home.join("vmnet.toml"), "").map_err(broken)?;
        let program = testbed.scratch().join("vmnet");
        // Devices of macvtaps are root's.
        let mut command = vmnet(
            &program,
            &home,
            &["daemon", "--system", "--user", "root", "--state"],
        );
        command.arg(home.join("state"));
        if matches!(network, Network::Bridged(_)) {
            // It moves frames itself.
            command = relay::on(Core::Frames, &command);
        }
        let daemon = testbed.start_as_root(command, host, name)?;
        let limit = Instant::now() + PATIENCE;
        while UnixStream::connect(socket(&home)).is_err() {
            if Instant::now() > limit {
                return Err("the machine's service does not listen".to_owned());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Self {
            program,
            home,
            daemon,
        })
    }

    fn vmnet(&self, words: &[&str]) -> Command {
        vmnet(&self.program, &self.home, words)
    }

    /// Runs a verb to its end.
    fn say(&self, words: &[&str], host: &Namespace) -> Result<(), Refusal> {
        let mut command = self.vmnet(words);
        sys::place(&mut command, host.fd(), None);
        let output = command.output().map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("vmnet {}: {}", words.join(" "), said.trim()))
    }
}

fn socket(home: &Path) -> PathBuf {
    home.join("run/vmnet.sock")
}

fn vmnet(program: &Path, home: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args(words)
        .env("HOME", home)
        .env("VMNET_SYSTEM_SOCKET", socket(home))
        .env("VMNET_SOCKET", home.join("nobody.sock"))
        .env("VMNET_SCOPE", "system")
        .env("VMNET_CONFIG", home.join("vmnet.toml"))
        .env_remove("XDG_RUNTIME_DIR")
        .env_remove("XDG_STATE_HOME")
        .env_remove("NOTIFY_SOCKET")
        .env_remove("LISTEN_FDS");
    command
}
