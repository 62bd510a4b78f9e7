//! A network that is bridged to a LAN: who hears a frame, by which way.

use std::time::Duration;

use vmnet_core::{Drop, Port, PortId, Role};
use vmnet_lab::sim::{Guest, Lan};
use vmnet_wire::ethernet::{self, EtherType, Mac};
use zerocopy::IntoBytes;

const TEST: EtherType = EtherType(0x88b5);
const ALL: Mac = Mac::BROADCAST;
/// The host's card, and two stations of its LAN.
const HOST: Mac = Mac([2, 0, 0, 0, 1, 0]);
const STATION: Mac = Mac([2, 0, 0, 0, 1, 1]);
const NOBODY: Mac = Mac([2, 0, 0, 0, 1, 2]);

fn switch() -> Lan {
    Lan::new(1500, |config| {
        config.ipv4 = None;
        config.dhcp = None;
        config.nat44 = false;
        config.dns = vmnet_core::Dns::Off;
    })
}

fn plug(lan: &mut Lan, number: u8, change: impl FnOnce(&mut Port)) -> (PortId, Mac) {
    let guest = Guest::raw(number, lan.start, 1500);
    let mac = guest.mac;
    let mut port = Port::new(256);
    change(&mut port);
    (lan.plug_into(guest, port), mac)
}

fn frame(from: Mac, to: Mac) -> Vec<u8> {
    let header = ethernet::Header::new(to, from, TEST);
    [header.as_bytes(), &[0; 46]].concat()
}

/// Who hears a frame, by the place in `ports`.
fn hear(lan: &mut Lan, ports: &[PortId], by: PortId, from: Mac, to: Mac) -> Vec<usize> {
    lan.inject(by, frame(from, to));
    lan.run_for(Duration::from_millis(1));
    let heard = ports.iter().enumerate();
    let heard = heard.filter(|(_, port)| !lan.heard(**port).is_empty());
    heard.map(|(place, _)| place).collect()
}

#[test]
fn guests_are_stations_of_the_lan_behind_one_port() {
    let mut lan = switch();
    let (one, one_mac) = plug(&mut lan, 1, |_| {});
    let (two, two_mac) = plug(&mut lan, 2, |_| {});
    let (alone, alone_mac) = plug(&mut lan, 3, |port| port.isolated = true);
    let (outside, _) = plug(&mut lan, 4, |port| port.role = Role::Lan);
    let (host, _) = plug(&mut lan, 5, |port| {
        (port.role, port.mac) = (Role::Host, Some(HOST));
    });
    let ports = [one, two, alone, outside, host];
    for (by, mac) in [(one, one_mac), (two, two_mac), (alone, alone_mac)] {
        hear(&mut lan, &ports, by, mac, STATION);
    }
    assert!(lan.network.take_changed_macs() && !lan.network.take_changed_macs());
    for (by, from, to, expected) in [
        (one, one_mac, ALL, &[1, 3, 4][..]),
        (alone, alone_mac, ALL, &[3, 4]),
        (outside, STATION, ALL, &[0, 1, 2]),
        (one, one_mac, two_mac, &[1]),
        (one, one_mac, alone_mac, &[]),
        (alone, alone_mac, two_mac, &[]),
        (one, one_mac, STATION, &[3]),
        (one, one_mac, HOST, &[4]),
        (alone, alone_mac, HOST, &[4]),
        (outside, STATION, one_mac, &[0]),
        (outside, HOST, alone_mac, &[2]),
        (outside, STATION, NOBODY, &[]),
        // What a guest sent to all comes back by way of the host.
        (outside, one_mac, ALL, &[]),
        // A guest that takes the host's MAC would take its frames too.
        (one, HOST, STATION, &[]),
    ] {
        let heard = hear(&mut lan, &ports, by, from, to);
        assert_eq!(heard, expected, "{from} to {to}");
    }
    for (cause, count) in [
        (Drop::Isolated, 2),
        (Drop::Elsewhere, 1),
        (Drop::Looped, 1),
        (Drop::Spoofed, 1),
    ] {
        assert_eq!(lan.network.drops().of(cause), count, "{cause:?}");
    }
    // A guest that has been silent for long is found still: nothing is flooded for it.
    lan.run_for(Duration::from_secs(3600));
    let heard = hear(&mut lan, &ports, outside, STATION, one_mac);
    assert_eq!(heard, [0]);
    // The LAN fills no table, however large it is.
    for number in 0..10_000_u16 {
        let [high, low] = number.to_be_bytes();
        let station = Mac([2, 1, 1, 1, high, low]);
        lan.inject(outside, frame(station, one_mac));
    }
    lan.run_for(Duration::from_millis(1));
    assert_eq!(lan.heard(one).len(), 10_000);
    assert_eq!(lan.network.macs().count(), 3);
}

#[test]
fn behind_wires_the_kernel_is_the_switch() {
    let mut lan = switch();
    let (one_mac, two_mac) = (Mac([0x52, 0x54, 0, 0, 0, 1]), Mac([0x52, 0x54, 0, 0, 0, 2]));
    let (one, _) = plug(&mut lan, 1, |port| port.mac = Some(one_mac));
    let (two, _) = plug(&mut lan, 2, |_| {});
    let (its, _) = plug(&mut lan, 3, |port| port.role = Role::Wire(one));
    let (others, _) = plug(&mut lan, 4, |port| port.role = Role::Wire(two));
    let (host, _) = plug(&mut lan, 5, |port| {
        (port.role, port.mac) = (Role::Host, Some(HOST));
    });
    let (ear, _) = plug(&mut lan, 6, |port| port.role = Role::Ear);
    let ports = [one, two, its, others, host, ear];
    for (by, from, to, expected) in [
        (one, one_mac, ALL, &[2, 4][..]),
        (two, two_mac, one_mac, &[3]),
        (one, one_mac, two_mac, &[2]),
        (one, one_mac, HOST, &[4]),
        (its, two_mac, one_mac, &[0]),
        (its, STATION, ALL, &[0]),
        (its, one_mac, ALL, &[]),
        (ear, HOST, two_mac, &[1]),
        (ear, HOST, ALL, &[0, 1]),
        // What a wire sent out of the host's card is heard there as well.
        (ear, one_mac, ALL, &[]),
        (host, HOST, ALL, &[]),
        (one, two_mac, ALL, &[]),
    ] {
        let heard = hear(&mut lan, &ports, by, from, to);
        assert_eq!(heard, expected, "{from} to {to}");
    }
    // What the kernel has switched from an isolated guest ends at the other's wire.
    let alone_mac = Mac([0x52, 0x54, 0, 0, 0, 7]);
    let (alone, _) = plug(&mut lan, 7, |port| port.isolated = true);
    let (wire, _) = plug(&mut lan, 8, |port| port.role = Role::Wire(alone));
    let ports = [one, alone, wire];
    for (by, from, to, expected) in [
        (alone, alone_mac, ALL, &[2][..]),
        (its, alone_mac, ALL, &[]),
        (wire, one_mac, alone_mac, &[]),
        (wire, STATION, alone_mac, &[1]),
        (ear, HOST, alone_mac, &[1]),
    ] {
        let heard = hear(&mut lan, &ports, by, from, to);
        assert_eq!(heard, expected, "{from} to {to}");
    }
}
