//! Which subnet a network gets: the first of its mode's range that nobody uses.

use openvmnet::service::{Mode, ServiceError};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use vmnet_linux::kernel::nics::{self, Nic};
use vmnet_linux::kernel::route::{RouteError, Routes, Taken};
use vmnet_linux::lane::{Ipv4, Prefix, Subnet};

use super::Plan;

/// What is in use: by the host, and by networks of ours.
#[derive(Debug, Default)]
pub(crate) struct Occupied {
    pub(crate) host: Vec<Taken>,
    pub(crate) networks: Vec<(String, Subnet)>,
    pub(crate) prefixes: Vec<(String, Prefix)>,
    /// The kernel can carry frames for us.
    pub(crate) kernel: bool,
    /// Interfaces whose LAN guests can be on.
    pub(crate) nics: Vec<Nic>,
}

/// The third bytes of the default subnets 192.168.x.0/24 (vmnet: the same).
fn range(mode: Mode) -> RangeInclusive<u8> {
    match mode {
        Mode::Shared => 64..=127,
        Mode::Host => 128..=191,
        // Its guests have addresses of the LAN.
        Mode::Bridged => 0..=0,
    }
}

impl Occupied {
    /// What is in use now.
    ///
    /// # Errors
    /// The host's routes cannot be read.
    pub(crate) fn now<'a>(plans: impl Iterator<Item = &'a Plan>) -> Result<Self, ServiceError> {
        let (mut networks, mut prefixes) = (Vec::new(), Vec::new());
        for plan in plans {
            networks.extend(plan.ipv4.map(|ipv4| (plan.label(), ipv4.subnet())));
            prefixes.extend(plan.ipv6.map(|prefix| (plan.label(), prefix)));
        }
        let failed = |error: RouteError| ServiceError::Failed {
            reason: error.to_string(),
        };
        let host = Routes::open().and_then(|mut routes| routes.taken());
        Ok(Self {
            host: host.map_err(failed)?,
            nics: nics::all().map_err(failed)?,
            networks,
            prefixes,
            kernel: false,
        })
    }

    /// Nothing is in use; for a network that keeps what it has. Interfaces of the host are those that are there now.
    ///
    /// # Errors
    /// The host's links cannot be read.
    pub(crate) fn nothing() -> Result<Self, ServiceError> {
        let nics = nics::all().map_err(|error| ServiceError::Failed {
            reason: error.to_string(),
        })?;
        Ok(Self {
            nics,
            ..Self::default()
        })
    }

    /// A subnet that was asked for, if nobody uses it.
    pub(super) fn check(&self, asked: Ipv4) -> Result<Ipv4, ServiceError> {
        match self.user(asked.subnet()) {
            None => Ok(asked),
            Some(user) => Err(ServiceError::InUse {
                reason: format!(
                    "the subnet {} is taken: {user}; choose another",
                    asked.subnet()
                ),
            }),
        }
    }

    /// The first free one.
    pub(super) fn choose(&self, mode: Mode) -> Result<Ipv4, ServiceError> {
        let mut last = None;
        for third in range(mode) {
            let subnet = Subnet::new(Ipv4Addr::new(192, 168, third, 0), 24).map_err(|error| {
                ServiceError::Failed {
                    reason: error.to_string(),
                }
            })?;
            match self.user(subnet) {
                None => return Ok(Ipv4::new(subnet)),
                user => last = user,
            }
        }
        let range = range(mode);
        Err(ServiceError::InUse {
            reason: format!(
                "every /24 from 192.168.{}.0 to 192.168.{}.0 is taken, the last because {}: choose a subnet, like 10.77.0.0/24",
                range.start(),
                range.end(),
                last.unwrap_or_default()
            ),
        })
    }

    /// Who uses some of it.
    fn user(&self, subnet: Subnet) -> Option<String> {
        let ours = self
            .networks
            .iter()
            .find(|(_, other)| subnet.overlaps(other.network(), other.prefix_len()));
        if let Some((name, other)) = ours {
            return Some(format!("the network {name} has {other}"));
        }
        let taken = self
            .host
            .iter()
            .find(|taken| matches!(taken.network, IpAddr::V4(network) if subnet.overlaps(network, taken.prefix_len)))?;
        Some(whose(taken))
    }

    /// Who uses some of a prefix.
    pub(super) fn user_of_prefix(&self, prefix: Prefix) -> Option<String> {
        let mut ours = self.prefixes.iter();
        if let Some((name, other)) = ours.find(|(_, other)| *other == prefix) {
            return Some(format!("the network {name} has {other}"));
        }
        let taken = self.host.iter().find(|taken| taken.meets(prefix))?;
        Some(whose(taken))
    }
}

/// What of the host it is.
fn whose(taken: &Taken) -> String {
    let kind = if taken.is_address {
        "an address"
    } else {
        "a route"
    };
    let interface = taken.interface.as_deref().unwrap_or("the host");
    format!(
        "{kind} of {interface} uses {}/{}",
        taken.network, taken.prefix_len
    )
}
