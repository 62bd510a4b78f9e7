//! The verbs that list and change what the service has.
//!
//! | file | what |
//! | --- | --- |
//! | `network`, `interface`, `identity`, `forward`, `lease`, `status` | one file per noun |
//! | `scoped` | rows of lists, with the service that each is of |
//! | `bridgeable` | the host's interfaces that networks can be bridged to |
//! | `table` | how lists look |
//!
//! What is changed is said to the service alone; nothing is printed when it is done, but for what the service chose itself.
//! What is listed is printed as a table, or as JSON (`docs/json.md`).

mod bridgeable;
mod forward;
mod identity;
mod interface;
mod lease;
mod network;
mod scoped;
mod status;
mod table;

use crate::args::doctor::Doctor;
use crate::args::service::ServiceVerb;
use crate::daemon;
use crate::doctor;
use crate::forward_spec::NothingLeft;
use crate::pages::{self, PagesError};
use openvmnet::choice::{self, Wanted};
use openvmnet::client::{CallError, Client, ConnectError};
use openvmnet::place::{self, Scope};
use serde::Serialize;
use std::io::{self, Write as _};

/// Does what was typed.
pub(crate) fn run(verb: ServiceVerb, scope: Scope) -> Result<(), VerbError> {
    match verb {
        ServiceVerb::Network(network) => network::run(network.verb),
        ServiceVerb::Interface(interface) => interface::run(&interface.verb),
        ServiceVerb::Identity(identity) => identity::run(&identity.verb),
        ServiceVerb::Forward(forward) => forward::run(&forward.verb),
        ServiceVerb::Lease(lease) => lease::run(lease.verb),
        ServiceVerb::Status(status) => status::run(&status),
        ServiceVerb::Daemon(daemon) => Ok(daemon::run(&daemon, scope)?),
        ServiceVerb::Doctor(doctor) => diagnose(&doctor),
        ServiceVerb::Completions(completions) => Ok(pages::completions(&completions)?),
        ServiceVerb::Man(man) => Ok(pages::man(&man)?),
    }
}

fn diagnose(asked: &Doctor) -> Result<(), VerbError> {
    let diagnosis = doctor::examine();
    show(asked.json, &diagnosis, || diagnosis.describe())?;
    match diagnosis.blocks() {
        0 => Ok(()),
        blocks => Err(VerbError::Blocked(blocks)),
    }
}

