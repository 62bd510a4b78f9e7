//! Networks that stay: those that were created, and those of the configuration file.
//!
//! One that cannot be started, because an interface is gone or a port is taken, is not lost: it is told, refused to whoever
//! wants it with the reason, and tried again whenever somebody wants it.

use super::{Supervisor, failed, not_stored};
use crate::plan::{self, Occupied, Plan, text};
use openvmnet::service::{ForwardRule, Lifetime, NetworkConfiguration, Reservation, ServiceError};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use vmnet_linux::lane::Subnet;

/// A network of the configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Configured {
    pub(crate) configuration: NetworkConfiguration,
    pub(crate) reservations: Vec<Reservation>,
    pub(crate) forwards: Vec<ForwardRule>,
}

/// A network that is to be there and could not be started.
#[derive(Debug)]
pub(super) struct Failed {
    wanted: Wanted,
    reason: String,
}

/// Where a network that is to be there comes from.
#[derive(Debug, Clone)]
enum Wanted {
    Kept(Box<NetworkConfiguration>),
    Configured(Box<Configured>),
}

impl Wanted {
    fn configuration(&self) -> &NetworkConfiguration {
        match self {
            Self::Kept(configuration) => configuration,
            Self::Configured(configured) => &configured.configuration,
        }
    }
}

/// What is stored of a network of the file: the subnet that was chosen for it, so that its guests find it again.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfFile {
    subnet_of_file: String,
}

impl Supervisor {
    /// Starts the networks that were created, with what was put on them.
    pub(crate) fn restore(&mut self) {
        for (uuid, description) in self.store.networks() {
            if serde_json::from_value::<OfFile>(description.clone()).is_ok() {
                continue;
            }
            match serde_json::from_value(description) {
                Ok(configuration) => self.want(uuid, Wanted::Kept(Box::new(configuration))),
                Err(error) => tracing::error!(%uuid, %error, "a stored network cannot be read"),
            }
        }
    }

    /// Starts a network of the configuration file.
    ///
    /// # Errors
    /// What the file says of it can never be.
    pub(crate) fn configure(&mut self, configured: &Configured) -> Result<(), ServiceError> {
        // Whatever the host uses now, this must be possible on some host.
        plan::possible(&configured.configuration)?;
        // The file's word is the last: what was created with that name gives way until it is taken out of the file.
        if let Some(uuid) = self.existing(&configured.configuration)? {
            let label = self.running(uuid)?.plan.label();
            tracing::warn!(
                network = label,
                "the network was created too: the configuration file's is taken"
            );
            self.end(uuid);
        }
        let uuid = plan::uuid_of(&configured.configuration)?;
        self.awaited.remove(&uuid);
        self.failed.remove(&uuid);
        self.want(uuid, Wanted::Configured(Box::new(configured.clone())));
        Ok(())
    }

    /// Starts what is to be there, or remembers why it could not be.
    fn want(&mut self, uuid: Uuid, wanted: Wanted) {
        let started = match &wanted {
            Wanted::Kept(configuration) => self.start_kept(configuration),
            Wanted::Configured(configured) => self.start_configured(configured),
        };
        if let Err(error) = started {
            let name = wanted.configuration().name.as_deref();
            tracing::error!(network = name.unwrap_or_default(), %uuid, %error, "a network cannot be started");
            let reason = error.reason().to_owned();
            self.failed.insert(uuid, Failed { wanted, reason });
        }
    }

    fn start_kept(&mut self, configuration: &NetworkConfiguration) -> Result<(), ServiceError> {
        // Its subnet is its own, whatever the host has taken up meanwhile.
        let plan = Plan::make(configuration, &Occupied::nothing()?)?;
        if plan.configuration() != *configuration {
            // Written down by a version that left out what this one decides.
            self.write_down_again(&plan);
        }
        let uuid = self.start(plan, Lifetime::Kept)?;
        self.restore_forwards(uuid);
        Ok(())
    }

    fn write_down_again(&self, plan: &Plan) {
        let written = serde_json::to_value(plan.configuration())
            .map_err(|error| failed(&error))
            .and_then(|description| {
                let stored = self.store.put_network(plan.uuid, &description);
                stored.map_err(|error| not_stored(&error))
            });
        if let Err(error) = written {
            tracing::warn!(network = plan.label(), %error, "the network may be another one next time");
        }
    }

    fn start_configured(&mut self, configured: &Configured) -> Result<(), ServiceError> {
        let plan = self.plan_of_file(&configured.configuration)?;
        let uuid = self.start(plan, Lifetime::Configured)?;
        self.remember_subnet(uuid);
        let name = configured.configuration.name.as_deref().unwrap_or_default();
        // The file's own first: what was put there since gives way.
        for reservation in &configured.reservations {
            if let Err(error) = self.reserve(uuid, reservation) {
                tracing::error!(network = name, address = reservation.address, %error, "a reservation of the configuration file cannot be");
            }
        }
        for rule in &configured.forwards {
            if let Err(error) = self.forward(&uuid.to_string(), None, rule.clone()) {
                tracing::error!(network = name, port = rule.first, %error, "a forward of the configuration file cannot be");
            }
        }
        self.restore_forwards(uuid);
        Ok(())
    }

    /// With the subnet that it had before, if it had one and may choose.
    fn plan_of_file(&self, asked: &NetworkConfiguration) -> Result<Plan, ServiceError> {
        let uuid = plan::uuid_of(asked)?;
        let before = self.subnet_of_file(uuid);
        if let (None, Some(subnet)) = (&asked.subnet, before) {
            let mut asked = asked.clone();
            asked.subnet = Some(subnet);
            if let Ok(plan) = self.plan(&asked) {
                return Ok(plan);
            }
        }
        self.plan(asked)
    }

