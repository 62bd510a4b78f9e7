//! `libvmnet-dispatch`: the part of libdispatch that programs of vmnet use, for systems that have none.
//!
//! | file | what |
//! | --- | --- |
//! | [`object`] | what all objects share: references, context, finalizer |
//! | [`queue`] | queues and what is done on them |
//! | [`once`] | `dispatch_once` |
//! | [`semaphore`] | semaphores |
//! | [`group`] | groups |
//! | [`source`] | timers, signals and readable descriptors |
//! | [`time`] | points in time |
//! | `work` | a function with its context, or a block |
//! | `border` | panics stop here |
//!
//! What C programs see is in `include/dispatch/dispatch.h`. Not here: priorities (all global queues are one), target
//! queues, `dispatch_data`, `dispatch_io`, `dispatch_apply`, work items. A program that wants those links libdispatch
//! itself instead of this library; the two have the same names and do not go together.

#![allow(
    clippy::missing_safety_doc,
    reason = "what callers of exported C functions owe is libdispatch's contract: live objects, and blocks of the declared types"
)]

mod border;
pub mod group;
pub mod object;
pub mod once;
pub mod queue;
pub mod semaphore;
pub mod source;
pub mod time;
mod work;
