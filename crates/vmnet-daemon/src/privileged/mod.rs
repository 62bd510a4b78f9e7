//! What takes privileges, done by another process: the helper.
//!
//! `vmnet daemon --system` forks it before it starts a thread or listens to anybody, and drops its own privileges then. The
//! helper keeps `CAP_NET_ADMIN` and `CAP_NET_RAW`, in the host's network namespace, and does what it is asked for, one request
//! after the other. It trusts nobody: a daemon that a guest has taken over may ask for anything, and gets only what
//! [`check`] lets pass. Frames never come here.
//!
//! | file | what |
//! | --- | --- |
//! | [`request`] | what can be asked for and answered: plain values |
//! | [`name`] | names of links of ours, and what they say of themselves |
//! | [`wire`] | a value as bytes on the socket, with descriptors beside it |
//! | [`client`] | the daemon's end: one call after the other, bounded in time |
//! | [`process`] | the helper's end: the fork, what it keeps, its loop |
//! | [`check`] | what may be asked for |
//! | [`perform`] | what is then done, by `vmnet_linux::kernel` |
//!
//! To add a request: a variant in `request`, an arm in `check` and one in `perform`, and the function that does it in
//! `vmnet_linux::kernel`, where it can be tested by itself.

pub mod check;
pub mod client;
pub mod name;
pub mod perform;
pub mod process;
pub mod request;
pub mod wire;
