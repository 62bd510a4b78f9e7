//! `vmnet identity`.

use clap::Subcommand;

const EXAMPLES: &str = "\
Examples:
  vmnet identity list
  vmnet identity forget 6ba7b810-9dad-41d1-80b4-00c04fd430c8";

const LIST_EXAMPLES: &str = "\
Examples:
  vmnet identity list
  vmnet identity list --json | jq -r '.identities[] | select(.interface == null) | .id'";

const FORGET_EXAMPLES: &str = "\
Examples:
  vmnet identity forget 6ba7b810-9dad-41d1-80b4-00c04fd430c8";

#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true, after_help = EXAMPLES)]
pub(crate) struct Identity {
    #[command(subcommand)]
    pub(crate) verb: IdentityVerb,
}

/// Identities: list, forget.
#[derive(Debug, Subcommand)]
pub(crate) enum IdentityVerb {
    /// List the interface ids that are known, each with its MAC.
    #[command(visible_alias = "ls", after_help = LIST_EXAMPLES)]
    List(List),
    /// Forget interface ids that no interface has: whoever comes with one again gets another MAC.
    #[command(after_help = FORGET_EXAMPLES)]
    Forget(Forget),
}

#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Forget {
    /// The ids that `vmnet identity list` shows.
    #[arg(required = true, value_name = "ID", value_parser = super::known_uuid)]
    pub(crate) ids: Vec<String>,
}
