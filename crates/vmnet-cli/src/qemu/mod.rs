//! `vmnet qemu`: QEMU with a NIC on a network.
//!
//! | file | what |
//! | --- | --- |
//! | [`nic`] | the card: how frames travel, and what QEMU is told of it |
//! | [`memory`] | memory that QEMU shares with us, which the fastest kind of card needs |
//!
//! The MAC is made of the machine's name: `--name`, else QEMU's own `-name`, else a hash of its disks' options, else of all
//! its arguments.

mod memory;
mod nic;

use crate::args::{NicKind, Qemu};
use crate::command::foreground::{Duty, Foreground, release_input_and_output};
use crate::command::{self, Ending, NotExecuted, Program, Started};
use crate::identity::{self, GuestName};
use crate::network::{self, Guest, Joined, Kept, Network, NetworkError};
use nic::{Nic, Way};
use rustix::event::{PollFd, PollFlags, poll};
use std::cell::Cell;
use std::error::Error;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use vmnet_linux::lane::Attachment;
use vmnet_linux::sys::process::{self, Change};
use vmnet_linux::sys::signal::{self, Mask};

/// Options that name a machine's disks.
const DISK_OPTIONS: [&str; 8] = [
    "drive", "blockdev", "hda", "hdb", "hdc", "hdd", "sd", "pflash",
];

/// Runs QEMU to its end.
pub(crate) fn run(qemu: Qemu) -> Result<Ending, Box<dyn Error>> {
    if let Some(ending) = command::missing(&qemu.command) {
        return Ok(ending);
    }
    let own_name = own_name(&qemu.command);
    let name = qemu
        .joining
        .name
        .clone()
        .or_else(|| own_name.as_deref().and_then(GuestName::nearest));
    let identity = match (&name, own_name) {
        (Some(name), _) => name.to_string(),
        (None, Some(own)) => own,
        (None, None) => hashed(&qemu.command),
    };
    let mut network = network::find(&qemu.joining, &qemu.making)?;
    let guest = network.guest(&qemu.joining, name, Some(&identity))?;
    let by_tap = network.has_bridge() && matches!(qemu.nic, NicKind::Auto | NicKind::Tap);
    let (way, ours) = if by_tap {
        let queues = network.open_tap(qemu.queues)?;
        let first = queues.first().ok_or("a tap without queues")?.try_clone()?;
        (Way::Tap(queues), Ours::Tap(first))
    } else {
        let (way, ours) = Way::choose(&qemu, network.is_of_service())?;
        (way, Ours::Port(ours))
    };
    // The service says which MAC belongs to an identity, so it is asked before QEMU is told. A network of this process
    // waits: it needs a thread, and QEMU begins before there are threads.
    let mtu = network.mtu();
    let (early, late) = match network {
        Network::Service(_) => (Some(ours.join(network, &guest)?), None),
        Network::Private(_) => (None, Some((network, ours))),
    };
    let mac = match (&early, guest.mac) {
        (Some(joined), _) => joined.mac()?,
        (None, Some(mac)) => mac,
        (None, None) => return Err("a private network knows no identities".into()),
    };
    let nic = Nic {
        way: &way,
        mac,
        mtu,
    };
    let program = Program::new(&nic.extend(&qemu.command))?;
    let (foreground, mask) = Foreground::take()?;
    for inherited in way.inherited() {
        process::keep_over_exec(inherited)?;
    }
    let started = Gated::start(&program, &mask)?;
    // What QEMU inherits is its own; a socket's file stays for as long as QEMU may come again.
    let _file = way.into_file();
    // On an error the gate closes unopened, and the child ends by itself.
    let joined = match (early, late) {
        (Some(joined), _) => joined,
        (None, Some((network, ours))) => ours.join(network, &guest)?,
        (None, None) => return Err("there is no network".into()),
    };
    let kept = joined.keep()?;
    let pid = match started.open()? {
        Ok(pid) => pid,
        Err(failure) => return Ok(report(failure, &qemu.command)),
    };
    let ending = attend(pid, &kept, &foreground);
    foreground.restore_terminal();
    ending
}

/// Our end of the card.
enum Ours {
    Port(Attachment),
    /// None: the kernel has it. This keeps the tap for whoever serves next.
    Tap(OwnedFd),
}

impl Ours {
    fn join(self, network: Network, guest: &Guest<'_>) -> Result<Joined, NetworkError> {
        match self {
            Self::Port(attachment) => network.join(attachment, guest),
            Self::Tap(tap) => network.join_with_tap(tap, guest),
        }
    }
}

