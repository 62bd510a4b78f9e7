//! What the core promised whoever carries out its actions: broken promises end a test.

use std::collections::{HashMap, HashSet};

use vmnet_core::SocketId;

/// How far a socket is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Life {
    Open,
    /// Its opening failed, or it broke: it may be opened again, or closed.
    Failed,
    /// Nothing more may be written.
    Shut,
}

/// All sockets that were ever named.
#[derive(Debug, Default)]
pub struct Contract {
    living: HashMap<SocketId, Life>,
    ended: HashSet<SocketId>,
    /// Sockets that were opened or accepted.
    pub opened: usize,
}

impl Contract {
    /// A socket was asked for, or accepted.
    ///
    /// # Panics
    /// If its name was used before.
    pub fn open(&mut self, socket: SocketId) {
        assert!(
            !self.ended.contains(&socket),
            "{socket:?} opened after its end"
        );
        let before = self.living.insert(socket, Life::Open);
        assert!(
            matches!(before, None | Some(Life::Failed)),
            "{socket:?} opened twice: {before:?}"
        );
        if before.is_none() {
            self.opened += 1;
        }
    }

    /// The core was told that a socket failed.
    pub fn failed(&mut self, socket: SocketId) {
        if let Some(life) = self.living.get_mut(&socket) {
            *life = Life::Failed;
        }
    }

    /// A socket is named by an action that writes to it.
    ///
    /// # Panics
    /// If it was never opened, or may not be written to.
    pub fn write(&self, socket: SocketId) {
        let life = self.living.get(&socket);
        assert_eq!(life, Some(&Life::Open), "write to {socket:?}");
    }

    /// A socket is named by another action.
    ///
    /// # Panics
    /// If it was never opened, or was closed.
    pub fn name(&self, socket: SocketId) {
        assert!(
            self.living.contains_key(&socket),
            "{socket:?} named, but not open"
        );
    }

    /// Nothing more will be written.
    ///
    /// # Panics
    /// If that was said before.
    pub fn shut(&mut self, socket: SocketId) {
        self.write(socket);
        self.living.insert(socket, Life::Shut);
    }

    /// A socket was closed or reset.
    ///
    /// # Panics
    /// If it was not open.
    pub fn end(&mut self, socket: SocketId) {
        assert!(
            self.living.remove(&socket).is_some(),
            "{socket:?} closed, but not open"
        );
        self.ended.insert(socket);
    }

    /// Sockets that are open.
    #[must_use]
    pub fn living(&self) -> usize {
        self.living.len()
    }
}
