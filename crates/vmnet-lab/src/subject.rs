//! How the program under test is started.
//!
//! `VMNET_LAB_SUBJECT=pasta` runs the stories of `vmnet run` against Debian's pasta instead: a way to see whether a
//! failure is the test's or ours. Stories about what pasta does not have fail there, and should.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::Process;
use crate::world::World;

/// A program that gives a command a network.
#[derive(Debug, Clone)]
pub struct Subject {
    vmnet: PathBuf,
    stand_in: bool,
    /// The network of commands that name none, on the machine's service.
    network: Option<&'static str>,
}

impl Subject {
    /// The product, at the path that cargo built it (`env!("CARGO_BIN_EXE_vmnet")`).
    #[must_use]
    pub fn new(world: &World, vmnet: &str) -> Self {
        Self {
            vmnet: world.executable(Path::new(vmnet)),
            stand_in: std::env::var("VMNET_LAB_SUBJECT").as_deref() == Ok("pasta"),
            network: None,
        }
    }

    /// The same, asking the machine's service, and with this network for commands that name none.
    #[must_use]
    pub fn of_machine(self, network: &'static str) -> Self {
        Self {
            network: Some(network),
            ..self
        }
    }

    /// The path of the program.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.vmnet
    }

    /// `vmnet` with `arguments`, as the user of `world`.
    #[must_use]
    pub fn vmnet(&self, world: &World, arguments: &[&str]) -> Command {
        let mut command = world.command(&self.vmnet);
        if self.network.is_some() {
            for variable in ["VMNET_SOCKET", "VMNET_SYSTEM_SOCKET"] {
                command.env(variable, world.machine_socket());
            }
        }
        command.args(arguments);
        command
    }

    /// `vmnet run OPTIONS -- ARGUMENTS`.
    #[must_use]
    pub fn run<S: AsRef<OsStr>>(
        &self,
        world: &World,
        options: &[&str],
        arguments: &[S],
    ) -> Command {
        let mut command = if self.stand_in {
            pasta(world, options)
        } else {
            let mut command = self.vmnet(world, &["run"]);
            if let Some(network) = self.network.filter(|_| !options.contains(&"--network")) {
                command.args(["--network", network]);
            }
            command.args(options);
            command
        };
        command.arg("--").args(arguments);
        command
    }
}

/// The same by pasta, as far as it goes.
fn pasta(world: &World, options: &[&str]) -> Command {
    let mut command = world.command("pasta");
    // Otherwise the address of the gateway, here that of the server, means the host.
    command.args(["--quiet", "--no-map-gw"]);
    if !options.contains(&"--no-dhcp") {
        command.arg("--config-net");
    }
    let mut rest = options.iter();
    while let Some(option) = rest.next() {
        if *option == "-p" {
            let port = rest.next().copied().unwrap_or_default();
            match port.strip_suffix("/udp") {
                Some(port) => command.args(["-u", port]),
                None => command.args(["-t", port]),
            };
        }
    }
    command
}

/// The program `vmnet-lab-client`, where the user of `world` may execute it.
///
/// A package's tests do not build the programs of another package, so cargo is asked, unless `VMNET_LAB_CLIENT` names
/// it (`scripts/test` does that).
///
/// # Panics
/// If it cannot be built.
#[must_use]
pub fn client(world: &World) -> PathBuf {
    world.executable(&built_client())
}

/// Where cargo put `vmnet-lab-client`.
///
/// # Panics
/// If it cannot be built.
#[must_use]
pub fn built_client() -> PathBuf {
    if let Some(path) = std::env::var_os("VMNET_LAB_CLIENT") {
        return path.into();
    }
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args([
            "build",
            "--quiet",
            "-p",
            "vmnet-lab",
            "--bin",
            "vmnet-lab-client",
        ])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    Process::run(cargo, Duration::from_secs(300)).success();
    let test = std::env::current_exe().expect("the path of this test");
    // target/debug/deps/test-0123 or target/debug/test
    test.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("vmnet-lab-client"))
        .find(|path| path.exists())
        .expect("cargo builds vmnet-lab-client next to this test")
}
