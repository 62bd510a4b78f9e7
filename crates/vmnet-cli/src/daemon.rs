//! `vmnet daemon`: from what was typed to what the service is told.

use crate::args::daemon::{Daemon, IdleTimeout};
use openvmnet::place::Scope;
use std::fs;
use std::io;
use vmnet_daemon::{Idle, Options, State};

/// The groups of this machine (group(5)).
const GROUPS: &str = "/etc/group";

/// The service could not be, or ended with an error.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error("there is no group {0} in {GROUPS}: name one, or give its number")]
    NoGroup(String),
    #[error("{GROUPS}: {0}")]
    Groups(#[source] io::Error),
    #[error(transparent)]
    Daemon(#[from] vmnet_daemon::DaemonError),
}

/// Serves until it is told to end, or nobody needs it.
pub(crate) fn run(daemon: &Daemon) -> Result<(), ServeError> {
    Ok(vmnet_daemon::run(&options(daemon)?)?)
}

fn options(daemon: &Daemon) -> Result<Options, ServeError> {
    let state = match &daemon.state {
        _ if daemon.no_state => State::Nowhere,
        Some(folder) => State::Folder(folder.clone()),
        None => State::Usual,
    };
    let group = daemon.group.as_deref().map(group).transpose()?;
    Ok(Options {
        scope: if daemon.system {
            Scope::System
        } else {
            Scope::User
        },
        activated: daemon.activated,
        idle: match daemon.idle_timeout {
            None => Idle::Usual,
            Some(IdleTimeout::Never) => Idle::Never,
            Some(IdleTimeout::After(span)) => Idle::After(span.into()),
        },
        state,
        configuration: daemon.config.clone(),
        group,
    })
}

fn group(name: &str) -> Result<u32, ServeError> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let groups = fs::read_to_string(GROUPS).map_err(ServeError::Groups)?;
    number_of(name, &groups).ok_or_else(|| ServeError::NoGroup(name.to_owned()))
}

/// `NAME:PASSWORD:NUMBER:MEMBERS`.
fn number_of(name: &str, groups: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_it = fields.next() == Some(name);
        let number = fields.nth(1)?;
        is_it.then(|| number.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::service::ServiceVerb;
    use crate::args::{Args, Verb};
    use clap::Parser as _;
    use std::time::Duration;

    fn asked(words: &str) -> Options {
        let words = format!("vmnet daemon {words}");
        match Args::parse_from(words.split_whitespace()).verb {
            Verb::Service(ServiceVerb::Daemon(daemon)) => options(&daemon).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_typed_is_what_is_told() {
        let plain = asked("");
        assert_eq!((plain.scope, plain.activated), (Scope::User, false));
        assert_eq!((plain.idle, plain.group), (Idle::Usual, None));
        assert_eq!((plain.state, plain.configuration), (State::Usual, None));
        let all = asked("--system --group 27 --idle-timeout 1m --state /s --config /c");
        assert_eq!((all.scope, all.group), (Scope::System, Some(27)));
        assert_eq!(all.idle, Idle::After(Duration::from_secs(60)));
        assert_eq!(all.state, State::Folder("/s".into()));
        assert_eq!(all.configuration, Some("/c".into()));
        assert_eq!(asked("--no-state").state, State::Nowhere);
        assert!(asked("--activated").activated);
    }

    #[test]
    fn groups_are_found_by_their_names() {
        let groups = "root:x:0:\nbroken\nkvm:x:108:me,you\nkvm2:x:109:";
        assert_eq!(number_of("kvm", groups), Some(108));
        assert_eq!(number_of("root", groups), Some(0));
        assert_eq!(number_of("broken", groups), None);
        assert_eq!(number_of("kv", groups), None);
    }
}
