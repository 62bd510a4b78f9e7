//! What the kernel is told, and asked, about networks.
//!
//! | file | what |
//! | --- | --- |
//! | [`existing_namespace`] | entering a network namespace that somebody else made |
//! | [`namespace`] | user, network, mount, pid and host name namespaces; the id maps |
//! | [`mounts`] | the `/proc` and `/etc/resolv.conf` of a namespace |
//! | [`nics`] | interfaces of the host whose LAN guests can be on |
//! | [`route`] | links, addresses and routes, by netlink |
//! | [`sysctl`] | the few kernel settings that are read or written |
//! | [`tap`] | taps with offloads |
//! | [`unsent`] | bytes that programs wrote and nobody has yet |

pub mod existing_namespace;
pub mod mounts;
pub mod namespace;
pub mod nics;
pub mod route;
pub mod sysctl;
pub mod tap;
pub mod unsent;
