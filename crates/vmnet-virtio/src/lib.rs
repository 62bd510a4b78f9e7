//! Guest memory, virtio rings and frames in them: what stands between virtual machines and this process.
//!
//! Nothing here sees a network: frames come out of rings as bytes and slices of guest memory, and
//! go into rings the same way.
//!
//! | folder | what |
//! | --- | --- |
//! | [`memory`] | the memory that a VMM shares with us: mapped, translated, copied from and to |
//! | [`ring`] | split and packed virtqueues, the device's side (virtio 1.2 §2.7, §2.8) |
//! | [`net`] | frames of a network device in these rings (virtio 1.2 §5.1) |
//! | [`session`] | the conversation with a VMM by vhost-user: what makes rings begin and end |
//! | [`driver`] | the other side of the same rings, in memory of our own |
//! | [`frontend`] | the other side of that conversation: a device that serves such rings |
//! | [`fork`] | whether we are a copy of the process that made the rings |
//! | [`signals`] | threads that hear no signals |
//!
//! **For a vhost-user session**: make a [`memory::MemoryMap`] of the regions of a memory table (a
//! [`memory::RegionSource`] each), share it by [`std::sync::Arc`], start a [`ring::Ring`] for each
//! virtqueue at the addresses that the VMM told, and give both to [`net::FromGuest`] or
//! [`net::ToGuest`], which belong to the thread that moves frames. When the memory table changes,
//! make a new map and hand it to their `remap`: what is still in use of the old one stays
//! mapped for as long as it is used.
//!
//! The guest and its VMM are not trusted with anything: whatever they write, nothing here
//! panics, reads or writes outside of the mapped regions, or works longer than a ring is large.
//!
//! Beside `cargo test`: Miri (`cargo +nightly miri test -p vmnet-virtio --lib` with
//! `MIRIFLAGS=-Zmiri-disable-isolation`), loom (`ring/event_idx.rs` has the command), the fuzz target
//! `rings`, and the example `rings`, which measures.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )
)]

#[cfg(not(target_pointer_width = "64"))]
compile_error!("guest addresses are 64 bits, and so must be pointers");
#[cfg(not(target_endian = "little"))]
compile_error!("virtio 1 is little-endian, and rings are accessed in place");

pub mod driver;
pub mod fork;
pub mod frontend;
pub mod memory;
pub mod net;
pub mod ring;
pub mod session;
pub mod signals;
