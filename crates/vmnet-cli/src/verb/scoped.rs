//! Rows of lists of both services: numbers, and names of networks, mean something beside the service alone.

use openvmnet::client::{CallError, Client};
use openvmnet::place::Scope;
use serde::Serialize;
use std::ops::Deref;

/// A row, and whose it is.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Scoped<T> {
    pub(super) scope: Scope,
    #[serde(flatten)]
    pub(super) row: T,
}

impl<T> Scoped<T> {
    pub(super) fn new(scope: Scope, row: T) -> Self {
        Self { scope, row }
    }

    /// What a service lists.
    pub(super) fn of(
        client: &mut Client,
        list: impl FnOnce(&mut Client) -> Result<Vec<T>, CallError>,
    ) -> Result<Vec<Self>, CallError> {
        let scope = client.scope();
        let rows = list(client)?.into_iter();
        Ok(rows.map(|row| Self::new(scope, row)).collect())
    }

    /// What each service lists, in their order.
    pub(super) fn of_all(
        clients: Vec<Client>,
        mut list: impl FnMut(&mut Client) -> Result<Vec<T>, CallError>,
    ) -> Result<Vec<Self>, CallError> {
        let mut all = Vec::new();
        for mut client in clients {
            all.extend(Self::of(&mut client, &mut list)?);
        }
        Ok(all)
    }
}

impl<T> Deref for Scoped<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.row
    }
}