/// A program that waits until its network is there.
struct Gated {
    gate: OwnedFd,
    started: Started,
}

impl Gated {
    fn start(program: &Program, mask: &Mask) -> io::Result<Self> {
        let (behind, gate) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let gate = Cell::new(Some(gate));
        let started = program.start(mask, || {
            process::die_with_parent(signal::TERM);
            drop(gate.take());
            let mut word = [0];
            if !matches!(
                rustix::io::retry_on_intr(|| rustix::io::read(&behind, &mut word)),
                Ok(1)
            ) {
                process::exit_now(1);
            }
            Ok(())
        })?;
        let gate = gate.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Self { gate, started })
    }

    fn open(self) -> io::Result<Result<i32, NotExecuted>> {
        rustix::io::write(&self.gate, &[1])?;
        self.started.wait()
    }
}

fn report(failure: NotExecuted, command: &[OsString]) -> Ending {
    failure.report(command.first().map(|word| &**word).unwrap_or_default())
}

/// Passes signals until QEMU ends.
fn attend(pid: i32, kept: &Kept, foreground: &Foreground) -> Result<Ending, Box<dyn Error>> {
    release_input_and_output()?;
    let mut departure = kept.departure();
    loop {
        let mut waits = vec![PollFd::new(foreground, PollFlags::IN)];
        if let Some(network) = &departure {
            waits.push(PollFd::new(network, PollFlags::IN));
        }
        match poll(&mut waits, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let left = waits.get(1).is_some_and(|wait| !wait.revents().is_empty());
        if let Some(keeper) = departure.filter(|_| left) {
            tracing::error!("{}; QEMU goes on without it", keeper.reason());
            departure = None;
        }
        while let Some(duty) = foreground.duty() {
            if let Duty::PassOn(number) = duty {
                process::kill(pid, number);
            }
        }
        match process::changed(pid)? {
            None => {}
            Some((_, Change::Exited(status))) => {
                return Ok(Ending::Status(u8::try_from(status & 0xff)?));
            }
            Some((_, Change::Killed(signal))) => return Ok(Ending::Signal(signal)),
            Some((_, Change::Stopped(_))) => foreground.stop(),
        }
    }
}

/// The machine's name on QEMU's command line: `-name NAME,...` or `-name guest=NAME,...`.
fn own_name(command: &[OsString]) -> Option<String> {
    let value = values(command, &["name"]).pop()?;
    let named = value
        .split(',')
        .find_map(|part| part.strip_prefix("guest=").map(str::to_owned));
    let first = value.split(',').next().filter(|part| !part.contains('='));
    named
        .or_else(|| first.map(str::to_owned))
        .filter(|name| !name.is_empty())
}

/// An identity for a machine without a name.
fn hashed(command: &[OsString]) -> String {
    let disks = values(command, &DISK_OPTIONS);
    let hash = if disks.is_empty() {
        identity::stable_hash(command.iter().map(|word| word.as_bytes()))
    } else {
        identity::stable_hash(disks.iter().map(|disk| disk.as_bytes()))
    };
    format!("argv-{hash:016x}")
}

/// What follows each of these options; QEMU takes them with one dash or two.
fn values(command: &[OsString], options: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for pair in command.windows(2) {
        if let [option, value] = pair {
            let option = option.to_string_lossy();
            let bare = option
                .strip_prefix("--")
                .or_else(|| option.strip_prefix('-'));
            if bare.is_some_and(|bare| options.contains(&bare)) {
                found.push(value.to_string_lossy().into_owned());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_name_qemu_is_given() {
        for (line, expected) in [
            ("qemu -name web", Some("web")),
            ("qemu --name web,process=x", Some("web")),
            ("qemu -name guest=web,debug-threads=on", Some("web")),
            ("qemu -name debug-threads=on", None),
            ("qemu -m 512", None),
            ("qemu -name", None),
        ] {
            assert_eq!(own_name(&words(line)).as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn a_machine_without_a_name_is_known_by_its_disks() {
        let one = hashed(&words("qemu -drive file=a.img -m 512"));
        assert_eq!(one, hashed(&words("qemu -m 1024 -drive file=a.img")));
        assert_ne!(one, hashed(&words("qemu -drive file=b.img -m 512")));
        assert_ne!(hashed(&words("qemu -m 512")), hashed(&words("qemu -m 513")));
    }
}
