//! A world of real kernels around the program under test.
//!
//! ```text
//!   namespace "host"                      namespace "outside"
//!   user without rights, vmnet   veth     HTTP, echo, DNS, half-close servers
//!   198.51.100.2 ─────────────────────── 198.51.100.1, .53 (DNS), 203.0.113.9
//!   2001:db8:1::2                         2001:db8:1::1, ::53 (DNS), 2001:db8:9::9
//!                                         192.0.2.1 and 2001:db8:2::1 unreachable
//! ```
//!
//! | file | what is in it |
//! | --- | --- |
//! | `mod.rs` | the namespaces, the user, and how a program starts on the host |
//! | `dns.rs` | a DNS server that counts what it is asked |
//! | `http.rs` | files up and down, every byte compared |
//! | `serve.rs` | TCP and UDP servers on threads: echo, who-are-you, half-close |
//! | `user.rs` | a user nobody else has, and his processes |

pub mod dns;
mod http;
pub mod serve;
mod user;

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::namespace::Namespace;
use serve::{HalfClose, Running};
pub use user::User;

/// The outside address of the host that `vmnet` runs on.
pub const HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// The server outside, on the host's own link.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The DNS server, and the only resolver the host knows.
pub const DNS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 53);
/// The same server, one hop further as the host sees it.
pub const FAR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
/// A router answers for this address that it cannot be reached.
pub const UNREACHABLE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The host, by IPv6.
pub const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2);
/// The server outside, by IPv6: all that it does by IPv4.
pub const SERVER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
/// The DNS server, by IPv6.
pub const DNS6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x53);
/// The same server, one hop further as the host sees it.
pub const FAR6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 9);
/// A router answers for this address that it cannot be reached.
pub const UNREACHABLE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1);

/// HTTP on [`SERVER`]: `GET /pattern/BYTES`, and `POST` of the pattern.
pub const HTTP_PORT: u16 = 80;
/// Echo, TCP and UDP, on [`SERVER`].
pub const ECHO_PORT: u16 = 7;
/// Answers with the address it sees, TCP and UDP.
pub const WHOAMI_PORT: u16 = 9000;
/// Sends its answer only when the client has closed its half.
pub const CLIENT_CLOSES_PORT: u16 = 9001;
/// Closes its half first and then reads what the client sends.
pub const SERVER_CLOSES_PORT: u16 = 9002;
/// Nobody listens here.
pub const REFUSED_PORT: u16 = 81;

/// How the folders of worlds begin; the id of the process follows.
const FOLDER: &str = "vmnet-lab-";

/// The namespaces, their servers, and a user without rights who runs programs on the host.
///
/// Dropping it ends every process of that user.
#[derive(Debug)]
pub struct World {
    host: Namespace,
    outside: Namespace,
    user: User,
    folder: tempfile::TempDir,
    dns: Arc<dns::Zone>,
    half_close: Arc<HalfClose>,
    running: Running,
}

impl World {
    /// Builds everything and starts the servers.
    ///
    /// # Panics
    /// If the rights are lacking; see [`crate::prerequisite`].
    #[must_use]
    pub fn new() -> Self {
        let (host, outside) = (Namespace::new(), Namespace::new());
        connect(&host, &outside);
        let user = User::new();
        let folder = folder_of(&user);
        let (dns, half_close) = (Arc::<dns::Zone>::default(), Arc::<HalfClose>::default());
        let running = Running::default();
        outside.enter(|| {
            let own = [SERVER, DNS, FAR].map(IpAddr::V4);
            serve_family(own, &dns, &half_close, &running);
            let own = [SERVER6, DNS6, FAR6].map(IpAddr::V6);
            serve_family(own, &dns, &half_close, &running);
        });
        let this = Self {
            host,
            outside,
            user,
            folder,
            dns,
            half_close,
            running,
        };
        this.set_resolvers(&[IpAddr::V4(DNS)]);
        this
    }

    /// The namespace of the host.
    #[must_use]
    pub fn host(&self) -> &Namespace {
        &self.host
    }

    /// The namespace of the servers.
    #[must_use]
    pub fn outside(&self) -> &Namespace {
        &self.outside
    }

    /// The user without rights.
    #[must_use]
    pub fn user(&self) -> &User {
        &self.user
    }

    /// A folder that belongs to the user: his home.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// The socket of the user's service, which ends with this world if it runs.
    #[must_use]
    pub fn service_socket(&self) -> PathBuf {
        self.home().join("run/vmnet/vmnet.sock")
    }

    /// What the DNS server knows and was asked.
    #[must_use]
    pub fn dns(&self) -> &dns::Zone {
        &self.dns
    }

