//! A macvtap in mode bridge: a station of its own on an interface of the host, for one guest, which other macvtaps of the
//! same interface reach directly. The kernel keeps the host and these stations apart; see [`hostward`](super::hostward).

use super::{BridgingError, bring_up, forbid_ipv6, like};
use crate::kernel::link;
use crate::kernel::nics::Nic;
use crate::kernel::route::{LinkChange, Routes};
use crate::kernel::tap;
use crate::sys::ioctl;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoMacVtap, LinkAttribute, LinkInfo, LinkMessage, MacVtapMode,
};
use rustix::fs::{Mode, OFlags};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Numbers of links that the kernel does not get to by counting.
const INDEX_FIRST: u32 = 0x4000_0000;
const INDEX_MASK: u32 = 0x3fff_ffff;

/// How long udev may take to give a device to those who may open it.
const DEVICE_WITHIN: Duration = Duration::from_secs(1);
/// How soon it is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(10);

/// Makes a macvtap of this name and MAC, and opens it. Whoever closes it has to delete the link.
///
/// # Errors
///
/// See [`BridgingError`]. What was made is deleted then.
pub fn create(name: &str, alias: &str, nic: &Nic, mac: [u8; 6]) -> Result<OwnedFd, BridgingError> {
    // Its device is called after its number. Links are numbered in each namespace anew, but devices are of the whole host:
    // a number that nobody else has makes it one's own.
    let mut random = [0; 4];
    rustix::rand::getrandom(&mut random[..], rustix::rand::GetRandomFlags::empty())
        .map_err(|error| BridgingError::Setting("random bytes", error.into()))?;
    let index = INDEX_FIRST | (u32::from_ne_bytes(random) & INDEX_MASK);
    let provisional =
        link::provisional_name().map_err(|error| BridgingError::Setting("random bytes", error))?;
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.attributes = vec![
        LinkAttribute::IfName(provisional),
        LinkAttribute::Link(nic.index),
        LinkAttribute::Address(mac.to_vec()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::MacVtap),
            LinkInfo::Data(InfoData::MacVtap(vec![InfoMacVtap::Mode(
                MacVtapMode::Bridge,
            )])),
        ]),
    ];
    let mut routes = Routes::open()?;
    routes.ask(
        RouteNetlinkMessage::NewLink(link),
        NLM_F_CREATE | NLM_F_EXCL,
        &format!("make a macvtap on {}", nic.name),
    )?;
    let opened = prepare(&mut routes, (name, alias, index), nic);
    if opened.is_err() {
        let _gone = link::delete(index);
    }
    opened
}

fn prepare(
    routes: &mut Routes,
    (name, alias, index): (&str, &str, u32),
    nic: &Nic,
) -> Result<OwnedFd, BridgingError> {
    link::christen(index, name, alias)?;
    forbid_ipv6(name)?;
    // The groups that a guest listens to are its own business: it hears all.
    routes.change_link(
        index,
        LinkChange {
            all_multicast: Some(true),
            ..like(nic)
        },
    )?;
    let path = format!("/dev/tap{index}");
    let fd = open_device(&path)?;
    let is = ioctl::tun_interface_name(&fd)
        .map_err(|error| BridgingError::Device(path.clone(), error))?;
    if is != name {
        return Err(BridgingError::Foreign(path));
    }
    tap::prepare(&fd).map_err(|error| BridgingError::Device(path, error))?;
    bring_up(routes, index)?;
    Ok(fd)
}

fn open_device(path: &str) -> Result<OwnedFd, BridgingError> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let until = Instant::now() + DEVICE_WITHIN;
    loop {
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(fd) => return Ok(fd),
            Err(rustix::io::Errno::ACCESS | rustix::io::Errno::NOENT) if Instant::now() < until => {
                std::thread::sleep(TRY_AGAIN);
            }
            Err(error) => return Err(BridgingError::Device(path.to_owned(), error.into())),
        }
    }
}
