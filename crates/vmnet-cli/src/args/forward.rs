//! `vmnet forward`.

use crate::forward_spec::{ForwardSpec, PortRange};
use clap::Subcommand;

const EXAMPLES: &str = "\
Examples:
  vmnet forward add lab 8080:web:80
  vmnet forward list lab
  vmnet forward remove lab 8080/tcp";

const ADD_EXAMPLES: &str = "\
Examples:
  vmnet forward add lab 8080:web:80                      the guest that calls itself web
  vmnet forward add lab 127.0.0.1:2222:192.168.64.10:22 5353:192.168.64.10:53/udp
  vmnet forward add lab 8080:52:54:00:12:34:56:80        the guest with this MAC; in brackets, if you like
  vmnet forward add lab 20000-29999:web:20000-29999 --except 22222,25000-25009";

const LIST_EXAMPLES: &str = "\
Examples:
  vmnet forward list
  vmnet forward list lab --json | jq '.forwards[].rule.first'";

const REMOVE_EXAMPLES: &str = "\
Examples:
  vmnet forward remove 3 4                               by number, as `vmnet forward list` shows them
  vmnet forward remove lab 8080 5353/udp                 by port of the host
  vmnet forward remove lab 20000-29999/tcp";

#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true, after_help = EXAMPLES)]
pub(crate) struct Forward {
    #[command(subcommand)]
    pub(crate) verb: ForwardVerb,
}

/// Forwards: add, list, remove.
#[derive(Debug, Subcommand)]
pub(crate) enum ForwardVerb {
    /// Forward ports of the host to a guest, for as long as the network is there.
    ///
    /// The guest need not be there yet, and sees the client's own address. If one of the forwards cannot be had, none is made.
    #[command(after_help = ADD_EXAMPLES)]
    Add(Add),
    /// List the forwards.
    #[command(visible_alias = "ls", after_help = LIST_EXAMPLES)]
    List(List),
    /// End forwards; connections that came by them go on.
    #[command(visible_alias = "rm", after_help = REMOVE_EXAMPLES)]
    Remove(Remove),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Add {
    /// The network's name or UUID.
    pub(crate) network: String,
    #[arg(
        required = true,
        value_name = "SPEC",
        help = "[ADDR:]PORT[-END]:GUEST:PORT[-END][/tcp|/udp]: a port of the host, the guest's address, MAC or name, and its port. \
                Without ADDR on all of the host's addresses, IPv4 and IPv6, those of IPv6 for a guest's IPv6 address; IPv6 addresses stand in brackets"
    )]
    pub(crate) specs: Vec<ForwardSpec>,
    /// Ports of the host that are left out of the ranges: PORT or FIRST-LAST.
    #[arg(long, value_name = "PORT", value_delimiter = ',')]
    pub(crate) except: Vec<PortRange>,
    /// Print what was added as JSON.
    #[arg(long)]
    pub(crate) json: bool,
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
#[command(
    override_usage = "vmnet forward remove NUMBER...\n       vmnet forward remove NETWORK [ADDR:]PORT[-END][/tcp|/udp]..."
)]
pub(crate) struct Remove {
    /// Numbers of forwards; or a network, and behind it ports of the host.
    #[arg(required = true, value_name = "NUMBER|NETWORK|PORT")]
    pub(crate) words: Vec<String>,
}
