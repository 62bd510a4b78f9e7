//! Networks in mode bridged: the ways onto the LAN, which the helper opens and the lane takes.
//!
//! | method | ports of the lane, besides guests |
//! | --- | --- |
//! | bridge | a tap in the host's bridge |
//! | packet | a packet socket on the interface; a tap to the host |
//! | macvtap | for each guest a macvtap; a socket that hears the host; a tap to the host |
//!
//! All but macvtaps go with their descriptors, and so with this process.

use super::{Supervisor, failed};
use crate::plan::{Bridged, Plan};
use crate::privileged::client::{Helper, HelperError};
use crate::privileged::name::{LinkName, Mark};
use crate::privileged::request::Why;
use openvmnet::service::ServiceError;
use std::os::fd::OwnedFd;
use uuid::Uuid;
use vmnet_linux::kernel::nics::Method;
use vmnet_linux::lane::{Attachment, Handle, PortId, PortOptions, Role};
use vmnet_linux::sys::lan_socket::Hears;
use vmnet_wire::ethernet::Mac;

/// What takes privileges.
const WHAT: &str = "a bridged network";

/// A guest's own way onto the LAN.
#[derive(Debug)]
pub(super) struct Wire {
    port: PortId,
    link: LinkName,
}

impl Supervisor {
    /// Opens the ways onto the LAN that all guests of a network share.
    pub(super) fn open_lan(&mut self, plan: &Plan, handle: &Handle) -> Result<(), ServiceError> {
        let Some(bridged) = &plan.bridged else {
            return Ok(());
        };
        // What a killed service left of this network.
        self.delete_links_of(plan.uuid);
        let mut helper = self.helper(WHAT)?;
        let nic = &*bridged.nic.name;
        match bridged.method {
            Method::Bridge => {
                let (name, mark) = link(plan.uuid, 'b', 0)?;
                let tap = helper.join_bridge(name, mark, nic).map_err(refused)?;
                attach(handle, Attachment::Tap(tap), Role::Lan, None)?;
            }
            Method::Packet => {
                let socket = helper.open_lan_socket(nic, true).map_err(refused)?;
                let lan = listening(bridged, socket, Hears::All);
                attach(handle, lan, Role::Lan, None)?;
                open_hostward(&mut helper, plan.uuid, bridged, handle)?;
            }
            Method::Macvtap => {
                let socket = helper.open_lan_socket(nic, false).map_err(refused)?;
                let ear = listening(bridged, socket, Hears::Host);
                attach(handle, ear, Role::Ear, None)?;
                open_hostward(&mut helper, plan.uuid, bridged, handle)?;
            }
        }
        Ok(())
    }

    /// Whether each guest of a network has a way onto the LAN of its own.
    pub(super) fn has_wires(&self, network: Uuid) -> Result<bool, ServiceError> {
        let bridged = self.running(network)?.plan.bridged.as_ref();
        Ok(bridged.is_some_and(|bridged| bridged.method == Method::Macvtap))
    }

    /// Refuses what only a network with a gateway has.
    pub(super) fn not_bridged(&self, network: Uuid, what: &str) -> Result<(), ServiceError> {
        if self.running(network)?.plan.bridged.is_none() {
            return Ok(());
        }
        Err(ServiceError::InvalidArgument {
            reason: format!(
                "guests of a bridged network have addresses of the LAN: it has no {what}"
            ),
        })
    }

    /// Opens a guest's own way onto the LAN, where each has one.
    pub(super) fn open_wire(
        &mut self,
        network: Uuid,
        guest: PortId,
        mac: Mac,
    ) -> Result<Option<Wire>, ServiceError> {
        let plan = &self.running(network)?.plan;
        let Some(bridged) = plan
            .bridged
            .as_ref()
            .filter(|bridged| bridged.method == Method::Macvtap)
        else {
            return Ok(None);
        };
        let nic = bridged.nic.name.clone();
        let number = self.number();
        let named = link(network, 'm', number)?;
        let link = named.0.clone();
        let macvtap = self
            .helper(WHAT)?
            .create_macvtap(named, &nic, mac.0)
            .map_err(refused)?;
        let handle = &self.running(network)?.handle;
        match attach(handle, Attachment::Tap(macvtap), Role::Wire(guest), None) {
            Ok(port) => Ok(Some(Wire { port, link })),
            Err(error) => {
                self.delete_link(link);
                Err(error)
            }
        }
    }

