//! Network namespaces without names, and what is done inside them.
//!
//! A nameless namespace cannot be left behind: it ends with the last process in it and our descriptor.

use crate::control::Refusal;
use crate::sys;
use serde::Deserialize;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::process::Command;

/// A network namespace that this process holds.
#[derive(Debug)]
pub(crate) struct Namespace(OwnedFd);

/// The interface behind which the default route of a namespace lies.
#[derive(Debug, Clone)]
pub(crate) struct Uplink {
    pub(crate) mtu: u32,
    /// `veth`, `tun`, ...; empty for an interface of no known kind.
    pub(crate) kind: String,
}

impl Namespace {
    /// Makes one with loopback up, cubic and a wide range of ports, as every namespace of a benchmark has it.
    pub(crate) fn new() -> Result<Self, Refusal> {
        let namespace = Self(
            sys::new_network_namespace()
                .map_err(|error| format!("cannot make a network namespace: {error}"))?,
        );
        namespace.ip("link set lo up")?;
        namespace.tune()?;
        Ok(namespace)
    }

    /// The one a process lives in.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        File::open(format!("/proc/{pid}/ns/net")).map(|file| Self(file.into()))
    }

    /// For [`sys::place`].
    pub(crate) fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// For [`sys::enter`].
    pub(crate) fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// A path by which `ip` finds it.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.fd())
    }

    /// Whether two descriptors are of one namespace.
    pub(crate) fn is(&self, other: &Self) -> bool {
        let identity = |namespace: &Self| {
            rustix::fs::fstat(namespace.0.as_fd())
                .map(|stat| (stat.st_dev, stat.st_ino))
                .ok()
        };
        identity(self) == identity(other)
    }

    /// Sets cubic (bbr, the default of some machines, distorts every comparison) and the ports for connections.
    pub(crate) fn tune(&self) -> Result<(), Refusal> {
        self.sysctl("net/ipv4/tcp_congestion_control", "cubic")?;
        self.sysctl("net/ipv4/ip_local_port_range", "1024 65535")
    }

    /// Writes one sysctl inside and reads it back.
    pub(crate) fn sysctl(&self, name: &str, value: &str) -> Result<(), Refusal> {
        let set = || -> io::Result<String> {
            sys::enter(self.0.as_fd())?;
            let path = format!("/proc/sys/{name}");
            fs::write(&path, value)?;
            fs::read_to_string(path)
        };
        let words = |text: &str| {
            text.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        // A thread of its own, because entering moves the thread.
        match std::thread::scope(|scope| scope.spawn(set).join()) {
            Ok(Ok(read)) if words(&read) == words(value) => Ok(()),
            Ok(Ok(read)) => Err(format!(
                "sysctl {name} is {} after {value} was set",
                read.trim()
            )),
            Ok(Err(error)) => Err(format!("cannot set sysctl {name} to {value}: {error}")),
            Err(_) => Err(format!("setting sysctl {name} panicked")),
        }
    }

    /// Runs a program inside and gives what it prints.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> Result<String, Refusal> {
        let mut command = Command::new(program);
        command.args(arguments);
        sys::place(&mut command, self.fd(), None);
        let line = || format!("{program} {}", arguments.join(" "));
        let output = command
            .output()
            .map_err(|error| format!("{}: {error}", line()))?;
        if !output.status.success() {
            return Err(format!(
                "{}: {}",
                line(),
                String::from_utf8_lossy(&output.stderr).trim()
            ));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs `ip` inside with the words of a line.
    pub(crate) fn ip(&self, line: &str) -> Result<String, Refusal> {
        self.run("ip", &line.split_whitespace().collect::<Vec<_>>())
    }

    /// A veth pair: `ours` with `our_address` in this namespace, `eth0` with `their_address` in the other.
    pub(crate) fn connect(
        &self,
        (ours, our_address): (&str, &str),
        other: &Self,
        their_address: &str,
        mtu: u32,
    ) -> Result<(), Refusal> {
        self.ip(&format!(
            "link add {ours} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {}",
            other.path()
        ))?;
        self.ip(&format!("addr add {our_address} dev {ours}"))?;
        self.ip(&format!("link set {ours} up"))?;
        other.ip(&format!("addr add {their_address} dev eth0"))?;
        other.ip("link set eth0 up")?;
        Ok(())
    }

    /// Whether there is an IPv6 address of more than the link, that is not probed for any more, and a default route.
    pub(crate) fn has_ipv6(&self) -> Result<bool, Refusal> {
        let addresses = self.ip("-6 -o addr show scope global -tentative")?;
        let route = self.ip("-6 route show default")?;
        Ok(!addresses.trim().is_empty() && !route.trim().is_empty())
    }

    /// The interface of the default route, if there is one.
    pub(crate) fn uplink(&self) -> Result<Option<Uplink>, Refusal> {
        #[derive(Deserialize)]
        struct Route {
            dev: String,
        }
        #[derive(Deserialize)]
        struct Link {
            mtu: u32,
            linkinfo: Option<Info>,
        }
        #[derive(Deserialize)]
        struct Info {
            info_kind: Option<String>,
        }
        let unread = |error: serde_json::Error| format!("cannot read what ip printed: {error}");
        let routes: Vec<Route> =
            serde_json::from_str(&self.ip("-j -4 route show default")?).map_err(unread)?;
        let Some(route) = routes.into_iter().next() else {
            return Ok(None);
        };
        let links: Vec<Link> =
            serde_json::from_str(&self.ip(&format!("-j -d link show dev {}", route.dev))?)
                .map_err(unread)?;
        Ok(links.into_iter().next().map(|link| Uplink {
            mtu: link.mtu,
            kind: link
                .linkinfo
                .and_then(|info| info.info_kind)
                .unwrap_or_default(),
        }))
    }
}
