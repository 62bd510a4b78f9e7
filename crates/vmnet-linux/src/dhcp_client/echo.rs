//! An echo that a station answers (RFC 792): what was sent to it before has arrived then, as a link keeps the order.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

/// Type 8, code 0; checksum and identifier are the kernel's, as this is a ping socket (icmp(7)).
const REQUEST: [u8; 8] = [8, 0, 0, 0, 0, 0, 0, 1];

/// Waits until `station` has answered, not longer than `patience`. Answers whether it did.
pub(super) fn answered(station: Ipv4Addr, patience: Duration) -> io::Result<bool> {
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        Some(ipproto::ICMP),
    )?;
    rustix::net::connect(&socket, &SocketAddrV4::new(station, 0))?;
    rustix::io::write(&socket, &REQUEST)?;
    let patience = Timespec {
        tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(patience.subsec_nanos()),
    };
    let events = rustix::io::retry_on_intr(|| {
        poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&patience))
    })?;
    Ok(events > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::route::{LinkChange, Routes, link_index};

    /// A network namespace for this thread, with a loopback and ping sockets.
    fn own_namespace() {
        use rustix::thread::{UnshareFlags, unshare_unsafe};
        // SAFETY: only this thread's network namespace changes, on which no other thread relies.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
        std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
        let loopback = link_index("lo").unwrap();
        let up = LinkChange {
            up: Some(true),
            ..LinkChange::default()
        };
        Routes::open().unwrap().change_link(loopback, up).unwrap();
    }

    #[test]
    fn the_loopback_answers_and_a_place_without_stations_does_not() {
        // A host may have closed its ping sockets; a namespace of one's own has its own setting.
        if rustix::process::geteuid().is_root() {
            own_namespace();
        }
        let Ok(loopback) = answered(Ipv4Addr::LOCALHOST, Duration::from_secs(5)) else {
            assert_ne!(
                std::env::var("CI").as_deref(),
                Ok("true"),
                "no ping sockets"
            );
            eprintln!("skipped: no ping sockets for this user");
            return;
        };
        assert!(loopback);
        // Nobody answers for the address without a host (RFC 1122 §3.2.1.3).
        let nobody = answered(Ipv4Addr::new(255, 255, 255, 254), Duration::from_millis(20));
        assert!(!matches!(nobody, Ok(true)), "{nobody:?}");
    }
}
