//! A private network: in this process, for one guest, gone with it.

use super::subnet::{self, ChooseError};
use crate::args::Making;
use crate::port_spec::PortSpec;
use std::net::SocketAddr;
use std::time::Duration;
use vmnet_linux::kernel::route::{RouteError, Routes};
use vmnet_linux::lane::{
    self, AttachError, Attachment, Dhcp6, Forward, ForwardError, ForwardGuest, Handle, Ipv4,
    MTU_MIN_IPV6, PortOptions, Protocol, Settings, StartError,
};

/// How long leases last.
const LEASE_TIME: Duration = Duration::from_secs(24 * 3600);
/// The name a private network has, in logs and for MACs.
pub(super) const NAME: &str = "private";

/// A private network could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrivateError {
    #[error(transparent)]
    Choose(#[from] ChooseError),
    #[error(transparent)]
    Routes(#[from] RouteError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Attach(#[from] AttachError),
    #[error(transparent)]
    Forward(#[from] ForwardError),
}

/// The settings of a network this process makes.
pub(super) fn settings(making: &Making) -> Result<Settings, PrivateError> {
    let taken = Routes::open()?.taken()?;
    let subnet = subnet::choose(making.subnet.map(|asked| asked.subnet()), &taken)?;
    tracing::info!(%subnet, "a private network");
    let addresses = making.subnet.unwrap_or_else(|| Ipv4::new(subnet));
    let mut settings = Settings::shared(NAME, addresses, LEASE_TIME);
    settings.mtu = making.mtu.unwrap_or(settings.mtu);
    // Nobody asked for IPv6 where the MTU is too small for it.
    let fits = settings.mtu >= MTU_MIN_IPV6 || making.ipv6_prefix.is_some();
    if fits && !making.no_ipv6 {
        settings.ipv6 = Some(subnet::choose_prefix(making.ipv6_prefix, &taken)?);
        settings.nat66 = true;
        settings.router_advertisement = true;
        settings.dhcp6 = Some(Dhcp6 {
            lease_time: LEASE_TIME,
        });
    }
    settings.host_loopback = making.host_loopback;
    Ok(settings)
}

/// Starts the network with its one guest.
pub(super) fn start(
    settings: Settings,
    attachment: Attachment,
    options: PortOptions,
    publish: &[PortSpec],
) -> Result<Handle, PrivateError> {
    let handle = lane::start(settings)?;
    let port = handle.attach(attachment, options)?;
    for (listen, guest_port, protocol) in pairs(publish) {
        let forward = Forward {
            protocol,
            listen,
            guest: ForwardGuest::Port(port),
            guest_port,
        };
        handle.forward(forward)?;
    }
    Ok(handle)
}

fn pairs(specs: &[PortSpec]) -> impl Iterator<Item = (SocketAddr, u16, Protocol)> + '_ {
    specs.iter().flat_map(|spec| {
        spec.pairs()
            .map(|(listen, guest)| (listen, guest, spec.protocol))
    })
}
