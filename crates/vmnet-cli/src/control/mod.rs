//! The socket of a named network: who holds it, who joins, who asks.
//!
//! | file | what |
//! | --- | --- |
//! | [`folder`] | where sockets are, and the lock that says who holds a name |
//! | [`protocol`] | one JSON text a line, descriptors beside it |
//! | [`client`] | asks |
//! | [`server`] | answers, for the process that holds the network |
//!
//! What a connection attached or forwarded is gone when it closes. Only processes of the same user are heard.

pub(crate) mod client;
pub(crate) mod folder;
pub(crate) mod protocol;
pub(crate) mod server;
