//! Ports in shared memory: vhost-user, with a driver of ours or DPDK's in the place of a guest.
//!
//! | file | what it measures |
//! | --- | --- |
//! | `rings.rs` | frames from one port to another, beside a plain copy |
//! | `instructions.rs` | the same, counted by callgrind |
//! | `testpmd.rs` | DPDK's generator on our ports, and on DPDK's own switch |
//! | `nat.rs` | TCP from and to a server behind the host, through the NAT |
//! | `flow.rs` | the guest's end of such a TCP connection |

mod flow;
mod instructions;
mod nat;
mod rings;
mod testpmd;

use crate::control::Refusal;
use crate::measure::Values;
use crate::options::Options;
use crate::path::Kind;
use crate::testbed::Testbed;
use std::error::Error;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};
use vmnet_linux::lane::{self, Attachment, Handle, Ipv4, PortOptions, Settings, VhostUserSocket};

type Failure = Box<dyn Error + Send + Sync>;

/// The name of the network, and so of its thread.
const NAME: &str = "between";
/// Bytes of a large segment with its headers.
pub(crate) const LARGE: usize = 65_549;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    /// Frames of this many bytes between two ports.
    Rings { len: usize, packed: bool },
    /// Instructions of the network for such a frame.
    Instructions { len: usize },
    /// The same with DPDK's generator.
    Testpmd { len: usize },
    /// Bulk TCP through the NAT.
    Nat { up: bool, flows: usize },
}

impl Part {
    /// Whether this can be measured of a path.
    pub(crate) fn is_of(self, kind: Kind) -> bool {
        kind == Kind::Ours
    }
}

/// The row of a measurement between two rings.
fn rings_id(len: usize, packed: bool) -> String {
    let kind = if packed { "packed" } else { "split" };
    format!("rings_{kind}_{len}")
}

/// Measures one part.
pub(crate) fn measure(part: Part, testbed: &Testbed, options: &Options) -> Result<Values, Refusal> {
    let time = Duration::from_secs_f64(options.seconds());
    // Removed with everything else, also after Ctrl-C.
    let scratch = testbed.scratch().join("");
    let measured = match part {
        Part::Rings { len, packed } => rings::measure(len, packed, time, &scratch),
        Part::Instructions { len } => {
            if crate::path::find_program("valgrind").is_none() {
                return Err("valgrind is not installed: apt install valgrind".to_owned());
            }
            instructions::measure(len, &scratch)
        }
        Part::Testpmd { len } => {
            if crate::path::find_program(vmnet_lab::testpmd::PROGRAM).is_none() {
                return Err("dpdk-testpmd is not installed: apt install dpdk-dev".to_owned());
            }
            testpmd::measure(len, time, &scratch)
        }
        Part::Nat { up, flows } => nat::measure(up, flows, time, testbed),
    };
    measured.map_err(|error| error.to_string())
}

/// Moves so many frames from one port to another: what is run under callgrind.
pub(crate) fn forward(len: usize, frames: u64) -> Result<(), Refusal> {
    rings::forward(len, frames, &std::env::temp_dir()).map_err(|error| error.to_string())
}

/// How long a driver sleeps without being called.
const NAP: Duration = Duration::from_millis(10);

/// The driver's side of some rings.
trait Driver {
    /// How long it looks before it sleeps.
    const LOOK: Duration = Duration::from_micros(50);

    /// Does what there is to do. True: there was something.
    fn step(&mut self) -> Result<bool, Failure>;

    /// Sleeps until it is called, or for [`NAP`].
    fn sleep(&mut self) -> Result<(), Failure>;

    /// Works for that time.
    fn run(&mut self, time: Duration) -> Result<(), Failure> {
        let begun = Instant::now();
        let mut idle_since = None;
        while begun.elapsed() < time {
            if self.step()? {
                idle_since = None;
                continue;
            }
            std::hint::spin_loop();
            if idle_since.get_or_insert_with(Instant::now).elapsed() >= Self::LOOK {
                idle_since = None;
                self.sleep()?;
            }
        }
        Ok(())
    }
}

/// A network whose thread is in the caller's network namespace.
fn network() -> Result<Handle, Failure> {
    let ipv4 = Ipv4::new("192.168.77.0/24".parse()?);
    let mut settings = Settings::shared(NAME, ipv4, Duration::from_secs(3600));
    settings.resolvers = Some(Vec::new());
    Ok(lane::start(settings)?)
}

/// A new port of the network, listening.
fn attach(handle: &Handle, socket: &Path) -> Result<(), Failure> {
    let listener = UnixListener::bind(socket)?;
    let attachment = Attachment::VhostUser(VhostUserSocket::Listen(listener));
    handle.attach(attachment, PortOptions::default())?;
    Ok(())
}
