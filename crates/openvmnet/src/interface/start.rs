//! Starting an interface at the service: how its packets will travel, and what it turns out to be.

use std::net::Ipv4Addr;

use super::configuration::InterfaceConfiguration;
use super::datapath::{self, Datapath};
use super::finish::Agreed;
use super::parameters::{ETHERNET, InterfaceParameters, LARGE_FRAME, MAX_PACKETS};
use crate::client::CallError;
use crate::membership::Membership;
use crate::mode::OperatingMode;
use crate::service::{InterfaceOptions, Started};
use crate::status::{Error, Status};

/// Starts an interface at the service, by rings if they can be had: how its packets travel, and what was asked for.
pub(super) fn travel(
    membership: &Membership,
    configuration: &InterfaceConfiguration,
    options: InterfaceOptions,
) -> Result<(Datapath, Agreed, Started, InterfaceOptions), Error> {
    let failed = |error| Error::new(Status::Failure, error);
    let by_socket = datapath::by_socket(&options, configuration.tso());
    if !datapath::wants_socket() {
        let (ours, started) = start_at(membership, &options)?;
        let agreed = agreed(configuration, &started);
        match Datapath::connect(ours, &agreed) {
            Ok(datapath) => return Ok((datapath, agreed, started, options)),
            Err(error) => tracing::warn!(error, "no rings with the service: a socket has to do"),
        }
        // Its identity is to be free.
        let number = started.interface.interface;
        membership.call(|client, _| client.stop_interface(number))?;
    }
    let (ours, started) = start_at(membership, &by_socket)?;
    let agreed = agreed(configuration, &started);
    let datapath = Datapath::connect(ours, &agreed).map_err(failed)?;
    Ok((datapath, agreed, started, by_socket))
}

/// Has the service start an interface.
fn start_at(
    membership: &Membership,
    options: &InterfaceOptions,
) -> Result<(datapath::Ours, Started), Error> {
    let failed = |error: std::io::Error| Error::new(Status::Failure, error);
    let (ours, theirs) = datapath::ends(options.kind).map_err(failed)?;
    let started = membership.call(|client, network| {
        let copy = theirs.try_clone();
        let copy = copy.map_err(|error| CallError::Strange(error.to_string()))?;
        client.start_interface(network, options.clone(), vec![copy])
    })?;
    Ok((ours, started))
}

/// What both sides of the rings agree upon.
fn agreed(configuration: &InterfaceConfiguration, started: &Started) -> Agreed {
    let mtu = u32::from(started.network.mtu);
    let max = if configuration.tso() {
        LARGE_FRAME
    } else {
        mtu + ETHERNET
    };
    let bytes = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    Agreed {
        header: configuration.virtio_header(),
        tso: configuration.tso(),
        checksum: configuration.checksum_offload(),
        mtu: bytes(mtu),
        max: bytes(max),
    }
}

/// What it turned out to be.
pub(super) fn parameters(
    configuration: &InterfaceConfiguration,
    mode: Option<OperatingMode>,
    agreed: &Agreed,
    started: &Started,
) -> InterfaceParameters {
    let Started { interface, network } = started;
    let keys = &configuration.keys;
    let number = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
    let packets = number(MAX_PACKETS);
    let mut parameters = InterfaceParameters {
        interface_id: interface.id.as_deref().and_then(|id| id.parse().ok()),
        mac_address: interface.mac.as_deref().and_then(|mac| mac.parse().ok()),
        mtu: number(agreed.mtu),
        max_packet_size: number(agreed.max),
        read_max_packets: packets,
        write_max_packets: packets,
        start_address: None,
        end_address: None,
        subnet_mask: None,
        nat66_prefix: None,
    };
    if !matches!(mode, Some(OperatingMode::Shared | OperatingMode::Host)) {
        return parameters;
    }
    if let Some((prefix, _)) = network
        .ipv6_prefix
        .as_deref()
        .and_then(|it| it.split_once('/'))
        && mode == Some(OperatingMode::Shared)
    {
        parameters.nat66_prefix = prefix.parse().ok();
    }
    if keys.network_identifier.is_none() && keys.start_address.is_some() {
        // As they were asked for.
        parameters.start_address = keys.start_address;
        parameters.end_address = keys.end_address;
        parameters.subnet_mask = keys.subnet_mask;
        return parameters;
    }
    let host = network
        .gateway
        .as_deref()
        .and_then(|host| host.parse().ok());
    let len = network.subnet.as_deref().and_then(|it| it.split_once('/'));
    let len: Option<u32> = len.and_then(|(_, len)| len.parse().ok());
    if let (Some(host), Some(len @ 1..=32)) = (host, len) {
        let mask = u32::MAX << (32 - len);
        let last = Ipv4Addr::to_bits(host) | !mask;
        parameters.start_address = Some(host);
        parameters.end_address = Some((last - 1).into());
        parameters.subnet_mask = Some(mask.into());
    }
    parameters
}
