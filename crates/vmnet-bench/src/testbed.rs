//! The world around the paths: a host namespace, a server behind a veth of MTU 1500, and the control socket.
//!
//! ```text
//! client --- path under test ---> host 198.18.0.1 --- veth, MTU 1500 ---> server 198.18.0.2
//! ```
//!
//! The addresses are those reserved for benchmarks (RFC 2544, 198.18.0.0/15; RFC 5180, 2001:2::/48: the same last numbers). The host has a default route, because
//! pasta takes its configuration from one; the router (198.18.0.254, the same machine as the server) has an address of
//! its own, because pasta treats the router's address in a special way.

use crate::control::{Agent, Hello, Refusal, read_line};
use crate::cubic::Cubic;
use crate::load::{SHORT_PORT, SHORT_PORTS, STREAM_PORT};
use crate::namespace::Namespace;
use crate::options::Options;
use crate::process::Guarded;
use crate::rows::Family;
use crate::scratch::Scratch;
use crate::sys;
use std::fs::{self, File};
use std::io::BufReader;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const HOST: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
const ROUTER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 254);
/// The link, by IPv6.
const LAN6: Ipv6Addr = Ipv6Addr::new(0x2001, 2, 0, 1, 0, 0, 0, 0);
/// The MTU between host and server: an ordinary LAN, whatever the guest side has.
const LAN_MTU: u32 = 1500;

/// Everything but the paths. Fields are dropped in order: agents first, the directory last.
#[derive(Debug)]
pub(crate) struct Testbed {
    pub(crate) server: Agent,
    _server_process: Guarded,
    pub(crate) host: Namespace,
    server_side: Namespace,
    control: UnixListener,
    program: PathBuf,
    user: u32,
    scratch: Scratch,
    /// Paths that have an address of the server for their short connections, by its number.
    known: Vec<crate::path::Path>,
    /// Numbers given by [`Self::fresh_number`].
    names: usize,
    _cubic: Cubic,
}

impl Testbed {
    /// Builds it and starts the server.
    pub(crate) fn new(options: &Options) -> Result<Self, Refusal> {
        let broken = |error: std::io::Error| format!("cannot prepare the run: {error}");
        let scratch = Scratch::new().map_err(broken)?;
        let own = std::env::current_exe().map_err(broken)?;
        let program = scratch.install(&own, "vmnet-bench").map_err(broken)?;
        let socket = scratch.join("control");
        let control = UnixListener::bind(&socket).map_err(broken)?;
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o777)).map_err(broken)?;
        control.set_nonblocking(true).map_err(broken)?;

        let cubic = Cubic::allow()?;
        let host = Namespace::new()?;
        let server_side = Namespace::new()?;
        host.connect(
            ("lan0", &format!("{HOST}/24")),
            &server_side,
            &format!("{SERVER}/24"),
            LAN_MTU,
        )?;
        server_side.ip(&format!("addr add {ROUTER}/24 dev eth0"))?;
        host.ip(&format!("route add default via {ROUTER}"))?;
        // Addresses are not probed for first, which takes a second.
        host.ip(&format!("addr add {}/64 dev lan0 nodad", like(HOST)))?;
        for own in [SERVER, ROUTER] {
            server_side.ip(&format!("addr add {}/64 dev eth0 nodad", like(own)))?;
        }
        host.ip(&format!("-6 route add default via {}", like(ROUTER)))?;

        let command = load_command(&program, "server", &socket, "server");
        let mut process = start(command, &server_side, None, &scratch.join("server.log"))?;
        let (server, _) = await_agent(
            &control,
            "server",
            &mut process,
            &scratch.join("server.log"),
        )?;
        let user = options.user;
        Ok(Self {
            server,
            _server_process: process,
            host,
            server_side,
            control,
            program,
            user,
            scratch,
            known: Vec::new(),
            names: 0,
            _cubic: cubic,
        })
    }

    /// The address of bulk transfers and ping-pong.
    pub(crate) fn stream_address(&self, by: Family) -> SocketAddr {
        (of_family(SERVER, by), STREAM_PORT).into()
    }

    /// The address of held connections.
    pub(crate) fn short_address(&self) -> SocketAddr {
        (SERVER, SHORT_PORT).into()
    }

    /// The addresses of short connections. Each path has one of its own, with many ports: what the server remembers of
    /// closed connections of one path must not be in the way of another, whose clock for time stamps is a different one.
    pub(crate) fn short_addresses(
        &mut self,
        path: crate::path::Path,
        by: Family,
    ) -> Result<Vec<SocketAddr>, Refusal> {
        let number = match self.known.iter().position(|known| *known == path) {
            Some(number) => number,
            None => {
                self.known.push(path);
                let number = self.known.len() - 1;
                let address = own_address(number)?;
                self.server_side
                    .ip(&format!("addr add {address}/24 dev eth0"))?;
                self.server_side
                    .ip(&format!("addr add {}/64 dev eth0 nodad", like(address)))?;
                number
            }
        };
        let address = of_family(own_address(number)?, by);
        let ports = SHORT_PORT..SHORT_PORT + SHORT_PORTS;
        Ok(ports.map(|port| (address, port).into()).collect())
    }

    /// A name that no path and no service had yet.
    pub(crate) fn fresh_name(&mut self, kind: &str) -> String {
        format!("{kind}-{}", self.fresh_number())
    }

    /// A number that nobody had yet.
    pub(crate) fn fresh_number(&mut self) -> usize {
        self.names += 1;
        self.names
    }

    /// This program, where every user can execute it.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// The server with a port of its choice.
    pub(crate) fn server_port(&self, by: Family, port: u16) -> SocketAddr {
        (of_family(SERVER, by), port).into()
    }

    /// Where the server is.
    pub(crate) fn server_side(&self) -> &Namespace {
        &self.server_side
    }

    /// The address with which every path must reach the server: anything else means that it was not used.
    pub(crate) fn host_address(&self, by: Family) -> IpAddr {
        of_family(HOST, by)
    }

    /// The run's directory.
    pub(crate) fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// The user as whom rootless paths run.
    pub(crate) fn user(&self) -> u32 {
        self.user
    }

    /// Whether a namespace is one of ours that no client may be in.
    pub(crate) fn is_own(&self, namespace: &Namespace) -> bool {
        namespace.is(&self.host) || namespace.is(&self.server_side)
    }

    /// The command that a path must run behind itself.
    pub(crate) fn client_command(&self, name: &str) -> Command {
        self.load_command("client", name)
    }

    /// A load generator of this role.
    pub(crate) fn load_command(&self, role: &str, name: &str) -> Command {
        load_command(&self.program, role, &self.scratch.join("control"), name)
    }

    /// Starts a command in a namespace, as the ordinary user, its output in the log of `name`.
    pub(crate) fn start(
        &self,
        command: Command,
        namespace: &Namespace,
        name: &str,
    ) -> Result<Guarded, Refusal> {
        start(command, namespace, Some(self.user), &self.log(name))
    }

    /// The same as root.
    pub(crate) fn start_as_root(
        &self,
        command: Command,
        namespace: &Namespace,
        name: &str,
    ) -> Result<Guarded, Refusal> {
        start(command, namespace, None, &self.log(name))
    }

    /// Waits for the load generator `name`; answers it and its process number.
    pub(crate) fn await_agent(
        &self,
        name: &str,
        process: &mut Guarded,
    ) -> Result<(Agent, u32), Refusal> {
        await_agent(&self.control, name, process, &self.log(name))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.scratch.join(&format!("{name}.log"))
    }

    /// The last lines that the processes of `name` wrote.
    pub(crate) fn last_words(&self, name: &str) -> String {
        last_words(&self.log(name))
    }
}

