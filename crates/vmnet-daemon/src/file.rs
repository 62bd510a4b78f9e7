//! The configuration file: networks that are there as long as they stand in it.
//!
//! ```toml
//! [daemon]
//! idle_timeout = 60            # seconds without clients after which a service started on demand ends
//! group = "vmnet"              # of the machine's service: who may use it
//! user = "vmnet"               # of the machine's service: as whom it runs
//!
//! [networks.dev]
//! mode = "shared"              # every key of the type NetworkConfiguration, and:
//! subnet = "10.77.0.1/24"
//! reservations = [{ address = "10.77.0.10", name = "db" }]
//! forwards = [{ protocol = "tcp", address = "127.0.0.1", first = 8080, last = 8080, guest = { name = "web" }, guest_port = 80 }]
//! ```

use crate::supervisor::Configured;
use complaint::{Complaint, line_of};
use openvmnet::service::{ForwardRule, Reservation};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

mod complaint;

/// What the file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Configuration {
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) group: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) networks: Vec<Configured>,
    /// In which line each of them begins.
    pub(crate) lines: BTreeMap<String, usize>,
}

/// The file cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// It cannot be read.
    #[error("the configuration file {}: {}", .0.display(), cause(.1))]
    Read(PathBuf, #[source] std::io::Error),
    /// It cannot be understood: in which line, and why.
    #[error("{}:{line}: {why}", .file.display())]
    Form {
        /// The file.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong there.
        why: String,
    },
}

fn cause(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        _ => error.to_string(),
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Daemon {
    // As the other keys are written, and as before.
    #[serde(alias = "idle-timeout")]
    idle_timeout: Option<u64>,
    group: Option<Account>,
    user: Option<Account>,
}

/// A name or a number.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a name or a number is expected")]
enum Account {
    Name(String),
    Number(u32),
}

impl From<Account> for String {
    fn from(account: Account) -> Self {
        match account {
            Account::Name(name) => name,
            Account::Number(number) => number.to_string(),
        }
    }
}

impl Configuration {
    /// Reads a file; one that is not there says nothing.
    ///
    /// # Errors
    /// It cannot be read or understood.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, ConfigurationError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, path).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ConfigurationError::Read(path.to_owned(), error)),
        }
    }

    fn parse(text: &str, path: &Path) -> Result<Self, ConfigurationError> {
        read(text).map_err(|complaint| {
            let (line, why) = complaint.at_line(text);
            let file = path.to_owned();
            ConfigurationError::Form { file, line, why }
        })
    }
}

fn read(text: &str) -> Result<Configuration, Complaint> {
    let mut file = Configuration::default();
    for (key, value) in DeTable::parse(text)?.into_inner() {
        match &**key.get_ref() {
            "daemon" => {
                let daemon: Daemon = understood(value)?;
                file.idle_timeout = daemon.idle_timeout.map(Duration::from_secs);
                file.group = daemon.group.map(String::from);
                file.user = daemon.user.map(String::from);
            }
            "networks" => {
                for (name, table) in table(value, "a table for each network")? {
                    let at = name.span();
                    let name = name.into_inner().into_owned();
                    let network = configured(&name, table);
                    let network = network.map_err(|error| error.of(&name, at.clone()))?;
                    file.networks.push(network);
                    file.lines.insert(name, line_of(text, at.start));
                }
            }
            other => {
                let why = format!("unknown table `{other}`, expected `daemon` or `networks`");
                return Err(Complaint::new(key.span(), why));
            }
        }
    }
    // By name, whichever order they stand in.
    file.networks
        .sort_by(|one, other| one.configuration.name.cmp(&other.configuration.name));
    Ok(file)
}

fn configured(name: &str, value: Spanned<DeValue<'_>>) -> Result<Configured, Complaint> {
    let at = value.span();
    let mut table = table(value, "a table of what the network is to be")?;
    let reservations: Vec<Reservation> = list(&mut table, "reservations")?;
    let forwards: Vec<ForwardRule> = list(&mut table, "forwards")?;
    if let Some((key, _)) = table.get_key_value("name") {
        let why = "the table's own name is the network's: leave `name` out";
        return Err(Complaint::new(key.span(), why.to_owned()));
    }
    // What a network of this name is that is there for the asking.
    let mode = if name == "host" { "host" } else { "shared" };
    for (key, value) in [("name", name), ("mode", mode)] {
        let value = Spanned::new(0..0, DeValue::String(value.into()));
        let key = Spanned::new(0..0, key.into());
        table.entry(key).or_insert(value);
    }
    Ok(Configured {
        configuration: understood(Spanned::new(at, DeValue::Table(table)))?,
        reservations,
        forwards,
    })
}

fn table<'a>(value: Spanned<DeValue<'a>>, wanted: &str) -> Result<DeTable<'a>, Complaint> {
    let at = value.span();
    match value.into_inner() {
        DeValue::Table(table) => Ok(table),
        _ => Err(Complaint::new(at, format!("{wanted} is expected here"))),
    }
}

/// Takes a list out of a table.
fn list<T: DeserializeOwned>(table: &mut DeTable<'_>, key: &str) -> Result<Vec<T>, Complaint> {
    table.remove(key).map_or(Ok(Vec::new()), understood)
}