    /// What the half-close servers saw.
    #[must_use]
    pub fn half_close(&self) -> &HalfClose {
        &self.half_close
    }

    /// Writes `resolv.conf` of the host; programs that run already see the change.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn set_resolvers(&self, resolvers: &[IpAddr]) {
        let text: String = resolvers
            .iter()
            .map(|address| format!("nameserver {address}\n"))
            .collect();
        std::fs::write(self.resolv_conf(), text).expect("write resolv.conf of the host");
    }

    /// Switches the host's IPv6 off, as some do.
    pub fn switch_ipv6_off(&self) {
        self.host.sysctl("net.ipv6.conf.all.disable_ipv6", "1");
    }

    /// Serves TCP and UDP echo on the host itself, at `address`.
    ///
    /// # Panics
    /// If the address cannot be bound.
    pub fn serve_echo_on_host(&self, address: SocketAddr) {
        self.host.enter(|| {
            let listener = TcpListener::bind(address).expect("listen on the host");
            serve::tcp_echo(listener, &self.running);
            let socket = UdpSocket::bind(address).expect("bind on the host");
            serve::udp_echo(socket, &self.running);
        });
    }

    /// The socket of the machine's service.
    #[must_use]
    pub fn machine_socket(&self) -> PathBuf {
        self.folder.path().join("machine/vmnet.sock")
    }

    /// A command of the superuser on the host, with its `/etc/resolv.conf`: the machine's service.
    ///
    /// # Panics
    /// If its folders cannot be made.
    #[must_use]
    pub fn superusers(&self, program: impl AsRef<OsStr>) -> Command {
        for part in ["machine", "machine-state"] {
            std::fs::create_dir_all(self.folder.path().join(part)).expect("make a folder");
        }
        let mut command = Command::new(program);
        command
            .env("VMNET_SYSTEM_SOCKET", self.machine_socket())
            .env("VMNET_SOCKET", self.machine_socket())
            .env_remove("VMNET_CONFIG")
            .env_remove("CI")
            .current_dir("/");
        let (host, resolv_conf) = (self.host.clone(), self.resolv_conf());
        // SAFETY: between fork and exec only system calls are made, on data prepared before.
        unsafe {
            command.pre_exec(move || {
                host.move_in()?;
                cover_resolv_conf(&resolv_conf)
            });
        }
        command
    }

    /// Where the machine's service keeps what must stay.
    #[must_use]
    pub fn machine_state(&self) -> PathBuf {
        self.folder.path().join("machine-state")
    }

    /// A command of the user without rights, on the host: in its network namespace, with its `/etc/resolv.conf`,
    /// a home and a runtime folder of his own.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let home = self.home();
        command
            .env("HOME", &home)
            .env("XDG_RUNTIME_DIR", home.join("run"))
            .env("XDG_STATE_HOME", home.join("state"))
            .env("XDG_CONFIG_HOME", home.join("config"))
            .env("VMNET_SOCKET", self.service_socket())
            .env_remove("VMNET_CONFIG")
            .env_remove("VMNET_EXECUTABLE")
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .env("RUST_BACKTRACE", "1")
            .env_remove("CI")
            .current_dir(&home);
        let (host, user, resolv_conf) = (self.host.clone(), self.user, self.resolv_conf());
        // SAFETY: between fork and exec only system calls are made, on data prepared before.
        unsafe {
            command.pre_exec(move || {
                host.move_in()?;
                cover_resolv_conf(&resolv_conf)?;
                user.become_him()
            });
        }
        command
    }

    /// A path of `program` that the user may execute: its own, or a copy in this world.
    ///
    /// # Panics
    /// If it cannot be copied.
    #[must_use]
    pub fn executable(&self, program: &Path) -> PathBuf {
        let name = program.file_name().expect("a program has a name");
        let open = |path: &Path| {
            path.metadata()
                .is_ok_and(|metadata| metadata.permissions().mode() & 0o001 != 0)
        };
        if program
            .ancestors()
            .all(|path| path == Path::new("") || open(path))
        {
            return program.to_owned();
        }
        let copy = self.folder.path().join(name);
        if !copy.exists() {
            std::fs::copy(program, &copy).expect("copy a program into the world");
            std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o755))
                .expect("make the copy executable");
        }
        copy
    }

    fn resolv_conf(&self) -> PathBuf {
        self.folder.path().join("resolv.conf")
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.running.stop();
        self.user.end_processes();
    }
}

