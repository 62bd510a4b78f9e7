//! The client of Openvmnet's service, and what the two say to each other.
//!
//! | file | what |
//! | --- | --- |
//! | [`service`] | the varlink interface: its types, calls and errors |
//! | [`client`] | a connection to the service |
//! | [`place`] | where the service listens and keeps its state |
//! | `start` | starting a service that does not run |
//! | `blocking` | varlink without a runtime |

mod blocking;
pub mod client;
pub mod place;
pub mod service;
mod start;
