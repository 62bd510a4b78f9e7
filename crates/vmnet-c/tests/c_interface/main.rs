//! The libraries as C has them.
//!
//! | file | what |
//! | --- | --- |
//! | `headers` | every language and compiler takes them, and the ABI is that of programs for macOS |
//! | `programs` | programs of `tests/c`, run under valgrind |
//! | `clients` | programs in the manner of each known client of vmnet, with a service and a peer |
//! | `bridged` | programs on the LAN of the host's card, through the machine's service |
//! | `examples` | `examples/c`, built by both compilers, and used |
//! | `installed` | the libraries as `scripts/install-c` installs them, linked as `pkg-config` says |
//! | `coverage` | every name of the API has tests, and a row in the documentation |
//! | `service` | the service that they start |
//! | `compiler` | building C against what cargo has just built |

mod bridged;
mod clients;
mod compiler;
mod coverage;
mod examples;
mod headers;
mod installed;
mod programs;
mod service;
