//! `vmnet forward`.

use super::network::scope;
use super::scoped::Scoped;
use super::table::{Table, or_none};
use super::{VerbError, each, keeping_of, listing, of, running, show};
use crate::args::forward::{Add, ForwardVerb, List, Remove};
use crate::forward_spec::{self, HostPorts};
use crate::port_spec::ParsePortError;
use openvmnet::client::{CallError, Client};
use openvmnet::service::{Forward, ForwardRule};
use serde::Serialize;

/// What was typed fits no rule.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForwardError {
    #[error("{ports}: {source}")]
    Ports {
        ports: String,
        source: ParsePortError,
    },
    #[error(
        "no forward of {network} has {ports}: `vmnet forward list {network}` shows what there is"
    )]
    None { network: String, ports: HostPorts },
    #[error(
        "{ports} is a part of the forward {}: `vmnet forward remove {}` removes all of it",
        forward_spec::describe(.rule), .rule.forward
    )]
    Part {
        ports: HostPorts,
        rule: Box<Forward>,
    },
    #[error(
        "several forwards of {network} have {ports}: say one of the numbers {}, or the address too",
        numbers(.rules)
    )]
    Several {
        network: String,
        ports: HostPorts,
        rules: Vec<Forward>,
    },
    #[error("which ports of {0}? Say PORT, PORT/udp or FIRST-LAST")]
    NoPorts(String),
    #[error("`{0}` is no number of a forward; say numbers, or a network and ports of the host")]
    NoNumber(String),
    #[error("--except {first}-{last}: no forward has a port of these")]
    ExceptNothing { first: u16, last: u16 },
}

impl ForwardError {
    /// Whether it is a mistake in what was typed.
    pub(super) fn is_of_typing(&self) -> bool {
        match self {
            Self::Ports { .. }
            | Self::NoPorts(_)
            | Self::NoNumber(_)
            | Self::ExceptNothing { .. } => true,
            Self::None { .. } | Self::Part { .. } | Self::Several { .. } => false,
        }
    }
}

/// Rules of both services, or those that were added.
#[derive(Debug, Serialize)]
pub(super) struct Forwards {
    pub(super) forwards: Vec<Scoped<Forward>>,
}

fn numbers(rules: &[Forward]) -> String {
    let numbers: Vec<String> = rules.iter().map(|rule| rule.forward.to_string()).collect();
    numbers.join(", ")
}

pub(crate) fn run(verb: &ForwardVerb) -> Result<(), VerbError> {
    match verb {
        ForwardVerb::Add(asked) => add(asked),
        ForwardVerb::List(asked) => list(asked),
        ForwardVerb::Remove(asked) => remove(asked),
    }
}

fn add(add: &Add) -> Result<(), VerbError> {
    let rules = rules(add)?;
    let mut client = of(&add.network)?;
    let mut forwards = Vec::new();
    for rule in rules {
        match client.add_forward(&add.network, None, rule) {
            Ok(forward) => forwards.push(forward),
            Err(error) => {
                withdraw(&mut client, &forwards);
                return Err(error.into());
            }
        }
    }
    let added = |forward| Scoped::new(client.scope(), forward);
    let forwards = Forwards {
        forwards: forwards.into_iter().map(added).collect(),
    };
    show(add.json, &forwards, || table(&forwards.forwards))
}

fn rules(add: &Add) -> Result<Vec<ForwardRule>, VerbError> {
    for range in &add.except {
        if !add.specs.iter().any(|spec| spec.meets(range)) {
            let (first, last) = (*range.0.start(), *range.0.end());
            return Err(ForwardError::ExceptNothing { first, last }.into());
        }
    }
    let rules: Result<_, _> = add
        .specs
        .iter()
        .map(|spec| spec.rule(&add.except))
        .collect();
    Ok(rules?)
}

/// Takes back what was added before something failed, so that the same can be said again.
fn withdraw(client: &mut Client, forwards: &[Forward]) {
    for forward in forwards {
        if let Err(error) = client.remove_forward(forward.forward) {
            let rule = forward_spec::describe(forward);
            tracing::warn!("the forward {rule} was added and stays: {error}");
        }
    }
}

fn list(list: &List) -> Result<(), VerbError> {
    let network = list.network.as_deref();
    let of = |client: &mut Client| Ok(client.list_forwards(network)?.forwards);
    let forwards = Forwards {
        forwards: Scoped::of_all(listing(network, keeping_of)?, of)?,
    };
    show(list.json, &forwards, || table(&forwards.forwards))
}

/// Which rules are meant.
#[derive(Debug, PartialEq, Eq)]
enum Meant {
    Numbers(Vec<u64>),
    Ports(String, Vec<HostPorts>),
}

fn meant(words: &[String]) -> Result<Meant, ForwardError> {
    let Some((first, rest)) = words.split_first() else {
        return Ok(Meant::Numbers(Vec::new()));
    };
    if first.parse::<u64>().is_ok() {
        let numbers = words.iter().map(|word| {
            word.parse()
                .map_err(|_| ForwardError::NoNumber(word.clone()))
        });
        return numbers.collect::<Result<_, _>>().map(Meant::Numbers);
    }
    if rest.is_empty() {
        return Err(ForwardError::NoPorts(first.clone()));
    }
    let ports = rest.iter().map(|word| {
        word.parse().map_err(|source| ForwardError::Ports {
            ports: word.clone(),
            source,
        })
    });
    let ports = ports.collect::<Result<_, _>>()?;
    Ok(Meant::Ports(first.clone(), ports))
}

