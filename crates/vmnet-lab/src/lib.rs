//! Guests, LANs and an internet for tests and benches.

pub mod sim;
