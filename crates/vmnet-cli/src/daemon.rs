//! `vmnet daemon`: from what was typed to what the service is told.

use crate::args::daemon::{Daemon, IdleTimeout};
use openvmnet::place::Scope;
use vmnet_daemon::{DaemonError, Idle, Options, State};

/// Serves until it is told to end, or nobody needs it.
pub(crate) fn run(daemon: &Daemon, scope: Scope) -> Result<(), DaemonError> {
    vmnet_daemon::run(&options(daemon, scope))
}

fn options(daemon: &Daemon, scope: Scope) -> Options {
    let state = match &daemon.state {
        _ if daemon.no_state => State::Nowhere,
        Some(folder) => State::Folder(folder.clone()),
        None => State::Usual,
    };
    Options {
        scope,
        activated: daemon.activated,
        idle: match daemon.idle_timeout {
            None => Idle::Usual,
            Some(IdleTimeout::Never) => Idle::Never,
            Some(IdleTimeout::After(span)) => Idle::After(span.into()),
        },
        state,
        configuration: daemon.config.clone(),
        group: daemon.group.clone(),
        user: daemon.user.clone(),
    }
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
        let args = Args::parse_from(words.split_whitespace());
        let scope = args.scope();
        match args.verb {
            Verb::Service(ServiceVerb::Daemon(daemon)) => options(&daemon, scope),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_typed_is_what_is_told() {
        let plain = asked("");
        assert_eq!((plain.scope, plain.activated), (Scope::User, false));
        assert_eq!((plain.idle, plain.group), (Idle::Usual, None));
        assert_eq!((plain.state, plain.configuration), (State::Usual, None));
        let all =
            asked("--system --group 27 --user nobody --idle-timeout 1m --state /s --config /c");
        assert_eq!(all.scope, Scope::System);
        assert_eq!(all.group.as_deref(), Some("27"));
        assert_eq!(all.user.as_deref(), Some("nobody"));
        assert_eq!(all.idle, Idle::After(Duration::from_secs(60)));
        assert_eq!(all.state, State::Folder("/s".into()));
        assert_eq!(all.configuration, Some("/c".into()));
        assert_eq!(asked("--no-state").state, State::Nowhere);
        assert!(asked("--activated").activated);
    }
}
