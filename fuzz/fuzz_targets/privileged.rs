//! What a daemon that was taken over could send to the privileged helper: any bytes. What is let pass touches nothing of
//! others.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::io::Write as _;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use vmnet_daemon::privileged::check::{Kernel, Permitted, check, mark_of};
use vmnet_daemon::privileged::request::{Refusal, Request};
use vmnet_daemon::privileged::wire;
use vmnet_linux::kernel::link::Link;
use vmnet_linux::kernel::nics::{Nic, NicKind};
use vmnet_linux::kernel::route::Address;

const ALIAS: &str = "openvmnet 00000000-0000-0000-0000-000000000007 bridge";

/// Every name is there: those that end with an even byte are ours, and taps if they end with a letter.
struct Host;

impl Host {
    fn link(name: &str) -> Link {
        let last = name.bytes().last().unwrap_or(0);
        Link {
            index: 7,
            name: name.to_owned(),
            alias: (last % 2 == 0).then(|| ALIAS.to_owned()),
            kind: last.is_ascii_lowercase().then(|| "tun".to_owned()),
            master: None,
            lower: None,
            mac: None,
            mtu: 1500,
            up: true,
            loopback: false,
            isolated: false,
            bridged_pass: false,
        }
    }
}

impl Kernel for Host {
    fn link(&self, name: &str) -> Result<Option<Link>, Refusal> {
        Ok((name.len() % 3 != 0).then(|| Self::link(name)))
    }

    fn nic(&self, name: &str) -> Result<Option<Nic>, Refusal> {
        let card = || Nic {
            index: 8,
            name: name.to_owned(),
            kind: NicKind::Ethernet,
            mac: [2, 0, 0, 0, 0, 8],
            mtu: 1500,
            up: true,
            bridge: None,
            member_of: None,
        };
        Ok((name == "eth0").then(card))
    }

    fn addresses(&self) -> Result<Vec<Address>, Refusal> {
        let at = |link, address: &str, prefix_len| Address {
            link,
            address: address.parse().unwrap(),
            prefix_len,
        };
        Ok(vec![
            at(7, "192.168.64.1", 24),
            at(7, "fd00:0:0:64::1", 64),
            at(8, "10.0.0.5", 8),
        ])
    }

    fn links(&self) -> Result<Vec<Link>, Refusal> {
        Ok(["lo", "eth0", "vmnet0", "vmnet0-gw", "docker0"].map(Self::link).into())
    }
}

fuzz_target!(|data: &[u8]| {
    // As it comes: most inputs have no length that fits, so every other one is given one.
    let Some((&first, rest)) = data.split_first() else {
        return;
    };
    let (mut theirs, ours) = UnixStream::pair().unwrap();
    if first & 1 == 1 {
        let length = u32::try_from(rest.len()).expect("small");
        theirs.write_all(&length.to_le_bytes()).unwrap();
    }
    theirs.write_all(rest).unwrap();
    theirs.shutdown(Shutdown::Write).unwrap();
    while let Ok(Some((bytes, descriptors))) = wire::read(&ours) {
        assert!(descriptors.is_empty());
        let Ok(request) = wire::parse::<Request>(&bytes) else {
            continue;
        };
        let again = serde_json::to_vec(&request).unwrap();
        assert_eq!(wire::parse::<Request>(&again).unwrap(), request);
        match request.clone() {
            Request::LinkDelete { name } => {
                if let Ok(Permitted::LinkDelete(Some(_))) = check(request, &Host) {
                    assert!(mark_of(&Host::link(name.as_str())).is_some());
                }
            }
            Request::TapOpen { name } => {
                if check(request, &Host).is_ok() {
                    assert!(mark_of(&Host::link(name.as_str())).is_some());
                }
            }
            Request::BridgeJoin { member, bridge, .. } => {
                if check(request, &Host).is_ok() {
                    for name in [member, bridge] {
                        assert!(mark_of(&Host::link(name.as_str())).is_some());
                    }
                }
            }
            Request::RulesSet { rules } => {
                if check(request, &Host).is_ok() {
                    assert!(mark_of(&Host::link(&rules.bridge)).is_some());
                }
            }
            _ => _ = check(request, &Host),
        }
    }
});
