//! DPDK's `testpmd` with virtio-user ports: a VMM that we did not write, without a guest.
//!
//! It needs neither huge pages nor root. Its memory is a memfd that takes no seals.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::process::Process;

/// The program; Debian has it in dpdk-dev.
pub const PROGRAM: &str = "dpdk-testpmd";

/// Descriptors of a ring, and frames that testpmd has room for altogether. It uses its room in turns, and with more than a
/// processor's own cache holds (2 MiB here, 2.3 KiB each), every byte comes from elsewhere: then all that is measured is that.
const RING: u16 = 128;
const FRAMES: u16 = 1200;

/// A port of testpmd on a vhost-user device.
#[derive(Clone, Copy, Debug)]
pub struct Port<'p> {
    /// The device's socket.
    pub socket: &'p Path,
    /// The MAC address of the port.
    pub mac: &'p str,
    /// More of virtio-user's arguments: `mrg_rxbuf=1,packed_vq=1`.
    pub more: &'p str,
}

/// A running testpmd, which takes commands.
#[derive(Debug)]
pub struct Testpmd(Process);

/// What was counted in one `start` and `stop`, port by port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Frames that came.
    pub received: Vec<u64>,
    /// Frames that went.
    pub sent: Vec<u64>,
    /// Frames for which there was no room to go.
    pub dropped: Vec<u64>,
}

impl Testpmd {
    /// Starts it with its files in `folder`. Each port's peer, in the forwarding mode `mac`, is the next port, and that of
    /// the last is the first.
    #[must_use]
    pub fn start(folder: &Path, ports: &[Port<'_>]) -> Self {
        // Frames are moved by the second processor.
        let mut command = command(folder, "0");
        for (number, port) in ports.iter().enumerate() {
            let (socket, mac, more) = (port.socket.display(), port.mac, port.more);
            let device =
                format!("net_virtio_user{number},path={socket},mac={mac},queue_size={RING},{more}");
            command.args(["--vdev", &device]);
        }
        let frames = format!("--total-num-mbufs={FRAMES}");
        command.args(["--", "-i", &frames, "--no-flush-rx"]);
        let peers = ports.iter().cycle().skip(1).zip(0..ports.len());
        for (peer, number) in peers {
            command.arg(format!("--eth-peer={number},{}", peer.mac));
        }
        Self(Process::spawn(command))
    }

    /// Starts one that is the device behind each of `sockets`, on which it listens: a switch to compare with. It has the
    /// first processor.
    #[must_use]
    pub fn switch(folder: &Path, sockets: &[&Path]) -> Self {
        let mut command = command(folder, "1");
        for (number, socket) in sockets.iter().enumerate() {
            let socket = socket.display();
            command.args([
                "--vdev",
                &format!("net_vhost{number},iface={socket},queues=1"),
            ]);
        }
        command.args(["--", "-i", "--total-num-mbufs=8192", "--no-flush-rx"]);
        Self(Process::spawn(command))
    }

    /// Types a command.
    pub fn say(&mut self, command: &str) {
        self.0.write_line(command);
    }

    /// It has not ended.
    pub fn is_running(&mut self) -> bool {
        self.0.is_running()
    }

    /// Lets it end, and gives what it counted from each `start` to its `stop`. It tells before it ends only as much as fills a
    /// buffer.
    ///
    /// # Panics
    /// If it does not end in time, or well.
    #[must_use]
    pub fn quit(mut self, within: Duration) -> Vec<Counts> {
        self.say("quit");
        self.counts(within)
    }

    /// The same after it was told to quit.
    ///
    /// # Panics
    /// As above.
    #[must_use]
    pub fn counts(mut self, within: Duration) -> Vec<Counts> {
        let said = self.0.wait(within).success();
        let runs = said.split("Accumulated forward statistics");
        let mut counts: Vec<Counts> = runs.map(Counts::read).collect();
        // What comes behind the last sum is no run.
        counts.pop();
        counts
    }
}

/// testpmd that keeps its files in `folder`, and takes commands on this processor of two.
fn command(folder: &Path, main: &str) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(["-l", "0,1", "--main-lcore", main, "--no-pci"]);
    command.args(["--no-huge", "-m", "256", "--no-telemetry"]);
    command.arg("--file-prefix=vmnet");
    command.env("XDG_RUNTIME_DIR", folder);
    command.env("RUNTIME_DIRECTORY", folder);
    command
}

impl Counts {
    fn read(run: &str) -> Self {
        let all = |name: &str| {
            let ports = run.split("Forward statistics for port ").skip(1);
            ports.map(|port| number_behind(port, name)).collect()
        };
        Self {
            received: all("RX-packets:"),
            sent: all("TX-packets:"),
            dropped: all("TX-dropped:"),
        }
    }
}

fn number_behind(text: &str, name: &str) -> u64 {
    let rest = text.split_once(name).map(|(_, rest)| rest);
    let word = rest.and_then(|rest| rest.split_whitespace().next());
    let number = word.and_then(|word| word.parse().ok());
    number.unwrap_or_else(|| panic!("no {name} in {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_by_port() {
        let port = |number, received, sent| {
            format!(
                "  --- Forward statistics for port {number}  ---\n  RX-packets: {received}  RX-dropped: 0  \
                 RX-total: 9\n  TX-packets: {sent}  TX-dropped: 1  TX-total: 9\n"
            )
        };
        let run = port(0, 5, 6) + &port(1, 7, 8);
        let expected = Counts {
            received: vec![5, 7],
            sent: vec![6, 8],
            dropped: vec![1, 1],
        };
        assert_eq!(Counts::read(&run), expected);
    }
}
