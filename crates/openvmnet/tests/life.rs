//! The service killed under its interfaces, forks, and threads that race.

mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use openvmnet::client::Client;
use openvmnet::{
    Event, Interface, InterfaceConfiguration, Network, NetworkConfiguration, NetworkMode,
    NetworkSerialization, Status,
};
use world::{SOON, eventually, frame, inside, kill_service, number_of, read_batch, service};

fn host() -> Interface {
    Interface::start(&InterfaceConfiguration::host().build().unwrap()).unwrap()
}

#[test]
fn a_service_that_is_killed_comes_back_with_everything() {
    inside(
        "a_service_that_is_killed_comes_back_with_everything",
        || {
            let (one, other) = (host(), Arc::new(host()));
            let parameters = other.parameters().clone();
            let last = Arc::new(AtomicU32::new(0));
            let (seen, reader) = (Arc::clone(&last), Arc::clone(&other));
            other
                .set_event_callback(Some(move |_: Event| {
                    for packet in read_batch(&reader, 256, 2048) {
                        if let Some(number) = number_of(&packet) {
                            seen.store(number, Ordering::SeqCst);
                        }
                    }
                }))
                .unwrap();
            one.write_packet(&frame(1, 60)).unwrap();
            eventually("it came", || last.load(Ordering::SeqCst) == 1);
            for round in 0..3 {
                kill_service();
                let mut number = 100 * (round + 1);
                // Nothing hangs meanwhile, and then packets arrive again, with handlers as before.
                eventually("packets pass again", || {
                    number += 1;
                    let began = Instant::now();
                    one.write_packet(&frame(number, 60)).unwrap();
                    assert!(began.elapsed() < Duration::from_secs(2), "a write hung");
                    thread::sleep(Duration::from_millis(5));
                    last.load(Ordering::SeqCst) > 100 * (round + 1)
                });
            }
            let mut client = Client::connect_running().unwrap();
            let all = client.list_interfaces(None).unwrap().interfaces;
            assert_eq!(all.len(), 2);
            let id = parameters.interface_id.map(|id| id.to_string());
            let mac = parameters.mac_address.map(|mac| mac.to_string());
            assert!(all.iter().any(|one| (&one.id, &one.mac) == (&id, &mac)));
            one.stop().unwrap();
            other.stop().unwrap();
        },
    );
}

#[test]
fn networks_come_back_by_themselves_as_they_were() {
    inside("networks_come_back_by_themselves_as_they_were", || {
        let mut configuration = NetworkConfiguration::new(NetworkMode::Host);
        configuration
            .add_dhcp_reservation(
                "02:00:00:00:00:07".parse().unwrap(),
                [192, 168, 128, 77].into(),
            )
            .unwrap();
        let network = Network::create(&configuration).unwrap();
        let serialization = network.serialize().unwrap();
        kill_service();
        // Nobody calls anything: the network is there again, for others too.
        eventually("it is there again", || {
            Client::connect_running().is_ok_and(|mut client| {
                let uuid = network.uuid().unwrap().to_string();
                client
                    .list_reservations(Some(&uuid))
                    .is_ok_and(|all| all.reservations.len() == 1)
            })
        });
        let again = Network::from_serialization(&serialization).unwrap();
        assert_eq!(again.ipv4_subnet(), network.ipv4_subnet());
        assert_eq!(again.ipv6_prefix(), network.ipv6_prefix());
        // And goes when nobody holds it any more.
        drop((network, again));
        let bytes = *serialization.as_bytes();
        let bytes = NetworkSerialization::from_bytes(&bytes).unwrap();
        assert!(Network::from_serialization(&bytes).is_err());
    });
}

#[test]
fn an_interface_that_somebody_else_stops_says_so() {
    inside("an_interface_that_somebody_else_stops_says_so", || {
        let interface = Arc::new(host());
        let waiter = {
            let interface = Arc::clone(&interface);
            thread::spawn(move || interface.wait(Some(SOON)).map_err(|error| error.status()))
        };
        let mut client = Client::connect_running().unwrap();
        let all = client.list_interfaces(None).unwrap().interfaces;
        client.stop_interface(all[0].interface).unwrap();
        assert_eq!(waiter.join().unwrap(), Err(Status::SetupIncomplete));
        let refused = interface.write_packet(&frame(1, 60)).unwrap_err();
        assert_eq!(refused.status(), Status::SetupIncomplete);
        assert!(refused.to_string().contains("somebody else"), "{refused}");
        let _stopped = interface.stop();
        assert!(service().is_some(), "and it was not started again");
        assert!(client.list_interfaces(None).unwrap().interfaces.is_empty());
    });
}

#[test]
fn stopping_frees_at_once() {
    inside("stopping_frees_at_once", || {
        let pinned = || {
            InterfaceConfiguration::host()
                .address_range(
                    [10, 99, 7, 1].into(),
                    [10, 99, 7, 100].into(),
                    [255, 255, 255, 0].into(),
                )
                .interface_id(uuid::Uuid::from_u128(7))
                .build()
                .unwrap()
        };
        let mut macs = Vec::new();
        for _ in 0..10 {
            let interface = Interface::start(&pinned()).unwrap();
            let taken = Interface::start(&pinned()).unwrap_err();
            assert_eq!(taken.status(), Status::Failure, "its identity is in use");
            macs.push(interface.parameters().mac_address.unwrap());
            interface.stop().unwrap();
        }
        macs.dedup();
        assert_eq!(macs.len(), 1);
        // The range is free too, for a network of another mode.
        let mut shared = NetworkConfiguration::new(NetworkMode::Shared);
        shared
            .set_ipv4_subnet([10, 99, 7, 1].into(), [255, 255, 255, 0].into())
            .unwrap();
        drop(Network::create(&shared).unwrap());
    });
}

