//! Headers of Ethernet, ARP, IP, ICMP, TCP and UDP: bytes to fields and back.
//!
//! No I/O, no clock, no allocation; no input makes it panic.
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

pub mod ethernet;
