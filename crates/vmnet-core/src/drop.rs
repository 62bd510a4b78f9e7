//! Why a frame was dropped: every cause has a name and a counter.

macro_rules! causes {
    ($($(#[doc = $doc:expr])+ $name:ident = $text:literal,)+) => {
        /// Why a frame, packet or datagram was dropped.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(usize)]
        pub enum Drop {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Drop {
            /// Every cause.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The cause in words of a counter's name: `kebab-case`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

causes! {
    /// Shorter than its headers, or a length that contradicts another.
    Malformed = "malformed",
    /// A checksum is wrong.
    Checksum = "checksum",
    /// The source is a group address, or zero.
    SourceMac = "source-mac",
    /// The source is the gateway's MAC or address.
    Spoofed = "spoofed",
    /// The source address is not of this network.
    ForeignSource = "foreign-source",
    /// The table of MAC addresses is full, and this port has its share.
    MacTableFull = "mac-table-full",
    /// The port is gone.
    NoPort = "no-port",
    /// Nobody is at the port: its VMM is not connected, or its guest has no driver yet.
    PortAway = "port-away",
    /// The port's queue is full.
    PortFull = "port-full",
    /// Larger than the port's MTU, and not to be cut.
    TooLong = "too-long",
    /// The gateway does not know this kind of frame or protocol.
    Protocol = "protocol",
    /// Nothing at the gateway answers this.
    NoService = "no-service",
    /// Loopback, multicast, broadcast or zero destinations never leave.
    Destination = "destination",
    /// The network has no way out.
    NoWayOut = "no-way-out",
    /// From the LAN of a bridged network, for a station that is no guest here.
    Elsewhere = "elsewhere",
    /// From the LAN of a bridged network or by the trunk, from a MAC that a guest at a port of ours has: its own frame has come
    /// back.
    Looped = "looped",
    /// From an isolated port, or to one: it would have come to no other port and was not the gateway's. Or it would have gone
    /// round by the host, which is a router.
    Isolated = "isolated",
    /// TTL ran out here.
    Expired = "expired",
    /// The table of flows is full of flows that are in use.
    FlowsFull = "flows-full",
    /// A TCP segment that belongs to no connection and wants none.
    NoConnection = "no-connection",
    /// A TCP segment outside the window, or out of order.
    OutOfWindow = "out-of-window",
    /// The host's send queue took less than was sent; the guest sends it again.
    HostFull = "host-full",
    /// The host forbids this user to send it.
    Forbidden = "forbidden",
    /// The host would not send it.
    HostRefused = "host-refused",
    /// A fragment that overlaps another, comes too late, or finds no room.
    Fragment = "fragment",
    /// Nobody's MAC is known for the address.
    NoNeighbour = "no-neighbour",
    /// A DHCP message that is not for this server, or that no state allows.
    Dhcp = "dhcp",
    /// A DHCP acknowledgement whose lease was not stored: the guest asks again.
    LeaseNotStored = "lease-not-stored",
    /// A DHCP acknowledgement that waited for the store too long, or among too many.
    LeaseWaited = "lease-waited",
    /// A DNS message that is no question, or one too many.
    Dns = "dns",
    /// A datagram from a stranger to a mapping that does not take it.
    Filtered = "filtered",
    /// Too many ICMP errors in a short time (RFC 1812 §4.3.2.8, RFC 4443 §2.4), or too many answers to solicitations.
    IcmpRate = "icmp-rate",
    /// A message of neighbour discovery that came from elsewhere, in fragments, or malformed (RFC 4861 §6.1, §7.1).
    NeighbourDiscovery = "neighbour-discovery",
    /// A router advertisement of a guest (RFC 6105).
    RouterAdvertisement = "router-advertisement",
    /// A redirect of a guest.
    Redirect = "redirect",
    /// What a guest says as if it was a DHCPv6 server (RFC 7610).
    Dhcp6Server = "dhcpv6-server",
    /// An IPv6 packet whose headers end nowhere, or in another fragment than the first (RFC 7112, RFC 7113).
    HiddenHeaders = "hidden-headers",
    /// A DHCPv6 message that is not for this server, that a relay sent, or that the protocol has discarded.
    Dhcp6 = "dhcpv6",
}

/// How often each cause was met.
#[derive(Clone, Debug)]
pub struct Drops([u64; Drop::ALL.len()]);

impl Default for Drops {
    fn default() -> Self {
        Self([0; Drop::ALL.len()])
    }
}

impl Drops {
    /// Counts one.
    pub fn count(&mut self, cause: Drop) {
        if let Some(counter) = self.0.get_mut(cause as usize) {
            *counter += 1;
        }
    }

    /// How often a cause was met.
    #[must_use]
    pub fn of(&self, cause: Drop) -> u64 {
        self.0.get(cause as usize).copied().unwrap_or(0)
    }

    /// Causes that were met, with their counts.
    pub fn met(&self) -> impl Iterator<Item = (Drop, u64)> + '_ {
        Drop::ALL
            .iter()
            .map(|cause| (*cause, self.of(*cause)))
            .filter(|(_, count)| *count > 0)
    }
}