#[test]
fn threads_may_read_write_and_stop_at_once() {
    inside("threads_may_read_write_and_stop_at_once", || {
        for round in 0..5 {
            let (one, other) = (host(), host());
            let stop = AtomicBool::new(false);
            let read = AtomicU32::new(0);
            thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        while !stop.load(Ordering::Relaxed) {
                            if one.write_packet(&frame(1, 100)).is_err() {
                                return;
                            }
                        }
                    });
                    scope.spawn(|| {
                        let mut buffer = [0; 2048];
                        loop {
                            match other.read_packet(&mut buffer) {
                                Ok(Some(len)) => {
                                    assert_eq!(buffer[..len], frame(1, 100));
                                    read.fetch_add(1, Ordering::Relaxed);
                                }
                                Ok(None) => thread::yield_now(),
                                Err(error) => {
                                    assert_eq!(error.status(), Status::SetupIncomplete);
                                    return;
                                }
                            }
                        }
                    });
                }
                scope.spawn(|| while other.wait(Some(SOON)).is_ok() {});
                eventually("some came", || read.load(Ordering::Relaxed) > 200);
                if round % 2 == 0 {
                    one.stop().unwrap();
                }
                other.stop().unwrap();
                stop.store(true, Ordering::Relaxed);
            });
        }
    });
}

#[test]
fn identities_and_parameters_by_mode() {
    inside("identities_and_parameters_by_mode", || {
        let id = uuid::Uuid::from_u128(0x2835_e074_9892_4a79_affb_7e41_d260_5678);
        let of_id = || InterfaceConfiguration::shared().interface_id(id).build();
        let first = Interface::start(&of_id().unwrap()).unwrap();
        let said = first.parameters().clone();
        assert_eq!(said.interface_id, Some(id));
        assert_eq!((said.mtu, said.max_packet_size), (1500, 1514));
        assert_eq!((said.read_max_packets, said.write_max_packets), (256, 256));
        assert!(said.start_address.is_some() && said.subnet_mask.is_some());
        assert!(said.nat66_prefix.is_some());
        let mac = said.mac_address.unwrap();
        assert!(mac.is_unicast() && mac.0[0] & 2 == 2, "local: {mac}");
        drop(first);
        let again = Interface::start(&of_id().unwrap()).unwrap();
        assert_eq!(again.parameters().mac_address, Some(mac));

        let none = InterfaceConfiguration::host()
            .allocate_mac_address(false)
            .tso(true)
            .build();
        let none = Interface::start(&none.unwrap()).unwrap();
        let said = none.parameters();
        assert_eq!((said.interface_id, said.mac_address), (None, None));
        assert_eq!(said.max_packet_size, 65_550);
        assert_eq!(said.nat66_prefix, None);
        assert!(said.start_address.is_some());

        let range = InterfaceConfiguration::shared().address_range(
            [192, 168, 205, 1].into(),
            [192, 168, 205, 200].into(),
            [255, 255, 255, 0].into(),
        );
        let range = range.build().unwrap();
        let one = Interface::start(&range).unwrap();
        assert_eq!(
            one.parameters().end_address,
            Some([192, 168, 205, 200].into())
        );
        assert_eq!(
            one.parameters().start_address,
            Some([192, 168, 205, 1].into())
        );

        let switch = uuid::Uuid::from_u128(99);
        let private = InterfaceConfiguration::private(switch).build().unwrap();
        let (one, other) = (
            Interface::start(&private).unwrap(),
            Interface::start(&private).unwrap(),
        );
        assert_eq!(one.parameters().start_address, None);
        assert_eq!(one.parameters().subnet_mask, None);
        one.write_packet(&frame(5, 60)).unwrap();
        assert_eq!(world::read_numbers(&other, 1), [5]);
        assert_eq!(again.packets_available_of_ours(), 0);

        let network = Network::create(&NetworkConfiguration::new(NetworkMode::Shared)).unwrap();
        let on = InterfaceConfiguration::on_network().build().unwrap();
        let on = Interface::start_on(&network, &on).unwrap();
        let said = on.parameters();
        assert!(said.interface_id.is_some() && said.mac_address.is_some());
        assert_eq!((said.start_address, said.nat66_prefix), (None, None));
        let refused = Interface::start(&InterfaceConfiguration::on_network().build().unwrap());
        assert_eq!(refused.unwrap_err().status(), Status::InvalidArgument);
        let bridged = InterfaceConfiguration::bridged("eth0").build().unwrap();
        let refused = Interface::start(&bridged).unwrap_err();
        assert_eq!(refused.status(), Status::NotAuthorized);
        assert!(refused.to_string().contains("--system"), "{refused}");
    });
}

/// Frames of ours among what waits.
trait Ours {
    fn packets_available_of_ours(&self) -> usize;
}

impl Ours for Interface {
    fn packets_available_of_ours(&self) -> usize {
        let read = read_batch(self, 256, 2048);
        read.iter()
            .filter(|packet| number_of(packet).is_some())
            .count()
    }
}