/// A verb failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VerbError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Call(#[from] CallError),
    /// One line each.
    #[error("{}", join(.0))]
    Several(Vec<CallError>),
    #[error(transparent)]
    Forward(#[from] forward::ForwardError),
    #[error(transparent)]
    NothingLeft(#[from] NothingLeft),
    #[error(
        "the service does not run, so nothing has a number: `vmnet {0} list` shows what there is"
    )]
    NoNumbers(&'static str),
    #[error("the service does not run, so nobody is on {0}: `vmnet network show {0}` starts it")]
    NothingUp(String),
    #[error("{0} of these block what a user starts: see what to do behind ->")]
    Blocked(usize),
    #[error(transparent)]
    Pages(#[from] PagesError),
    #[error(transparent)]
    Serve(#[from] vmnet_daemon::DaemonError),
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
    #[error("JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl VerbError {
    /// Whether it is a mistake in what was typed, found before anybody was asked.
    pub(crate) fn is_of_typing(&self) -> bool {
        match self {
            Self::Forward(error) => error.is_of_typing(),
            Self::NothingLeft(_) => true,
            _ => false,
        }
    }
}

fn join(errors: &[CallError]) -> String {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    lines.join("\nvmnet: ")
}

/// Does something with each, and goes on when the service refuses one.
fn each<T>(items: &[T], mut act: impl FnMut(&T) -> Result<(), CallError>) -> Result<(), VerbError> {
    let mut refusals = Vec::new();
    for item in items {
        match act(item) {
            Ok(()) => {}
            Err(error @ CallError::Refused(_)) => refusals.push(error),
            Err(error) => return Err(error.into()),
        }
    }
    match refusals.len() {
        0 => Ok(()),
        1 => refusals.pop().map_or(Ok(()), |one| Err(one.into())),
        _ => Err(VerbError::Several(refusals)),
    }
}

/// The service that has this network, started if it is this user's.
fn of(network: &str) -> Result<Client, ConnectError> {
    Client::connect_for(Wanted {
        network: Some(network),
        privileges: None,
    })
}

/// The service that is meant, else this user's, if it runs.
fn running() -> Result<Option<Client>, ConnectError> {
    if_it_runs(Client::connect_running())
}

/// The service that has this network, if it runs; without one as [`running`].
fn running_of(network: Option<&str>) -> Result<Option<Client>, ConnectError> {
    let wanted = Wanted {
        network,
        privileges: None,
    };
    if_it_runs(Client::connect_running_for(wanted))
}

fn if_it_runs(connected: Result<Client, ConnectError>) -> Result<Option<Client>, ConnectError> {
    match connected {
        Ok(client) => Ok(Some(client)),
        Err(ConnectError::NotRunning(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The service that is meant, else this user's, started if there may be something that it keeps.
fn keeping() -> Result<Option<Client>, ConnectError> {
    if choice::chosen()?.is_some() || place::is_something_kept() {
        return Client::connect().map(Some);
    }
    running()
}

/// The service that has this network; without one as [`keeping`].
fn keeping_of(network: Option<&str>) -> Result<Option<Client>, ConnectError> {
    match network {
        Some(network) => of(network).map(Some),
        None => keeping(),
    }
}

/// Who lists what is kept hears that something was lost, until the file is removed that may still have it.
fn tell_of_lost_store() {
    let lost = place::state(Scope::User).and_then(|folder| vmnet_daemon::store::set_aside(&folder));
    if let Some(file) = lost {
        tracing::warn!(
            "the store was damaged: networks, reservations, leases and ids of before are lost, unless {} still has some; this is said until that file is removed",
            file.display()
        );
    }
}

/// The service of the machine beside this user's, unless one was chosen: `None` if it does not run or lets us not in, or if
/// both are one.
fn machines() -> Result<Option<Client>, ConnectError> {
    if choice::chosen()?.is_some() || place::is_one_service() {
        return Ok(None);
    }
    let connected = Client::connect_running_to(Scope::System);
    Ok(connected
        .inspect_err(|error| tracing::debug!(%error, "the machine's service is left out"))
        .ok())
}

/// The services whose list is asked for: of one network the one that has it, else both.
fn listing(
    network: Option<&str>,
    own: impl FnOnce(Option<&str>) -> Result<Option<Client>, ConnectError>,
) -> Result<Vec<Client>, ConnectError> {
    let own = own(network)?;
    let other = match network {
        Some(_) => None,
        None => machines()?,
    };
    Ok(own.into_iter().chain(other).collect())
}

/// Prints JSON, or the text.
fn show(
    json: bool,
    value: &impl Serialize,
    text: impl FnOnce() -> String,
) -> Result<(), VerbError> {
    if json {
        print(&(serde_json::to_string_pretty(value)? + "\n"))?;
    } else {
        print(&text())?;
    }
    Ok(())
}

/// Prints; a reader that has gone is no mistake.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    match output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
    {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod examples;
#[cfg(test)]
mod schema;

#[cfg(test)]
mod tests {
    use super::*;
    use openvmnet::service::ServiceError;

    #[test]
    fn one_refusal_does_not_hinder_the_others() {
        let mut tried = Vec::new();
        let error = each(&[1, 2, 3, 4], |&number| {
            tried.push(number);
            if number % 2 == 0 {
                return Ok(());
            }
            let reason = format!("there is no interface {number}");
            Err(ServiceError::NotFound { reason }.into())
        })
        .unwrap_err();
        assert_eq!(tried, [1, 2, 3, 4]);
        assert_eq!(
            error.to_string(),
            "there is no interface 1\nvmnet: there is no interface 3"
        );
        let error = each(&[1, 2], |_| Err(CallError::Gone)).unwrap_err();
        assert!(matches!(error, VerbError::Call(CallError::Gone)), "{error}");
    }
}
