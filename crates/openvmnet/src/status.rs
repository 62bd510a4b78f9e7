//! Why a call failed: the API's own number (`vmnet_return_t`), and what was wrong.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use crate::client::{CallError, ConnectError};
use crate::service::ServiceError;

/// What came of a call (`vmnet_return_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Status {
    /// It is done.
    Success = 1000,
    /// It failed, for none of the other reasons: a subnet that is taken, a service that cannot be reached.
    Failure = 1001,
    /// There is no memory.
    MemFailure = 1002,
    /// An argument cannot be, or not together with another.
    InvalidArgument = 1003,
    /// The interface is not started yet, or no more.
    SetupIncomplete = 1004,
    /// Permission is denied.
    InvalidAccess = 1005,
    /// A packet is larger than the interface takes.
    PacketTooBig = 1006,
    /// Buffers have run out for the moment.
    BufferExhausted = 1007,
    /// More packets than one call takes.
    TooManyPackets = 1008,
    /// Something that cannot be shared is in use.
    SharingServiceBusy = 1009,
    /// The caller may not.
    NotAuthorized = 1010,
}

impl Status {
    /// Every one, by number.
    pub const ALL: [Self; 11] = [
        Self::Success,
        Self::Failure,
        Self::MemFailure,
        Self::InvalidArgument,
        Self::SetupIncomplete,
        Self::InvalidAccess,
        Self::PacketTooBig,
        Self::BufferExhausted,
        Self::TooManyPackets,
        Self::SharingServiceBusy,
        Self::NotAuthorized,
    ];

    /// Its number.
    #[must_use]
    pub const fn code(self) -> u32 {
        self as u32
    }

    /// The one with this number.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.code() == code)
    }

    /// Its name in C.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "VMNET_SUCCESS",
            Self::Failure => "VMNET_FAILURE",
            Self::MemFailure => "VMNET_MEM_FAILURE",
            Self::InvalidArgument => "VMNET_INVALID_ARGUMENT",
            Self::SetupIncomplete => "VMNET_SETUP_INCOMPLETE",
            Self::InvalidAccess => "VMNET_INVALID_ACCESS",
            Self::PacketTooBig => "VMNET_PACKET_TOO_BIG",
            Self::BufferExhausted => "VMNET_BUFFER_EXHAUSTED",
            Self::TooManyPackets => "VMNET_TOO_MANY_PACKETS",
            Self::SharingServiceBusy => "VMNET_SHARING_SERVICE_BUSY",
            Self::NotAuthorized => "VMNET_NOT_AUTHORIZED",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A call failed.
#[derive(Debug, Clone)]
pub struct Error {
    status: Status,
    cause: Arc<dyn StdError + Send + Sync>,
}

impl Error {
    /// A failure with its reason, for people.
    pub(crate) fn new(status: Status, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        debug_assert_ne!(status, Status::Success, "a failure");
        Self {
            status,
            cause: cause.into().into(),
        }
    }

    /// An argument that cannot be.
    pub(crate) fn invalid(reason: impl Into<String>) -> Self {
        Self::new(Status::InvalidArgument, reason.into())
    }

    /// The same cause, as an unspecific failure.
    pub(crate) fn as_failure(&self) -> Self {
        Self {
            status: Status::Failure,
            cause: Arc::clone(&self.cause),
        }
    }

    /// The API's number. Never [`Status::Success`].
    #[must_use]
    pub fn status(&self) -> Status {
        self.status
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.cause, self.status)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        // The cause's own words are in ours.
        self.cause.source()
    }
}

fn of_refusal(refusal: &ServiceError) -> Status {
    match refusal {
        ServiceError::InvalidArgument { .. } => Status::InvalidArgument,
        ServiceError::NotAuthorized { .. } => Status::NotAuthorized,
        ServiceError::NotFound { .. }
        | ServiceError::Exists { .. }
        | ServiceError::InUse { .. }
        | ServiceError::Exhausted { .. }
        | ServiceError::StoreFailed { .. }
        | ServiceError::Failed { .. } => Status::Failure,
    }
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        let status = match &error {
            CallError::Refused(refusal) => of_refusal(refusal),
            CallError::Gone | CallError::Silent | CallError::Strange(_) => Status::Failure,
        };
        Self::new(status, error)
    }
}

impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Self {
        let status = match &error {
            ConnectError::Refused(_, refusal) => of_refusal(refusal),
            ConnectError::Closed(..) | ConnectError::NeedsSystem(..) => Status::NotAuthorized,
            _ => Status::Failure,
        };
        Self::new(status, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_apis() {
        for (number, status) in (1000..).zip(Status::ALL) {
            assert_eq!(status.code(), number);
            assert_eq!(Status::from_code(number), Some(status));
        }
        assert_eq!(Status::from_code(999), None);
        assert_eq!(Status::from_code(1011), None);
        assert_eq!(Status::from_code(0), None);
    }

    #[test]
    fn who_is_not_let_in_is_not_authorized() {
        let closed = || ConnectError::Closed("/socket".into(), "join the group vmnet".to_owned());
        let nobody = || ConnectError::NoSystem("/socket".into());
        for (error, status) in [
            (closed(), Status::NotAuthorized),
            (nobody(), Status::Failure),
            (
                ConnectError::NeedsSystem("a bridge", Box::new(nobody())),
                Status::NotAuthorized,
            ),
        ] {
            let error = Error::from(error);
            assert_eq!(error.status(), status, "{error}");
        }
        let needs = ConnectError::NeedsSystem("a bridge", Box::new(closed())).to_string();
        assert!(needs.starts_with("a bridge takes privileges"), "{needs}");
        assert!(needs.ends_with("join the group vmnet"), "{needs}");
    }

    #[test]
    fn every_refusal_has_its_number() {
        let reason = || "because".to_owned();
        for (refusal, status) in [
            (
                ServiceError::InvalidArgument { reason: reason() },
                Status::InvalidArgument,
            ),
            (
                ServiceError::NotAuthorized { reason: reason() },
                Status::NotAuthorized,
            ),
            (ServiceError::InUse { reason: reason() }, Status::Failure),
            (ServiceError::NotFound { reason: reason() }, Status::Failure),
        ] {
            let error = Error::from(CallError::from(refusal.clone()));
            assert_eq!(error.status(), status);
            assert_eq!(error.to_string(), format!("because ({status})"));
            let socket = "/socket".into();
            assert_eq!(
                Error::from(ConnectError::Refused(socket, refusal)).status(),
                status
            );
        }
    }
}