    /// Ends a guest's own way onto the LAN.
    pub(super) fn close_wire(&mut self, network: Uuid, wire: Wire) {
        if let Some(running) = self.networks.get(&network) {
            running.handle.detach(wire.port);
        }
        self.delete_link(wire.link);
    }

    fn delete_link(&mut self, link: LinkName) {
        if let Some(helper) = &mut self.helper
            && let Err(error) = helper.get_mut().delete_link(link)
        {
            tracing::warn!(%error, "a link cannot be deleted; the next service will");
        }
    }

    /// Deletes whatever links a network has.
    pub(super) fn delete_links_of(&mut self, network: Uuid) {
        let Some(helper) = &mut self.helper else {
            return;
        };
        let links = match helper.get_mut().links() {
            Ok(links) => links,
            Err(error) => return tracing::warn!(%error, "links of a network cannot be listed"),
        };
        let its = links.into_iter().filter(|link| {
            let mark = link.mark.as_ref();
            mark.is_some_and(|mark| mark.network == network)
        });
        for name in its.filter_map(|link| link.name.parse().ok()) {
            self.delete_link(name);
        }
    }
}

fn open_hostward(
    helper: &mut Helper,
    network: Uuid,
    bridged: &Bridged,
    handle: &Handle,
) -> Result<(), ServiceError> {
    let (name, mark) = link(network, 'h', 0)?;
    let nic = &bridged.nic;
    let tap = helper.open_hostward(name, mark, &nic.name);
    let tap = Attachment::Tap(tap.map_err(refused)?);
    attach(handle, tap, Role::Host, Some(Mac(nic.mac)))?;
    Ok(())
}

fn listening(bridged: &Bridged, socket: OwnedFd, hears: Hears) -> Attachment {
    Attachment::Packet {
        socket,
        mac: Mac(bridged.nic.mac),
        hears,
    }
}

fn attach(
    handle: &Handle,
    attachment: Attachment,
    role: Role,
    mac: Option<Mac>,
) -> Result<PortId, ServiceError> {
    let options = PortOptions {
        role,
        mac,
        ..PortOptions::default()
    };
    handle
        .attach(attachment, options)
        .map_err(|error| failed(&error))
}

/// The name and mark of a network's link. Names are made of the network, so that a service that was killed leaves none that
/// the next one does not know; whose a link is, its mark says.
fn link(network: Uuid, letter: char, number: u64) -> Result<(LinkName, Mark), ServiceError> {
    let (first, ..) = network.as_fields();
    let [.., a, b, c, d] = number.to_be_bytes();
    let spread = u32::from_be_bytes([a, b, c, d]).wrapping_mul(0x9e37_79b1);
    let role = match letter {
        'b' => "lan".to_owned(),
        'h' => "host".to_owned(),
        _ => format!("guest-{number}"),
    };
    let name = format!("vmnet{letter}{:08x}", first ^ spread);
    let name = name.parse().map_err(|error| failed(&error))?;
    let role = role.parse().map_err(|error| failed(&error))?;
    Ok((name, Mark { network, role }))
}

fn refused(error: HelperError) -> ServiceError {
    let reason = error.to_string();
    match error {
        HelperError::Refused(refusal) => match refusal.why {
            Why::Forbidden => ServiceError::InvalidArgument { reason },
            Why::Missing => ServiceError::NotFound { reason },
            Why::InUse => ServiceError::InUse { reason },
            Why::Host => ServiceError::Failed { reason },
        },
        _ => ServiceError::Failed { reason },
    }
}
