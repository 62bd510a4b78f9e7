//! The part of XPC that programs of vmnet use.
//!
//! | file | what |
//! | --- | --- |
//! | [`object`] | references, and what an object holds |
//! | [`kind`] | the types, which programs compare by address |
//! | [`failure`] | the errors of connections |
//! | [`scalar`] | objects of one value |
//! | [`mod@array`], [`dictionary`] | containers |
//! | [`member`] | values in containers, by type |
//! | [`compare`] | equality, hashes, copies |
//! | [`describe`] | text for logs |
//! | [`wire`] | messages as bytes, and back |
//! | [`connection`] | connections over sockets, and named services |
//! | `border` | panics stop here |
//!
//! What C programs see is in `include/xpc/xpc.h` of the crate `vmnet-c`. Not here: launchd, shared memory, activities,
//! sessions, audit tokens and requirements on peers. A connection's peer is told by the kernel's credentials.

#![allow(
    clippy::missing_safety_doc,
    reason = "what callers of exported C functions owe is XPC's contract: live objects, strings that end, blocks of the declared types"
)]

pub mod array;
mod border;
pub mod compare;
pub mod connection;
pub mod describe;
pub mod dictionary;
pub mod failure;
pub mod kind;
pub mod member;
pub mod object;
pub mod scalar;
pub mod wire;

pub use array::Array;
pub use border::border;
pub use dictionary::Dictionary;
pub use object::{Body, Object, Raw};
