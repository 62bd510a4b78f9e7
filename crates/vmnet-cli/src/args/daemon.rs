//! `vmnet daemon`.

use crate::span::Span;
use std::path::PathBuf;

pub(super) const EXAMPLES: &str = "\
Examples:
  vmnet daemon                                           in the foreground; ends with Ctrl-C
  vmnet daemon --idle-timeout never --config ./vmnet.toml
  vmnet daemon --no-state                                nothing stays when it ends
  sudo vmnet daemon --system --group kvm                 for the machine: from /run/vmnet and /var/lib/vmnet";

/// How long the service waits for something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdleTimeout {
    /// Until it is ended.
    Never,
    /// This long.
    After(Span),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Daemon {
    /// End after so long without a client, like 30s or 10m, or `never` [default: as the configuration file says, else never; 30s if a client or systemd started it]
    #[arg(long, value_name = "DURATION", value_parser = idle_timeout)]
    pub(crate) idle_timeout: Option<IdleTimeout>,
    /// Where to keep what must stay [default: $XDG_STATE_HOME/vmnet; /var/lib/vmnet with --system]
    #[arg(long, value_name = "DIR", conflicts_with = "no_state")]
    pub(crate) state: Option<PathBuf>,
    /// Keep nothing: networks, identities and leases end with the service.
    #[arg(long)]
    pub(crate) no_state: bool,
    /// The configuration file [default: $XDG_CONFIG_HOME/vmnet/vmnet.toml; /etc/vmnet/vmnet.toml with --system]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// With --system: members of this group may use it, by name or number [default: vmnet if there is such a group, else the
    /// superuser alone]
    #[arg(long, requires = "system")]
    pub(crate) group: Option<String>,
    /// With --system, started as root: run as this user, by name or number [default: vmnet if there is such a user, else nobody]
    #[arg(long, requires = "system")]
    pub(crate) user: Option<String>,
    /// Started by a client: the socket is standard input, and the service goes into the background.
    #[arg(long, hide = true)]
    pub(crate) activated: bool,
}

fn idle_timeout(text: &str) -> Result<IdleTimeout, String> {
    if text == "never" {
        return Ok(IdleTimeout::Never);
    }
    text.parse()
        .map(IdleTimeout::After)
        .map_err(|error| format!("{error}, or `never`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Typed {
        #[arg(long)]
        system: bool,
        #[command(flatten)]
        daemon: Daemon,
    }

    fn typed(words: &str) -> Option<Daemon> {
        let words = format!("daemon {words}");
        let typed = Typed::try_parse_from(words.split_whitespace()).ok()?;
        Some(typed.daemon)
    }

    #[test]
    fn how_long_it_waits() {
        let timeout = |words| typed(words).map(|daemon| daemon.idle_timeout);
        assert_eq!(timeout(""), Some(None));
        let minutes = IdleTimeout::After(Span::seconds(600));
        assert_eq!(timeout("--idle-timeout 10m"), Some(Some(minutes)));
        let never = IdleTimeout::Never;
        assert_eq!(timeout("--idle-timeout never"), Some(Some(never)));
        assert_eq!(timeout("--idle-timeout soon"), None);
    }

    #[test]
    fn what_cannot_be_together_is_refused() {
        assert!(typed("--state here --config there --system").is_some());
        assert!(typed("--no-state --activated").is_some());
        assert!(typed("--state here --no-state").is_none());
        assert!(typed("--group kvm").is_none());
    }

    #[test]
    fn units_of_systemd_start_what_can_be_typed() {
        let units = [
            include_str!("../../../../contrib/systemd/user/vmnet.service"),
            include_str!("../../../../contrib/systemd/system/vmnet-system.service"),
        ];
        for (unit, system) in units.into_iter().zip([false, true]) {
            let line = unit
                .lines()
                .find_map(|line| line.strip_prefix("ExecStart="));
            let words = line.unwrap().strip_prefix("vmnet daemon").unwrap();
            let daemon = typed(words).unwrap();
            assert_eq!(words.contains("--system"), system);
            assert_eq!(daemon.group.is_some(), system);
            assert!(!daemon.activated, "the socket comes as systemd passes it");
        }
    }
}
