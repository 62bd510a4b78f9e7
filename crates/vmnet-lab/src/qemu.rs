//! A Linux guest in QEMU (TCG), with a console that takes commands.
//!
//! The test writes `NUMBER COMMAND` to the serial console, the guest answers `@@BEGIN NUMBER`, what the command said,
//! and `@@END NUMBER STATUS`. There is no keyboard, no screen, no disk: only the image of [`crate::guest_image`].

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::guest_image;
use crate::process::Process;
use crate::subject;
use crate::world::World;

/// Emulated, a guest is up in about three seconds; a busy machine takes its time.
const BOOT: Duration = Duration::from_secs(90);

/// How the guest's network card is connected.
#[derive(Debug, Clone)]
pub enum Netdev {
    /// To a stream socket, as its client.
    Stream(PathBuf),
    /// To a datagram socket; the guest's own one is made next to it.
    Dgram(PathBuf),
    /// By vhost-user, to a socket; with so many pairs of rings and as many processors, and properties of the device
    /// besides (`csum=off,packed=on`).
    VhostUser(PathBuf, u8, &'static str),
    /// To a tap of this name, which QEMU makes.
    Tap(String),
    /// By QEMU's own NAT: to prove this harness without the product.
    User,
    /// Not at all, or by whoever starts QEMU with these arguments.
    Absent,
}

/// What QEMU is told.
#[derive(Debug, Clone)]
pub struct Machine {
    kernel: PathBuf,
    image: PathBuf,
}

impl Machine {
    /// Builds the image in the home of `world`.
    ///
    /// # Panics
    /// If there is no kernel; see [`crate::prerequisite::Prerequisite::GuestKernel`].
    #[must_use]
    pub fn new(world: &World) -> Self {
        Self::at(&world.home())
    }

    /// Builds the image in a folder.
    ///
    /// # Panics
    /// As [`Machine::new`].
    #[must_use]
    pub fn at(folder: &Path) -> Self {
        let (kernel, modules) = guest_image::kernel().expect("a kernel for guests");
        let image = folder.join("guest.cpio");
        let content = guest_image::build(&modules, &subject::built_client());
        std::fs::write(&image, content).expect("write the image of the guest");
        Self { kernel, image }
    }

    /// The arguments of `qemu-system-x86_64`. `number` tells guests apart: it is the end of the MAC address.
    #[must_use]
    pub fn arguments(&self, netdev: &Netdev, number: u8) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = [
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
            "-serial",
            "stdio",
            "-accel",
            "tcg",
            "-m",
            "384",
            "-append",
            "console=ttyS0 quiet panic=-1 loglevel=1 no_timer_check",
        ]
        .map(OsString::from)
        .into();
        arguments.extend(["-kernel".into(), self.kernel.clone().into_os_string()]);
        arguments.extend(["-initrd".into(), self.image.clone().into_os_string()]);
        let backend = match netdev {
            Netdev::Stream(path) => format!(
                "stream,id=n0,server=off,addr.type=unix,addr.path={}",
                path.display()
            ),
            Netdev::Dgram(path) => format!(
                "dgram,id=n0,local.type=unix,local.path={},remote.type=unix,remote.path={}",
                own_socket(path, number).display(),
                path.display()
            ),
            Netdev::VhostUser(path, queues, _) => {
                arguments.extend(shared_memory(path, *queues));
                format!("vhost-user,id=n0,chardev=c0,queues={queues}")
            }
            Netdev::Tap(name) => format!("tap,id=n0,ifname={name},script=no,downscript=no"),
            Netdev::User => "user,id=n0".to_owned(),
            Netdev::Absent => return arguments,
        };
        let mut device =
            format!("virtio-net-pci,netdev=n0,mac=52:54:00:00:00:{number:02x},romfile=");
        if let Netdev::VhostUser(_, queues, properties) = netdev {
            // Emulated, QEMU before 8 loses interrupts of vhost-user devices that have vectors.
            device.push_str(",vectors=0");
            if *queues > 1 {
                device.push_str(",mq=on");
            }
            if !properties.is_empty() {
                device.push(',');
                device.push_str(properties);
            }
        }
        arguments.extend([
            "-netdev".into(),
            backend.into(),
            "-device".into(),
            device.into(),
        ]);
        arguments
    }

