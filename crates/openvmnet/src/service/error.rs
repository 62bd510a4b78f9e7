//! Why a call was refused.

use zlink::introspect;

/// A refusal. `reason` says for people what was wrong and what to do.
#[derive(Debug, Clone, PartialEq, Eq, zlink::ReplyError, introspect::ReplyError)]
#[zlink(interface = "org.openvmnet.Service")]
pub enum ServiceError {
    /// Something in the call cannot be.
    InvalidArgument {
        /// For people.
        reason: String,
    },
    /// There is no such network, interface, rule, lease or identity.
    NotFound {
        /// For people.
        reason: String,
    },
    /// There is one already, and it is different.
    Exists {
        /// For people.
        reason: String,
    },
    /// Somebody else has the subnet, address, MAC, id, name or port.
    InUse {
        /// For people.
        reason: String,
    },
    /// The caller may not, or the service lacks the privilege.
    NotAuthorized {
        /// For people.
        reason: String,
    },
    /// Descriptors, memory, addresses or connections have run out.
    Exhausted {
        /// For people.
        reason: String,
    },
    /// What must stay could not be written.
    StoreFailed {
        /// For people.
        reason: String,
    },
    /// The host refused something else.
    Failed {
        /// For people.
        reason: String,
    },
}

impl ServiceError {
    /// What was wrong and what to do, for people.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::InvalidArgument { reason }
            | Self::NotFound { reason }
            | Self::Exists { reason }
            | Self::InUse { reason }
            | Self::NotAuthorized { reason }
            | Self::Exhausted { reason }
            | Self::StoreFailed { reason }
            | Self::Failed { reason } => reason,
        }
    }
}

impl std::fmt::Display for ServiceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for ServiceError {}
