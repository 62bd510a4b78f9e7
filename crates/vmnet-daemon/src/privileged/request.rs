//! What can be asked of the helper, and what it answers: plain values, and nothing that could be code.

use super::name::{LinkName, Mark};
use serde::{Deserialize, Serialize};
use vmnet_linux::kernel::bridge::Bridge;
use vmnet_linux::kernel::nft::Rules;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// The links of the host: [`Answer::Links`].
    LinkList,
    /// Ends a link of ours: [`Answer::Done`], also if it is gone already.
    LinkDelete {
        /// Its name.
        name: LinkName,
    },
    /// Removes links that a helper which was killed has left half made: [`Answer::Done`].
    LinkSweep,
    /// Makes a tap with a virtio-net header, for several queues: [`Answer::Opened`], with its first queue.
    TapCreate {
        /// Its name, which nobody has yet.
        name: LinkName,
        /// Whose it is.
        mark: Mark,
        /// It stays when nobody has it open any more.
        stays: bool,
    },
    /// Makes a bridge, or brings one of ours to what it is to be: [`Answer::Done`].
    BridgeEstablish {
        /// Its name.
        name: LinkName,
        /// Whose it is.
        mark: Mark,
        /// What it is to be.
        bridge: Bridge,
    },
    /// Makes a tap of ours a member of a bridge of ours: [`Answer::Done`].
    BridgeJoin {
        /// The tap.
        member: LinkName,
        /// The bridge.
        bridge: LinkName,
        /// It exchanges frames with no other isolated member.
        isolated: bool,
        /// A station that is behind it for good.
        station: Option<[u8; 6]>,
    },
    /// Sets the rules of a bridge of ours, in place of those it had: [`Answer::Done`].
    RulesSet {
        /// The rules.
        rules: Box<Rules>,
    },
    /// Removes the rules of a bridge of ours, which may be gone: [`Answer::Done`].
    RulesRemove {
        /// Its name.
        bridge: LinkName,
    },
    /// The number of the host's rules, another after each change: [`Answer::Generation`].
    RulesGeneration,
    /// Has interfaces forward what comes by them, and no others of those that we had forward; with any, our networks pass
    /// where others block them: [`Answer::Done`].
    Forwarding {
        /// Interfaces by which IPv4 comes.
        v4: Vec<String>,
        /// Interfaces by which IPv6 comes.
        v6: Vec<String>,
        /// There are networks.
        open: bool,
    },
    /// Makes a tap that joins the bridge which an interface is, or is a member of: [`Answer::Opened`]. It goes when it is
    /// closed.
    LanJoin {
        /// Its name, which nobody has yet.
        name: LinkName,
        /// Whose it is.
        mark: Mark,
        /// The interface.
        nic: String,
    },
    /// Makes a macvtap on an interface, for one guest: [`Answer::Opened`]. It stays until it is deleted.
    MacvtapCreate {
        /// Its name, which nobody has yet.
        name: LinkName,
        /// Whose it is.
        mark: Mark,
        /// The interface.
        nic: String,
        /// The guest's MAC.
        mac: [u8; 6],
    },
    /// Opens a packet socket on an interface: [`Answer::Opened`].
    LanSocketOpen {
        /// The interface.
        nic: String,
        /// All of its LAN, or only what the host sends to that.
        all: bool,
    },
    /// Makes a tap whose frames come to the host as if they had come in by an interface: [`Answer::Opened`]. It goes when it
    /// is closed.
    HostwardOpen {
        /// Its name, which nobody has yet.
        name: LinkName,
        /// Whose it is.
        mark: Mark,
        /// The interface.
        nic: String,
    },
    /// Opens another queue of a tap of ours, or one that nobody has open: [`Answer::Opened`].
    TapOpen {
        /// Its name.
        name: LinkName,
    },
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It is done.
    Done,
    /// The links of the host, by number.
    Links(Vec<Link>),
    /// The number of the host's rules.
    Generation(u32),
    /// It is open: one descriptor stands beside the answer.
    Opened,
    /// It was not done.
    Refused(Refusal),
}

/// A link of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whose it is, if it is ours.
    pub mark: Option<Mark>,
    /// What it is, in the kernel's word; none for hardware.
    pub kind: Option<String>,
    /// The number of the bridge or bond it belongs to.
    pub master: Option<u32>,
    /// The number of the link that it stands on.
    pub lower: Option<u32>,
    /// It is up.
    pub up: bool,
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// What kind of reason it is.
    pub why: Why,
    /// The reason, for people.
    pub reason: String,
}

impl Refusal {
    /// It must not be done.
    #[must_use]
    pub fn forbidden(reason: impl Into<String>) -> Self {
        Self::new(Why::Forbidden, reason)
    }

    /// A reason of a kind.
    #[must_use]
    pub fn new(why: Why, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self { why, reason }
    }
}

/// Kinds of reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// The helper does this for nobody.
    Forbidden,
    /// What is named is not there.
    Missing,
    /// What is to be made is there already, or somebody else has it.
    InUse,
    /// The host refused.
    Host,
}
