//! The ports of the switch.

use vmnet_wire::ethernet::Mac;

use crate::outbox::PortId;

/// What is behind a port. On a network that is bridged to a LAN, or that the host's kernel carries, some ports are not
/// guests'.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Role {
    /// A guest.
    #[default]
    Guest,
    /// The LAN, for all guests that have no wire.
    Lan,
    /// The LAN, for the guest at this port alone.
    Wire(PortId),
    /// The host as a station of the LAN, whose MAC is the port's: it takes what guests send to it and to all.
    Host,
    /// What the host sends to the LAN. Nothing is sent there.
    Ear,
    /// The host's own bridge, with the host and guests of which others keep guard. See
    /// [`Config::host`](crate::Config::host).
    Trunk,
}

/// What the core must know of a guest's place on the switch.
#[derive(Clone, Debug)]
pub struct Port {
    /// The guest's name in DNS, if its owner gave one.
    pub name: Option<String>,
    /// The guest's MAC address, if its owner fixed it: frames from others are dropped.
    pub mac: Option<Mac>,
    /// It exchanges frames with the gateway alone, and with no other port.
    pub isolated: bool,
    /// What is behind it.
    pub role: Role,
    /// The port that is this guest's [`Role::Wire`].
    pub(crate) wire: Option<PortId>,
    /// It takes frames that stand for several TCP segments ([`Offload`](vmnet_wire::offload::Offload)).
    pub large_segments: bool,
    /// Frames that wait on the way from the guest to us before one is lost.
    pub queue: usize,
    /// Its queue towards the guest has room. While it has none, streams of the NAT wait.
    pub(crate) ready: bool,
}

impl Port {
    /// A port without a name whose queue holds `queue` frames.
    #[must_use]
    pub fn new(queue: usize) -> Self {
        Self {
            name: None,
            mac: None,
            isolated: false,
            role: Role::Guest,
            wire: None,
            large_segments: false,
            queue,
            ready: true,
        }
    }
}
