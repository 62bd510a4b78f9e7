//! `vmnet qemu`: QEMU with a NIC on a network.
//!
//! QEMU inherits one end of a socket pair and speaks its own framing on it (`-netdev stream`, QEMU 7.2). The MAC is made of
//! the machine's name: `--name`, else QEMU's own `-name`, else a hash of its disks' options, else of all its arguments.

use crate::args::Qemu;
use crate::command::foreground::{Duty, Foreground, release_input_and_output};
use crate::command::{Ending, NotExecuted, Program};
use crate::identity::{self, GuestName};
use crate::network::{self, Guest, Joined};
use rustix::event::{PollFd, PollFlags, poll};
use std::cell::Cell;
use std::error::Error;
use std::ffi::OsString;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use vmnet_linux::lane::Attachment;
use vmnet_linux::sys::process::{self, Change};
use vmnet_linux::sys::signal;
use vmnet_wire::ethernet::Mac;

/// Options that name a machine's disks.
const DISK_OPTIONS: [&str; 8] = [
    "drive", "blockdev", "hda", "hdb", "hdc", "hdd", "sd", "pflash",
];
/// What a guest assumes if nobody tells it.
const USUAL_MTU: u16 = 1500;

/// Runs QEMU to its end.
pub(crate) fn run(qemu: Qemu) -> Result<Ending, Box<dyn Error>> {
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
    let mac = network::mac_for(&qemu.joining, Some(&identity))?;
    let mut network = network::find(&qemu.joining, &qemu.making)?;
    let (ours, theirs) = UnixStream::pair()?;
    let theirs = OwnedFd::from(theirs);
    process::keep_over_exec(&theirs)?;
    let nic = Nic {
        descriptor: theirs.as_raw_fd(),
        mac,
        mtu: network.mtu()?,
    };
    let program = Program::new(&extended(&qemu.command, &nic))?;
    let (foreground, mask) = Foreground::take()?;
    // QEMU begins before the datapath has threads, and waits until it is there.
    let (gate, open_gate) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let open_gate = Cell::new(Some(open_gate));
    let started = program.start(&mask, || {
        process::die_with_parent(signal::TERM);
        drop(open_gate.take());
        let mut word = [0];
        if !matches!(
            rustix::io::retry_on_intr(|| rustix::io::read(&gate, &mut word)),
            Ok(1)
        ) {
            process::exit_now(1);
        }
        Ok(())
    })?;
    drop(theirs);
    let guest = Guest {
        name,
        mac,
        forwards: &qemu.joining.publish,
    };
    // On an error the gate closes unopened, and the child ends by itself.
    let joined = network.join(Attachment::Stream(ours.into()), &guest)?;
    if let Some(gate) = open_gate.take() {
        rustix::io::write(&gate, &[1])?;
    }
    let pid = match started.wait()? {
        Ok(pid) => pid,
        Err(failure) => return Ok(report(failure, &qemu.command)),
    };
    let ending = attend(pid, &joined, &foreground);
    foreground.restore_terminal();
    ending
}

fn report(failure: NotExecuted, command: &[OsString]) -> Ending {
    failure.report(command.first().map(|word| &**word).unwrap_or_default())
}

/// Passes signals until QEMU ends.
fn attend(pid: i32, joined: &Joined, foreground: &Foreground) -> Result<Ending, Box<dyn Error>> {
    release_input_and_output()?;
    let mut departure = joined.departure();
    loop {
        let mut waits = vec![PollFd::new(foreground, PollFlags::IN)];
        if let Some(network) = &departure {
            waits.push(PollFd::new(network, PollFlags::IN));
        }
        match poll(&mut waits, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if waits.get(1).is_some_and(|wait| !wait.revents().is_empty()) {
            tracing::error!("the process that held the network has ended; QEMU goes on without it");
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

/// The card QEMU gets.
struct Nic {
    descriptor: i32,
    mac: Mac,
    mtu: u16,
}

/// QEMU's command line with the card at its end.
fn extended(command: &[OsString], nic: &Nic) -> Vec<OsString> {
    let id = free_id(command);
    let mut device = format!("{},netdev={id},mac={}", device_of(command), nic.mac);
    if nic.mtu != USUAL_MTU {
        device.push_str(&format!(",host_mtu={}", nic.mtu));
    }
    let netdev = format!(
        "stream,id={id},server=off,addr.type=fd,addr.str={}",
        nic.descriptor
    );
    let mut extended = command.to_vec();
    extended.extend(["-netdev", &netdev, "-device", &device].map(OsString::from));
    extended
}

/// An id that the command line does not use.
fn free_id(command: &[OsString]) -> String {
    let used = |id: &str| {
        command
            .iter()
            .any(|word| word.to_string_lossy().contains(id))
    };
    (0..)
        .map(|number| format!("vmnet{number}"))
        .find(|id| !used(id))
        .unwrap_or_default()
}

/// The kind of virtio-net device that the machine has a bus for.
fn device_of(command: &[OsString]) -> &'static str {
    let program = command
        .first()
        .map(|word| word.to_string_lossy().into_owned())
        .unwrap_or_default();
    let machine = values(command, &["machine", "M"])
        .last()
        .cloned()
        .unwrap_or_default();
    let kind = machine.split(',').next().unwrap_or_default();
    let kind = kind.strip_prefix("type=").unwrap_or(kind);
    if program.ends_with("qemu-system-s390x") {
        "virtio-net-ccw"
    } else if kind == "microvm" && !machine.contains("pcie=on") {
        "virtio-net-device"
    } else {
        "virtio-net-pci"
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
    fn the_device_fits_the_machine() {
        for (line, expected) in [
            ("qemu-system-x86_64 -m 512", "virtio-net-pci"),
            (
                "qemu-system-x86_64 -machine q35,accel=tcg",
                "virtio-net-pci",
            ),
            ("qemu-system-x86_64 -M microvm", "virtio-net-device"),
            (
                "qemu-system-x86_64 -machine type=microvm,rtc=on",
                "virtio-net-device",
            ),
            ("qemu-system-x86_64 -M microvm,pcie=on", "virtio-net-pci"),
            ("/usr/bin/qemu-system-s390x -m 512", "virtio-net-ccw"),
        ] {
            assert_eq!(device_of(&words(line)), expected, "{line}");
        }
    }

    #[test]
    fn a_machine_without_a_name_is_known_by_its_disks() {
        let one = hashed(&words("qemu -drive file=a.img -m 512"));
        assert_eq!(one, hashed(&words("qemu -m 1024 -drive file=a.img")));
        assert_ne!(one, hashed(&words("qemu -drive file=b.img -m 512")));
        assert_ne!(hashed(&words("qemu -m 512")), hashed(&words("qemu -m 513")));
    }

    #[test]
    fn the_card_comes_last() {
        let nic = Nic {
            descriptor: 7,
            mac: Mac([2, 0, 0, 0, 0, 1]),
            mtu: 9000,
        };
        let line = extended(&words("qemu -device x,netdev=vmnet0"), &nic);
        let text: Vec<_> = line.iter().map(|word| word.to_string_lossy()).collect();
        assert_eq!(
            text[3..],
            [
                "-netdev",
                "stream,id=vmnet1,server=off,addr.type=fd,addr.str=7",
                "-device",
                "virtio-net-pci,netdev=vmnet1,mac=02:00:00:00:00:01,host_mtu=9000"
            ]
        );
    }
}
