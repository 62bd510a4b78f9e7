//! The paths under test: how each one starts a command behind itself.
//!
//! | file | the path |
//! | --- | --- |
//! | `kernel_nat.rs` | veth, forwarding and nft masquerade: the rootful limit |
//! | `pasta.rs` | pasta with its own namespace |
//! | `slirp4netns.rs` | a user namespace of `unshare`, slirp4netns behind its tap |
//! | `ours.rs` | `vmnet run` |
//!
//! An adapter starts processes and says which one carries the network; [`Instance::start`] then proves that the command
//! is in a namespace of its own, behind the kind of interface and the MTU that were asked for.

mod kernel_nat;
mod ours;
mod pasta;
mod slirp4netns;

use crate::control::{Agent, Refusal};
use crate::namespace::Namespace;
use crate::options::Options;
use crate::process::Guarded;
use crate::testbed::Testbed;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Which path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Kind {
    /// veth and kernel NAT.
    Kernel,
    /// pasta, of the package passt.
    Pasta,
    /// slirp4netns.
    Slirp4netns,
    /// vmnet run.
    Ours,
}

/// A path with the MTU its guest side has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Path {
    pub(crate) mtu: u32,
    pub(crate) kind: Kind,
}

/// What an adapter gives back.
struct Started {
    agent: Agent,
    /// The process number of the load generator.
    client: u32,
    /// The process that carries the frames; `None` when the kernel does.
    network: Option<u32>,
    /// Ended with the instance.
    processes: Vec<Guarded>,
}

/// A running path with a load generator behind it.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) agent: Agent,
    pub(crate) network: Option<u32>,
    /// Where its command is.
    inside: Namespace,
    /// With which addresses the server sees it, if not with the host's.
    pub(crate) seen: Option<[IpAddr; 2]>,
    /// Kept for its drop, which comes after that of the agent: most processes end when their command does.
    _processes: Vec<Guarded>,
}

impl Kind {
    /// The name in the table.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Kernel => "kernel NAT",
            Self::Pasta => "pasta",
            Self::Slirp4netns => "slirp4netns",
            Self::Ours => "vmnet",
        }
    }

    /// The interface that its guest side must have.
    fn interface(self) -> &'static str {
        match self {
            Self::Kernel => "veth",
            Self::Pasta | Self::Slirp4netns | Self::Ours => "tun",
        }
    }

    /// Why this path cannot be measured on this machine, if it cannot.
    pub(crate) fn missing(self, options: &Options) -> Option<String> {
        match self {
            Self::Kernel => program_missing("nft", "nftables"),
            Self::Pasta => program_missing("pasta", "passt"),
            Self::Slirp4netns => program_missing("slirp4netns", "slirp4netns"),
            Self::Ours => ours::missing(options),
        }
    }
}

impl Path {
    /// The name in progress lines, logs and JSON.
    pub(crate) fn name(self) -> String {
        format!("{} {}", self.kind.title(), self.mtu)
    }
}

impl Instance {
    /// Starts a path and proves that it is the one under test.
    pub(crate) fn start(path: Path, testbed: &Testbed, options: &Options) -> Result<Self, Refusal> {
        let name = path.name().replace(' ', "-");
        let started = match path.kind {
            Kind::Kernel => kernel_nat::start(&name, path.mtu, testbed),
            Kind::Pasta => pasta::start(&name, path.mtu, testbed),
            Kind::Slirp4netns => slirp4netns::start(&name, path.mtu, testbed),
            Kind::Ours => ours::start(&name, path.mtu, testbed, options),
        }?;
        let inside = Namespace::of(started.client)
            .map_err(|error| format!("its command is gone: {error}"))?;
        if testbed.is_own(&inside) {
            return Err(
                "its command runs in a namespace of the testbed: the path is not used".to_owned(),
            );
        }
        let uplink = await_uplink(&inside, &name, testbed)?;
        let wanted = path.kind.interface();
        if (uplink.kind.as_str(), uplink.mtu) != (wanted, path.mtu) {
            return Err(format!(
                "its command sees a {} of MTU {}, not a {wanted} of MTU {}: the path is not the one asked for",
                uplink.kind, uplink.mtu, path.mtu
            ));
        }
        inside.tune()?;
        Ok(Self {
            agent: started.agent,
            network: started.network,
            inside,
            seen: None,
            _processes: started.processes,
        })
    }

    /// A load generator behind something that is no path of the usual testbed.
    pub(crate) fn behind(
        agent: Agent,
        network: Option<u32>,
        inside: Namespace,
        seen: [IpAddr; 2],
        process: Guarded,
    ) -> Self {
        Self {
            agent,
            network,
            inside,
            seen: Some(seen),
            _processes: vec![process],
        }
    }
    /// Waits until the command has an IPv6 address and a way out.
    pub(crate) fn await_ipv6(&self) -> Result<(), Refusal> {
        let limit = Instant::now() + Duration::from_secs(10);
        while !self.inside.has_ipv6()? {
            if Instant::now() > limit {
                return Err("its command has no IPv6 within 10 s".to_owned());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

fn await_uplink(
    inside: &Namespace,
    name: &str,
    testbed: &Testbed,
) -> Result<crate::namespace::Uplink, Refusal> {
    let limit = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(uplink) = inside.uplink()? {
            return Ok(uplink);
        }
        if Instant::now() > limit {
            return Err(format!(
                "no default route within 10 s{}",
                testbed.last_words(name)
            ));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn program_missing(program: &str, package: &str) -> Option<String> {
    find_program(program)
        .is_none()
        .then(|| format!("{program} is not installed: apt install {package}"))
}

/// The vmnet program under test, whether or not it is there.
pub(crate) fn our_program(options: &Options) -> Option<std::path::PathBuf> {
    ours::program(options)
}

/// Puts the vmnet program under test where the ordinary user can execute it.
pub(crate) fn install_ours(testbed: &Testbed, options: &Options) -> Result<(), Refusal> {
    ours::install(testbed, options).map(drop)
}

/// Looks a program up in `PATH` and where the system keeps those for root.
pub(crate) fn find_program(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}
