//! `libvmnet`: the C interface of vmnet, for programs that were written for macOS.
//!
//! | file | what |
//! | --- | --- |
//! | [`key`] | the names in dictionaries |
//! | [`configuration`] | `vmnet_network_configuration_...` |
//! | [`network`] | `vmnet_network_...` |
//! | [`interface`] | everything that has an `interface_ref`: start, stop, packets, events, port forwarding |
//! | [`foundation`] | `CFRetain` and `CFRelease` on what those make |
//! | `argument` | what C gives and gets |
//!
//! This crate converts and holds handles; what calls mean is in [`openvmnet`]. The library has two more parts, which
//! are crates of their own: XPC ([`vmnet_xpc`]), and the runtime of blocks. Headers are in `include/`, for all compilers:
//! what takes a block has a twin, whose name ends in `_f`, that takes a context and a function.
//!
//! # The border
//!
//! No panic crosses it: every function returns a failure instead. Data symbols are a fixed size each, since programs may
//! have copies of them (copy relocations). `abi/` lists all symbols; a test compares.

#![allow(
    clippy::missing_safety_doc,
    reason = "what callers of exported C functions owe is the API's contract: live handles, and pointers to what the header says"
)]

mod argument;
pub mod configuration;
pub mod foundation;
pub mod interface;
pub mod key;
pub mod network;
