//! The services behind the gateway's address.
//!
//! | file | service |
//! | --- | --- |
//! | [`dhcp`] | which address does a guest get |
//! | [`dns`] | names of guests, and everything else by the host's resolvers |

pub mod dhcp;
pub mod dns;
