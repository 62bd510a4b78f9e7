//! The card that QEMU gets.
//!
//! On a network whose frames the kernel carries QEMU gets a tap of its bridge, and frames never come here. Else:
//!
//! By vhost-user QEMU connects to a socket of ours, and shares the guest's memory: frames need no call of QEMU's at all, and
//! when the service was killed, QEMU connects to the next one. If the memory cannot be shared, QEMU inherits one end of a
//! socket pair. On a private network it speaks its own framing on a stream (`-netdev stream`, QEMU 7.2). On a network of
//! the service a frame is a datagram (`-netdev dgram`): when the service is killed in the middle of a stream nobody knows
//! where the next frame begins, while a datagram is read whole or not at all.

use super::memory::{self, NotShared};
use super::values;
use crate::args::{NicKind, Qemu};
use crate::socket_file::{self, SocketFile, SocketFileError};
use openvmnet::place;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use vmnet_linux::lane::{Attachment, VhostUserSocket};
use vmnet_wire::ethernet::Mac;

/// What a guest assumes if nobody tells it.
const USUAL_MTU: u16 = 1500;
/// Descriptors of a ring: as many as QEMU allows. A frame of 64 KiB takes up to 45.
const RING: u16 = 1024;
/// The first QEMU whose emulated machines get along with interrupts of vhost-user devices.
const FIRST_WITH_VECTORS: Version = (8, 0);
/// The first QEMU that counts the pause before it connects again in milliseconds; 10.2 knows no other way.
const FIRST_WITH_MILLISECONDS: Version = (9, 2);

/// The first two numbers of a QEMU's version.
type Version = (u32, u32);

/// How frames travel between QEMU and us.
pub(super) enum Way {
    Stream(OwnedFd),
    Dgram(OwnedFd),
    VhostUser(Shared),
    /// A descriptor of each of its queues.
    Tap(Vec<OwnedFd>),
}

/// What QEMU is told to share its guest's memory.
pub(super) struct Shared {
    path: PathBuf,
    file: SocketFile,
    memory: [OsString; 4],
    queues: u8,
    /// Interrupts of its own for each ring.
    vectors: bool,
    /// How QEMU is told to connect again, after a second.
    reconnect: &'static str,
}

/// There is no way as it was asked for.
#[derive(Debug, thiserror::Error)]
enum NoWay {
    #[error("vhost-user: {0}")]
    NotShared(#[from] NotShared),
    #[error("vhost-user: {0}")]
    Socket(#[from] SocketFileError),
    #[error("vhost-user: {0}")]
    Folder(#[from] place::FolderError),
    #[error(
        "vhost-user: {0} has a comma, which QEMU takes for the end of it; set $XDG_RUNTIME_DIR"
    )]
    Comma(PathBuf),
}

impl Way {
    /// The fastest way for this machine, or the one that was asked for, and our end of it.
    pub(super) fn choose(
        qemu: &Qemu,
        of_service: bool,
    ) -> Result<(Self, Attachment), Box<dyn Error>> {
        if !matches!(qemu.nic, NicKind::Socket | NicKind::Tap) {
            match Self::share(qemu) {
                Ok(shared) => return Ok(shared),
                Err(reason) if qemu.nic == NicKind::VhostUser => return Err(reason.into()),
                Err(reason) => {
                    tracing::warn!("frames travel by a socket, which is slower; {reason}");
                }
            }
        }
        if qemu.nic == NicKind::Tap {
            return Err("--nic tap needs a network whose frames the kernel carries: one of the machine's service (`vmnet daemon --system`)".into());
        }
        if qemu.queues > 1 {
            return Err("--queues needs a card by vhost-user, or a tap".into());
        }
        Ok(if of_service {
            let (ours, theirs) = UnixDatagram::pair()?;
            (Self::Dgram(theirs.into()), Attachment::Dgram(ours.into()))
        } else {
            let (ours, theirs) = UnixStream::pair()?;
            (Self::Stream(theirs.into()), Attachment::Stream(ours.into()))
        })
    }

    fn share(qemu: &Qemu) -> Result<(Self, Attachment), NoWay> {
        let id = free_id(&qemu.command);
        let memory = memory::shared(&qemu.command, &format!("{id}mem"))?;
        let folder = place::runtime_folder();
        place::ensure_private(&folder)?;
        remove_stale(&folder);
        let path = folder.join(format!("qemu-{}.sock", std::process::id()));
        if path.to_string_lossy().contains(',') {
            return Err(NoWay::Comma(path));
        }
        let (listener, file) = socket_file::listen_stream(&path)?;
        let version = installed(&qemu.command);
        let shared = Shared {
            path,
            file,
            memory,
            queues: qemu.queues,
            vectors: !is_emulated(&qemu.command)
                || version.is_some_and(|version| version >= FIRST_WITH_VECTORS),
            reconnect: reconnect(version),
        };
        let ours = Attachment::VhostUser(VhostUserSocket::Listen(listener));
        Ok((Self::VhostUser(shared), ours))
    }

