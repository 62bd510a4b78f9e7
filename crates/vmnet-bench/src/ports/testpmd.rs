//! DPDK's testpmd sends frames round between two virtio-user ports: by our network, and by a second testpmd that switches
//! between two `net_vhost` ports, in turns.

use super::{Failure, attach, network};
use crate::measure::Values;
use std::path::Path;
use std::time::{Duration, Instant};
use vmnet_lab::testpmd::{Port, Testpmd};

const SOON: Duration = Duration::from_secs(30);
const MACS: [&str; 2] = ["02:00:00:00:00:0a", "02:00:00:00:00:0b"];

/// Frames a second by our network and by testpmd's switch, in turns.
pub(super) fn measure(len: usize, time: Duration, scratch: &Path) -> Result<Values, Failure> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let folder = tempfile::tempdir_in(scratch)?;
        let sockets = [0, 1].map(|number: usize| folder.path().join(number.to_string()));
        let paths = sockets.each_ref().map(|socket| socket.as_path());
        let handle = network()?;
        for socket in paths {
            attach(&handle, socket)?;
        }
        ours.push(round(folder.path(), paths, len, time)?);
        drop(handle);

        let folder = tempfile::tempdir_in(scratch)?;
        let of_switch = tempfile::tempdir_in(scratch)?;
        let sockets = [0, 1].map(|number: usize| folder.path().join(number.to_string()));
        let paths = sockets.each_ref().map(|socket| socket.as_path());
        let mut switch = Testpmd::switch(of_switch.path(), &paths);
        let begun = Instant::now();
        while !sockets.iter().all(|socket| socket.exists()) {
            if begun.elapsed() > SOON || !switch.is_running() {
                return Err("testpmd made no sockets".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        switch.say("set fwd io");
        switch.say("start");
        theirs.push(round(folder.path(), paths, len, time)?);
    }
    let [ours, theirs] = [ours, theirs].map(|mut rates: Vec<f64>| {
        rates.sort_by(f64::total_cmp);
        rates[1] / 1e6
    });
    let id = format!("testpmd_{len}");
    let dpdk = format!("{id}_dpdk");
    if theirs == 0.0 {
        return Err("between two ports of DPDK's net_vhost nothing moved".into());
    }
    Ok(vec![(id, ours), (dpdk, theirs)])
}

/// Frames a second that two virtio-user ports receive.
fn round(folder: &Path, sockets: [&Path; 2], len: usize, time: Duration) -> Result<f64, Failure> {
    let port = |number: usize| Port {
        socket: sockets[number],
        mac: MACS[number],
        more: "mrg_rxbuf=1,in_order=1",
    };
    let mut testpmd = Testpmd::start(folder, &[port(0), port(1)]);
    testpmd.say("set fwd mac");
    testpmd.say(&format!("set txpkts {len}"));
    std::thread::sleep(Duration::from_secs(2));
    testpmd.say("start tx_first 3");
    std::thread::sleep(time);
    testpmd.say("stop");
    let counts = testpmd.quit(SOON);
    let frames: u64 = counts.iter().flat_map(|run| &run.received).sum();
    Ok(frames as f64 / time.as_secs_f64())
}
