//! `vmnet-bench relay`: stands for a virtual machine. It moves frames between the tap that it is told of as QEMU would be and
//! one in the guest's namespace, which is the guest's kernel.

use crate::control::Refusal;
use crate::namespace::Namespace;
use crate::sys;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};
use vmnet_linux::kernel::tap;
use vmnet_linux::sys::process;

/// The guest's interface.
pub(super) const INTERFACE: &str = "eth0";
/// Its MAC.
pub(super) const MAC: &str = "02:00:5e:10:00:03";
/// The largest frame with its header.
const FRAME: usize = 65_536 + 64;

/// A core that a process is kept on. Where the scheduler puts the ends decides more than anything that is measured: rates of
/// the same path were a third apart from one start to the next.
#[derive(Debug, Clone, Copy)]
pub(super) enum Core {
    /// The first: the guest's load.
    Load,
    /// The last: whoever moves frames.
    Frames,
}

/// A command on one core.
pub(super) fn on(core: Core, command: &Command) -> Command {
    let count = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let number = match core {
        Core::Load => 0,
        Core::Frames => count - 1,
    };
    let mut bound = Command::new("taskset");
    bound.args(["-c", &number.to_string()]);
    bound.arg(command.get_program()).args(command.get_args());
    for (variable, value) in command.get_envs() {
        match value {
            Some(value) => bound.env(variable, value),
            None => bound.env_remove(variable),
        };
    }
    bound
}

/// What it is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Relay {
    /// The guest's network namespace.
    #[arg(long)]
    inside: PathBuf,
    /// What QEMU would be told: `-netdev tap,fd=N` or `-netdev tap,ifname=NAME`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    qemu: Vec<OsString>,
}

/// Moves frames until one side ends.
pub(crate) fn run(relay: &Relay) -> Result<(), Refusal> {
    let outer = outer(&relay.qemu)?;
    let namespace = File::open(&relay.inside)
        .map_err(|error| format!("{}: {error}", relay.inside.display()))?;
    let inner = open_in(&OwnedFd::from(namespace))?;
    for tap in [&inner, &outer] {
        rustix::io::ioctl_fionbio(tap, false).map_err(|error| error.to_string())?;
    }
    let copy = |tap: &OwnedFd| tap.try_clone().map_err(|error| error.to_string());
    let (there, back) = ((copy(&inner)?, copy(&outer)?), (outer, inner));
    let one = thread::spawn(move || pass(there));
    let ended = pass(back);
    let other = one.join().map_err(|_| "the relay panicked".to_owned())?;
    ended
        .and(other)
        .map_err(|error| format!("a frame: {error}"))
}

/// The guest's end.
fn open_in(namespace: &OwnedFd) -> Result<OwnedFd, Refusal> {
    let open = || -> Result<OwnedFd, String> {
        sys::enter(namespace.as_fd()).map_err(|error| error.to_string())?;
        tap::open(INTERFACE).map_err(|error| error.to_string())
    };
    thread::scope(|scope| scope.spawn(open).join())
        .map_err(|_| "opening the guest's tap panicked".to_owned())?
}

/// What a virtual machine is given.
fn outer(qemu: &[OsString]) -> Result<OwnedFd, Refusal> {
    let words = qemu.iter().map(|word| word.to_string_lossy());
    let netdev = words
        .skip_while(|word| word != "-netdev")
        .nth(1)
        .ok_or("there is no -netdev")?;
    for part in netdev.split(',') {
        if let Some(name) = part.strip_prefix("ifname=") {
            return tap::open_existing(name).map_err(|error| error.to_string());
        }
        if let Some(number) = part.strip_prefix("fd=") {
            let number = number.parse().map_err(|_| format!("{netdev}: no number"))?;
            return process::inherited(number).map_err(|error| format!("{netdev}: {error}"));
        }
    }
    Err(format!("{netdev}: neither fd nor ifname"))
}

fn pass((from, to): (OwnedFd, OwnedFd)) -> io::Result<()> {
    let (mut from, mut to) = (File::from(from), File::from(to));
    let mut frame = vec![0; FRAME];
    loop {
        let length = match from.read(&mut frame) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let frame = frame.get(..length).unwrap_or_default();
        match to.write(frame) {
            Ok(_) => {}
            // An interface that is down takes nothing, and one that is full drops.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {}
            Err(error) => return Err(error),
        }
    }
}

/// Waits until the guest has its interface, and sets it up.
pub(super) fn await_interface(inside: &Namespace, mtu: u32) -> Result<(), Refusal> {
    let limit = Instant::now() + Duration::from_secs(10);
    while inside.ip(&format!("link show {INTERFACE}")).is_err() {
        if Instant::now() > limit {
            return Err("the guest has no interface within 10 s".to_owned());
        }
        thread::sleep(Duration::from_millis(10));
    }
    inside.ip(&format!("link set {INTERFACE} address {MAC} mtu {mtu} up"))?;
    Ok(())
}
