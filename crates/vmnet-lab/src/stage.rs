//! A world with the program under test in it, as every test of the product begins.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::prerequisite::{Prerequisite, all_present};
use crate::process::Process;
use crate::subject::{self, Subject};
use crate::world::World;

/// What every test of the product needs.
const ALWAYS: [Prerequisite; 4] = [
    Prerequisite::Root,
    Prerequisite::Tun,
    Prerequisite::UserNamespaces,
    Prerequisite::Program("ip"),
];

/// How long a word to the service or the host may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The network of commands that name none, where the machine's service is asked.
pub const NETWORK: &str = "story";

/// A world, the product, and the client that is run inside.
#[derive(Debug)]
pub struct Stage {
    /// The namespaces and servers.
    pub world: World,
    subject: Subject,
    client: PathBuf,
    machine: Option<Process>,
}

impl Stage {
    /// Builds it; `None` if the machine lacks something (a failure in CI).
    ///
    /// `vmnet` is `env!("CARGO_BIN_EXE_vmnet")`; `also` names what the test needs beside root and namespaces.
    #[must_use]
    pub fn new(vmnet: &str, also: &[Prerequisite]) -> Option<Self> {
        if !all_present(&[&ALWAYS, also].concat()) {
            return None;
        }
        let world = World::new();
        Some(Self {
            subject: Subject::new(&world, vmnet),
            client: subject::client(&world),
            world,
            machine: None,
        })
    }

    /// The same with the machine's service, whose networks the kernel carries: commands that name no network are on
    /// [`NETWORK`].
    ///
    /// # Panics
    /// If it does not start in time.
    #[must_use]
    pub fn of_machine(vmnet: &str, also: &[Prerequisite]) -> Option<Self> {
        let also = [&[Prerequisite::Program("nft")], also].concat();
        let mut stage = Self::new(vmnet, &also)?;
        stage.subject = stage.subject.of_machine(NETWORK);
        stage.start_machine();
        Some(stage)
    }

    /// Starts the machine's service, again if it was killed.
    ///
    /// # Panics
    /// If it does not start in time.
    pub fn start_machine(&mut self) {
        let mut command = self.world.superusers(self.subject.path());
        let user = self.world.user().id().to_string();
        command
            .args(["daemon", "--system", "--group", &user, "--state"])
            .arg(self.world.machine_state());
        let service = Process::spawn(command);
        let socket = self.world.machine_socket();
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            assert!(
                Instant::now() < deadline,
                "the machine's service: {}",
                service.stderr()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        self.machine = Some(service);
    }

    /// The machine's service.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn machine(&mut self) -> &mut Process {
        self.machine.as_mut().expect("the machine's service")
    }

    /// `vmnet ARGUMENTS`.
    #[must_use]
    pub fn vmnet(&self, arguments: &[&str]) -> Command {
        self.subject.vmnet(&self.world, arguments)
    }

    /// What `vmnet` says to these words.
    ///
    /// # Panics
    /// If it fails or takes long.
    #[track_caller]
    pub fn says(&self, words: &str) -> String {
        let words: Vec<&str> = words.split_whitespace().collect();
        Process::run(self.vmnet(&words), PATIENCE).success()
    }

    /// What a script says that the superuser runs on the host.
    ///
    /// # Panics
    /// If it fails or takes long.
    #[track_caller]
    pub fn on_host(&self, script: &str) -> String {
        let mut command = self.world.superusers("sh");
        command.args(["-e", "-c", script]);
        Process::run(command, PATIENCE).success()
    }

    /// `vmnet run OPTIONS -- ARGUMENTS`.
    #[must_use]
    pub fn run<S: AsRef<OsStr>>(&self, options: &[&str], arguments: &[S]) -> Command {
        self.subject.run(&self.world, options, arguments)
    }

    /// `vmnet run OPTIONS -- sh -c SCRIPT`.
    #[must_use]
    pub fn shell(&self, options: &[&str], script: &str) -> Command {
        self.run(options, &["sh", "-c", script])
    }

    /// `vmnet run OPTIONS -- vmnet-lab-client WORDS`.
    #[must_use]
    pub fn client(&self, options: &[&str], words: &str) -> Command {
        let client = self.client.to_string_lossy();
        let arguments: Vec<&str> = std::iter::once(&*client)
            .chain(words.split_whitespace())
            .collect();
        self.run(options, &arguments)
    }

    /// The path of `vmnet-lab-client` for scripts.
    #[must_use]
    pub fn client_path(&self) -> &str {
        self.client.to_str().expect("a path of ASCII")
    }

    /// Runs the client in a network of its own; what it printed.
    ///
    /// # Panics
    /// If it fails or takes longer than `timeout`.
    #[track_caller]
    pub fn must(&self, words: &str, timeout: Duration) -> String {
        Process::run(self.client(&[], words), timeout).success()
    }

    /// `vmnet attach NETWORK OPTIONS`, ready for guests.
    ///
    /// # Panics
    /// If it is not ready in time, with what it said.
    #[must_use]
    #[track_caller]
    pub fn attach(&self, network: &str, options: &[&str]) -> Process {
        let arguments = [&["attach", network], options].concat();
        let process = Process::spawn(self.vmnet(&arguments));
        process.wait_for_output("its interface", Duration::from_secs(20), |text| {
            text.starts_with("interface ").then_some(())
        });
        process
    }

    /// Waits until no process of the user is left.
    ///
    /// # Panics
    /// After `timeout`, with the processes that are left.
    #[track_caller]
    pub fn wait_until_nothing_runs(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        loop {
            let left = self.world.user().processes();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "still there: {left:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
