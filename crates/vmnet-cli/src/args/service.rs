//! The verbs that ask the service, and those that write about the command line itself.

use super::{daemon, doctor, forward, identity, interface, lease, network, pages, status};
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum ServiceVerb {
    /// Networks: make, list, show, delete.
    Network(network::Network),
    /// Interfaces: list who is on which network, and end them.
    Interface(interface::Interface),
    /// Interface ids: list them with the MACs that stay with them, and forget them.
    Identity(identity::Identity),
    /// Forwards: add, list and remove ports of the host that lead to guests.
    Forward(forward::Forward),
    /// Leases: list them, release them, and keep addresses for guests.
    Lease(lease::Lease),
    /// Show the service and its networks, or one network with all that is on it.
    ///
    /// Starts nothing: if the service does not run, it says so.
    #[command(after_help = status::EXAMPLES)]
    Status(status::Status),
    /// Say what can work here, what blocks it, and what to do about it.
    ///
    /// Looks at user namespaces, devices, the kernel, the machine's service and the firewall, and changes nothing. The status
    /// is 1 if something blocks what a user starts. Rules of the firewall are seen by root alone.
    #[command(after_help = doctor::EXAMPLES)]
    Doctor(doctor::Doctor),
    /// Run the service.
    ///
    /// Whoever needs it starts it, so this is for service managers and for looking. It runs in the foreground and logs to
    /// standard error. Signals TERM and INT end it, and all networks with it; those that are kept come again with the
    /// next one.
    ///
    /// With --system it serves the whole machine, and does what takes privileges: see docs/system.md.
    #[command(after_help = daemon::EXAMPLES)]
    Daemon(daemon::Daemon),
    /// Print completions for a shell.
    #[command(after_help = pages::COMPLETIONS_EXAMPLES)]
    Completions(pages::Completions),
    /// Write the manual pages.
    #[command(after_help = pages::MAN_EXAMPLES)]
    Man(pages::Man),
}