    /// The subnets that networks of the file had before, and are to have again, whichever of them starts first.
    pub(super) fn spoken_for(&self) -> impl Iterator<Item = (String, Subnet)> {
        let waiting = self.awaited.iter();
        waiting.filter_map(|(uuid, name)| {
            let before = self.subnet_of_file(*uuid)?;
            Some((name.clone(), text::ipv4(&before).ok()?.subnet()))
        })
    }

    /// Networks of the file that are about to be started without a subnet of their own choice.
    pub(crate) fn await_configured(&mut self, all: &[Configured]) {
        let open = all.iter().map(|one| &one.configuration);
        let open = open.filter(|asked| asked.subnet.is_none());
        self.awaited = open
            .filter_map(|asked| {
                let name = asked.name.clone().unwrap_or_default();
                Some((plan::uuid_of(asked).ok()?, name))
            })
            .collect();
    }

    fn subnet_of_file(&self, uuid: Uuid) -> Option<String> {
        let mut stored = self.store.networks().into_iter();
        let (_, description) = stored.find(|(other, _)| *other == uuid)?;
        let of_file: OfFile = serde_json::from_value(description).ok()?;
        Some(of_file.subnet_of_file)
    }

    fn remember_subnet(&self, uuid: Uuid) {
        let Ok(running) = self.running(uuid) else {
            return;
        };
        let stored = self.store.networks();
        let created = stored.iter().any(|(other, description)| {
            *other == uuid && serde_json::from_value::<OfFile>(description.clone()).is_err()
        });
        let Some(ipv4) = running.plan.ipv4.as_ref().filter(|_| !created) else {
            return;
        };
        let of_file = OfFile {
            subnet_of_file: text::gateway_and_length(ipv4),
        };
        let written = serde_json::to_value(of_file)
            .map_err(|error| failed(&error))
            .and_then(|value| {
                let written = self.store.put_network(uuid, &value);
                written.map_err(|error| not_stored(&error))
            });
        if let Err(error) = written {
            tracing::warn!(network = running.plan.label(), %error, "the network may have another subnet next time");
        }
    }

    /// Writes a network down, with what is on it.
    pub(super) fn keep(&mut self, uuid: Uuid) -> Result<(), ServiceError> {
        let description = serde_json::to_value(self.running(uuid)?.plan.configuration())
            .map_err(|error| failed(&error))?;
        let stored = self.store.put_network(uuid, &description);
        stored.map_err(|error| not_stored(&error))?;
        let with = self
            .keep_forwards(uuid)
            .and_then(|()| self.keep_reservations(uuid));
        if let Err(error) = with {
            // Whole or not at all.
            let _also_refused = self.store.delete_network(uuid);
            return Err(error);
        }
        if let Some(running) = self.networks.get_mut(&uuid) {
            running.lifetime = Lifetime::Kept;
        }
        Ok(())
    }

    /// What is left of an earlier network with this UUID is not the new one's.
    pub(super) fn forget_rules(&self, uuid: Uuid) -> Result<(), ServiceError> {
        let forget = || {
            for (key, _) in self.store.forwards(uuid) {
                self.store.remove_forward(uuid, &key)?;
            }
            for (key, _) in self.store.reservations(uuid) {
                self.store.remove_reservation(uuid, &key)?;
            }
            Ok(())
        };
        forget().map_err(|error| not_stored(&error))
    }

    /// The network with this name or UUID, if it could not be started.
    pub(super) fn failed_as(&self, network: &str) -> Option<Uuid> {
        let uuid = Uuid::try_parse(network).ok();
        self.failed
            .iter()
            .find(|(other, failed)| {
                Some(**other) == uuid
                    || failed.wanted.configuration().name.as_deref() == Some(network)
            })
            .map(|(uuid, _)| *uuid)
    }

    /// Why a network that is to be there is not.
    pub(super) fn why_failed(&self, network: &str) -> Option<ServiceError> {
        let failed = self.failed.get(&self.failed_as(network)?)?;
        Some(ServiceError::Failed {
            reason: format!(
                "the network {network} is to be there, and cannot be started: {}; mend that, or delete the network",
                failed.reason
            ),
        })
    }

    /// No other network is made in the place of one that could not be started.
    pub(super) fn not_failed(&self, asked: &NetworkConfiguration) -> Result<(), ServiceError> {
        let said = [asked.name.as_deref(), asked.uuid.as_deref()];
        let found = said
            .into_iter()
            .flatten()
            .find_map(|said| self.why_failed(said));
        found.map_or(Ok(()), Err)
    }

    /// Somebody wants a network: one that could not be started may be possible now.
    pub(super) fn try_failed_again(
        &mut self,
        network: Option<&str>,
        asked: Option<&NetworkConfiguration>,
    ) {
        let said = [
            network,
            asked.and_then(|asked| asked.name.as_deref()),
            asked.and_then(|asked| asked.uuid.as_deref()),
        ];
        let found = said
            .into_iter()
            .flatten()
            .find_map(|said| self.failed_as(said));
        if let Some(uuid) = found
            && let Some(failed) = self.failed.remove(&uuid)
        {
            self.want(uuid, failed.wanted);
        }
    }

    /// Deletes a network that was created and could not be started.
    pub(super) fn delete_failed(&mut self, uuid: Uuid) -> Result<(), ServiceError> {
        let failed = self.failed.get(&uuid);
        if failed.is_some_and(|failed| matches!(failed.wanted, Wanted::Configured(_))) {
            return Err(ServiceError::InvalidArgument {
                reason: "the network is in the configuration file: remove it there".to_owned(),
            });
        }
        self.store
            .delete_network(uuid)
            .map_err(|error| not_stored(&error))?;
        self.failed.remove(&uuid);
        self.remove_left_alone(uuid);
        Ok(())
    }
}
