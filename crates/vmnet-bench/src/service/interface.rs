//! Interfaces and networks as a program asks for them, through the client library.

use super::daemon::Daemon;
use super::{Failure, folders, millis, named, percentile};
use crate::measure::Values;
use openvmnet::client::Client;
use openvmnet::service::{InterfaceOptions, Kind, Mode, NetworkConfiguration};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Instant;

/// Not counted, first.
const WARM_UP: usize = 10;

/// Each with a fresh identity and MAC, which are on disk before the answer.
pub(super) fn fresh(runs: usize) -> Result<Values, Failure> {
    let (starts, stops) = cycle(runs, true)?;
    Ok(named(&[
        ("service_interface_p50", percentile(&starts, 50)?),
        ("service_interface_p99", percentile(&starts, 99)?),
        ("service_stop_p50", percentile(&stops, 50)?),
        ("service_disk_p50", percentile(&disk()?, 50)?),
    ]))
}

/// Each without an identity and without a MAC.
pub(super) fn plain(runs: usize) -> Result<Values, Failure> {
    let (starts, _) = cycle(runs, false)?;
    Ok(named(&[
        ("service_plain_p50", percentile(&starts, 50)?),
        ("service_plain_p99", percentile(&starts, 99)?),
    ]))
}

/// Starts and stops, one after the other; the times of both.
fn cycle(runs: usize, allocate: bool) -> Result<(Vec<f64>, Vec<f64>), Failure> {
    let _daemon = Daemon::start()?;
    let mut client = Client::connect_running()?;
    let configuration = NetworkConfiguration::new(Mode::Shared);
    let network = client.open_network(None, Some(configuration))?;
    let (mut starts, mut stops) = (Vec::new(), Vec::new());
    for run in 0..WARM_UP + runs {
        let mut options = InterfaceOptions::new(Kind::Dgram);
        options.allocate_mac = Some(allocate);
        let flags = SocketFlags::CLOEXEC;
        let (_guest, theirs) = socketpair(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        let began = Instant::now();
        let started = client.start_interface(&network.uuid, options, vec![theirs])?;
        let start = began.elapsed();
        let given = (&started.interface.id, &started.interface.mac);
        if (given.0.is_some(), given.1.is_some()) != (allocate, allocate) {
            return Err(format!("asked with allocate_mac={allocate}, got {given:?}").into());
        }
        let began = Instant::now();
        client.stop_interface(started.interface.interface)?;
        if run >= WARM_UP {
            starts.push(millis(start));
            stops.push(millis(began.elapsed()));
        }
    }
    Ok((starts, stops))
}

/// One page written and made durable, where the service keeps its store: what no durable answer can be faster than.
fn disk() -> Result<Vec<f64>, Failure> {
    let path = folders::state()?.join("page");
    let file = File::create(path)?;
    let page = [0x5a; 4096];
    let mut times = Vec::new();
    // The first makes the file longer, which is another thing.
    for run in 0..101 {
        let began = Instant::now();
        file.write_all_at(&page, 0)?;
        file.sync_data()?;
        if run > 0 {
            times.push(millis(began.elapsed()));
        }
    }
    Ok(times)
}

/// Networks that a client holds, and networks that stay.
pub(super) fn networks(runs: usize) -> Result<Values, Failure> {
    let _daemon = Daemon::start()?;
    let mut client = Client::connect_running()?;
    let (mut held, mut kept) = (Vec::new(), Vec::new());
    for run in 0..runs + 2 {
        let began = Instant::now();
        let configuration = NetworkConfiguration::new(Mode::Shared);
        let network = client.open_network(None, Some(configuration))?;
        let open = began.elapsed();
        client.close_network(&network.uuid)?;
        let mut configuration = NetworkConfiguration::new(Mode::Shared);
        configuration.name = Some(format!("bench-{run}"));
        let began = Instant::now();
        let network = client.create_network(configuration)?;
        let create = began.elapsed();
        client.delete_network(&network.uuid, false)?;
        if run >= 2 {
            held.push(millis(open));
            kept.push(millis(create));
        }
    }
    Ok(named(&[
        ("service_network_held", percentile(&held, 50)?),
        ("service_network_kept", percentile(&kept, 50)?),
    ]))
}