    /// What QEMU inherits.
    pub(super) fn inherited(&self) -> &[OwnedFd] {
        match self {
            Self::Stream(theirs) | Self::Dgram(theirs) => std::slice::from_ref(theirs),
            Self::Tap(queues) => queues,
            Self::VhostUser(_) => &[],
        }
    }

    /// The file of the socket by which QEMU comes, to be kept; what QEMU inherited is closed here.
    pub(super) fn into_file(self) -> Option<SocketFile> {
        match self {
            Self::Stream(_) | Self::Dgram(_) | Self::Tap(_) => None,
            Self::VhostUser(shared) => Some(shared.file),
        }
    }
}

/// The card QEMU gets.
pub(super) struct Nic<'a> {
    pub(super) way: &'a Way,
    pub(super) mac: Mac,
    pub(super) mtu: u16,
}

impl Nic<'_> {
    /// QEMU's command line with the card at its end.
    pub(super) fn extend(&self, command: &[OsString]) -> Vec<OsString> {
        let id = free_id(command);
        let kind = device_of(command);
        let mut device = format!("{kind},netdev={id},mac={}", self.mac);
        if self.mtu != USUAL_MTU {
            device.push_str(&format!(",host_mtu={}", self.mtu));
        }
        let mut extended = command.to_vec();
        let netdev = match self.way {
            Way::Stream(theirs) => format!(
                "stream,id={id},server=off,addr.type=fd,addr.str={}",
                theirs.as_raw_fd()
            ),
            Way::Dgram(theirs) => {
                format!(
                    "dgram,id={id},local.type=fd,local.str={}",
                    theirs.as_raw_fd()
                )
            }
            Way::Tap(queues) => {
                let vhost = if vhost_net() { ",vhost=on" } else { "" };
                let numbers: Vec<_> = queues
                    .iter()
                    .map(|queue| queue.as_raw_fd().to_string())
                    .collect();
                let count = u8::try_from(queues.len()).unwrap_or(u8::MAX);
                device.push_str(&several(count, kind, true));
                let word = if count > 1 { "fds" } else { "fd" };
                format!("tap,id={id},{word}={}{vhost}", numbers.join(":"))
            }
            Way::VhostUser(shared) => {
                extended.extend(shared.memory.iter().cloned());
                let chardev = format!(
                    "socket,id={id}chr,path={},{}",
                    shared.path.display(),
                    shared.reconnect
                );
                extended.extend(["-chardev", &chardev].map(OsString::from));
                device.push_str(&shared.properties(kind));
                format!(
                    "vhost-user,id={id},chardev={id}chr,queues={}",
                    shared.queues
                )
            }
        };
        extended.extend(["-netdev", &netdev, "-device", &device].map(OsString::from));
        extended
    }
}

impl Shared {
    /// What the device is told besides.
    fn properties(&self, kind: &str) -> String {
        let mut properties = format!(",rx_queue_size={RING},tx_queue_size={RING}");
        properties.push_str(&several(self.queues, kind, self.vectors));
        properties
    }
}

/// What a device is told of its pairs of rings.
fn several(queues: u8, kind: &str, vectors: bool) -> String {
    let mut properties = String::new();
    if queues > 1 {
        properties.push_str(",mq=on");
    }
    // Only devices on PCI have vectors.
    if kind == "virtio-net-pci" {
        if !vectors {
            properties.push_str(",vectors=0");
        } else if queues > 1 {
            // One for each ring, one for the control queue, one for the configuration.
            let vectors = u16::from(queues) * 2 + 2;
            properties.push_str(&format!(",vectors={vectors}"));
        }
    }
    properties
}

/// The kernel can move a VMM's frames, and this user may have it do so.
fn vhost_net() -> bool {
    use rustix::fs::{Access, access};
    access("/dev/vhost-net", Access::READ_OK | Access::WRITE_OK).is_ok()
}

/// The machine's processors are emulated, as nothing else was asked for.
fn is_emulated(command: &[OsString]) -> bool {
    let enabled = command.iter().any(|word| {
        let word = word.to_string_lossy();
        word == "-enable-kvm" || word == "--enable-kvm"
    });
    let machines = values(command, &["machine", "M"]);
    let of_machines = (machines.iter().flat_map(|machine| machine.split(',')))
        .filter_map(|part| part.strip_prefix("accel=").map(str::to_owned));
    let mut accelerators = values(command, &["accel"]).into_iter().chain(of_machines);
    let is_tcg = |accelerator: String| {
        let name = accelerator.strip_prefix("accel=").unwrap_or(&accelerator);
        name.starts_with("tcg")
    };
    !enabled && accelerators.all(is_tcg)
}

