//! Logs to stderr, as much as `-v` or `VMNET_LOG` ask for.

use std::io::IsTerminal as _;
use tracing_subscriber::EnvFilter;

/// Starts logging; `VMNET_LOG` (in the syntax of tracing's filters, like `vmnet_linux=trace`) wins over the count of `-v`.
pub(crate) fn start(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("VMNET_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .without_time()
        .init();
}
