//! A host and its LAN: two namespaces, joined by what is the host's card. In the LAN there are a bridge, a station with
//! servers, and dnsmasq as DHCP server and router.

use super::SOON;
use super::node::Place;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use vmnet_lab::namespace::Namespace;
use vmnet_lab::process::Process;
use vmnet_lab::subject;

/// How the host is on its LAN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    /// The card has the addresses.
    Plain,
    /// The card is a member of a bridge, which has them.
    Bridge,
}

/// Settings of the kernel for the host's interfaces.
const SETTINGS: &str = "cd /proc/sys/net; grep -s . ipv4/conf/eth0/* ipv6/conf/eth0/* ipv4/conf/all/* ipv6/conf/all/* \
                        ipv4/conf/br0/* ipv6/conf/br0/* ipv4/neigh/eth0/* | grep -v stable_secret || true";
/// What the host's interfaces are configured to be.
const CONFIGURATION: &str = "for nic in eth0 br0; do [ -e /sys/class/net/$nic ] || ip link show $nic >/dev/null 2>&1 || continue; \
     ip -o address show dev $nic | sed 's/ *\\\\.*//'; ip -o link show dev $nic | grep -o ' mtu [0-9]*'; ethtool -k $nic; \
     ethtool -c $nic 2>&1 || true; done; ip -4 route; ip -6 route | grep -v vmnet";
/// Fields of `ip` that change by themselves.
const RESTLESS: [&str; 2] = ["preferred_life_time", "valid_life_time"];

pub(crate) struct Lan {
    socket: PathBuf,
    host: Namespace,
    station: Namespace,
    folder: TempDir,
    client: PathBuf,
    _dnsmasq: Process,
    _servers: Vec<Process>,
}

