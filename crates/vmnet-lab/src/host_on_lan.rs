//! A host with a card on a LAN, and the machine's service on it: where programs are bridged to the card.

use crate::namespace::Namespace;
use crate::process::Process;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What is waited for comes within this.
const SOON: Duration = Duration::from_secs(30);

/// Two namespaces, joined by what is the host's card, `eth0`: the host, and all of its LAN.
#[derive(Debug)]
pub struct HostOnLan {
    host: Namespace,
    _station: Namespace,
    // Ends before the folder goes.
    _service: Process,
    folder: TempDir,
}

impl HostOnLan {
    /// The address of the LAN's station, of the host, and one that nobody has.
    pub const STATION: &str = "10.92.0.1";
    /// See [`Self::STATION`].
    pub const HOST: &str = "10.92.0.2";
    /// See [`Self::STATION`].
    pub const FREE: &str = "10.92.0.9";

    /// Makes both, and starts `vmnet`, the executable, as the machine's service.
    ///
    /// # Panics
    /// If the service does not come.
    #[must_use]
    pub fn new(vmnet: &Path) -> Self {
        let (host, station) = (Namespace::new(), Namespace::new());
        host.connect("eth0", &station, "port0");
        for (namespace, device, address) in [
            (&host, "eth0", Self::HOST),
            (&station, "port0", Self::STATION),
        ] {
            namespace.ip(&["address", "add", &format!("{address}/24"), "dev", device]);
        }
        let folder = tempfile::Builder::new()
            .prefix("vmnet-lan-")
            .tempdir_in("/tmp")
            .expect("a folder in /tmp");
        let socket = folder.path().join("machine");
        let mut command = host.command(&vmnet.to_string_lossy());
        command
            .args(["daemon", "--system", "--user", "root", "--state"])
            .arg(folder.path().join("state"))
            .env("VMNET_SYSTEM_SOCKET", &socket)
            .env("HOME", folder.path())
            .env_remove("VMNET_SOCKET")
            .env_remove("XDG_STATE_HOME")
            .env_remove("XDG_RUNTIME_DIR");
        let service = Process::spawn(command);
        let until = Instant::now() + SOON;
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            let said = || service.stderr();
            assert!(Instant::now() < until, "no service: {}", said());
            sleep(Duration::from_millis(5));
        }
        Self {
            host,
            _station: station,
            _service: service,
            folder,
        }
    }

    /// A folder for files of the test.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// A program on the host, which finds the machine's service.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let mut command = self.host.command(&program.to_string_lossy());
        command.env("VMNET_SYSTEM_SOCKET", self.folder.path().join("machine"));
        command
    }
}