/// The version of this QEMU, if it says one.
fn installed(command: &[OsString]) -> Option<Version> {
    let mut asked = Command::new(command.first()?)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut said = [0; 256];
    // Whoever stands in for QEMU may have other ideas of its arguments.
    let heard = asked.stdout.as_mut().and_then(|out| {
        let mut waits = [PollFd::new(out, PollFlags::IN)];
        let patience = Timespec {
            tv_sec: 5,
            tv_nsec: 0,
        };
        match poll(&mut waits, Some(&patience)) {
            Ok(1..) => out.read(&mut said).ok(),
            _ => None,
        }
    });
    let _ended = asked.kill();
    let _reaped = asked.wait();
    version(&String::from_utf8_lossy(said.get(..heard?)?))
}

/// The first two numbers of `QEMU emulator version 7.2.22 (...)`.
fn version(said: &str) -> Option<Version> {
    let (_, number) = said.split_once("version ")?;
    let number = number.split_whitespace().next()?;
    let mut numbers = number.split('.');
    let first = numbers.next()?.parse().ok()?;
    let second = numbers.next().and_then(|second| second.parse().ok());
    Some((first, second.unwrap_or(0)))
}

/// How QEMU of this version is told to connect again after a second. One that says no version is taken for an old one.
fn reconnect(version: Option<Version>) -> &'static str {
    if version.is_some_and(|version| version >= FIRST_WITH_MILLISECONDS) {
        "reconnect-ms=1000"
    } else {
        "reconnect=1"
    }
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
    let machines = values(command, &["machine", "M"]);
    // Of several options the last that names a type decides; the others only add properties.
    let kinds = machines.iter().rev().filter_map(|machine| {
        machine.split(',').enumerate().find_map(|(at, part)| {
            let bare = (at == 0 && !part.contains('=')).then_some(part);
            part.strip_prefix("type=").or(bare)
        })
    });
    let kind = kinds.into_iter().next().unwrap_or_default();
    let has_pci = machines.iter().any(|machine| machine.contains("pcie=on"));
    if program.ends_with("qemu-system-s390x") {
        "virtio-net-ccw"
    } else if kind == "microvm" && !has_pci {
        "virtio-net-device"
    } else {
        "virtio-net-pci"
    }
}

