//! What the daemon holds in memory, from `/proc/PID/smaps_rollup`.
//!
//! What a network or a port costs is how much the proportional share (Pss) grew, divided by their number. Memory of the
//! kernel (sockets and their buffers) is in none of these figures.

use super::daemon::Daemon;
use super::{Failure, named};
use crate::measure::Values;
use openvmnet::client::Client;
use openvmnet::service::{InterfaceOptions, Kind, Mode, NetworkConfiguration};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::fs;
use std::thread::sleep;
use std::time::Duration;

/// Networks without guests.
const NETWORKS: u32 = 100;
/// Ports on one network.
const PORTS: u32 = 500;
/// What is started comes to rest within this.
const REST: Duration = Duration::from_millis(500);

/// Of one process, in KiB.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Held {
    resident: f64,
    proportional: f64,
}

/// An idle daemon, then one with networks, then one with ports.
pub(super) fn measure() -> Result<Values, Failure> {
    let (idle, network) = with_networks()?;
    let port = with_ports()?;
    Ok(named(&[
        ("service_rss_idle", idle.resident / 1024.0),
        ("service_pss_idle", idle.proportional / 1024.0),
        ("service_pss_network", network),
        ("service_pss_port", port),
    ]))
}

fn with_networks() -> Result<(Held, f64), Failure> {
    let daemon = Daemon::start()?;
    let idle = held(&daemon)?;
    let mut client = Client::connect_running()?;
    let before = held(&daemon)?;
    for number in 0..NETWORKS {
        let mut configuration = NetworkConfiguration::new(Mode::Shared);
        // The default subnets are fewer than these.
        configuration.subnet = Some(format!("10.99.{number}.1/24"));
        client.open_network(None, Some(configuration))?;
    }
    let there = client.status()?.networks;
    if there != NETWORKS {
        return Err(format!("{there} networks of {NETWORKS}").into());
    }
    let after = held(&daemon)?;
    Ok((idle, growth(before, after, NETWORKS)))
}

fn with_ports() -> Result<f64, Failure> {
    let daemon = Daemon::start()?;
    let mut client = Client::connect_running()?;
    let configuration = NetworkConfiguration::new(Mode::Shared);
    let network = client.open_network(None, Some(configuration))?;
    let before = held(&daemon)?;
    let mut guests = Vec::new();
    for _ in 0..PORTS {
        let mut options = InterfaceOptions::new(Kind::Dgram);
        options.allocate_mac = Some(false);
        let flags = SocketFlags::CLOEXEC;
        let (guest, theirs) = socketpair(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        client.start_interface(&network.uuid, options, vec![theirs])?;
        guests.push(guest);
    }
    let there = client.status()?.interfaces;
    if there != PORTS {
        return Err(format!("{there} ports of {PORTS}").into());
    }
    let after = held(&daemon)?;
    Ok(growth(before, after, PORTS))
}

fn growth(before: Held, after: Held, number: u32) -> f64 {
    (after.proportional - before.proportional) / f64::from(number)
}

fn held(daemon: &Daemon) -> Result<Held, Failure> {
    sleep(REST);
    let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", daemon.pid()))?;
    parse(&text).ok_or_else(|| "smaps_rollup cannot be understood".into())
}

fn parse(text: &str) -> Option<Held> {
    let field = |name: &str| -> Option<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    Some(Held {
        resident: field("Rss:")?,
        proportional: field("Pss:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sums_of_a_process() {
        let text = "55d0-7ffe ---p 00000000 00:00 0    [rollup]\nRss:    4096 kB\nPss:    1024 kB\nPss_Dirty: 7 kB\n";
        let parsed = parse(text).unwrap();
        assert_eq!((parsed.resident, parsed.proportional), (4096.0, 1024.0));
        assert_eq!(parse("Rss: 1 kB\n"), None);
    }
}
