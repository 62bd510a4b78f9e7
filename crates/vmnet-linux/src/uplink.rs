//! The host's way to the outside: the addresses by which others reach it, and the interface that the NAT's sockets leave
//! by if one was chosen.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use vmnet_core::{Prefix, Subnet};

use crate::kernel::events::{Events, Of};
use crate::kernel::route::link_index;
use crate::lane::StartError;
use crate::sys::interfaces::{self, Address};
use crate::sys::packet::bind_to_interface;

/// Addresses that every default route leads to. Nothing is sent there.
const ANYWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const ANYWHERE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// Watches the host's addresses and routes.
pub(crate) struct Uplink {
    events: Events,
    external: Option<External>,
}

/// The interface that was chosen.
struct External {
    name: Rc<str>,
    /// `None` while it is away.
    index: Option<u32>,
    /// The last index it had.
    last: Option<u32>,
    /// All addresses of the host: what goes there does not leave.
    home: Vec<IpAddr>,
}

/// What has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    None,
    /// Addresses or routes.
    Addresses,
    /// The chosen interface is there again, as another one than before.
    Returned,
}

impl Uplink {
    /// # Errors
    /// There is no interface called `external`; or as the kernel says.
    pub(crate) fn new(external: Option<&str>) -> Result<Self, StartError> {
        let external = external.map(External::find).transpose()?;
        let mut kinds = vec![Of::Addresses, Of::Routes];
        if external.is_some() {
            kinds.push(Of::Links);
        }
        let events = Events::of(&kinds)?;
        Ok(Self { events, external })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// Takes what was told, and looks at the host again.
    pub(crate) fn follow(&mut self) -> Change {
        if !self.events.were_told() {
            return Change::None;
        }
        if self.external.as_mut().is_some_and(External::look) {
            Change::Returned
        } else {
            Change::Addresses
        }
    }

    /// The interface that everything to the outside leaves by, if one was chosen.
    pub(crate) fn interface(&self) -> Option<Rc<str>> {
        let external = self.external.as_ref()?;
        Some(Rc::clone(&external.name))
    }

    /// The interface that a socket for `to` must leave by: none where the host is meant itself.
    pub(crate) fn way_to(&self, to: IpAddr) -> Option<Rc<str>> {
        self.interface().filter(|_| !self.is_home(to))
    }

    /// An address of this host itself. Only known where an interface was chosen.
    pub(crate) fn is_home(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_loopback()
            || self
                .external
                .as_ref()
                .is_some_and(|external| external.home.contains(&address))
    }

    /// The address from which the host speaks to the outside; without a default route, any that is not loopback.
    /// Addresses inside `except`, the network's own subnet, mean guests.
    pub(crate) fn address(&self, except: Subnet) -> Option<IpAddr> {
        let by = self.interface();
        let address = routed(ANYWHERE.into(), by.as_deref())
            .or_else(|| any_address(by.as_deref(), IpAddr::is_ipv4))?;
        match address {
            IpAddr::V4(address) if except.contains(address) => None,
            address => Some(address),
        }
    }

    /// The same by IPv6; `except` is the network's own prefix.
    pub(crate) fn address6(&self, except: Prefix) -> Option<Ipv6Addr> {
        let by = self.interface();
        let address = routed(ANYWHERE6.into(), by.as_deref())
            .or_else(|| any_address(by.as_deref(), IpAddr::is_ipv6))?;
        match address {
            IpAddr::V6(address) if !except.contains(address) => Some(address),
            _ => None,
        }
    }
}

impl External {
    fn find(name: &str) -> Result<Self, StartError> {
        let mut external = Self {
            name: name.into(),
            index: None,
            last: None,
            home: Vec::new(),
        };
        external.look();
        if external.index.is_none() {
            return Err(StartError::NoInterface {
                name: name.to_owned(),
                existing: interfaces::names().join(", "),
            });
        }
        // Each socket would be refused later, and only guests would notice.
        let bound = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
            .and_then(|socket| bind_to_interface(&socket, name));
        may_leave_by(name, bound)?;
        Ok(external)
    }

    /// Looks at the host again. Answers whether the interface is another one than the last that was there.
    fn look(&mut self) -> bool {
        self.index = link_index(&self.name).ok();
        if let Ok(addresses) = interfaces::addresses() {
            self.home = addresses.into_iter().map(|address| address.ip).collect();
        }
        let before = self.last;
        self.last = self.index.or(before);
        before.is_some() && self.last != before
    }
}

/// The address from which the host would speak to `anywhere`.
fn routed(anywhere: IpAddr, by: Option<&str>) -> Option<IpAddr> {
    let any = match anywhere {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    if let Some(name) = by {
        bind_to_interface(&socket, name).ok()?;
    }
    // Connecting a datagram socket only looks the route up.
    socket.connect(SocketAddr::from((anywhere, 9))).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| is_outside(*address))
}

/// The first address of a family that the interface has, or any that is not loopback.
fn any_address(by: Option<&str>, of_family: fn(&IpAddr) -> bool) -> Option<IpAddr> {
    let is_ours = |address: &Address| by.is_none_or(|name| address.interface == name);
    let mut addresses = interfaces::addresses().ok()?.into_iter();
    addresses
        .find(|address| is_ours(address) && of_family(&address.ip) && is_outside(address.ip))
        .map(|address| address.ip)
}

fn is_outside(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_loopback() && !address.is_unspecified(),
        // A link-local address means another host on each link.
        IpAddr::V6(address) => {
            !address.is_loopback() && !address.is_unspecified() && !address.is_unicast_link_local()
        }
    }
}

/// What came of binding a socket to an interface.
fn may_leave_by(name: &str, bound: io::Result<()>) -> Result<(), StartError> {
    bound.map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => StartError::InterfaceClosed {
            name: name.to_owned(),
        },
        _ => StartError::Host(source),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_binds_no_sockets_of_users_is_said_to_with_the_remedy() {
        let refused = io::Error::from_raw_os_error(libc::EPERM);
        let said = may_leave_by("eth1", Err(refused)).unwrap_err().to_string();
        for part in ["eth1", "Linux 5.7", "vmnet --system"] {
            assert!(said.contains(part), "{said}");
        }
        assert!(may_leave_by("eth1", Ok(())).is_ok());
    }
}
