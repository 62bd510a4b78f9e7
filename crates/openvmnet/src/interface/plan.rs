//! Which network an interface by mode is on: one that is there for the asking, or comes into being with its first interface
//! (vmnet: implicit networks).

use std::net::Ipv4Addr;

use uuid::Uuid;

use super::configuration::InterfaceConfiguration;
use crate::client::{CallError, Client};
use crate::mode::OperatingMode;
use crate::service::{Mode, Network, NetworkConfiguration, ServiceError};
use crate::status::{Error, Status};

/// Start addresses become UUIDs under this one: who names the same start is on the same network, in whichever process.
const RANGES: Uuid = Uuid::from_u128(0x6f70_656e_766d_4e65_8a72_616e_6765_7321);
/// Names of the host's interfaces likewise: guests on one LAN reach each other, whoever started them.
const LANS: Uuid = Uuid::from_u128(0x6f70_656e_766d_4e65_8a6c_616e_732e_2e21);
/// How often others may make and end the network while we look for it.
const TRIES: usize = 4;

/// Opens the network, or makes it.
///
/// # Errors
/// It cannot be had.
pub(super) fn open(
    client: &mut Client,
    configuration: &InterfaceConfiguration,
    mode: OperatingMode,
) -> Result<Network, Error> {
    let keys = &configuration.keys;
    let mtu = keys.mtu.and_then(|mtu| u16::try_from(mtu).ok());
    let prefix = keys.nat66_prefix.map(|prefix| prefix.to_string());
    let service_mode = match mode {
        OperatingMode::Shared => Mode::Shared,
        OperatingMode::Host => Mode::Host,
        OperatingMode::Bridged => Mode::Bridged,
    };
    let mut asked = NetworkConfiguration::new(service_mode);
    if service_mode == Mode::Bridged {
        let name = keys.shared_interface_name.clone();
        let of_name = Uuid::new_v5(&LANS, name.as_deref().unwrap_or_default().as_bytes());
        asked.uuid = Some(of_name.to_string());
        asked.external_interface = name;
        return client.open_network(None, Some(asked)).map_err(failure);
    }
    asked.mtu = mtu;
    asked.ipv6_prefix = prefix;
    if let Some(identifier) = keys.network_identifier {
        asked.uuid = Some(identifier.to_string());
        asked.private = Some(true);
        asked.subnet = keys
            .host_ip_address
            .zip(keys.host_subnet_mask)
            .map(|(address, mask)| with_len(address, mask));
        asked.ipv6_prefix = keys.host_ipv6_address.map(|address| address.to_string());
        let network = client.open_network(None, Some(asked)).map_err(failure)?;
        check_host(configuration, &network)?;
        return Ok(network);
    }
    let range = keys
        .start_address
        .zip(keys.end_address)
        .zip(keys.subnet_mask);
    let Some(((start, end), mask)) = range else {
        let name = match service_mode {
            Mode::Host => "host",
            _ => "shared",
        };
        let says_something = asked.mtu.is_some() || asked.ipv6_prefix.is_some();
        let opened = client.open_network(Some(name), says_something.then_some(asked));
        return opened.map_err(failure);
    };
    asked.uuid = Some(Uuid::new_v5(&RANGES, &start.octets()).to_string());
    asked.subnet = Some(with_len(start, mask));
    match first_guest(start, mask).filter(|first| *first <= end) {
        Some(first) => {
            asked.dhcp_first = Some(first.to_string());
            asked.dhcp_last = Some(end.to_string());
        }
        None => asked.dhcp = Some(false),
    }
    let network = open_range(client, asked)?;
    if network.mode != service_mode {
        return Err(Error::new(
            Status::Failure,
            format!("{start} is on a network of another mode already: choose another range"),
        ));
    }
    if network
        .subnet
        .as_deref()
        .and_then(|subnet| subnet.split_once('/'))
        .is_none_or(|(_, len)| len != mask.to_bits().leading_ones().to_string())
    {
        return Err(Error::new(
            Status::Failure,
            format!("{start} is on a network with another mask already: choose another range"),
        ));
    }
    Ok(network)
}

/// Who comes first decides where the range ends.
fn open_range(client: &mut Client, asked: NetworkConfiguration) -> Result<Network, Error> {
    let uuid = asked.uuid.clone().unwrap_or_default();
    let mut tries = 1;
    loop {
        match client.open_network(Some(&uuid), None) {
            Err(CallError::Refused(ServiceError::NotFound { .. })) => {}
            opened => return opened.map_err(failure),
        }
        match client.open_network(None, Some(asked.clone())) {
            // Somebody made it meanwhile, a little different.
            Err(CallError::Refused(ServiceError::Exists { .. })) if tries < TRIES => tries += 1,
            opened => return opened.map_err(failure),
        }
    }
}

/// The host has the address that was asked for.
fn check_host(configuration: &InterfaceConfiguration, network: &Network) -> Result<(), Error> {
    let keys = &configuration.keys;
    let has = |host: Option<&str>, asked: Option<String>| match asked {
        Some(asked) => host == Some(asked.as_str()),
        None => true,
    };
    let ipv4 = has(
        network.gateway.as_deref(),
        keys.host_ip_address.map(|address| address.to_string()),
    );
    let ipv6 = has(
        network.ipv6_gateway.as_deref(),
        keys.host_ipv6_address.map(|address| address.to_string()),
    );
    if ipv4 && ipv6 {
        return Ok(());
    }
    let said = network.gateway.iter().chain(&network.ipv6_gateway);
    let said: Vec<&str> = said.map(String::as_str).collect();
    Err(Error::new(
        Status::Failure,
        format!(
            "the host is {} on the network {}: ask for that address, or name another network",
            said.join(" and "),
            network.uuid
        ),
    ))
}

/// The first address behind the host's.
fn first_guest(start: Ipv4Addr, mask: Ipv4Addr) -> Option<Ipv4Addr> {
    let host = if start.to_bits() & !mask.to_bits() == 0 {
        start.to_bits().checked_add(1)?
    } else {
        start.to_bits()
    };
    host.checked_add(1).map(Ipv4Addr::from_bits)
}

fn with_len(address: Ipv4Addr, mask: Ipv4Addr) -> String {
    format!("{address}/{}", mask.to_bits().leading_ones())
}

/// A network that is there, and is another, is a failure like any other that keeps an interface from starting.
fn failure(error: CallError) -> Error {
    let error = Error::from(error);
    match error.status() {
        Status::NotAuthorized => error,
        _ => error.as_failure(),
    }
}
