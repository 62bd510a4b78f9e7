//! The ports of the switch.

use vmnet_wire::ethernet::Mac;

/// What the core must know of a guest's place on the switch.
#[derive(Clone, Debug)]
pub struct Port {
    /// The guest's name in DNS, if its owner gave one.
    pub name: Option<String>,
    /// The guest's MAC address, if its owner fixed it: frames from others are dropped.
    pub mac: Option<Mac>,
    /// It exchanges frames with the gateway alone, and with no other port.
    pub isolated: bool,
    /// Behind it is the host's own bridge, with the host and guests of which others keep guard. See
    /// [`Config::host`](crate::Config::host).
    pub trunk: bool,
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
            trunk: false,
            large_segments: false,
            queue,
            ready: true,
        }
    }
}
