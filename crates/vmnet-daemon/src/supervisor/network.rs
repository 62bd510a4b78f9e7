//! Networks that are made, joined, and end.

use super::in_kernel::InKernel;
use super::{ConnectionId, Supervisor, keeper, not_stored};
use crate::plan::{self, Occupied, Plan};
use openvmnet::service::{Lifetime, Mode, Network, NetworkConfiguration, ServiceError};
use std::collections::BTreeMap;
use uuid::Uuid;
use vmnet_linux::kernel::route::Taken;
use vmnet_linux::lane::{self, Handle, StartError};

/// A network and its datapath.
pub(super) struct Running {
    pub(super) plan: Plan,
    pub(super) lifetime: Lifetime,
    pub(super) handle: Handle,
    /// Where the kernel carries the frames.
    pub(super) kernel: Option<InKernel>,
}

/// Networks that are there for the asking.
fn default_network(name: &str) -> Option<NetworkConfiguration> {
    let mode = match name {
        "shared" => Mode::Shared,
        "host" => Mode::Host,
        _ => return None,
    };
    let name = Some(name.to_owned());
    Some(NetworkConfiguration {
        name,
        ..NetworkConfiguration::new(mode)
    })
}

impl Supervisor {
    pub(crate) fn create_network(
        &mut self,
        configuration: NetworkConfiguration,
    ) -> Result<Network, ServiceError> {
        if configuration.name.is_none() {
            return Err(ServiceError::InvalidArgument {
                reason: "a network that stays needs a name".to_owned(),
            });
        }
        self.not_failed(&configuration)?;
        if let Some(uuid) = self.existing(&configuration)? {
            let running = self.running(uuid)?;
            running.plan.fits(&configuration)?;
            if running.lifetime != Lifetime::Held {
                let reason = format!("the network {} is there already", running.plan.label());
                return Err(ServiceError::Exists { reason });
            }
            // It was held; now it stays.
            self.keep(uuid)?;
            return self.show(uuid);
        }
        let plan = self.plan(&configuration)?;
        self.forget_rules(plan.uuid)?;
        let uuid = self.start(plan, Lifetime::Held)?;
        let kept = self.keep(uuid).and_then(|()| self.show(uuid));
        if kept.is_err() {
            self.settle(uuid);
        }
        kept
    }

    pub(crate) fn delete_network(
        &mut self,
        connection: ConnectionId,
        network: &str,
        force: bool,
    ) -> Result<(), ServiceError> {
        if let Some(uuid) = self.failed_as(network) {
            return self.delete_failed(uuid);
        }
        let uuid = self.find(network)?;
        self.prune(uuid);
        let running = self.running(uuid)?;
        let label = running.plan.label();
        if running.lifetime == Lifetime::Configured {
            return Err(ServiceError::InvalidArgument {
                reason: format!(
                    "the network {label} is in the configuration file: remove it there"
                ),
            });
        }
        let interfaces = self.interfaces_on(uuid).count();
        if interfaces > 0 && !force {
            let (interfaces, them) = match interfaces {
                1 => ("1 interface".to_owned(), "it"),
                more => (format!("{more} interfaces"), "them"),
            };
            return Err(ServiceError::InUse {
                reason: format!(
                    "the network {label} has {interfaces}: end {them} first, or use force"
                ),
            });
        }
        let holders = self.others_holding(uuid, connection);
        if holders > 0 && !force {
            let (holders, them) = match holders {
                1 => ("another client has".to_owned(), "it"),
                more => (format!("{more} other clients have"), "them"),
            };
            return Err(ServiceError::InUse {
                reason: format!(
                    "{holders} the network {label} open: end {them} first, or use force"
                ),
            });
        }
        self.store
            .delete_network(uuid)
            .map_err(|error| not_stored(&error))?;
        for holder in self.holders.values_mut() {
            holder.opened.remove(&uuid);
        }
        let owners = self.owners_to_tell(uuid);
        self.end(uuid);
        for owner in owners {
            self.hang_up_on(owner, connection);
        }
        Ok(())
    }