/// Addresses, routes and the openness of ping sockets.
fn connect(host: &Namespace, outside: &Namespace) {
    host.connect("uplink", outside, "hosts");
    host.ip(&["address", "add", &format!("{HOST}/24"), "dev", "uplink"]);
    host.ip(&["route", "add", "default", "via", &SERVER.to_string()]);
    host.sysctl("net.ipv4.ping_group_range", "0 2147483647");
    for address in [format!("{SERVER}/24"), format!("{DNS}/24")] {
        outside.ip(&["address", "add", &address, "dev", "hosts"]);
    }
    outside.ip(&["address", "add", &format!("{FAR}/32"), "dev", "lo"]);
    outside.sysctl("net.ipv4.ip_forward", "1");
    outside.ip(&["route", "add", "unreachable", &format!("{UNREACHABLE}/32")]);
    connect_by_ipv6(host, outside);
}

/// The same by IPv6. Addresses are not probed for first, which takes a second.
fn connect_by_ipv6(host: &Namespace, outside: &Namespace) {
    let address = |namespace: &Namespace, address: String, interface| {
        namespace.ip(&["address", "add", &address, "dev", interface, "nodad"]);
    };
    outside.sysctl("net.ipv6.conf.all.forwarding", "1");
    address(host, format!("{HOST6}/64"), "uplink");
    address(outside, format!("{SERVER6}/64"), "hosts");
    // So that clients out there come from the server's.
    let resolver = format!("{DNS6}/64");
    let never_chosen = ["dev", "hosts", "nodad", "preferred_lft", "0"];
    outside.ip(&[&["address", "add", &resolver][..], &never_chosen].concat());
    address(outside, format!("{FAR6}/128"), "lo");
    let server = SERVER6.to_string();
    host.ip(&["-6", "route", "add", "default", "via", &server]);
    let nowhere = format!("{UNREACHABLE6}/128");
    outside.ip(&["-6", "route", "add", "unreachable", &nowhere]);
}

/// Removes the folders of tests that were killed: those whose process is gone.
fn remove_stale_folders() {
    let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name
            .strip_prefix(FOLDER)
            .and_then(|rest| rest.split('-').next())
            .and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // Another test may be removing it too.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn folder_of(user: &User) -> tempfile::TempDir {
    remove_stale_folders();
    let folder = tempfile::Builder::new()
        .prefix(&format!("{FOLDER}{}-", std::process::id()))
        .tempdir()
        .expect("make a temporary folder");
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755))
        .expect("open the temporary folder");
    for part in ["home", "home/run", "home/state"] {
        let path = folder.path().join(part);
        std::fs::create_dir(&path).expect("make a folder of the user");
        chown(&path, Some(user.id()), Some(user.id())).expect("give the folder to the user");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o700))
            .expect("close the folder of the user");
    }
    folder
}

/// Starts the servers of one family of addresses.
fn serve_family(
    [server, resolver, far]: [IpAddr; 3],
    dns: &Arc<dns::Zone>,
    half_close: &Arc<HalfClose>,
    running: &Running,
) {
    let listen = |port| listen_everywhere(server.is_ipv6(), port).expect("listen outside");
    // Not the wildcard: the answer must leave from the address that was asked.
    let bind = |address: IpAddr, port| UdpSocket::bind((address, port)).expect("bind outside");
    dns::start(SocketAddr::from((resolver, 53)), dns, running);
    http::start(listen(HTTP_PORT), running);
    serve::tcp_echo(listen(ECHO_PORT), running);
    for address in [server, far] {
        serve::udp_echo(bind(address, ECHO_PORT), running);
    }
    serve::tcp_whoami(listen(WHOAMI_PORT), running);
    for address in [server, resolver] {
        serve::udp_whoami(bind(address, WHOAMI_PORT), running);
    }
    half_close.start_client_first(listen(CLIENT_CLOSES_PORT), running);
    half_close.start_server_first(listen(SERVER_CLOSES_PORT), running);
}

/// Listens at all addresses of one family.
fn listen_everywhere(v6: bool, port: u16) -> std::io::Result<TcpListener> {
    let (family, any) = if v6 {
        (AddressFamily::INET6, IpAddr::V6(Ipv6Addr::UNSPECIFIED))
    } else {
        (AddressFamily::INET, IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    if v6 {
        // The standard library's sockets would take the port of IPv4 too.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    rustix::net::bind(&socket, &SocketAddr::new(any, port))?;
    rustix::net::listen(&socket, 1024)?;
    Ok(socket.into())
}

/// In a mount namespace of its own, the child sees the host's resolver instead of the machine's.
fn cover_resolv_conf(file: &Path) -> std::io::Result<()> {
    // SAFETY: called in a child between fork and exec, which has one thread.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    mount_change("/", private)?;
    Ok(mount_bind(file, "/etc/resolv.conf")?)
}

#[cfg(test)]
mod tests;
