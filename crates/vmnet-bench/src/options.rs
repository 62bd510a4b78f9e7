//! The command line.

use crate::load::Load;
use crate::path::Kind;
use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// Measures vmnet beside kernel NAT, pasta and slirp4netns in one run. Needs root (for network namespaces only: the
/// three rootless paths run as an ordinary user).
#[derive(Debug, Parser)]
#[command(name = "vmnet-bench", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Option<Mode>,
    /// One repetition of one second instead of three of three: for a look, not for a claim.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Seconds of each measurement [default: 3, quick: 1].
    #[arg(long)]
    pub(crate) seconds: Option<f64>,
    /// Repetitions of each measurement; the median counts [default: 3, quick: 1].
    #[arg(long)]
    pub(crate) repeat: Option<usize>,
    /// Only rows whose identifier or title contains this (may be given more than once).
    #[arg(long, value_name = "PATTERN")]
    pub(crate) only: Vec<String>,
    /// Not the rows whose identifier or title contains this (may be given more than once).
    #[arg(long, value_name = "PATTERN")]
    pub(crate) except: Vec<String>,
    /// Only these paths.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "kernel,pasta,slirp4netns,ours"
    )]
    pub(crate) paths: Vec<Kind>,
    /// Guest-side MTUs to measure.
    #[arg(long, value_delimiter = ',', default_value = "1500,65520")]
    pub(crate) mtu: Vec<u32>,
    /// The vmnet program [default: the one beside this program].
    #[arg(long, value_name = "PATH")]
    pub(crate) vmnet: Option<PathBuf>,
    /// A further argument for `vmnet run`, before the `--` (may be given more than once).
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub(crate) vmnet_arg: Vec<String>,
    /// The user (and group) number as which the rootless paths run.
    #[arg(long, default_value_t = 65534)]
    pub(crate) user: u32,
    /// Write everything measured to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// End with status 2 if a target is missed or a row of ours could not be measured.
    #[arg(long)]
    pub(crate) check: bool,
    /// List the rows and end.
    #[arg(long)]
    pub(crate) list: bool,
}

/// What else this program is.
#[derive(Debug, Subcommand)]
pub(crate) enum Mode {
    /// The load generator, started by the bench itself.
    Load(Load),
    /// The guest of the recovery row, started by the bench itself.
    #[command(hide = true)]
    Reach {
        /// Where to connect to.
        server: std::net::SocketAddr,
    },
    /// The receiving process of the rows of the library, started by the bench itself.
    #[command(hide = true)]
    Receive(crate::library::Receiver),
    /// A virtual machine, as far as its tap goes, started by the bench itself.
    #[command(hide = true)]
    Relay(crate::privileged::relay::Relay),
    /// What the rows of instructions run under callgrind, started by the bench itself.
    #[command(hide = true)]
    Forward {
        /// Bytes of a frame.
        len: usize,
        /// How many to move from one port to another.
        frames: u64,
    },
}

impl Options {
    /// Seconds that one measurement counts.
    pub(crate) fn seconds(&self) -> f64 {
        self.seconds
            .unwrap_or(if self.quick { 1.0 } else { 3.0 })
            .clamp(0.2, 25.0)
    }

    /// Seconds of load before counting begins.
    pub(crate) fn lead_in(&self) -> f64 {
        if self.quick { 0.3 } else { 0.6 }
    }

    /// How often each measurement is made.
    pub(crate) fn repeat(&self) -> usize {
        self.repeat.unwrap_or(if self.quick { 1 } else { 3 }).max(1)
    }

    /// Round trips of one request/response run, and the milliseconds after which it ends at the latest.
    pub(crate) fn rounds(&self) -> (usize, u64) {
        if self.quick {
            (4_000, 1_500)
        } else {
            (20_000, 5_000)
        }
    }
}