    pub(crate) fn open_network(
        &mut self,
        connection: ConnectionId,
        network: Option<&str>,
        configuration: Option<NetworkConfiguration>,
    ) -> Result<Network, ServiceError> {
        self.try_failed_again(network, configuration.as_ref());
        let uuid = self.open(network, configuration)?;
        if let Some(holder) = self.holders.get_mut(&connection) {
            holder.opened.insert(uuid);
        }
        self.show(uuid)
    }

    fn open(
        &mut self,
        network: Option<&str>,
        configuration: Option<NetworkConfiguration>,
    ) -> Result<Uuid, ServiceError> {
        if let Some(uuid) = network.and_then(|network| self.look_up(network)) {
            if let Some(configuration) = &configuration {
                self.running(uuid)?.plan.fits(configuration)?;
            }
            return Ok(uuid);
        }
        let asked = match (configuration, network) {
            (Some(mut configuration), network) => {
                if let Some(network) = network {
                    called(&mut configuration, network)?;
                }
                if let Some(uuid) = self.existing(&configuration)? {
                    self.running(uuid)?.plan.fits(&configuration)?;
                    return Ok(uuid);
                }
                configuration
            }
            (None, Some(network)) if self.failed_as(network).is_none() => default_network(network)
                .ok_or_else(|| self.find(network).err().unwrap_or_else(nothing_asked))?,
            (None, Some(network)) => {
                return Err(self.find(network).err().unwrap_or_else(nothing_asked));
            }
            (None, None) => return Err(nothing_asked()),
        };
        self.not_failed(&asked)?;
        let plan = self.plan(&asked)?;
        self.start(plan, Lifetime::Held)
    }

    /// The network that has the name or UUID of a configuration.
    pub(super) fn existing(
        &self,
        configuration: &NetworkConfiguration,
    ) -> Result<Option<Uuid>, ServiceError> {
        let by_name = configuration
            .name
            .as_deref()
            .and_then(|name| self.look_up(name));
        let said = configuration.uuid.is_some() || configuration.name.is_some();
        let by_uuid = said
            .then(|| plan::uuid_of(configuration))
            .transpose()?
            .filter(|uuid| self.networks.contains_key(uuid));
        match (by_name, by_uuid) {
            (Some(one), Some(other)) if one != other => Err(ServiceError::Exists {
                reason: "that name and that UUID are those of two networks".to_owned(),
            }),
            (by_name, by_uuid) => Ok(by_name.or(by_uuid)),
        }
    }

    pub(crate) fn close_network(
        &mut self,
        connection: ConnectionId,
        network: &str,
    ) -> Result<(), ServiceError> {
        let uuid = self.find(network)?;
        let holder = self.holders.get_mut(&connection);
        if !holder.is_some_and(|holder| holder.opened.remove(&uuid)) {
            return Err(ServiceError::NotFound {
                reason: format!("this connection does not have the network {network} open"),
            });
        }
        self.settle(uuid);
        Ok(())
    }

    pub(crate) fn list_networks(
        &mut self,
        network: Option<&str>,
    ) -> Result<Vec<Network>, ServiceError> {
        let chosen = self.chosen(network)?;
        for uuid in &chosen {
            self.prune(*uuid);
            self.settle(*uuid);
        }
        let mut networks: Vec<Network> = chosen
            .into_iter()
            .filter(|uuid| self.networks.contains_key(uuid))
            .map(|uuid| self.show(uuid))
            .collect::<Result<_, _>>()?;
        networks.sort_by(|one, other| (&one.name, &one.uuid).cmp(&(&other.name, &other.uuid)));
        Ok(networks)
    }