    /// Starts QEMU on the host of `world`, as its user, and waits for the guest.
    #[must_use]
    pub fn boot(&self, world: &World, netdev: &Netdev, number: u8) -> Guest {
        let mut command = world.command("qemu-system-x86_64");
        command.args(self.arguments(netdev, number));
        Guest::wait_for(command)
    }
}

/// Memory that the guest shares, the connection to whom, and processors.
fn shared_memory(path: &Path, queues: u8) -> Vec<OsString> {
    let chardev = format!("socket,id=c0,path={},reconnect=1", path.display());
    [
        "-object",
        "memory-backend-memfd,id=shared,size=384M,share=on",
        "-machine",
        "memory-backend=shared",
        "-chardev",
        &chardev,
        "-smp",
        &queues.to_string(),
    ]
    .map(OsString::from)
    .into()
}

/// Where the guest's own end of a datagram connection is.
fn own_socket(path: &Path, number: u8) -> PathBuf {
    path.with_extension(format!("guest{number}"))
}

/// A running guest. Dropping it kills QEMU.
#[derive(Debug)]
pub struct Guest {
    process: Process,
    commands: u32,
}

impl Guest {
    /// Starts a command that is, or starts, QEMU with [`Machine::arguments`]; returns when the guest takes commands.
    ///
    /// # Panics
    /// If it does not boot.
    #[must_use]
    #[track_caller]
    pub fn wait_for(command: Command) -> Self {
        let process = Process::spawn(command);
        process.wait_for_output("@@READY", BOOT, |text| {
            text.contains("@@READY").then_some(())
        });
        Self {
            process,
            commands: 0,
        }
    }

    /// Runs one line of shell in the guest; its exit status and what it said.
    ///
    /// # Panics
    /// After `timeout`.
    #[track_caller]
    pub fn shell(&mut self, line: &str, timeout: Duration) -> (u32, String) {
        self.commands += 1;
        let number = self.commands;
        self.process.write_line(&format!("{number} {line}"));
        let begin = format!("@@BEGIN {number}\n");
        let end = format!("\n@@END {number} ");
        self.process.wait_for_output(line, timeout, |text| {
            let text = text.replace('\r', "");
            let (_, text) = text.split_once(&begin)?;
            let (said, status) = text.split_once(&end)?;
            let status = status.split_once('\n')?.0.trim().parse().ok()?;
            Some((status, said.trim().to_owned()))
        })
    }

    /// As [`Self::shell`], for a line that must succeed.
    ///
    /// # Panics
    /// If it does not, with what it said.
    #[track_caller]
    pub fn must(&mut self, line: &str, timeout: Duration) -> String {
        let (status, said) = self.shell(line, timeout);
        assert_eq!(status, 0, "in the guest: {line}\n{said}");
        said
    }

    /// Takes a lease by `udhcpc` as host `name`; the address.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn lease(&mut self, name: &str) -> String {
        let limit = Duration::from_secs(60);
        self.must(
            &format!("udhcpc -i eth0 -n -q -t 20 -T 1 -s /etc/udhcpc.sh -O mtu -x hostname:{name}"),
            limit,
        );
        self.must(
            "ip -4 -o address show dev eth0 | sed 's,.*inet \\([0-9.]*\\)/.*,\\1,'",
            limit,
        )
    }

    /// Waits until the guest's kernel has made an address of what a router advertised (RFC 4862), and nobody else was found
    /// to have it; the address.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn await_ipv6(&mut self) -> String {
        let limit = Duration::from_secs(60);
        let find = "ip -6 -o address show dev eth0 scope global | grep -v tentative";
        let line = format!("ip link set eth0 up; until {find} >/tmp/six; do sleep 0.2; done");
        self.must(&line, limit);
        self.must("sed 's,.*inet6 \\([0-9a-f:]*\\)/.*,\\1,' /tmp/six", limit)
    }

    /// Switches the guest off, and waits for QEMU to end by itself.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn power_off(mut self) {
        self.process.write_line("0 poweroff -f");
        self.process.wait(Duration::from_secs(30));
    }

    /// The process that was started.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

#[cfg(test)]
mod tests;
