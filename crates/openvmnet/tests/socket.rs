//! Interfaces without rings, by a socket to the service.

mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use openvmnet::{Event, Interface, InterfaceConfiguration, Status};
use world::{SOON, eventually, frame, inside_with, kill_service, read_batch, read_numbers};

const BY_SOCKET: [(&str, &str); 1] = [("VMNET_DATAPATH", "socket")];

/// On a switch where nobody says anything.
fn private() -> openvmnet::interface::InterfaceBuilder<openvmnet::interface::PrivateMode> {
    InterfaceConfiguration::private(uuid::Uuid::from_u128(3))
}

fn host() -> Interface {
    Interface::start(&private().build().unwrap()).unwrap()
}

#[test]
fn packets_events_and_a_service_that_is_killed() {
    inside_with(
        "packets_events_and_a_service_that_is_killed",
        &BY_SOCKET,
        || {
            let (one, other) = (host(), Arc::new(host()));
            for number in 0..100 {
                one.write_packet(&frame(number, 14 + 10 * number as usize))
                    .unwrap();
            }
            eventually("all wait", || other.packets_available() == 100);
            assert!(other.wait(None).unwrap());
            let read = read_batch(&other, 300, 1514);
            assert_eq!(read.len(), 100);
            for (number, got) in (0..).zip(&read) {
                assert_eq!(*got, frame(number, 14 + 10 * number as usize));
            }
            assert!(!other.wait(Some(Duration::from_millis(5))).unwrap());
            let long = one.write_packet(&frame(1, 1515)).unwrap_err();
            assert_eq!(long.status(), Status::PacketTooBig);

            let count = Arc::new(AtomicUsize::new(0));
            let (seen, reader) = (Arc::clone(&count), Arc::clone(&other));
            other
                .set_event_callback(Some(move |_: Event| {
                    seen.fetch_add(read_batch(&reader, 7, 1514).len(), Ordering::SeqCst);
                }))
                .unwrap();
            for number in 0..50 {
                one.write_packet(&frame(number, 60)).unwrap();
            }
            eventually("all are read", || count.load(Ordering::SeqCst) == 50);
            kill_service();
            eventually("packets pass again", || {
                one.write_packet(&frame(1, 60)).unwrap();
                count.load(Ordering::SeqCst) > 50
            });
            other.stop().unwrap();
            let stopped = other.read_packet(&mut [0; 100]).unwrap_err();
            assert_eq!(stopped.status(), Status::SetupIncomplete);
        },
    );
}

#[test]
fn large_frames_by_a_socket() {
    inside_with("large_frames_by_a_socket", &BY_SOCKET, || {
        let large = private().tso(true).checksum_offload(true);
        let one = Interface::start(&large.build().unwrap()).unwrap();
        let other = host();
        one.write_packet(&frame(1, 60)).unwrap();
        assert_eq!(read_numbers(&other, 1), [1]);
        other.write_packet(&frame(2, 60)).unwrap();
        assert!(one.wait(Some(SOON)).unwrap());
        assert_eq!(read_batch(&one, 10, 65_550), [frame(2, 60)]);
    });
}