    pub(crate) fn counters(&self, network: &str) -> Result<BTreeMap<String, u64>, ServiceError> {
        let running = self.running(self.find(network)?)?;
        Ok(running.handle.counters().rows.into_iter().collect())
    }

    /// Decides what is asked for, beside what there is.
    pub(super) fn plan(&self, configuration: &NetworkConfiguration) -> Result<Plan, ServiceError> {
        let ours = self.networks.values().map(|running| &running.plan);
        let mut occupied = Occupied::now(ours)?;
        // What is said is taken all the same; what is chosen is another.
        if configuration.subnet.is_none() {
            occupied.networks.extend(self.spoken_for());
        }
        occupied.kernel = self.helper.is_some();
        if occupied.kernel {
            let own = self.own_interfaces(plan::uuid_of(configuration)?)?;
            let is_own =
                |taken: &Taken| taken.interface.as_ref().is_some_and(|it| own.contains(it));
            occupied.host.retain(|taken| !is_own(taken));
        }
        Plan::make(configuration, &occupied)
    }

    /// Starts the datapath of a network.
    pub(super) fn start(&mut self, plan: Plan, lifetime: Lifetime) -> Result<Uuid, ServiceError> {
        let uuid = plan.uuid;
        self.may(&plan.configuration())?;
        if let Some(other) = self.networks.get(&uuid) {
            return Err(ServiceError::Exists {
                reason: format!("the network {} has the UUID {uuid}", other.plan.label()),
            });
        }
        let mut settings = plan.settings();
        settings.restored = keeper::restored(&self.store, uuid);
        settings.reservations = self.stored_reservations(uuid);
        settings.leases = plan
            .dhcp
            .is_some()
            .then(|| keeper::keeper(&self.store, uuid));
        settings.moved = self.moved.clone();
        let prepared = self.begin_in_kernel(&plan)?;
        let started = lane::start(settings).map_err(|error| {
            let reason = super::chain(&error);
            match error {
                StartError::Config(_) | StartError::NoInterface { .. } => {
                    ServiceError::InvalidArgument { reason }
                }
                StartError::InterfaceClosed { .. } => ServiceError::NotAuthorized { reason },
                StartError::Host(_) => ServiceError::Failed { reason },
            }
        });
        let (handle, kernel) = self.enter_kernel(uuid, started, prepared)?;
        self.open_lan(&plan, &handle)?;
        tracing::info!(network = plan.label(), %uuid, "a network began");
        let running = Running {
            plan,
            lifetime,
            handle,
            kernel,
        };
        self.networks.insert(uuid, running);
        if let Err(error) = self.rule(uuid) {
            self.undo_start(uuid);
            return Err(error);
        }
        self.left_alone.remove(&uuid);
        Ok(uuid)
    }

    fn undo_start(&mut self, uuid: Uuid) {
        let Some(running) = self.networks.remove(&uuid) else {
            return;
        };
        running.handle.stop();
        if let Some(kernel) = &running.kernel {
            self.undo_in_kernel(uuid, kernel);
        }
        if running.plan.bridged.is_some() {
            self.delete_links_of(uuid);
        }
    }

    /// Ends a network that nobody holds any more.
    pub(super) fn settle(&mut self, uuid: Uuid) {
        let held = self
            .networks
            .get(&uuid)
            .is_none_or(|running| running.lifetime != Lifetime::Held)
            || self.holders_of(uuid) > 0
            || self.interfaces_on(uuid).next().is_some();
        if !held {
            self.end(uuid);
        }
    }

    /// Ends a network with everything on it.
    pub(super) fn end(&mut self, uuid: Uuid) {
        let on: Vec<u64> = self.interfaces_on(uuid).map(|(number, _)| number).collect();
        for interface in on {
            self.interfaces.remove(&interface);
        }
        self.forwards.retain(|_, rule| rule.network != uuid);
        let Some(running) = self.networks.remove(&uuid) else {
            return;
        };
        running.handle.stop();
        if let Some(kernel) = running.kernel {
            self.end_in_kernel(&kernel);
        }
        if running.plan.bridged.is_some() {
            self.delete_links_of(uuid);
        }
        // A network with a name may be made again, and its guests keep their addresses then.
        if running.plan.name.is_none()
            && let Err(error) = self.store.forget_leases(uuid)
        {
            tracing::warn!(%error, "leases of a network that ended could not be forgotten");
        }
        tracing::info!(network = running.plan.label(), %uuid, "a network ended");
    }

