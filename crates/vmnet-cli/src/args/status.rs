//! `vmnet status`.

pub(super) const EXAMPLES: &str = "\
Examples:
  vmnet status
  vmnet status lab
  vmnet status --json | jq '.service.pid'";

#[derive(Debug, clap::Args)]
pub(crate) struct Status {
    /// Show this network, with all that is on it.
    pub(crate) network: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}
