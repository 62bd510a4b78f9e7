//! The configuration file: networks that are there as long as they stand in it.
//!
//! ```toml
//! [daemon]
//! idle-timeout = 60            # seconds without clients after which a service started on demand ends
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
use openvmnet::service::{ForwardRule, Reservation};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Configuration {
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) group: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) networks: Vec<Configured>,
}

/// The file cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// It cannot be read.
    #[error("{0}: {1}")]
    Read(PathBuf, #[source] std::io::Error),
    /// It cannot be understood.
    #[error("{0}: {1}")]
    Form(PathBuf, Box<toml::de::Error>),
    /// One network of it cannot be.
    #[error("{0}: network {1}: {2}")]
    Network(PathBuf, String, String),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Top {
    #[serde(default)]
    daemon: Daemon,
    #[serde(default)]
    networks: BTreeMap<String, toml::Table>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Daemon {
    idle_timeout: Option<u64>,
    group: Option<String>,
    user: Option<String>,
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
        let form = |error| ConfigurationError::Form(path.to_owned(), Box::new(error));
        let top: Top = toml::from_str(text).map_err(form)?;
        let networks = top.networks.into_iter().map(|(name, table)| {
            configured(&name, table)
                .map_err(|text| ConfigurationError::Network(path.to_owned(), name, text))
        });
        Ok(Self {
            idle_timeout: top.daemon.idle_timeout.map(Duration::from_secs),
            group: top.daemon.group,
            user: top.daemon.user,
            networks: networks.collect::<Result<_, _>>()?,
        })
    }
}

fn configured(name: &str, mut table: toml::Table) -> Result<Configured, String> {
    let reservations: Vec<Reservation> = list(&mut table, "reservations")?;
    let forwards: Vec<ForwardRule> = list(&mut table, "forwards")?;
    if table.contains_key("name") {
        return Err("the table's own name is the network's: leave `name` out".to_owned());
    }
    let default = |table: &mut toml::Table, key: &str, value: &str| {
        let value = toml::Value::String(value.to_owned());
        table.entry(key).or_insert(value);
    };
    default(&mut table, "name", name);
    // What a network of this name is that is there for the asking.
    let mode = if name == "host" { "host" } else { "shared" };
    default(&mut table, "mode", mode);
    let configuration = toml::Value::Table(table)
        .try_into()
        .map_err(|error: toml::de::Error| error.message().to_owned())?;
    Ok(Configured {
        configuration,
        reservations,
        forwards,
    })
}

/// Takes a list out of a table.
fn list<T: serde::de::DeserializeOwned>(
    table: &mut toml::Table,
    key: &str,
) -> Result<Vec<T>, String> {
    match table.remove(key) {
        None => Ok(Vec::new()),
        Some(value) => value
            .try_into()
            .map_err(|error: toml::de::Error| format!("{key}: {}", error.message())),
    }
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
            ("[daemon]\nidle_timeout = 1", "idle_timeout"),
            ("networks = 3", "networks"),
            ("[", "vmnet.toml"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
    }

    #[test]
    fn no_file_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let none = Configuration::read(&folder.path().join("none")).unwrap();
        assert_eq!(none, None);
        assert!(Configuration::read(folder.path()).is_err());
    }
}