impl Lan {
    pub(crate) fn new(shape: Shape) -> Self {
        let (host, station) = (Namespace::new(), Namespace::new());
        station.ip(&["link", "add", "lan", "type", "bridge", "forward_delay", "0"]);
        station.ip(&["link", "set", "lan", "up"]);
        host.connect("eth0", &station, "port0");
        station.ip(&["link", "set", "port0", "master", "lan"]);
        let with_addresses = match shape {
            Shape::Plain => "eth0",
            Shape::Bridge => {
                host.ip(&["link", "add", "br0", "type", "bridge", "forward_delay", "0"]);
                host.ip(&["link", "set", "eth0", "master", "br0"]);
                host.ip(&["link", "set", "br0", "up"]);
                "br0"
            }
        };
        for (namespace, device, last) in [(&station, "lan", 1), (&host, with_addresses, 2)] {
            // Answers come from the address that was asked.
            namespace.sysctl(&format!("net.ipv6.conf.{device}.accept_ra"), "0");
            let four = format!("10.91.0.{last}/24");
            let six = format!("fd91::{last}/64");
            namespace.ip(&["address", "add", &four, "dev", device]);
            namespace.ip(&["address", "add", &six, "dev", device, "nodad"]);
        }
        let folder = tempfile::Builder::new()
            .prefix("vmnet-lan-")
            .tempdir_in("/tmp")
            .unwrap();
        let client = subject::built_client();
        let dnsmasq = dnsmasq(&station, folder.path());
        let mut servers = Vec::new();
        for namespace in [&host, &station] {
            for words in [["serve-pattern", "7001"], ["listen-udp", "7002"]] {
                let mut command = namespace.command(client.to_str().unwrap());
                command.args(words);
                let server = Process::spawn(command);
                server.wait_for_output("ready", SOON, |text| text.contains("ready").then_some(()));
                servers.push(server);
            }
        }
        let socket = folder.path().join("vmnet.sock");
        let this = Self {
            socket,
            host,
            station,
            folder,
            client,
            _dnsmasq: dnsmasq,
            _servers: servers,
        };
        // Addresses of the link are probed for, and then there.
        this.eventually("no address is tentative", || {
            !this
                .host_says("ip", &["-6", "address"])
                .contains("tentative")
        });
        this
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn client(&self) -> &str {
        self.client.to_str().unwrap()
    }

    pub(crate) fn host_node(&self) -> Place {
        Place::new("host", &self.host, self.client(), "10.91.0.2", "fd91::2")
    }

    pub(crate) fn station_node(&self) -> Place {
        Place::new(
            "station",
            &self.station,
            self.client(),
            "10.91.0.1",
            "fd91::1",
        )
    }

    /// A command on the station.
    pub(crate) fn on_station(&self, program: &str) -> Command {
        self.station.command(program)
    }

    /// Another station, at a tap of the station's bridge.
    pub(crate) fn station_ip(&self, words: &[&str]) {
        self.station.ip(words);
    }

    /// `vmnet` on the host, with the rights of the test.
    pub(crate) fn vmnet(&self, words: &[&str]) -> Command {
        let mut command = self.host.command(env!("CARGO_BIN_EXE_vmnet"));
        for variable in ["VMNET_SOCKET", "VMNET_SYSTEM_SOCKET"] {
            command.env(variable, &self.socket);
        }
        command
            // Nobody but the test starts a service.
            .env("VMNET_EXECUTABLE", "/nonexistent")
            .env("HOME", self.path())
            .env_remove("XDG_STATE_HOME")
            .env_remove("XDG_RUNTIME_DIR")
            .env_remove("VMNET_CONFIG")
            .env_remove("VMNET_LOG")
            .args(words);
        command
    }

    /// The machine's service.
    pub(crate) fn daemon(&self) -> Process {
        self.daemon_with("state")
    }

    /// The same with a state of its own.
    pub(crate) fn daemon_with(&self, state: &str) -> Process {
        let state = self.path().join(state);
        let words = ["daemon", "--system", "--user", "root", "--state"];
        let mut command = self.vmnet(&words);
        command.arg(state);
        self.started(command)
    }

    /// A user's service at the same place.
    pub(crate) fn user_daemon(&self) -> Process {
        self.started(self.vmnet(&["daemon", "--no-state"]))
    }

    fn started(&self, command: Command) -> Process {
        let daemon = Process::spawn(command);
        self.eventually("the service listens", || {
            self.asks(&["status"])["service"].is_object()
        });
        daemon
    }

    /// Ends the service as its manager would.
    pub(crate) fn end(&self, mut daemon: Process) {
        daemon.signal(rustix::process::Signal::TERM);
        let ended = daemon.wait(SOON);
        assert!(ended.status.success(), "{ended:?}");
    }

    /// Kills the service and its helper as nothing else does.
    pub(crate) fn kill(&self, daemon: Process) {
        let pid = daemon.pid();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.unwrap();
        let helpers: Vec<i32> = children
            .split_whitespace()
            .map(|pid| pid.parse().unwrap())
            .collect();
        assert_eq!(helpers.len(), 1, "{children}");
        // Before its end is waited for: the helper ends by itself, too.
        let helper = rustix::process::Pid::from_raw(helpers[0]).unwrap();
        rustix::process::kill_process(helper, rustix::process::Signal::KILL).unwrap();
        drop(daemon);
    }

    /// What the service says as JSON, which it does to who is in its own namespace.
    fn asks(&self, words: &[&str]) -> serde_json::Value {
        let said = Process::run(self.vmnet(&[words, &["--json"]].concat()), SOON);
        serde_json::from_str(&said.stdout).unwrap_or_default()
    }

    /// The interfaces on the network.
    pub(crate) fn interfaces(&self) -> Vec<serde_json::Value> {
        let listed = self.asks(&["interface", "list", "lan0"]);
        listed["interfaces"].as_array().cloned().unwrap_or_default()
    }

    /// What `network create` says when it is refused.
    pub(crate) fn refused(&self, interface: &str, more: &[&str]) -> String {
        let words = [
            "network",
            "create",
            "lan0",
            "--mode",
            "bridged",
            "--interface",
            interface,
        ];
        let said = Process::run(self.vmnet(&[&words, more].concat()), SOON);
        assert_eq!(said.status.code(), Some(1), "{said:?}");
        said.stderr
    }

    /// Leases that dnsmasq has given.
    pub(crate) fn leases(&self) -> usize {
        let leases = std::fs::read_to_string(self.path().join("leases")).unwrap();
        leases
            .lines()
            .filter(|line| line.contains(" 10.91.0."))
            .count()
    }

    fn host_says(&self, program: &str, words: &[&str]) -> String {
        let mut command = self.host.command(program);
        command.args(words);
        Process::run(command, SOON).success()
    }

    /// All that the host's network is made of, as the kernel tells it.
    pub(crate) fn snapshot(&self) -> Vec<String> {
        let ip = |words: &[&str]| self.host_says("ip", words);
        let calm = |text: String| {
            let mut value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            quiet(&mut value);
            format!("{value:#}")
        };
        vec![
            calm(ip(&["-d", "-j", "link", "show"])),
            calm(ip(&["-j", "address", "show"])),
            ip(&["-4", "route", "show", "table", "all"]),
            ip(&["-6", "route", "show", "table", "all"]),
            ip(&["rule", "show"]),
            ip(&["neighbour", "show", "nud", "permanent"]),
            ip(&["maddress", "show"]),
            self.host_says("tc", &["qdisc", "show"]),
            self.host_says("tc", &["filter", "show", "dev", "eth0", "ingress"]),
            self.host_says(
                "sh",
                &["-c", "bridge vlan; bridge fdb show | grep permanent"],
            ),
            self.host_says("sh", &["-c", SETTINGS]),
            self.configuration(),
        ]
    }

    /// What the host's own interfaces have while guests are bridged to them, too: addresses, routes, MTU, offloads.
    pub(crate) fn configuration(&self) -> String {
        self.host_says("sh", &["-ec", CONFIGURATION])
    }

    /// It has all that while guests are there.
    #[track_caller]
    pub(crate) fn has(&self, configuration: &str) {
        assert_eq!(self.configuration(), configuration);
    }

    /// The host's network is as it was.
    pub(crate) fn is_as(&self, before: &[String], when: &str) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let now = self.snapshot();
            if now == before {
                return;
            }
            if Instant::now() > deadline {
                for (was, is) in before.iter().zip(&now) {
                    assert_eq!(is, was, "{when}");
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn eventually(&self, what: &str, mut so: impl FnMut() -> bool) {
        let deadline = Instant::now() + SOON;
        while !so() {
            assert!(Instant::now() < deadline, "{what}: not within {SOON:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Takes out what changes by itself.
fn quiet(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Array(all) => all.iter_mut().for_each(quiet),
        serde_json::Value::Object(fields) => {
            fields.retain(|name, _| !RESTLESS.contains(&&**name) && !name.ends_with("_timer"));
            fields.values_mut().for_each(quiet);
        }
        _ => {}
    }
}

fn dnsmasq(station: &Namespace, folder: &Path) -> Process {
    let mut command = station.command("dnsmasq");
    let leases = folder.join("leases");
    std::fs::write(&leases, "").unwrap();
    command.args([
        "--keep-in-foreground",
        "--log-facility=-",
        "--conf-file=/dev/null",
        "--user=root",
        "--pid-file=",
        "--port=0",
        "--interface=lan",
        "--bind-interfaces",
        "--dhcp-authoritative",
        "--no-ping",
        "--dhcp-range=10.91.0.100,10.91.0.199,255.255.255.0,1h",
        "--enable-ra",
        "--dhcp-range=fd91::,ra-only,64",
    ]);
    command.arg(format!("--dhcp-leasefile={}", leases.display()));
    let dnsmasq = Process::spawn(command);
    let deadline = Instant::now() + SOON;
    while !dnsmasq.stderr().contains("started") {
        assert!(Instant::now() < deadline, "dnsmasq: {}", dnsmasq.stderr());
        std::thread::sleep(Duration::from_millis(10));
    }
    dnsmasq
}