fn remove(remove: &Remove) -> Result<(), VerbError> {
    match meant(&remove.words)? {
        Meant::Numbers(numbers) => {
            let mut client = running()?.ok_or(VerbError::NoNumbers("forward"))?;
            each(&numbers, |&number| client.remove_forward(number))
        }
        Meant::Ports(network, ports) => {
            let mut client = of(&network)?;
            let forwards = client.list_forwards(Some(&network))?.forwards;
            // All are found before one is removed.
            let found: Result<Vec<u64>, ForwardError> = ports
                .into_iter()
                .map(|ports| find(&network, ports, &forwards))
                .collect();
            each(&found?, |&number| gone(client.remove_forward(number)))
        }
    }
}

/// Whoever removed it in the meantime did what was asked for.
fn gone(outcome: Result<(), CallError>) -> Result<(), CallError> {
    match outcome {
        Err(CallError::Refused(openvmnet::service::ServiceError::NotFound { .. })) => Ok(()),
        other => other,
    }
}

fn find(network: &str, ports: HostPorts, forwards: &[Forward]) -> Result<u64, ForwardError> {
    let network = network.to_owned();
    let mut rules: Vec<Forward> = forwards
        .iter()
        .filter(|forward| ports.is(&forward.rule))
        .cloned()
        .collect();
    match (rules.pop(), rules.is_empty()) {
        (Some(rule), true) => Ok(rule.forward),
        (Some(rule), false) => {
            rules.push(rule);
            Err(ForwardError::Several {
                network,
                ports,
                rules,
            })
        }
        (None, _) => Err(
            match forwards.iter().find(|forward| ports.meets(&forward.rule)) {
                Some(rule) => ForwardError::Part {
                    ports,
                    rule: Box::new(rule.clone()),
                },
                None => ForwardError::None { network, ports },
            },
        ),
    }
}

pub(super) fn table(forwards: &[Scoped<Forward>]) -> String {
    let mut table = Table::new([
        "NUMBER",
        "NETWORK",
        "SCOPE",
        "LISTEN",
        "GUEST",
        "PROTOCOL",
        "EXCEPT",
        "INTERFACE",
    ]);
    for forward in forwards {
        let rule = &forward.rule;
        table.row([
            forward.forward.to_string(),
            forward
                .network_name
                .as_ref()
                .unwrap_or(&forward.network)
                .clone(),
            scope(forward.scope).to_owned(),
            forward_spec::listen(rule),
            forward_spec::target(rule),
            forward_spec::protocol(rule).to_owned(),
            forward_spec::exceptions(rule),
            or_none(forward.interface),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::super::examples;
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn forwards_as_a_table() {
        let forwards = [examples::forward(), examples::bare_forward()].map(examples::scoped);
        insta::assert_snapshot!(table(&forwards), @r"
        NUMBER  NETWORK                               SCOPE  LISTEN             GUEST                   PROTOCOL  EXCEPT          INTERFACE
        3       lab                                   user   0.0.0.0:8000-8009  10.77.0.2:80-89         tcp       8001-8003,8007  7
        4       01234567-89ab-4cde-8f01-23456789abcd  user   [::1]:5353         [52:54:00:12:34:56]:53  udp       -               -
        ");
    }

    #[test]
    fn numbers_or_ports() {
        assert_eq!(
            meant(&words("3 4")).unwrap(),
            Meant::Numbers([3, 4].to_vec())
        );
        let ports = ["8080".parse().unwrap(), "53/udp".parse().unwrap()];
        assert_eq!(
            meant(&words("lab 8080/tcp 53/udp")).unwrap(),
            Meant::Ports("lab".into(), ports.to_vec())
        );
        for (text, part) in [
            ("3 lab", "`lab` is no number"),
            ("lab", "which ports of lab"),
            ("lab web", "`web` is no port"),
            ("lab 8080/sctp", "`sctp` is no protocol"),
        ] {
            let error = meant(&words(text)).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_rule_is_found_by_its_ports() {
        let mut other = examples::bare_forward();
        other.forward = 9;
        other.rule.address = "127.0.0.1".into();
        let forwards = [examples::forward(), examples::bare_forward(), other];
        let find = |ports: &str| {
            find("lab", ports.parse().unwrap(), &forwards).map_err(|error| error.to_string())
        };
        assert_eq!(find("8000-8009"), Ok(3));
        assert_eq!(find("127.0.0.1:5353/udp"), Ok(9));
        let refused = [
            find("8005").unwrap_err(),
            find("5353/udp").unwrap_err(),
            find("5353").unwrap_err(),
        ];
        insta::assert_snapshot!(refused.join("\n"), @r"
        8005/tcp is a part of the forward 3 (0.0.0.0:8000-8009/tcp to 10.77.0.2:80-89): `vmnet forward remove 3` removes all of it
        several forwards of lab have 5353/udp: say one of the numbers 4, 9, or the address too
        no forward of lab has 5353/tcp: `vmnet forward list lab` shows what there is
        ");
    }

    #[test]
    fn an_exception_that_excepts_nothing_is_a_mistake() {
        let add = |except: &str| Add {
            network: "lab".into(),
            specs: vec![
                "80:web:80".parse().unwrap(),
                "90-99:web:90-99".parse().unwrap(),
            ],
            except: vec![except.parse().unwrap()],
            json: false,
        };
        assert_eq!(rules(&add("95")).unwrap()[1].except, [95]);
        for (except, part) in [
            ("100", "--except 100-100"),
            ("90-99", "nothing is left of 90-99"),
        ] {
            let error = rules(&add(except)).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
