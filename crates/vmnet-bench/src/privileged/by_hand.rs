//! What an administrator makes with `ip` and `nft`: a bridge with a tap and masquerade of both families, or a macvtap.

use super::host::{CARD, Host, MTU, Shape, Station};
use super::ours::{self, BEHIND};
use super::relay::Core;
use super::{Guest, Network, relay};
use crate::control::Refusal;
use crate::namespace::Namespace;
use crate::testbed::Testbed;
use std::fs::File;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::Command;
use vmnet_linux::kernel::tap;
use vmnet_linux::sys::process::keep_over_exec;

/// Numbers of macvtaps, after which their devices are called, begin here: nobody else's get so far.
const DEVICES: u32 = 0x2000_0000;

pub(super) fn start(name: &str, network: Network, testbed: &mut Testbed) -> Result<Guest, Refusal> {
    let host = Host::new(Shape::Plain, testbed)?;
    let inside = Namespace::new()?;
    let (netdev, macvtap) = match network {
        Network::Kernel => {
            bridge(&host.namespace)?;
            ("tap,ifname=tap0".to_owned(), None)
        }
        Network::Bridged(_) => {
            let tap = macvtap(&host.namespace, testbed)?;
            (format!("tap,fd={}", tap.as_raw_fd()), Some(tap))
        }
    };
    let mut command = Command::new(testbed.program());
    command
        .args(["relay", "--inside", &inside.path(), "-netdev"])
        .arg(netdev);
    let relay = testbed.start_as_root(relay::on(Core::Frames, &command), &host.namespace, name)?;
    drop(macvtap);
    let carries = matches!(network, Network::Bridged(_)).then(|| relay.pid());
    ours::guest(name, network, (host, inside), carries, vec![relay], testbed)
}

fn bridge(host: &Namespace) -> Result<(), Refusal> {
    host.sysctl("net/ipv4/ip_forward", "1")?;
    host.sysctl("net/ipv6/conf/all/forwarding", "1")?;
    let (v4, v6) = (BEHIND.v4(1), BEHIND.v6(1));
    for line in [
        "link add br0 type bridge forward_delay 0 mcast_snooping 0",
        &format!("link set br0 mtu {MTU} up"),
        &format!("addr add {v4}/24 dev br0"),
        &format!("addr add {v6}/64 dev br0 nodad"),
        "tuntap add tap0 mode tap vnet_hdr",
        &format!("link set tap0 mtu {MTU} master br0 up"),
    ] {
        host.ip(line)?;
    }
    let rules = format!(
        "table inet bench {{ chain out {{ type nat hook postrouting priority srcnat; oifname {CARD} masquerade; }}; }}"
    );
    host.run("nft", &[&rules])?;
    Ok(())
}

fn macvtap(host: &Namespace, testbed: &mut Testbed) -> Result<OwnedFd, Refusal> {
    let number = u32::try_from(testbed.fresh_number()).map_err(|error| error.to_string())?;
    // Others on this machine may measure, too.
    let index = DEVICES + (std::process::id() % 0x10_000) * 0x1000 + number;
    host.ip(&format!(
        "link add link {CARD} name mv0 index {index} address {} type macvtap mode bridge",
        relay::MAC
    ))?;
    host.ip("link set mv0 up")?;
    let device = format!("/dev/tap{index}");
    let mut options = File::options();
    let opened = options.read(true).write(true).open(&device);
    let tap = OwnedFd::from(opened.map_err(|error| format!("{device}: {error}"))?);
    tap::prepare(&tap).map_err(|error| format!("{device}: {error}"))?;
    keep_over_exec(&tap).map_err(|error| error.to_string())?;
    Ok(tap)
}

impl Host {
    /// The addresses with which the server sees a guest of this network.
    pub(super) fn seen(&self, network: Network) -> [std::net::IpAddr; 2] {
        let station = match network {
            Network::Kernel => Station::Host,
            Network::Bridged(_) => Station::Guest,
        };
        let (v4, v6) = self.addresses(station);
        [v4.into(), v6.into()]
    }
}
