//! C blocks, for programs built by `clang -fblocks` and the libraries they call.
//!
//! | file | what |
//! | --- | --- |
//! | [`layout`] | what a block and a `__block` variable look like in memory: the public Blocks ABI |
//! | [`runtime`] | `_Block_copy` and its kin, if the program links no other runtime |
//! | [`held`] | a block that is kept past the call it came by |
//!
//! A program has one runtime, whichever its linker found first: each counts references in its own way, so a block that
//! one copied must not be released by another. Everything here that copies or releases asks for the program's
//! [`runtime::copy`] and [`runtime::release`], never for the functions of this crate directly.
//!
//! It does not know Objective-C: objects that a block captures are not retained.

#![allow(
    clippy::missing_safety_doc,
    reason = "what callers of exported C functions owe is the Blocks ABI"
)]

pub mod held;
pub mod layout;
pub mod runtime;

pub use held::Held;
