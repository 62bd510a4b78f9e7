//! The interface inside a namespace: its tap, and what a lease makes of it.

use std::os::fd::OwnedFd;
use vmnet_linux::dhcp_client::Lease;
use vmnet_linux::kernel::route::{self, LinkChange, RouteError, Routes};
use vmnet_linux::kernel::sysctl;
use vmnet_linux::kernel::tap::{self, TapError};
use vmnet_wire::ethernet::Mac;

/// The name of a command's interface.
pub(crate) const NAME: &str = "eth0";
/// Frames that may wait for the datapath: a burst of a full window in large segments, and then some.
const QUEUE_LENGTH: u32 = 4096;

/// The interface could not be made or configured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InterfaceError {
    #[error(transparent)]
    Tap(#[from] TapError),
    #[error(transparent)]
    Route(#[from] RouteError),
    #[error("the interface {0} is gone: {1}")]
    Gone(String, #[source] std::io::Error),
}

/// Whose namespace it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// We have made it for the command.
    Ours,
    /// Somebody has made it, and set up as it is to be.
    Theirs,
}

/// The interface of this namespace.
pub(crate) struct Interface {
    routes: Routes,
    name: String,
    index: u32,
    lease: Option<Lease>,
}

impl Interface {
    /// Brings up the loopback and makes a tap of this name; answers the tap's other side too.
    pub(crate) fn make(name: &str) -> Result<(Self, OwnedFd), InterfaceError> {
        let gone = |error| InterfaceError::Gone(name.to_owned(), error);
        let mut routes = Routes::open()?;
        let up = LinkChange {
            up: Some(true),
            ..LinkChange::default()
        };
        let loopback = route::link_index("lo").map_err(gone)?;
        routes.change_link(loopback, up)?;
        let tap = tap::open(name)?;
        let index = route::link_index(name).map_err(gone)?;
        routes.change_link(
            index,
            LinkChange {
                queue_length: Some(QUEUE_LENGTH),
                ..LinkChange::default()
            },
        )?;
        let interface = Self {
            routes,
            name: name.to_owned(),
            index,
            lease: None,
        };
        Ok((interface, tap))
    }

    /// Lets the kernel take what routers advertise (RFC 4862), at once: before the interface comes up.
    ///
    /// Its addresses are made of its MAC, which no other guest of the network has from us; so they are not probed for a
    /// second. A guest that takes one all the same is kept from it where guests are isolated, and is not noticed where they
    /// are not. Routers are asked without the pause that keeps a thousand hosts from asking at once. The addresses are told
    /// to the link instead, so that forwarded ports lead to them before anything was sent from there.
    pub(crate) fn expect_routers(&self, whose: Whose) {
        let at_once = [
            ("accept_dad", "0"),
            ("router_solicitation_delay", "0"),
            ("ndisc_notify", "1"),
        ];
        let ours = [
            ("disable_ipv6", "0"),
            ("accept_ra", "1"),
            ("autoconf", "1"),
            ("addr_gen_mode", "0"),
        ];
        let ours = ours.iter().filter(|_| whose == Whose::Ours);
        for (setting, value) in at_once.iter().chain(ours) {
            if let Err(error) = sysctl::write_ipv6(&self.name, setting, value) {
                tracing::debug!(setting, %error, "IPv6 may take longer to come, or not come");
            }
        }
    }

    /// Has its IPv6 addresses not probed, so that it has the link's own as soon as it is up.
    pub(crate) fn probe_nothing(&self) {
        if let Err(error) = sysctl::write_ipv6(&self.name, "accept_dad", "0") {
            tracing::debug!(%error, "addresses of IPv6 are probed before they can be used");
        }
    }

    /// Whether the kernel makes an address of what a router advertises here.
    pub(crate) fn heeds_routers(&self) -> bool {
        heeds_routers(|setting| sysctl::read_ipv6(&self.name, setting))
    }

    /// Whether it has an IPv6 address of more than the link, that can be used.
    pub(crate) fn has_prefix(&mut self) -> bool {
        let addresses = self.routes.ipv6_addresses(self.index);
        addresses.is_ok_and(|addresses| !addresses.is_empty())
    }

    /// Brings the tap up with its MAC, once somebody reads its other side.
    pub(crate) fn bring_up(&mut self, mtu: u16, mac: Mac) -> Result<(), RouteError> {
        let change = LinkChange {
            up: Some(true),
            mtu: Some(mtu.into()),
            mac: Some(mac.0),
            ..LinkChange::default()
        };
        self.routes.change_link(self.index, change)
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its number.
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// The lease it is configured by.
    pub(crate) fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// Configures the interface by a lease: address, MTU, routes.
    pub(crate) fn apply(&mut self, lease: Lease) -> Result<(), RouteError> {
        if let Some(old) = &self.lease
            && (old.address, old.prefix_len) != (lease.address, lease.prefix_len)
        {
            self.withdraw()?;
        }
        if let Some(mtu) = lease.mtu {
            let change = LinkChange {
                mtu: Some(mtu.into()),
                ..LinkChange::default()
            };
            // A server may offer more than the link takes; the link's own stays then.
            if let Err(error) = self.routes.change_link(self.index, change) {
                tracing::warn!(%error, mtu, "the MTU of the lease does not fit");
            }
        }
        self.routes.set_address(
            self.index,
            lease.address,
            lease.prefix_len,
            Some(lease.duration),
        )?;
        for route in &lease.routes {
            self.routes
                .set_route(self.index, route.network, route.prefix_len, route.gateway)?;
        }
        self.lease = Some(lease);
        Ok(())
    }

    /// Takes the address away; the kernel takes the routes with it.
    pub(crate) fn withdraw(&mut self) -> Result<(), RouteError> {
        match self.lease.take() {
            None => Ok(()),
            Some(lease) => self
                .routes
                .remove_address(self.index, lease.address, lease.prefix_len),
        }
    }
}

/// The same by the interface's IPv6 settings, of which a kernel without IPv6 has none.
fn heeds_routers(setting: impl Fn(&str) -> Option<String>) -> bool {
    let is = |name, value: &str| setting(name).is_some_and(|found| found == value);
    // Who forwards is a router itself, and hears no others unless told to (accept_ra = 2).
    let hears = is("accept_ra", "2") || is("accept_ra", "1") && is("forwarding", "0");
    is("disable_ipv6", "0") && is("autoconf", "1") && hears
}

/// The text of `/etc/resolv.conf` for a lease.
pub(crate) fn resolv_conf(lease: &Lease) -> String {
    let mut text = String::from("# The network's own resolver, by vmnet.\n");
    for resolver in lease.resolvers.iter().take(3) {
        text.push_str(&format!("nameserver {resolver}\n"));
    }
    let search: Vec<&str> = if lease.search.is_empty() {
        lease.domain.as_deref().into_iter().collect()
    } else {
        lease.search.iter().map(String::as_str).collect()
    };
    if !search.is_empty() {
        text.push_str(&format!("search {}\n", search.join(" ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    fn lease() -> Lease {
        Lease {
            address: Ipv4Addr::new(192, 168, 64, 2),
            prefix_len: 24,
            server: Ipv4Addr::new(192, 168, 64, 1),
            duration: Duration::from_secs(3600),
            renew_after: Duration::from_secs(1800),
            rebind_after: Duration::from_secs(3150),
            routes: Vec::new(),
            resolvers: vec![Ipv4Addr::new(192, 168, 64, 1)],
            domain: Some("vmnet.internal".into()),
            search: Vec::new(),
            mtu: None,
        }
    }

    #[test]
    fn only_who_heeds_routers_waits_for_them() {
        // disable_ipv6, accept_ra, forwarding, autoconf.
        for (settings, heeds) in [
            (Some(["0", "1", "0", "1"]), true),
            (Some(["0", "2", "1", "1"]), true),
            (Some(["0", "1", "1", "1"]), false),
            (Some(["0", "0", "0", "1"]), false),
            (Some(["1", "1", "0", "1"]), false),
            (Some(["0", "1", "0", "0"]), false),
            (None, false),
        ] {
            let found = heeds_routers(|name| {
                let [disabled, accept, forwarding, autoconf] = settings?;
                let value = match name {
                    "disable_ipv6" => disabled,
                    "accept_ra" => accept,
                    "forwarding" => forwarding,
                    "autoconf" => autoconf,
                    other => panic!("{other}"),
                };
                Some(value.to_owned())
            });
            assert_eq!(found, heeds, "{settings:?}");
        }
    }

    #[test]
    fn the_resolver_file_of_a_lease() {
        let head = "# The network's own resolver, by vmnet.\nnameserver 192.168.64.1\n";
        assert_eq!(
            resolv_conf(&lease()),
            format!("{head}search vmnet.internal\n")
        );
        let mut with_search = lease();
        with_search.search = vec!["a.example".into(), "b.example".into()];
        assert_eq!(
            resolv_conf(&with_search),
            format!("{head}search a.example b.example\n")
        );
        let mut without = lease();
        without.domain = None;
        assert_eq!(resolv_conf(&without), head);
    }
}
