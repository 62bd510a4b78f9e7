//! `vmnet doctor`: what can work here, what blocks it, and what to do about it. It looks, and changes nothing.
//!
//! | file | what |
//! | --- | --- |
//! | [`rootless`] | what commands and guests of a user need |
//! | [`machine`] | what the machine's service needs, and whether it is there |
//! | [`modules`] | parts of the kernel that networks take |
//! | [`rules`] | rules of others that forwarded packets meet |

mod machine;
mod modules;
mod rootless;
mod rules;

use serde::Serialize;
use std::fmt::Write as _;

/// How a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// As it should be.
    Ok,
    /// Something cannot be had, or only with what the remedy says.
    Limited,
    /// What a user starts does not work at all.
    Blocked,
    /// It cannot be seen by this user.
    Unknown,
}

/// What depends on a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Concern {
    /// Networks of a user.
    User,
    /// What takes privileges: the machine's service.
    System,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What it is called, for programs.
    pub(crate) name: &'static str,
    pub(crate) concerns: Concern,
    pub(crate) state: State,
    /// What was found.
    pub(crate) found: String,
    /// What to do about it.
    pub(crate) remedy: Option<String>,
}

impl Finding {
    fn ok(name: &'static str, concerns: Concern, found: impl Into<String>) -> Self {
        Self {
            name,
            concerns,
            state: State::Ok,
            found: found.into(),
            remedy: None,
        }
    }

    /// The same, in another state, with what to do.
    fn but(self, state: State, remedy: impl Into<String>) -> Self {
        Self {
            state,
            remedy: Some(remedy.into()),
            ..self
        }
    }
}

/// Everything that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Diagnosis {
    pub(crate) findings: Vec<Finding>,
}

impl Diagnosis {
    /// How many things block.
    pub(crate) fn blocks(&self) -> usize {
        let blocks = |finding: &&Finding| finding.state == State::Blocked;
        self.findings.iter().filter(blocks).count()
    }

    pub(crate) fn describe(&self) -> String {
        let width = self.findings.iter().map(|one| one.name.len()).max();
        let width = width.unwrap_or(0);
        let mut text = String::new();
        for (concern, heading) in [
            (Concern::User, "networks of this user"),
            (Concern::System, "what takes privileges"),
        ] {
            let _infallible = writeln!(text, "{heading}:");
            for one in self.findings.iter().filter(|it| it.concerns == concern) {
                let state = match one.state {
                    State::Ok => "ok",
                    State::Limited => "limited",
                    State::Blocked => "BLOCKED",
                    State::Unknown => "unknown",
                };
                let _infallible =
                    writeln!(text, "  {state:<7}  {:<width$}  {}", one.name, one.found);
                if let Some(remedy) = &one.remedy {
                    let _infallible = writeln!(text, "  {:<7}  {:<width$}  -> {remedy}", "", "");
                }
            }
        }
        text
    }
}

/// Looks at everything.
pub(crate) fn examine() -> Diagnosis {
    let mut findings = rootless::examine();
    findings.extend(machine::examine());
    findings.push(modules::examine());
    findings.extend(rules::examine());
    Diagnosis { findings }
}

#[cfg(test)]
pub(crate) fn example() -> Diagnosis {
    let closed = Finding::ok("tun", Concern::User, "/dev/net/tun is closed");
    Diagnosis {
        findings: vec![
            Finding::ok("user-namespaces", Concern::User, "they can be made"),
            closed.but(State::Blocked, "chmod 0666 /dev/net/tun"),
            Finding::ok("nft", Concern::System, "it is there"),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_as_text() {
        insta::assert_snapshot!(example().describe(), @r"
        networks of this user:
          ok       user-namespaces  they can be made
          BLOCKED  tun              /dev/net/tun is closed
                                    -> chmod 0666 /dev/net/tun
        what takes privileges:
          ok       nft              it is there
        ");
        assert_eq!(example().blocks(), 1);
    }

    #[test]
    fn each_thing_has_a_name_of_its_own() {
        let mut names: Vec<&str> = examine().findings.iter().map(|one| one.name).collect();
        let all = names.len();
        assert!(all >= 10, "{names:?}");
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all, "{names:?}");
    }
}
