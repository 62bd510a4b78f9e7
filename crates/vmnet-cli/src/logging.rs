//! Logs to stderr, as much as `-v` or `VMNET_LOG` ask for. What cannot be written there is lost, and nothing else is: nobody
//! ends for want of a place for their words.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};
use tracing_subscriber::EnvFilter;

/// The environment variable that filters.
const VARIABLE: &str = "VMNET_LOG";

/// Starts logging; `VMNET_LOG` (in the syntax of tracing's filters, like `vmnet_linux=trace`) wins over the count of `-v`.
pub(crate) fn start(verbose: u8, service: bool) {
    // What a service did is looked for afterwards: it says more, and when.
    let level = match verbose + u8::from(service) {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let asked = std::env::var_os(VARIABLE).filter(|asked| !asked.is_empty());
    let read = EnvFilter::try_from_env(VARIABLE);
    let is_nonsense = asked.is_some() && read.is_err();
    let filter = read.unwrap_or_else(|_| EnvFilter::new(level));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        // They would be told where the log is, and that panics where that is full.
        .log_internal_errors(false)
        .with_target(false);
    // The journal has the time already (systemd.exec(5), JOURNAL_STREAM).
    if service && std::env::var_os("JOURNAL_STREAM").is_none() {
        log.init();
    } else {
        log.without_time().init();
    }
    if is_nonsense {
        tracing::warn!(
            "{VARIABLE} is no filter, and is left out: say one like debug or vmnet_linux=trace"
        );
    }
}

/// Says something to whoever called, on stderr.
pub(crate) fn say(text: impl Display) {
    let _unsaid = writeln!(io::stderr().lock(), "vmnet: {text}");
}
