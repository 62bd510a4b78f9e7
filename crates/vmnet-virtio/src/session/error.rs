//! Why a session ended.

use std::fmt;
use std::io;

use crate::memory::MapError;
use crate::net::features::NotOffered;
use crate::ring::StartError;

/// A session ended, and not because its VMM closed the connection.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// A message cannot be understood, or came when it makes no sense.
    #[error("the VMM sent {message} {fault}")]
    Message {
        /// Which one.
        message: Request,
        /// What was wrong with it.
        fault: MessageFault,
    },
    /// It accepted what was not offered.
    #[error(transparent)]
    Features(#[from] NotOffered),
    /// The same for the protocol.
    #[error("the VMM accepted protocol features that were not offered: {0:#x}")]
    ProtocolFeatures(u64),
    /// Its memory cannot be used.
    #[error(transparent)]
    Memory(#[from] MapError),
    /// A ring cannot begin, or not go on in other memory.
    #[error("ring {index}: {source}", index = DisplayIndex(*index))]
    Ring {
        /// Which one, if it is known.
        index: Option<u16>,
        /// What is wrong.
        source: StartError,
    },
    /// The thread that moves frames has dropped an answer: the port is going away.
    #[error("the port is gone")]
    Gone,
    /// The same thread does not answer.
    #[error("the network's thread did not answer for {0} seconds")]
    Late(u64),
    /// The socket failed.
    #[error("the connection to the VMM failed")]
    Socket(#[source] io::Error),
}

struct DisplayIndex(Option<u16>);

impl fmt::Display for DisplayIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(index) => index.fmt(f),
            None => f.write_str("in use"),
        }
    }
}

/// What can be wrong with a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MessageFault {
    /// The connection ended in the middle of it.
    #[error("and closed the connection in the middle of it")]
    CutShort,
    /// Its flags, its length or a value in it is none.
    #[error("with flags, a length or values that it cannot have")]
    Malformed,
    /// It belongs to something that was not offered, or not accepted.
    #[error("which was not negotiated")]
    NotNegotiated,
    /// More or fewer than the message has.
    #[error("with a wrong number of descriptors")]
    Descriptors,
    /// A descriptor to wake somebody by must not be able to block us.
    #[error("with a descriptor that is not an eventfd")]
    NotEventFd,
    /// There is no such ring.
    #[error("for ring {index} of {rings}: give it {most} queues at most", most = rings / 2)]
    NoSuchRing {
        /// As it said.
        index: u32,
        /// Rings of this port.
        rings: u16,
    },
    /// Not a size that a ring can have.
    #[error("with a size of {0} descriptors; a ring has 1 to 32768")]
    Size(u32),
    /// What may not change while rings run.
    #[error("for something that cannot change while a ring runs; GET_VRING_BASE stops it")]
    Running,
}

/// A message from a VMM, by its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Request(pub u32);

/// Gives each request a constant and a name.
macro_rules! requests {
    ($($number:literal $name:ident)*) => {
        #[expect(missing_docs, reason = "the names of the specification say it")]
        impl Request {
            $(pub const $name: Self = Self($number);)*

            /// The name in the specification.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

requests! {
    1 GET_FEATURES
    2 SET_FEATURES
    3 SET_OWNER
    4 RESET_OWNER
    5 SET_MEM_TABLE
    6 SET_LOG_BASE
    7 SET_LOG_FD
    8 SET_VRING_NUM
    9 SET_VRING_ADDR
    10 SET_VRING_BASE
    11 GET_VRING_BASE
    12 SET_VRING_KICK
    13 SET_VRING_CALL
    14 SET_VRING_ERR
    15 GET_PROTOCOL_FEATURES
    16 SET_PROTOCOL_FEATURES
    17 GET_QUEUE_NUM
    18 SET_VRING_ENABLE
    19 SEND_RARP
    20 NET_SET_MTU
    21 SET_BACKEND_REQ_FD
    22 IOTLB_MSG
    23 SET_VRING_ENDIAN
    24 GET_CONFIG
    25 SET_CONFIG
    26 CREATE_CRYPTO_SESSION
    27 CLOSE_CRYPTO_SESSION
    28 POSTCOPY_ADVISE
    29 POSTCOPY_LISTEN
    30 POSTCOPY_END
    31 GET_INFLIGHT_FD
    32 SET_INFLIGHT_FD
    33 GPU_SET_SOCKET
    34 RESET_DEVICE
    35 VRING_KICK
    36 GET_MAX_MEM_SLOTS
    37 ADD_MEM_REG
    38 REM_MEM_REG
    39 SET_STATUS
    40 GET_STATUS
    41 GET_SHARED_OBJECT
    42 SET_DEVICE_STATE_FD
    43 CHECK_DEVICE_STATE
    44 GET_SHMEM_CONFIG
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "a message of unknown kind {}", self.0),
        }
    }
}
