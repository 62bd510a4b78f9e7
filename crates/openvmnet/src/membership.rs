//! A connection to the service that holds a network.

use std::sync::{Mutex, MutexGuard, PoisonError};

use vmnet_virtio::fork::ForkMark;

use crate::client::{CallError, Client};
use crate::service;
use crate::status::{Error, Status};

/// A network of the service, held by a connection of our own.
#[derive(Debug)]
pub(crate) struct Membership {
    connected: Mutex<Connected>,
    mark: ForkMark,
}

/// What is behind the lock.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) client: Client,
    pub(crate) network: service::Network,
}

impl Membership {
    /// Holds what this connection has opened.
    pub(crate) fn new(client: Client, network: service::Network) -> Result<Self, Error> {
        let mark = ForkMark::new().map_err(|error| Error::new(Status::MemFailure, error))?;
        Ok(Self {
            connected: Mutex::new(Connected { client, network }),
            mark,
        })
    }

    /// Asks the service something.
    ///
    /// # Errors
    /// It refuses, or is gone; or this is a child of the process whose network it is.
    pub(crate) fn call<T>(
        &self,
        mut ask: impl FnMut(&mut Client, &str) -> Result<T, CallError>,
    ) -> Result<T, Error> {
        let mut connected = self.lock()?;
        let Connected { client, network } = &mut *connected;
        Ok(ask(client, &network.uuid)?)
    }

    pub(crate) fn lock(&self) -> Result<MutexGuard<'_, Connected>, Error> {
        if !self.mark.is_original() {
            return Err(in_a_child());
        }
        Ok(lock(&self.connected))
    }
}

/// What belongs to a parent is not there in its children.
pub(crate) fn in_a_child() -> Error {
    Error::new(
        Status::SetupIncomplete,
        "it belongs to the process that this one was forked from: make another here",
    )
}

/// Whoever panicked with the lock left nothing half done here.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
