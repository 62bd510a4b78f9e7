//! Taps: an Ethernet interface on one side, a descriptor of frames on the other.
//!
//! Each frame begins with a virtio-net header of 12 bytes (`IFF_VNET_HDR`), so that unfinished segments and sums pass.

use super::link;
use super::route::{RouteError, link_index};
use crate::sys::ioctl;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Bytes of the virtio-net header before each frame.
pub const HEADER_LENGTH: i32 = 12;

/// The numbers of `/dev/net/tun` (kernel `Documentation/admin-guide/devices.txt`).
const TUN: (u32, u32) = (10, 200);

/// What a reader must take with every kernel: sums not made, TCP segments not cut.
const OFFLOADS: u32 = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
/// UDP segments not cut: Linux 6.2.
const UDP_OFFLOADS: u32 = libc::TUN_F_USO4 | libc::TUN_F_USO6;

/// A tap could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// There is no `/dev/net/tun`.
    #[error("there is no /dev/net/tun: load the driver with `modprobe tun` (as root)")]
    NoDevice,
    /// `/dev/net/tun` is closed to this user.
    #[error(
        "/dev/net/tun may not be opened by this user: `chmod 0666 /dev/net/tun` (as root), which is what udev does on most systems"
    )]
    Closed,
    /// The interface is no tap with a virtio-net header.
    #[error(
        "{0} is no tap made with vnet_hdr: make it with `ip tuntap add {0} mode tap vnet_hdr user $USER`"
    )]
    NoTap(String),
    /// There is no such interface.
    #[error(
        "there is no interface {0}: make it with `ip tuntap add {0} mode tap vnet_hdr user $USER`"
    )]
    Missing(String),
    /// Somebody else holds the interface.
    #[error("the tap {0} is held by another process")]
    Busy(String),
    /// The interface belongs to somebody else.
    #[error(
        "this user may not use the tap {0}: make it with `ip tuntap add {0} mode tap vnet_hdr user $USER`"
    )]
    NotOwner(String),
    /// Something else.
    #[error("the tap {name}: {source}")]
    Other {
        /// The interface.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Opens the tap `name` of this network namespace; makes it if it is not there and this process may.
///
/// # Errors
///
/// See [`TapError`].
pub fn open(name: &str) -> Result<OwnedFd, TapError> {
    let tun = open_device()?;
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    ioctl::tun_set_interface(&tun, name, flags).map_err(|error| named(name, error))?;
    prepare(&tun).map_err(|error| named(name, error))?;
    Ok(tun)
}

/// Makes a tap for several queues, with an alias that says whose it is, and opens its first queue. It is down.
///
/// Unless it `stays`, it ends when nobody has a queue of it open any more.
///
/// # Errors
///
/// See [`TapError`]; [`TapError::Other`] with `EEXIST` if there is a link of this name.
pub fn create(name: &str, alias: &str, stays: bool) -> Result<OwnedFd, TapError> {
    let at = |error| named(name, error);
    let provisional = link::provisional_name().map_err(at)?;
    let tun = attach(&provisional, name)?;
    let index = link_index(&provisional).map_err(at)?;
    link::christen(index, name, alias).map_err(|error| match error {
        RouteError::Refused { source, .. } | RouteError::Socket(source) => at(source),
        RouteError::Answer(reason) => at(io::Error::other(reason)),
    })?;
    if stays {
        ioctl::tun_set_persistent(&tun).map_err(at)?;
    }
    Ok(tun)
}

/// Opens a further queue of a tap that was made by [`create`], or its first one if nobody has any open.
///
/// # Errors
///
/// See [`TapError`].
pub fn open_queue(name: &str) -> Result<OwnedFd, TapError> {
    attach(name, name)
}

/// Attaches a queue to an interface, which errors call `shown`.
fn attach(name: &str, shown: &str) -> Result<OwnedFd, TapError> {
    let tun = open_device()?;
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
    ioctl::tun_set_interface(&tun, name, flags).map_err(|error| named(shown, error))?;
    prepare(&tun).map_err(|error| named(shown, error))?;
    Ok(tun)
}

/// Opens the tap `name` of this network namespace, which must be there.
///
/// # Errors
///
/// See [`TapError`].
pub fn open_existing(name: &str) -> Result<OwnedFd, TapError> {
    match link_index(name) {
        Ok(_) => open(name),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {
            Err(TapError::Missing(name.to_owned()))
        }
        Err(error) => Err(named(name, error)),
    }
}

/// The name of the interface behind a tap's descriptor.
///
/// # Errors
///
/// The descriptor is no tap.
pub fn name_of(tap: impl AsFd) -> io::Result<String> {
    ioctl::tun_interface_name(tap)
}

/// Whether a descriptor is that of the tap with this name in this thread's network namespace, and of no other's that is called
/// so elsewhere. `CAP_NET_ADMIN` is needed to tell.
///
/// # Errors
///
/// What the kernel says.
pub fn is_of(tap: impl AsFd, name: &str) -> io::Result<bool> {
    use rustix::fs::{FileType, fstat, major, minor, stat};
    // Nothing else is asked what only a tap understands.
    let device = fstat(&tap)?;
    let is_device = FileType::from_raw_mode(device.st_mode) == FileType::CharacterDevice
        && (major(device.st_rdev), minor(device.st_rdev)) == TUN;
    if !is_device
        || name_of(&tap)? != name
        || ioctl::tun_interface_flags(&tap)? & libc::IFF_TAP == 0
    {
        return Ok(false);
    }
    let its = match ioctl::tun_network_namespace(&tap) {
        // One that we have no rights over is not ours.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(false),
        its => fstat(its?)?,
    };
    let here = stat("/proc/thread-self/ns/net")?;
    Ok((its.st_dev, its.st_ino) == (here.st_dev, here.st_ino))
}

/// Sets header length and offloads of a tap that somebody opened.
///
/// # Errors
///
/// `InvalidInput` if the descriptor is no tap, or one without a virtio-net header; otherwise what the kernel says.
pub fn prepare(tap: impl AsFd) -> io::Result<()> {
    let flags = ioctl::tun_interface_flags(&tap)?;
    if flags & libc::IFF_TAP == 0 || flags & libc::IFF_VNET_HDR == 0 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the descriptor is no tap with IFF_VNET_HDR",
        ));
    }
    ioctl::tun_set_header_length(&tap, HEADER_LENGTH)?;
    if let Err(error) = ioctl::tun_set_offload(&tap, OFFLOADS | UDP_OFFLOADS) {
        tracing::debug!(%error, "no UDP segmentation offload on this kernel");
        ioctl::tun_set_offload(&tap, OFFLOADS)?;
    }
    Ok(())
}

/// Whether this process may have taps at all.
///
/// # Errors
///
/// [`TapError::NoDevice`] or [`TapError::Closed`].
pub fn probe() -> Result<(), TapError> {
    open_device().map(drop)
}

fn open_device() -> Result<OwnedFd, TapError> {
    use rustix::fs::{Mode, OFlags};
    use rustix::io::Errno;
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    rustix::fs::open("/dev/net/tun", flags, Mode::empty()).map_err(|error| match error {
        Errno::NOENT | Errno::NODEV | Errno::NXIO => TapError::NoDevice,
        Errno::ACCESS | Errno::PERM => TapError::Closed,
        other => TapError::Other {
            name: "/dev/net/tun".into(),
            source: other.into(),
        },
    })
}

fn named(name: &str, source: io::Error) -> TapError {
    let name = name.to_owned();
    match source.raw_os_error() {
        Some(libc::EBUSY) => TapError::Busy(name),
        Some(libc::EPERM) => TapError::NotOwner(name),
        Some(libc::EINVAL) => TapError::NoTap(name),
        _ => TapError::Other { name, source },
    }
}