fn understood<T: DeserializeOwned>(value: Spanned<DeValue<'_>>) -> Result<T, Complaint> {
    Ok(T::deserialize(ValueDeserializer::from(value))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Occupied, Plan};
    use openvmnet::service::{Mode, Protocol};

    fn parse(text: &str) -> Result<Configuration, String> {
        Configuration::parse(text, Path::new("vmnet.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_with_everything() {
        let read = parse(
            r#"
            [daemon]
            idle-timeout = 60
            [networks.dev]
            subnet = "10.77.0.1/24"
            mtu = 9000
            reservations = [{ address = "10.77.0.10", name = "db" }]
            forwards = [{ protocol = "tcp", address = "127.0.0.1", first = 8080, last = 8081, guest = { name = "web" }, guest_port = 80 }]
            [networks.lonely]
            mode = "host"
            "#,
        )
        .unwrap();
        assert_eq!(read.idle_timeout, Some(Duration::from_secs(60)));
        let [dev, lonely] = read.networks.as_slice() else {
            panic!("{read:?}")
        };
        assert_eq!(dev.configuration.name.as_deref(), Some("dev"));
        assert_eq!(dev.configuration.mode, Mode::Shared);
        assert_eq!(dev.configuration.mtu, Some(9000));
        assert_eq!(dev.reservations[0].name.as_deref(), Some("db"));
        assert_eq!(dev.forwards[0].protocol, Protocol::Tcp);
        assert_eq!(lonely.configuration.mode, Mode::Host);
        let host = parse("[networks.host]").unwrap();
        assert_eq!(host.networks[0].configuration.mode, Mode::Host);
        assert_eq!(parse(""), Ok(Configuration::default()));
    }

    #[test]
    fn the_example_has_every_key_and_works() {
        let example = include_str!("../../../contrib/vmnet.toml");
        let read = parse(example).unwrap();
        let [dev, wire] = read.networks.as_slice() else {
            panic!("{read:?}")
        };
        assert_eq!(dev.reservations.len(), 3);
        assert_eq!(dev.forwards.len(), 3);
        assert_eq!(wire.configuration.private, Some(true));
        for network in [dev, wire] {
            Plan::make(&network.configuration, &Occupied::default()).unwrap();
        }
        // Whatever can be said of a network stands there, if only as a comment.
        let every = Plan::make(&dev.configuration, &Occupied::default()).unwrap();
        let every = serde_json::to_value(every.configuration()).unwrap();
        for key in every.as_object().unwrap().keys() {
            let there = |line: &str| line.starts_with(&format!("{key} = "));
            assert!(key == "name" || example.lines().any(there), "{key}");
        }
        assert!(example.contains("\n# external_interface = "));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, named) in [
            ("[networks.dev]\nmtuu = 3", "mtuu"),
            ("[networks.dev]\nmode = \"bridge\"", "bridge"),
            ("[networks.dev]\nname = \"x\"", "name"),
            (
                "[networks.dev]\nreservations = [{ addres = \"x\" }]",
                "addres",
            ),
            ("[demon]\n", "demon"),
            ("[daemon]\nidletimeout = 1", "idletimeout"),
            ("networks = 3", "a table for each network"),
            ("networks.dev = 3", "network dev: a table"),
            ("[", "vmnet.toml:1: "),
            ("a = 1\na = 2", "vmnet.toml:2: duplicate key"),
            ("[daemon]\ngroup = true", "a name or a number is expected"),
            (
                "# One.\n\n[networks.dev]\nmtu = 99999",
                "vmnet.toml:4: network dev: 99999 is out of range: a whole number from 0 to 65535 is expected, in `mtu = 99999`",
            ),
            (
                "[networks.dev]\nforwards = [\n{ first = -1 },\n]",
                "vmnet.toml:3: network dev: -1 is out of range",
            ),
            (
                "[networks.dev]\nmtu = \"large\"",
                "vmnet.toml:2: network dev: a whole number from 0 to 65535 is expected, and not the string \"large\"",
            ),
            ("[networks.dev]\ndhcp = 1", "true or false is expected"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn accounts_are_names_or_numbers_and_both_kinds_of_hyphen_are_taken() {
        for (text, group) in [("group = \"vmnet\"", "vmnet"), ("group = 5", "5")] {
            let read = parse(&format!("[daemon]\n{text}\nidle_timeout = 7")).unwrap();
            assert_eq!(read.group.as_deref(), Some(group));
            assert_eq!(read.idle_timeout, Some(Duration::from_secs(7)));
        }
        let twice = parse("[daemon]\nidle_timeout = 7\nidle-timeout = 7").unwrap_err();
        assert!(twice.contains("duplicate"), "{twice}");
    }

    #[test]
    fn networks_know_their_lines() {
        let read = parse("[networks.b]\n\n[networks.a]\nmtu = 1400").unwrap();
        let lines = [("a".to_owned(), 3), ("b".to_owned(), 1)];
        assert_eq!(read.lines, BTreeMap::from(lines));
    }

    #[test]
    fn no_file_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let none = Configuration::read(&folder.path().join("none")).unwrap();
        assert_eq!(none, None);
        assert!(Configuration::read(folder.path()).is_err());
    }
}
