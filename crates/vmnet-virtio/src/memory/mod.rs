//! The memory that a VMM shares with us.
//!
//! | file | what |
//! | --- | --- |
//! | [`map`] | [`MemoryMap`]: which address of the guest is where |
//! | `mapping` | one mapped file: seals, length |
//! | `guard` | what happens when memory vanishes all the same |
//! | [`slice`](mod@slice) | [`GuestSlice`]: bytes that the guest may change at any time, and how to copy them |
//! | [`slices`] | [`Slices`]: a list of them that keeps its map alive |
//! | [`words`] | [`Words`]: ring structures in such memory, by atomic accesses |
//! | [`owned`] | memory of our own, which we share with a device |
//!
//! Guest memory changes under our hands: the guest's processors run while we look. So no
//! reference to its bytes exists; they are copied ([`GuestSlice`]) or accessed by
//! atomics ([`Words`]), each once, and judged after that.
//!
//! **It must not vanish either.** A file that shrinks under a mapping turns an access into `SIGBUS`,
//! which ends the process with every other port in it. So a region's file must carry the
//! seal against shrinking ([`MapError::NotSealable`] says what to do), and be long enough when it
//! is mapped. What the seal leaves: a hole punched into a file of huge pages takes a page from the pool
//! when it is touched again, and the pool may be empty. [`Unsealed::Guard`] takes care of that too, and of files without
//! a seal: memory that vanishes ends the rings in it, and nothing else.

mod guard;
pub mod map;
mod mapping;
pub mod owned;
pub mod slice;
pub mod slices;
pub mod words;

pub use map::{MapError, MemoryMap, Outside, RegionSource, Unsealed};
pub use owned::OwnMemory;
pub use slice::{GuestSlice, GuestWriter};
pub use slices::Slices;
pub use words::{Word, Words};
