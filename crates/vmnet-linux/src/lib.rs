//! Everything of a virtual network that is a system call.
