//! Everything of a virtual network that is a system call.

pub mod dhcp_client;
pub mod kernel;
pub mod lane;
pub mod sys;
