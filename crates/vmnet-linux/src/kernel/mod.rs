//! What the kernel is told, and asked, about networks.
//!
//! | file | what |
//! | --- | --- |
//! | [`bridge`] | bridges on which the host has addresses, and their members |
//! | [`bridging`] | how guests get onto the LAN of an interface of the host |
//! | [`events`] | that links, addresses, routes or rules of routing have changed |
//! | [`existing_namespace`] | entering a network namespace that somebody else made |
//! | [`link`] | links of this namespace: which there are, names, aliases, their end |
//! | `loopback_guard` | guests do not reach the host's loopback |
//! | [`forwarding`] | forwarding between interfaces, and giving it back |
//! | [`namespace`] | user, network, mount, pid and host name namespaces; the id maps |
//! | [`mounts`] | the `/proc` and `/etc/resolv.conf` of a namespace |
//! | [`nft`] | rules of networks, by the program `nft` |
//! | [`nics`] | interfaces of the host whose LAN guests can be on |
//! | [`policy_routing`] | what comes by a bridge leaves by one interface |
//! | [`route`] | links, addresses and routes, by netlink |
//! | [`sysctl`] | the few kernel settings that are read or written |
//! | [`tap`] | taps with offloads |
//! | `traffic_control` | filters on what comes in by a link |
//! | [`unsent`] | bytes that programs wrote and nobody has yet |

pub mod bridge;
pub mod bridging;
pub mod events;
pub mod existing_namespace;
pub mod forwarding;
pub mod link;
mod loopback_guard;
pub mod mounts;
pub mod namespace;
pub mod nft;
pub mod nics;
pub mod policy_routing;
pub mod route;
pub mod sysctl;
pub mod tap;
mod traffic_control;
pub mod unsent;
