//! `vmnet interface`.

use clap::Subcommand;

const EXAMPLES: &str = "\
Examples:
  vmnet interface list lab
  vmnet interface stop 7";

const LIST_EXAMPLES: &str = "\
Examples:
  vmnet interface list
  vmnet interface list lab --json | jq -r '.interfaces[] | [.name, .address] | @tsv'";

const STOP_EXAMPLES: &str = "\
Examples:
  vmnet interface stop 7
  vmnet interface stop 7 8 9";

#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true, after_help = EXAMPLES)]
pub(crate) struct Interface {
    #[command(subcommand)]
    pub(crate) verb: InterfaceVerb,
}

/// Interfaces: list, stop.
#[derive(Debug, Subcommand)]
pub(crate) enum InterfaceVerb {
    /// List the interfaces: who is on which network.
    #[command(visible_alias = "ls", after_help = LIST_EXAMPLES)]
    List(List),
    /// End interfaces, whoever started them, with their forwards.
    #[command(after_help = STOP_EXAMPLES)]
    Stop(Stop),
}

#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// Only those of this network.
    pub(crate) network: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Stop {
    /// The numbers that `vmnet interface list` shows.
    #[arg(required = true, value_name = "NUMBER", value_parser = super::number)]
    pub(crate) numbers: Vec<u64>,
}
