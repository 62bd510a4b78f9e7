//! What an interface goes through: whether it can be used, and what happens when the service goes and comes back.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::packet::WritePacket;
use super::{ENDED, RUNNING, STOPPING, Shared, datapath, stopped};
use crate::client::{CallError, Client};
use crate::membership::{in_a_child, lock};
use crate::service::{self, ServiceError};
use crate::status::{Error, Status};

impl Shared {
    /// It can be used.
    #[inline]
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.mark.is_original() && self.state.load(Ordering::Relaxed) == RUNNING {
            return Ok(());
        }
        if self.is_in_last_event() {
            return Ok(());
        }
        Err(self.why_not())
    }

    /// It is being stopped, which waits for a handler.
    #[cold]
    fn is_in_last_event(&self) -> bool {
        let state = self.state.load(Ordering::Relaxed);
        self.mark.is_original() && state == STOPPING && self.events.is_out()
    }

    #[cold]
    fn why_not(&self) -> Error {
        if !self.mark.is_original() {
            return in_a_child();
        }
        match self.state.load(Ordering::Relaxed) {
            ENDED => Error::new(
                Status::SetupIncomplete,
                "somebody else has ended the interface, or its network: start another",
            ),
            _ => stopped(),
        }
    }

    // ---- when the service goes, and comes back -----------------------------------------------

    /// What hangs up when the service lets go of the rings.
    pub(crate) fn line(&self) -> Option<Arc<dyn AsFd + Send + Sync>> {
        (self.state.load(Ordering::Relaxed) == RUNNING)
            .then(|| self.datapath.line())
            .flatten()
    }

    /// The rings ended, and the service did not: somebody stopped the interface.
    pub(crate) fn hung_up(&self) {
        if self.state.load(Ordering::Relaxed) != RUNNING {
            // It is being stopped, and the service lets go of what has come to its end.
            return;
        }
        let at = lock(&self.service);
        let known = at
            .as_ref()
            .map(|at| (Arc::clone(&at.membership), at.number, at.comebacks));
        drop(at);
        let Some((membership, number, comebacks)) = known else {
            return;
        };
        let there = membership.call(|client, network| {
            match client.list_interfaces(Some(network)) {
                Ok(all) => Ok(all.interfaces.iter().any(|one| one.interface == number)),
                // With its network.
                Err(CallError::Refused(ServiceError::NotFound { .. })) => Ok(false),
                Err(error) => Err(error),
            }
        });
        if self.comebacks() != Some(comebacks) {
            // It was killed a moment ago, and everything is back.
            return;
        }
        match there {
            Ok(there) => {
                tracing::warn!(there, "the service let go of an interface");
                self.give_up();
            }
            // It was killed a moment ago, and is not back yet.
            Err(_) => membership.lost(),
        }
    }

    fn comebacks(&self) -> Option<u64> {
        lock(&self.service).as_ref().map(|at| at.comebacks)
    }

    /// The same interface, at the service that runs now.
    pub(crate) fn rejoin(
        &self,
        client: &mut Client,
        network: &service::Network,
    ) -> Result<(), Error> {
        let failed = |error: &dyn std::error::Error| Error::new(Status::Failure, error.to_string());
        let mut at = lock(&self.service);
        let Some(at) = at.as_mut() else { return Ok(()) };
        if self.state.load(Ordering::Relaxed) != RUNNING {
            return Ok(());
        }
        let (ours, theirs) = datapath::ends(at.options.kind).map_err(|error| failed(&error))?;
        let started = client.start_interface(&network.uuid, at.options.clone(), vec![theirs])?;
        at.number = started.interface.interface;
        at.comebacks += 1;
        let connected = self.datapath.reconnect(ours);
        connected.map_err(|error| Error::new(Status::Failure, error))?;
        for rule in &at.rules {
            if let Err(error) = client.add_forward(&network.uuid, Some(at.number), rule.clone()) {
                tracing::warn!(%error, "a port cannot be forwarded again");
            }
        }
        Ok(())
    }

    /// It is gone for good, and says so.
    pub(crate) fn give_up(&self) {
        let running =
            self.state
                .compare_exchange(RUNNING, ENDED, Ordering::Relaxed, Ordering::Relaxed);
        if running.is_ok() {
            self.datapath.end();
        }
    }

    #[inline]
    pub(super) fn check_packet(&self, packet: &WritePacket<'_>) -> Result<(), Error> {
        let size = packet.size;
        let have: usize = packet.buffers.iter().map(|buffer| buffer.len()).sum();
        if size <= have && (self.agreed.smallest()..=self.agreed.largest()).contains(&size) {
            return Ok(());
        }
        Err(self.why_no_packet(size, have))
    }

    #[cold]
    fn why_no_packet(&self, size: usize, have: usize) -> Error {
        let (smallest, largest) = (self.agreed.smallest(), self.agreed.largest());
        if size > largest {
            Error::new(
                Status::PacketTooBig,
                format!("a packet of {size} bytes; the largest has {largest}"),
            )
        } else if size < smallest {
            Error::invalid(format!(
                "a packet of {size} bytes; the headers alone have {smallest}"
            ))
        } else {
            Error::invalid(format!("a packet of {size} bytes in buffers of {have}"))
        }
    }
}
