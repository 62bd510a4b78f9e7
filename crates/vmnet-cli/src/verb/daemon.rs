//! `vmnet daemon`: the service itself.

use super::VerbError;
use crate::args::daemon::{Daemon, IdleTimeout};
use openvmnet::place::Scope;
use std::fs;
use vmnet_daemon::{Idle, Options, State};

pub(super) fn run(daemon: Daemon) -> Result<(), VerbError> {
    let group = daemon.group.as_deref().map(number).transpose()?;
    let options = Options {
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
        state: match (daemon.no_state, daemon.state) {
            (true, _) => State::Nowhere,
            (false, Some(folder)) => State::Folder(folder),
            (false, None) => State::Usual,
        },
        configuration: daemon.config,
        group,
    };
    Ok(vmnet_daemon::run(&options)?)
}

/// The number of a group (group(5)), which may be named by it.
fn number(group: &str) -> Result<u32, VerbError> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let groups = fs::read_to_string("/etc/group")?;
    let number = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let named = fields.next() == Some(group);
        let number = fields.nth(1)?;
        named.then(|| number.parse().ok())?
    });
    number.ok_or_else(|| VerbError::NoGroup(group.to_owned()))
}
