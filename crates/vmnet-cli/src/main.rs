//! `vmnet`: rootless virtual networks for virtual machines and commands.
//!
//! | file | what |
//! | --- | --- |
//! | `args` | what can be typed |
//! | `port_spec` | `-p [ADDR:]8080:80[/udp]` |
//! | `run`, `qemu`, `attach/` | one file or folder per verb |
//! | `verb/` | the verbs that ask the service |
//! | `daemon` | the service |
//! | `doctor/` | what can work here, and what blocks it |
//! | `startable` | whether the user's service could be started |
//! | `forward_spec` | `[ADDR:]8080:web:80[/udp]` |
//! | `span` | times and spans of time |
//! | `pages` | completions and manual pages |
//! | `command/` | a command's life: its namespace, its signals, its end |
//! | `network/` | the network a verb works on: private, or the service's |
//! | `identity` | names, and MACs that stay |
//! | `hiding` | what a command must not see of the service |
//! | `socket_file` | sockets in the file system that guests come by |

mod args;
mod attach;
mod command;
mod daemon;
mod doctor;
mod forward_spec;
mod hiding;
mod identity;
mod logging;
mod network;
mod pages;
mod port_spec;
mod qemu;
mod run;
mod socket_file;
mod span;
mod startable;
mod verb;

use clap::Parser as _;
use command::Ending;
use openvmnet::place::Scope;
use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

/// The status of a failure of our own, as `env`, `timeout` and `docker run` have it: a command's own status passes through.
const FAILED: u8 = 125;

fn main() -> ExitCode {
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(said) => return told(&said),
    };
    let service = matches!(
        args.verb,
        args::Verb::Service(args::service::ServiceVerb::Daemon(_))
    );
    logging::start(args.verbose, service);
    let scope = args.scope();
    if scope == Scope::System {
        openvmnet::choice::choose(scope);
    }
    let outcome = match args.verb {
        args::Verb::Run(run) => run::run(run),
        args::Verb::Qemu(qemu) => qemu::run(qemu),
        args::Verb::Attach(attach) => attach::run(&attach).map(|()| Ending::SUCCESS),
        args::Verb::Service(verb) => return asked(verb, scope),
    };
    match outcome {
        Ok(Ending::Status(status)) => ExitCode::from(status),
        Ok(Ending::Signal(signal)) => vmnet_linux::sys::process::die_by(signal),
        Err(error) => {
            logging::say(chain(&*error));
            ExitCode::from(FAILED)
        }
    }
}

/// Help, the version, or what is wrong with what was typed.
fn told(said: &clap::Error) -> ExitCode {
    let printed = said.print().and_then(|()| std::io::stdout().flush());
    match printed {
        Err(error) if !said.use_stderr() && error.kind() != ErrorKind::BrokenPipe => {
            logging::say(format_args!("standard output: {error}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::from(u8::try_from(said.exit_code()).unwrap_or(2)),
    }
}

/// Verbs without a command: 0 when it was done, 1 when it was not, 2 (by `clap`) when it was not understood.
fn asked(verb: args::service::ServiceVerb, scope: Scope) -> ExitCode {
    match verb::run(verb, scope) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logging::say(chain(&error));
            if error.is_of_typing() {
                // As `clap` ends with what it has not understood.
                ExitCode::from(2)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

/// An error and what caused it, on one line; a cause that the error names itself is not said twice.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