/// The IPv6 address of whoever has this one.
fn like(address: Ipv4Addr) -> Ipv6Addr {
    let [.., last] = address.octets();
    Ipv6Addr::from_bits(LAN6.to_bits() | u128::from(last))
}

fn of_family(address: Ipv4Addr, by: Family) -> IpAddr {
    match by {
        Family::V4 => address.into(),
        Family::V6 => like(address).into(),
    }
}

fn own_address(number: usize) -> Result<Ipv4Addr, Refusal> {
    // 198.18.0.16 and up, below the router.
    let last = number + 16;
    let last = u8::try_from(last).ok().filter(|last| *last < 254);
    last.map(|last| Ipv4Addr::new(198, 18, 0, last))
        .ok_or_else(|| "too many paths: the server has no more addresses".to_owned())
}

fn load_command(program: &Path, role: &str, control: &Path, name: &str) -> Command {
    let mut command = Command::new(program);
    command
        .args(["load", role, "--name", name, "--control"])
        .arg(control);
    command
}

fn start(
    mut command: Command,
    namespace: &Namespace,
    user: Option<u32>,
    log: &Path,
) -> Result<Guarded, Refusal> {
    let program = command.get_program().to_string_lossy().into_owned();
    let log = File::options()
        .create(true)
        .append(true)
        .open(log)
        .map_err(|error| format!("log file: {error}"))?;
    let copy = log
        .try_clone()
        .map_err(|error| format!("log file: {error}"))?;
    command.stdin(Stdio::null()).stdout(copy).stderr(log);
    sys::place(&mut command, namespace.fd(), user);
    command
        .spawn()
        .map(Guarded)
        .map_err(|error| format!("cannot start {program}: {error}"))
}

fn await_agent(
    control: &UnixListener,
    name: &str,
    process: &mut Guarded,
    log: &Path,
) -> Result<(Agent, u32), Refusal> {
    let limit = Instant::now() + Duration::from_secs(10);
    loop {
        match control.accept() {
            Ok((stream, _)) => match greet(stream) {
                Ok((agent, pid, hello)) if hello == name => return Ok((agent, pid)),
                // A late one of a path that was given up.
                Ok(_) => {}
                Err(error) => return Err(format!("a load generator did not say hello: {error}")),
            },
            Err(_) if Instant::now() > limit => {
                return Err(format!(
                    "the command behind it did not start within 10 s{}",
                    last_words(log)
                ));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
        if let Some(status) = process.ended() {
            return Err(format!("ended at once ({status}){}", last_words(log)));
        }
    }
}

fn greet(stream: UnixStream) -> std::io::Result<(Agent, u32, String)> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let pid = rustix::net::sockopt::socket_peercred(&stream)?
        .pid
        .as_raw_nonzero()
        .get()
        .unsigned_abs();
    let mut lines = BufReader::new(stream);
    let hello: Option<Hello> = read_line(&mut lines)?;
    let name = hello.map(|hello| hello.name).unwrap_or_default();
    Ok((Agent::new(lines), pid, name))
}

fn last_words(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let last = lines
        .iter()
        .rev()
        .take(3)
        .rev()
        .copied()
        .collect::<Vec<_>>()
        .join(" | ");
    if last.is_empty() {
        String::new()
    } else {
        format!("; it said: {last}")
    }
}
