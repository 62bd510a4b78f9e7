//! `vmnet doctor`.

pub(super) const EXAMPLES: &str = "\
Examples:
  vmnet doctor
  sudo vmnet doctor                                      reads the firewall's rules too
  vmnet doctor --json | jq -r '.findings[] | select(.state != \"ok\") | .name'";

#[derive(Debug, clap::Args)]
pub(crate) struct Doctor {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}
