//! What privileges add: networks whose frames the kernel carries, and networks on the LAN of a card; beside what an
//! administrator makes by hand.
//!
//! | file | what |
//! | --- | --- |
//! | `host.rs` | a host of its own for each measurement, on a LAN with the server |
//! | `ours.rs` | the machine's service, and a guest on a network of it |
//! | `by_hand.rs` | bridge, tap and masquerade; a macvtap |
//! | `relay.rs` | the guest: a namespace, behind what a virtual machine would be given |
//!
//! What a virtual machine is given is a descriptor of a tap. Here a process reads and writes it that knows of a network no more
//! than the memory of a virtual machine does, and a namespace behind it is the guest's kernel; both columns have the same.

mod by_hand;
mod host;
mod ours;
pub(crate) mod relay;

use crate::control::Refusal;
use crate::measure::{Meter, Values};
use crate::options::Options;
use crate::path::{Instance, Kind, Path};
use crate::process::Guarded;
use crate::rows::{Experiment, Family};
use crate::testbed::Testbed;
use host::Host;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Part {
    /// Of which network.
    pub(crate) network: Network,
    /// What its guest does.
    pub(crate) load: Load,
}

/// A network that takes privileges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Network {
    /// Shared, carried by the kernel.
    Kernel,
    /// Bridged, by this method.
    Bridged(Method),
}

/// How guests get onto a LAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Method {
    Bridge,
    Packet,
    Macvtap,
}

/// What a guest does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Load {
    Tcp {
        by: Family,
        up: bool,
        streams: usize,
    },
    RequestResponse(Family),
    Connections(Family),
}

impl Load {
    fn experiment(self) -> Experiment {
        match self {
            Self::Tcp { by, up, streams } => Experiment::Tcp { by, up, streams },
            Self::RequestResponse(by) => Experiment::RequestResponse(by),
            Self::Connections(by) => Experiment::Connections(by),
        }
    }
}

impl Network {
    /// What identifiers of its rows begin with.
    fn mark(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Bridged(Method::Bridge) => "bridge",
            Self::Bridged(Method::Packet) => "packet",
            Self::Bridged(Method::Macvtap) => "macvtap",
        }
    }
}

impl Method {
    /// Its name on the command line.
    fn name(self) -> &'static str {
        Network::Bridged(self).mark()
    }
}

impl Part {
    /// Whether this can be measured of a path.
    pub(crate) fn is_of(self, kind: Kind) -> bool {
        matches!(kind, Kind::Ours | Kind::Kernel)
    }
}

/// A guest that runs. Fields are dropped in order: the guest before what it is connected to.
struct Guest {
    instance: Instance,
    _processes: Vec<Guarded>,
    _host: Host,
}

/// Starts a guest and measures.
pub(crate) fn measure(
    part: Part,
    path: Path,
    meter: &mut Meter<'_>,
    testbed: &mut Testbed,
    options: &Options,
) -> Result<Values, Refusal> {
    if crate::path::find_program("nft").is_none() {
        return Err("nft is not installed: apt install nftables".to_owned());
    }
    let name = testbed.fresh_name(part.network.mark());
    let started = match path.kind {
        Kind::Ours => ours::start(&name, part.network, testbed, options),
        _ => by_hand::start(&name, part.network, testbed),
    };
    let words = |why: String, testbed: &Testbed| format!("{why}{}", testbed.last_words(&name));
    let mut guest = started.map_err(|why| words(why, testbed))?;
    let measured = meter.measure(part.load.experiment(), path, &mut guest.instance, testbed);
    let values = measured.map_err(|why| words(why, testbed))?;
    let mark = part.network.mark();
    let renamed = values.into_iter();
    Ok(renamed
        .map(|(row, value)| (format!("{mark}_{row}"), value))
        .collect())
}
