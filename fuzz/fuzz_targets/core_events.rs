//! Any sequence of frames, events, time jumps and changes: see `vmnet_lab::sim::nonsense`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vmnet_lab::sim::nonsense::run(data));
