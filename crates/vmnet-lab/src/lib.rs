//! Guests, LANs and an internet, for tests and benches only.
//!
//! The half with real kernels:
//!
//! | module | what it is |
//! | --- | --- |
//! | [`prerequisite`] | what a test needs of the machine; a skip, or under `CI=true` a failure |
//! | [`namespace`] | a network namespace that nothing can leave behind |
//! | [`host_on_lan`] | a host with a card, and the machine's service on it |
//! | [`process`] | a child that is read in the background and never outlives its test |
//! | [`world`] | a host, an outside network with real servers, and a user without rights |
//! | [`subject`] | how the program under test is started |
//! | [`stage`] | a world with the program in it: where tests of the product begin |
//! | [`cpio`], [`guest_image`] | the archive a guest boots from, made of Debian's own parts |
//! | [`qemu`] | a Linux guest with a console that takes commands |
//! | [`testpmd`] | DPDK's virtio-user: a VMM that we did not write |
//! | [`client`] | what a test does inside a guest or a namespace (`vmnet-lab-client`) |
//! | [`pattern`] | bytes that both ends know |
//!
//! The other half has no kernel at all: [`sim`] has guests, a host and an internet around the core, and one clock
//! that jumps.

pub mod client;
pub mod cpio;
pub mod guest_image;
pub mod host_on_lan;
pub mod namespace;
pub mod pattern;
pub mod prerequisite;
pub mod process;
pub mod qemu;
pub mod sim;
pub mod stage;
pub mod subject;
pub mod testpmd;
pub mod world;
