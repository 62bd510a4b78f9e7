//! Frames of a network device in rings, the device's side (virtio 1.2 §5.1).
//!
//! | file | what |
//! | --- | --- |
//! | [`features`] | what is offered, and what a guest's choice means |
//! | [`header`] | the header in front of each frame |
//! | [`burst`] | frames as they come: the head copied, the rest in guest memory |
//! | [`from_guest`] | the ring by which a guest sends |
//! | [`to_guest`] | the ring by which a guest receives |
//!
//! **Guest to guest**: [`FromGuest::receive`] a [`Burst`]; for each frame decide by its head, and
//! [`ToGuest::deliver`] head and rest: the rest is copied once, from one guest's memory to the other's. Then
//! [`FromGuest::complete`] the frames, [`ToGuest::publish`] and [`FromGuest::publish`] once per burst.
//!
//! **To and from a socket**: the rest of a frame is a list of slices to send from; [`ToGuest::reserve`] gives
//! slices to receive into.
//!
//! What is not here: the control queue (`VIRTIO_NET_F_CTRL_VQ`), which VMMs that use vhost-user serve themselves, and
//! any look into a frame.

pub mod burst;
pub mod features;
pub mod from_guest;
pub mod header;
pub mod to_guest;

pub use burst::{Burst, BurstLimits, Frame, FrameFault};
pub use features::Features;
pub use from_guest::FromGuest;
pub use header::{HEADER_MAX, Header};
pub use to_guest::{Delivery, Run, ToGuest};

/// Bytes of the largest frame that is taken: the largest IPv6 packet in a tagged Ethernet frame.
pub const FRAME_MAX: usize = 65_535 + 40 + 18;

#[cfg(test)]
mod tests;