    /// Ends all networks, in order; what stays has been written already.
    pub(crate) fn end_all(&mut self) {
        let all: Vec<Uuid> = self.networks.keys().copied().collect();
        self.interfaces.clear();
        self.forwards.clear();
        for uuid in all {
            if let Some(running) = self.networks.remove(&uuid) {
                running.handle.stop();
                if let Some(kernel) = running.kernel {
                    self.end_in_kernel(&kernel);
                }
                if running.plan.bridged.is_some() {
                    self.delete_links_of(uuid);
                }
            }
        }
    }

    /// What a network is, for clients.
    pub(super) fn show(&self, uuid: Uuid) -> Result<Network, ServiceError> {
        let running = self.running(uuid)?;
        let plan = &running.plan;
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Ok(Network {
            uuid: uuid.to_string(),
            name: plan.name.clone(),
            mode: plan.mode,
            lifetime: running.lifetime,
            scope: self.about.scope,
            subnet: plan.ipv4.as_ref().map(|ipv4| ipv4.subnet().to_string()),
            gateway: plan.ipv4.as_ref().map(|ipv4| ipv4.gateway().to_string()),
            dhcp_first: plan.dhcp.map(|dhcp| dhcp.first.to_string()),
            dhcp_last: plan.dhcp.map(|dhcp| dhcp.last.to_string()),
            mtu: plan.mtu,
            dhcp: plan.dhcp.is_some(),
            dns_proxy: plan.dns_proxy,
            nat44: plan.nat44,
            ipv6_prefix: plan.ipv6.as_ref().map(ToString::to_string),
            ipv6_gateway: plan.ipv6.as_ref().map(|ipv6| ipv6.gateway().to_string()),
            nat66: plan.nat66,
            router_advertisement: plan.router_advertisement,
            dhcp6: plan.dhcp6,
            external_interface: plan.external_interface.clone(),
            bridge_method: plan
                .bridged
                .as_ref()
                .map(|bridged| plan::shown_method(bridged.method)),
            domain: plan.domain.clone(),
            lease_seconds: plan.lease_seconds,
            isolation: plan.isolation,
            host_loopback: plan.host_loopback,
            datapath: plan.datapath,
            host_interface: (running.kernel.as_ref()).map(|kernel| kernel.bridge.to_string()),
            private: plan.private,
            holders: count(self.holders_of(uuid)),
            interfaces: count(self.interfaces_on(uuid).count()),
            configuration: plan.configuration(),
        })
    }
}

/// Gives a configuration the name or UUID by which its network was asked for.
fn called(configuration: &mut NetworkConfiguration, network: &str) -> Result<(), ServiceError> {
    let uuid = Uuid::try_parse(network).ok();
    let field = match uuid {
        Some(_) => &mut configuration.uuid,
        None => &mut configuration.name,
    };
    let same = |said: &str| said == network || uuid.is_some() && Uuid::try_parse(said).ok() == uuid;
    match field {
        Some(said) if !same(said) => Err(ServiceError::InvalidArgument {
            reason: format!(
                "the network {network} is asked for, and its configuration calls it {said}: leave one of them out"
            ),
        }),
        Some(_) => Ok(()),
        None => {
            *field = Some(network.to_owned());
            Ok(())
        }
    }
}

fn nothing_asked() -> ServiceError {
    ServiceError::InvalidArgument {
        reason: "say which network to open, or what it is to be".to_owned(),
    }
}