/// Removes the sockets of those who were killed: their processes are gone, and nobody listens.
fn remove_stale(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| {
            let pid = name.strip_prefix("qemu-")?.strip_suffix(".sock")?;
            pid.parse::<u32>().ok()
        });
        // One of another namespace of processes may have this number, and listens then.
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
            && let Err(error) = socket_file::remove_stale(&entry.path())
        {
            tracing::debug!(%error, "a socket of another is left alone");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_of_the_killed_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        // No process has a number above the limit of 2^22.
        let (dead, alive) = ("qemu-4194305.sock", "qemu-4194306.sock");
        let own = format!("qemu-{}.sock", std::process::id());
        for name in [dead, &own, "vmnet.sock"] {
            drop(std::os::unix::net::UnixListener::bind(path(name)).unwrap());
        }
        let _listens = std::os::unix::net::UnixListener::bind(path(alive)).unwrap();
        fs::write(path("qemu-4194307.sock"), "no socket").unwrap();
        remove_stale(folder.path());
        assert!(!path(dead).exists());
        for name in [alive, &own, "vmnet.sock", "qemu-4194307.sock"] {
            assert!(path(name).exists(), "{name}");
        }
    }

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    fn text(line: &[OsString]) -> Vec<String> {
        line.iter()
            .map(|word| word.to_string_lossy().into_owned())
            .collect()
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
            (
                "qemu-system-x86_64 -M microvm -machine graphics=off",
                "virtio-net-device",
            ),
            (
                "qemu-system-x86_64 -M microvm -machine pcie=on,rtc=on",
                "virtio-net-pci",
            ),
            ("/usr/bin/qemu-system-s390x -m 512", "virtio-net-ccw"),
        ] {
            assert_eq!(device_of(&words(line)), expected, "{line}");
        }
    }

    #[test]
    fn who_emulates_is_found_out() {
        for (line, expected) in [
            ("qemu -m 1G", true),
            ("qemu -accel tcg,thread=multi", true),
            ("qemu -accel accel=tcg", true),
            ("qemu -accel accel=kvm", false),
            ("qemu -accel kvm -accel tcg", false),
            ("qemu -enable-kvm", false),
            ("qemu -M q35,accel=kvm:tcg", false),
            ("qemu -M q35,accel=tcg", true),
        ] {
            assert_eq!(is_emulated(&words(line)), expected, "{line}");
        }
    }

    #[test]
    fn each_qemu_is_told_to_connect_again_in_its_words() {
        for (said, known, expected) in [
            (
                "QEMU emulator version 7.2.22 (Debian)",
                Some((7, 2)),
                "reconnect=1",
            ),
            ("QEMU emulator version 9.1.50", Some((9, 1)), "reconnect=1"),
            (
                "QEMU emulator version 9.2.0",
                Some((9, 2)),
                "reconnect-ms=1000",
            ),
            (
                "QEMU emulator version 10.0.0",
                Some((10, 0)),
                "reconnect-ms=1000",
            ),
            (
                "QEMU emulator version 10.2.0\nC",
                Some((10, 2)),
                "reconnect-ms=1000",
            ),
            (
                "QEMU emulator version 11 (x)",
                Some((11, 0)),
                "reconnect-ms=1000",
            ),
            ("bash: no such program", None, "reconnect=1"),
        ] {
            assert_eq!(version(said), known, "{said}");
            assert_eq!(reconnect(known), expected, "{said}");
        }
    }

    #[test]
    fn the_card_comes_last() {
        let (theirs, _ours) = UnixStream::pair().unwrap();
        let descriptor = theirs.as_raw_fd();
        let nic = Nic {
            way: &Way::Stream(theirs.into()),
            mac: Mac([2, 0, 0, 0, 0, 1]),
            mtu: 9000,
        };
        let line = text(&nic.extend(&words("qemu -device x,netdev=vmnet0")));
        assert_eq!(
            line[3..],
            [
                "-netdev",
                &format!("stream,id=vmnet1,server=off,addr.type=fd,addr.str={descriptor}"),
                "-device",
                "virtio-net-pci,netdev=vmnet1,mac=02:00:00:00:00:01,host_mtu=9000"
            ]
        );
        let (theirs, _ours) = UnixDatagram::pair().unwrap();
        let descriptor = theirs.as_raw_fd();
        let dgram = Nic {
            way: &Way::Dgram(theirs.into()),
            ..nic
        };
        let line = text(&dgram.extend(&words("qemu")));
        assert_eq!(
            line[2],
            format!("dgram,id=vmnet0,local.type=fd,local.str={descriptor}")
        );
        // Descriptors of any kind: they are only named.
        let queues: Vec<OwnedFd> = [UnixDatagram::pair(), UnixDatagram::pair()]
            .into_iter()
            .map(|pair| pair.unwrap().0.into())
            .collect();
        let numbers = [queues[0].as_raw_fd(), queues[1].as_raw_fd()];
        let taps = Nic {
            way: &Way::Tap(queues),
            mtu: 1500,
            ..dgram
        };
        let line = text(&taps.extend(&words("qemu")));
        let netdev = format!("tap,id=vmnet0,fds={}:{}", numbers[0], numbers[1]);
        assert!(line[2].starts_with(&netdev), "{line:?}");
        assert!(line[4].ends_with(",mq=on,vectors=6"), "{line:?}");
    }

    #[test]
    fn a_card_with_shared_memory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let (_listener, file) = socket_file::listen_stream(&path).unwrap();
        let command = words("qemu-system-x86_64 -m 1G");
        let mut shared = Shared {
            path: path.clone(),
            file,
            memory: memory::shared(&command, "vmnet0mem").unwrap(),
            queues: 2,
            vectors: true,
            reconnect: reconnect(Some((10, 2))),
        };
        assert!(
            shared
                .properties("virtio-net-pci")
                .ends_with(",mq=on,vectors=6")
        );
        assert!(!shared.properties("virtio-net-ccw").contains("vectors"));
        shared.vectors = false;
        let nic = Nic {
            way: &Way::VhostUser(shared),
            mac: Mac([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
        };
        let line = text(&nic.extend(&command));
        assert_eq!(line[3], "-object");
        assert_eq!(
            line[7..],
            [
                "-chardev",
                &format!(
                    "socket,id=vmnet0chr,path={},reconnect-ms=1000",
                    path.display()
                ),
                "-netdev",
                "vhost-user,id=vmnet0,chardev=vmnet0chr,queues=2",
                "-device",
                "virtio-net-pci,netdev=vmnet0,mac=02:00:00:00:00:01,rx_queue_size=1024,\
                 tx_queue_size=1024,mq=on,vectors=0"
            ]
        );
    }
}
