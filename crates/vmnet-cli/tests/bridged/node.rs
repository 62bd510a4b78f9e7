//! Who speaks to whom: guests, the host, a station of the LAN. Each has a server of TCP that verifies and sends back a
//! pattern, and one of UDP that sends back datagrams.

use super::SOON;
use super::lan::Lan;
use std::cell::RefCell;
use std::time::Duration;
use vmnet_lab::namespace::Namespace;
use vmnet_lab::process::Process;

/// How long one conversation may take.
const LONG: Duration = Duration::from_secs(90);

pub(crate) trait Node {
    fn name(&self) -> &str;
    fn v4(&self) -> &str;
    fn v6(&self) -> &str;
    fn is_guest(&self) -> bool;
    /// What the lab's client says there.
    fn must(&self, words: &str) -> String;
}

/// One says something to another, by TCP and UDP, over both families.
#[track_caller]
pub(crate) fn speak(from: &dyn Node, to: &dyn Node, bytes: u64) {
    let six = format!("[{}]", to.v6());
    for at in [to.v4(), &six] {
        from.must(&format!("close-first {at}:7001 {bytes}"));
        from.must(&format!("udp-echo {at}:7002 5 1000"));
    }
}

/// A namespace of the test.
pub(crate) struct Place {
    name: &'static str,
    namespace: Namespace,
    client: String,
    v4: &'static str,
    v6: &'static str,
}

impl Place {
    pub(crate) fn new(
        name: &'static str,
        namespace: &Namespace,
        client: &str,
        v4: &'static str,
        v6: &'static str,
    ) -> Self {
        Self {
            name,
            namespace: namespace.clone(),
            client: client.to_owned(),
            v4,
            v6,
        }
    }
}

impl Node for Place {
    fn name(&self) -> &str {
        self.name
    }

    fn v4(&self) -> &str {
        self.v4
    }

    fn v6(&self) -> &str {
        self.v6
    }

    fn is_guest(&self) -> bool {
        false
    }

    fn must(&self, words: &str) -> String {
        let mut command = self.namespace.command(&self.client);
        command.args(words.split_whitespace());
        let finished = Process::run(command, LONG);
        assert!(
            finished.status.success(),
            "{}: {words}: {finished:?}",
            self.name
        );
        finished.success()
    }
}

/// A guest of a bridged network, with a shell.
pub(crate) struct Guest {
    name: &'static str,
    shell: RefCell<(Process, u32)>,
    client: String,
    v4: String,
    v6: String,
    /// What keeps it on the network, if that is not its shell.
    _attached: Option<(Process, Namespace)>,
}

impl Guest {
    /// By `vmnet run`.
    pub(crate) fn run(lan: &Lan, name: &'static str) -> Self {
        let words = ["run", "--network", "lan0", "--name", name, "--", "sh"];
        Self::with(lan, name, Process::spawn(lan.vmnet(&words)), None)
    }

    /// By `vmnet attach` of a namespace that the test has made.
    pub(crate) fn attach(lan: &Lan, name: &'static str) -> Self {
        let namespace = Namespace::new();
        let sleeper = {
            let mut command = namespace.command("sleep");
            command.arg("600");
            Process::spawn(command)
        };
        let place = format!("/proc/{}/ns/net", sleeper.pid());
        let words = ["attach", "lan0", "--netns", &place, "--name", name];
        let attached = Process::spawn(lan.vmnet(&words));
        let shell = Process::spawn(namespace.command("sh"));
        let mut this = Self::with(lan, name, shell, Some((attached, namespace)));
        // It is held by the shell as well.
        drop(sleeper);
        this.name = name;
        this
    }

    fn with(
        lan: &Lan,
        name: &'static str,
        shell: Process,
        attached: Option<(Process, Namespace)>,
    ) -> Self {
        let mut this = Self {
            name,
            shell: RefCell::new((shell, 0)),
            client: lan.client().to_owned(),
            v4: String::new(),
            v6: String::new(),
            _attached: attached,
        };
        let address = |family: &str| {
            let find = format!(
                "ip -{family} -o address show scope global | grep -v tentative | sed -n 's/.* inet6* \\([^/]*\\).*/\\1/p' | head -n 1"
            );
            format!("until a=$({find}) && [ -n \"$a\" ]; do sleep 0.05; done; echo $a")
        };
        this.v4 = this.shell(&address("4"));
        this.v6 = this.shell(&address("6"));
        let client = &this.client;
        let serve = format!(
            "{client} serve-pattern 7001 >/dev/null & servers=$!; \
             {client} listen-udp 7002 >/dev/null & servers=\"$servers $!\"; sleep 0.2"
        );
        this.shell(&serve);
        this
    }

    #[track_caller]
    fn shell(&self, line: &str) -> String {
        let mut held = self.shell.borrow_mut();
        let (shell, count) = &mut *held;
        *count += 1;
        let end = format!("@@{count} ");
        let begin = format!("@{count}@\n");
        shell.write_line(&format!(
            "echo @{count}@; {{ {line}; }} 2>&1; echo; echo \"@@{count} $?\""
        ));
        shell.wait_for_output(line, LONG, |text| {
            let (_, said) = text.split_once(&begin)?;
            let (said, status) = said.split_once(&end)?;
            status.contains('\n').then(|| said.trim().to_owned())
        })
    }
}

impl Node for Guest {
    fn name(&self) -> &str {
        self.name
    }

    fn v4(&self) -> &str {
        &self.v4
    }

    fn v6(&self) -> &str {
        &self.v6
    }

    fn is_guest(&self) -> bool {
        true
    }

    #[track_caller]
    fn must(&self, words: &str) -> String {
        let said = self.shell(&format!("{} {words} && echo done", self.client));
        let said = said.strip_suffix("done").unwrap_or_else(|| {
            panic!("{}: {words}: {said}", self.name);
        });
        said.trim().to_owned()
    }
}

/// A guest's end takes a moment, in which it gives its lease back.
impl Drop for Guest {
    fn drop(&mut self) {
        let (shell, _) = self.shell.get_mut();
        // Its servers have no namespace of processes to end with, unless `vmnet run` made one.
        if !std::thread::panicking() {
            shell.write_line("kill $servers 2>/dev/null");
        }
        shell.close_stdin();
        if !std::thread::panicking() {
            shell.wait(SOON);
        }
    }
}
