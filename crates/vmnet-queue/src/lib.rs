//! Threads on demand, and queues of work on them.
//!
//! | file | what |
//! | --- | --- |
//! | [`pool`] | the threads |
//! | [`queue`] | queues on them: one job at a time, many at once, or on the program's main thread |
//! | [`fork`] | children of the program, which have none of these threads |
//! | [`target`] | where a program wants its handlers: a queue of its libdispatch, or any thread |
//!
//! What `libvmnet-dispatch` shows C programs as dispatch queues, and what `libvmnet` runs handlers on where a program
//! gave none. It exports nothing to C.

pub mod fork;
pub mod pool;
pub mod queue;
pub mod target;

pub use pool::Job;
pub use queue::Queue;
pub use target::Target;
