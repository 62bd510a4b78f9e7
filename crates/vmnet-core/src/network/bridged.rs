//! A frame on a network that is bridged to a LAN: guests are stations of that LAN, and nothing here is for them but the
//! switch. Its ports say by their [`Role`] what is behind them.
//!
//! Addresses of the LAN are not learned: whatever no guest has is there. So a LAN of any size fills no table, and a frame
//! from there for no guest ends here, as it would at a card that does not listen to everything.

use std::time::Instant;

use vmnet_wire::ethernet::{self, Mac};

use crate::drop::Drop;
use crate::network::Network;
use crate::outbox::{Action, Outbox, PortId};
use crate::switch::fdb::Learned;
use crate::switch::port::Role;

impl Network {
    /// A frame came by a port of a bridged network.
    pub(super) fn bridge(
        &mut self,
        now: Instant,
        port: PortId,
        header: &ethernet::Header,
        out: &mut Outbox,
    ) -> Result<(), Drop> {
        let (source, to) = (header.source, header.destination);
        match self.ports.get(port).ok_or(Drop::NoPort)?.role {
            Role::Guest => self.bridge_from_guest(now, port, (source, to), out),
            Role::Wire(guest) => {
                match self.fdb.seen_last(source) {
                    // Its own frame came back.
                    Some(other) if other == guest => return Err(Drop::Looped),
                    // The kernel has switched it between wires.
                    Some(other) if self.is_isolated(guest) || self.is_isolated(other) => {
                        return Err(Drop::Isolated);
                    }
                    _ => {}
                }
                out.push(Action::Forward { port: guest });
                Ok(())
            }
            Role::Lan | Role::Ear => self.bridge_from_lan((source, to), out),
            // Nothing comes from there: what the host sends, it sends to its LAN.
            Role::Host | Role::Trunk => Err(Drop::Elsewhere),
        }
    }

    fn bridge_from_guest(
        &mut self,
        now: Instant,
        port: PortId,
        (source, to): (Mac, Mac),
        out: &mut Outbox,
    ) -> Result<(), Drop> {
        let place = self.ports.get(port).ok_or(Drop::NoPort)?;
        let (host, lan) = (self.with_role(Role::Host), self.with_role(Role::Lan));
        let is_hosts = |mac: Mac| host.is_some_and(|(_, host)| host == Some(mac));
        if is_hosts(source) || place.mac.is_some_and(|mac| mac != source) {
            return Err(Drop::Spoofed);
        }
        let wire = place.wire;
        match self.fdb.learn(now, source, port) {
            Learned::Known => {}
            Learned::Fresh => self.changed_macs = true,
            Learned::Moved(before) if self.keeps(source, before, port) => {
                self.fdb.learn(now, source, before);
                return Err(Drop::Spoofed);
            }
            Learned::Moved(_) => {}
            Learned::NoRoom => return Err(Drop::MacTableFull),
        }
        let beyond = wire.or_else(|| lan.map(|(port, _)| port));
        if to.is_multicast() {
            let all = host.map(|(port, _)| port).into_iter().chain(beyond);
            all.for_each(|port| out.push(Action::Forward { port }));
            // Behind a wire it is the kernel that gives them to other guests.
            if wire.is_none() && !self.is_isolated(port) {
                self.flood_guests(Some(port), out);
            }
            return Ok(());
        }
        if let Some((port, _)) = host.filter(|_| is_hosts(to)) {
            out.push(Action::Forward { port });
            return Ok(());
        }
        let known = self.fdb.seen_last(to).filter(|_| wire.is_none());
        match known {
            Some(other) if other == port => {}
            Some(other) if self.is_isolated(port) || self.is_isolated(other) => {
                return Err(Drop::Isolated);
            }
            Some(port) => out.push(Action::Forward { port }),
            None => out.push(Action::Forward {
                port: beyond.ok_or(Drop::NoPort)?,
            }),
        }
        Ok(())
    }

    /// From the LAN, or from the host to it.
    fn bridge_from_lan(&self, (source, to): (Mac, Mac), out: &mut Outbox) -> Result<(), Drop> {
        // What a guest sends to all comes to the host, and with the host's frames back to us.
        if self.fdb.seen_last(source).is_some() {
            return Err(Drop::Looped);
        }
        if to.is_multicast() {
            self.flood_guests(None, out);
            return Ok(());
        }
        let port = self.fdb.seen_last(to).ok_or(Drop::Elsewhere)?;
        out.push(Action::Forward { port });
        Ok(())
    }

    /// To all guests but one; not to isolated ones, if it is from a guest.
    fn flood_guests(&self, from: Option<PortId>, out: &mut Outbox) {
        for (port, place) in &self.ports {
            let kept = from.is_some() && self.is_isolated(port);
            if place.role == Role::Guest && Some(port) != from && !kept {
                out.push(Action::Forward { port });
            }
        }
    }

    /// The port with a role that only one has, and the MAC behind it.
    fn with_role(&self, role: Role) -> Option<(PortId, Option<Mac>)> {
        let mut ports = self.ports.iter();
        let found = ports.find(|(_, place)| place.role == role);
        found.map(|(port, place)| (port, place.mac))
    }

    /// Whether guests have spoken from other MACs since this was asked last: who listens to the LAN for them has to know.
    pub fn take_changed_macs(&mut self) -> bool {
        core::mem::take(&mut self.changed_macs)
    }
}
