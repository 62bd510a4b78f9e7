//! A private network: in this process, for one guest, gone with it.

use super::subnet::{self, ChooseError};
use crate::args::Making;
use crate::port_spec::PortSpec;
use std::net::SocketAddr;
use std::time::Duration;
use vmnet_linux::kernel::route::{RouteError, Routes};
use vmnet_linux::kernel::sysctl;
use vmnet_linux::lane::{
    self, AttachError, Attachment, Dhcp, Dns, Forward, ForwardError, ForwardGuest, Handle, Ipv4,
    PortOptions, Protocol, Settings, StartError,
};

/// Apple's default; also what the world's paths take.
const DEFAULT_MTU: u16 = 1500;
/// The domain of guests' names.
const DOMAIN: &str = "vmnet.internal";
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
    #[error("{0}")]
    Forward(String),
}

/// The settings of a network this process makes.
pub(super) fn settings(making: &Making) -> Result<Settings, PrivateError> {
    let taken = Routes::open()?.taken()?;
    let subnet = subnet::choose(making.subnet, &taken)?;
    tracing::info!(%subnet, "a private network");
    let ipv4 = Ipv4::new(subnet);
    Ok(Settings {
        name: NAME.to_owned(),
        ipv4: Some(ipv4),
        dhcp: Some(Dhcp::whole(&ipv4, LEASE_TIME)),
        dns: Dns::Proxy,
        nat44: true,
        isolation: false,
        mtu: making.mtu.unwrap_or(DEFAULT_MTU),
        domain: DOMAIN.to_owned(),
        host_loopback: making.host_loopback,
        resolvers: None,
    })
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
        handle
            .forward(forward)
            .map_err(|error| PrivateError::Forward(explain(&forward, &error)))?;
    }
    Ok(handle)
}

fn pairs(specs: &[PortSpec]) -> impl Iterator<Item = (SocketAddr, u16, Protocol)> + '_ {
    specs.iter().flat_map(|spec| {
        spec.pairs()
            .map(|(listen, guest)| (listen, guest, spec.protocol))
    })
}

/// A forward that failed, with cause and remedy.
fn explain(forward: &Forward, error: &ForwardError) -> String {
    let kind = match forward.protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
    };
    let mut text = format!("{kind}: {error}");
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            text.push_str(&remedy(forward, io));
            break;
        }
        cause = error.source();
    }
    text
}

fn remedy(forward: &Forward, error: &std::io::Error) -> String {
    let port = forward.listen.port();
    match error.kind() {
        std::io::ErrorKind::AddrInUse => format!(
            "; another program listens there, `ss -lnp 'sport = :{port}'` names it: end it or choose another host port"
        ),
        std::io::ErrorKind::AddrNotAvailable => {
            format!("; the host has no address {}", forward.listen.ip())
        }
        std::io::ErrorKind::PermissionDenied => {
            let first = sysctl::first_unprivileged_port();
            format!(
                "; ports below {first} are for the superuser: choose another, or `sysctl net.ipv4.ip_unprivileged_port_start={port}` (as root)"
            )
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_refused_port_names_the_remedy() {
        let forward = Forward {
            protocol: Protocol::Tcp,
            listen: "0.0.0.0:80".parse().unwrap(),
            guest: ForwardGuest::Address(Ipv4Addr::new(192, 168, 64, 2)),
            guest_port: 80,
        };
        for (errno, word) in [
            (libc_errno::EADDRINUSE, "ss -lnp"),
            (libc_errno::EACCES, "ip_unprivileged_port_start=80"),
            (libc_errno::EADDRNOTAVAIL, "no address 0.0.0.0"),
        ] {
            let error =
                ForwardError::Listen(forward.listen, std::io::Error::from_raw_os_error(errno));
            let text = explain(&forward, &error);
            assert!(text.contains(word), "{text}");
        }
    }

    mod libc_errno {
        use rustix::io::Errno;
        pub(super) const EADDRINUSE: i32 = Errno::ADDRINUSE.raw_os_error();
        pub(super) const EACCES: i32 = Errno::ACCESS.raw_os_error();
        pub(super) const EADDRNOTAVAIL: i32 = Errno::ADDRNOTAVAIL.raw_os_error();
    }
}
