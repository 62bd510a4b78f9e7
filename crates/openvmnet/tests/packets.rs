//! Packets between interfaces, with a service of the test's own (vmnet-api §5).

mod world;

use std::io::{IoSlice, IoSliceMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use openvmnet::{Interface, InterfaceConfiguration, ReadPacket, Status, WritePacket};
use world::{SOON, frame, inside, inside_with, number_of, read_batch, read_numbers};

fn host() -> Interface {
    Interface::start(&InterfaceConfiguration::host().build().unwrap()).unwrap()
}

#[test]
fn batches_come_whole_and_in_order() {
    inside("batches_come_whole_and_in_order", || {
        let (one, other) = (host(), host());
        let mut number = 0;
        for count in [1, 1, 2, 4, 8, 16, 32, 64, 128] {
            let frames: Vec<Vec<u8>> = (0..count)
                .map(|_| {
                    number += 1;
                    frame(number, 14 + usize::try_from(number).unwrap() * 5)
                })
                .collect();
            let buffers: Vec<_> = frames.iter().map(|frame| [IoSlice::new(frame)]).collect();
            let packets: Vec<_> = buffers.iter().map(|it| WritePacket::new(it)).collect();
            assert_eq!(one.write(&packets).unwrap(), count);
        }
        world::eventually("all are there", || other.packets_available() == 256);
        // One read brings all, and nothing else came to a fresh host network.
        let read = read_batch(&other, 300, 1514);
        assert_eq!(read.len(), 256);
        for (index, got) in (1..).zip(&read) {
            let sent = frame(index, 14 + usize::try_from(index).unwrap() * 5);
            assert_eq!(*got, sent, "frame {index}");
        }
        assert_eq!(read_batch(&other, 300, 1514), Vec::<Vec<u8>>::new());
        assert_eq!(read_batch(&one, 300, 1514), Vec::<Vec<u8>>::new());
    });
}

#[test]
fn thousands_wait_for_a_program_that_does_not_read() {
    inside("thousands_wait_for_a_program_that_does_not_read", || {
        let (one, other) = (host(), host());
        for number in 0..4000 {
            one.write_packet(&frame(number, 60)).unwrap();
        }
        let numbers = read_numbers(&other, 4000);
        assert!(numbers.iter().copied().eq(0..4000), "in order");
        assert_eq!(one.statistics().dropped, 0);
    });
}

#[test]
fn what_is_wrong_with_a_packet_is_said_and_nothing_is_written() {
    inside(
        "what_is_wrong_with_a_packet_is_said_and_nothing_is_written",
        || {
            let (one, other) = (host(), host());
            let max = one.parameters().max_packet_size as usize;
            assert_eq!(max, 1514);
            let good = frame(7, 100);
            for (bad, status) in [
                (frame(1, 0), Status::InvalidArgument),
                (frame(1, 4), Status::InvalidArgument),
                (frame(1, 13), Status::InvalidArgument),
                (frame(1, max + 1), Status::PacketTooBig),
            ] {
                let buffers = [[IoSlice::new(&good)], [IoSlice::new(&bad)]];
                let packets = [WritePacket::new(&buffers[0]), WritePacket::new(&buffers[1])];
                let refused = one.write(&packets).unwrap_err();
                assert_eq!(refused.status(), status, "{} bytes", bad.len());
            }
            let buffers = [IoSlice::new(&good)];
            let short = WritePacket {
                size: 101,
                buffers: &buffers,
            };
            assert_eq!(
                one.write(&[short]).unwrap_err().status(),
                Status::InvalidArgument
            );
            let many = vec![WritePacket::new(&buffers); 257];
            assert_eq!(
                one.write(&many).unwrap_err().status(),
                Status::TooManyPackets
            );
            assert_eq!(one.write(&[]).unwrap(), 0);
            // The smallest and the largest pass, in any number of pieces; what is behind the size is left out.
            let largest = frame(8, max);
            let (first, rest) = largest.split_at(3);
            let pieces = [
                IoSlice::new(first),
                IoSlice::new(&[]),
                IoSlice::new(rest),
                IoSlice::new(b"more"),
            ];
            let packet = WritePacket {
                size: max,
                buffers: &pieces,
            };
            one.write(&[packet]).unwrap();
            one.write_packet(&frame(9, 14)).unwrap();
            assert!(other.wait(Some(SOON)).unwrap());
            world::eventually("both are there", || other.packets_available() == 2);
            assert_eq!(read_batch(&other, 256, 1514), [largest, frame(9, 14)]);
        },
    );
}

#[test]
fn room_is_what_the_size_says_and_what_does_not_fit_is_cut_and_counted() {
    inside(
        "room_is_what_the_size_says_and_what_does_not_fit_is_cut_and_counted",
        || {
            let (one, other) = (host(), host());
            for number in 0..3 {
                one.write_packet(&frame(number, 500)).unwrap();
            }
            world::eventually("all are there", || other.packets_available() == 3);
            let sent = frame(0, 500);
            // Scattered over buffers in order.
            let (mut a, mut b, mut c) = ([0; 100], [0; 0], [0; 900]);
            let mut buffers = [
                IoSliceMut::new(&mut a),
                IoSliceMut::new(&mut b),
                IoSliceMut::new(&mut c),
            ];
            let mut packets = [ReadPacket::new(&mut buffers)];
            assert_eq!(other.read(&mut packets[..]).unwrap(), 1);
            assert_eq!(packets[0].size, 500);
            assert_eq!([&a[..], &c[..400]].concat(), sent);
            assert_eq!(other.statistics().truncated, 0);
            // A size smaller than the buffer.
            let mut buffer = [0xee; 600];
            let mut buffers = [IoSliceMut::new(&mut buffer)];
            let mut packets = [ReadPacket {
                size: 60,
                buffers: &mut buffers,
            }];
            assert_eq!(other.read(&mut packets[..]).unwrap(), 1);
            assert_eq!(packets[0].size, 60);
            assert_eq!(buffer[..18], frame(1, 18));
            assert!(buffer[60..].iter().all(|byte| *byte == 0xee));
            // A buffer smaller than the size.
            let mut small = [0; 50];
            let mut buffers = [IoSliceMut::new(&mut small)];
            let mut packets = [ReadPacket {
                size: 5000,
                buffers: &mut buffers,
            }];
            assert_eq!(other.read(&mut packets[..]).unwrap(), 1);
            assert_eq!(packets[0].size, 50);
            assert_eq!(other.statistics().truncated, 2);
        },
    );
}

#[test]
fn packets_go_from_process_to_process() {
    const NAME: &str = "packets_go_from_process_to_process";
    if world::role().is_some() {
        // Answers what comes, until its parent is gone.
        let interface = host();
        let mut buffer = [0; 2048];
        println!("ready");
        for _ in 0..500 {
            interface.wait(Some(SOON)).unwrap();
            while let Some(len) = interface.read_packet(&mut buffer).unwrap() {
                let number = number_of(&buffer[..len]).unwrap();
                let mut answer = frame(number + 1_000_000, len);
                answer[11] = 0x99;
                interface.write_packet(&answer).unwrap();
                if number == 499 {
                    // What is still in the ring goes with the interface: it stays until the parent has all.
                    std::io::stdin().read_line(&mut String::new()).unwrap();
                    return;
                }
            }
        }
        return;
    }
    inside(NAME, || {
        use std::io::{BufRead as _, BufReader};
        let ours = host();
        let mut child = world::process(NAME, "echo");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut lines = lines.map_while(Result::ok);
        assert!(lines.any(|line| line.ends_with("ready")));
        for number in 0..500 {
            ours.write_packet(&frame(number, 64)).unwrap();
        }
        let numbers = read_numbers(&ours, 500);
        assert!(numbers.iter().copied().eq(1_000_000..1_000_500));
        assert!(child.wait().unwrap().success());
        // Its place is free at once.
        world::eventually("its interface is gone", || {
            let mut client = openvmnet::client::Client::connect_running().unwrap();
            client.list_interfaces(None).unwrap().interfaces.len() == 1
        });
    });
}

#[test]
fn isolated_interfaces_reach_nobody_but_the_host() {
    inside("isolated_interfaces_reach_nobody_but_the_host", || {
        let isolated = InterfaceConfiguration::host().isolation(true).build();
        let alone = Interface::start(&isolated.unwrap()).unwrap();
        let (one, other) = (host(), host());
        let mut elsewhere = frame(1, 60);
        elsewhere[11] = 0x99;
        alone.write_packet(&elsewhere).unwrap();
        one.write_packet(&frame(2, 60)).unwrap();
        assert_eq!(read_numbers(&other, 1), [2]);
        thread::sleep(Duration::from_millis(100));
        assert_eq!(other.packets_available(), 0);
        assert_eq!(alone.packets_available(), 0);
    });
}

#[test]
fn what_was_written_before_a_stop_arrives() {
    inside("what_was_written_before_a_stop_arrives", || {
        wrote_and_stopped(FULL + 700);
    });
}

#[test]
fn what_was_written_before_a_stop_arrives_through_sockets_too() {
    inside_with(
        "what_was_written_before_a_stop_arrives_through_sockets_too",
        &[("VMNET_DATAPATH", "socket")],
        || wrote_and_stopped(100),
    );
}

/// Packets that an interface keeps for a program that does not read.
const FULL: u32 = 4096;

/// Threads that compute keep the service from the processors, and the other program reads only when the stop has begun.
fn wrote_and_stopped(count: u32) {
    let computing = Arc::new(AtomicBool::new(true));
    let busy: Vec<_> = (0..4)
        .map(|_| {
            let computing = Arc::clone(&computing);
            thread::spawn(move || {
                while computing.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        })
        .collect();
    for round in 0..5 {
        let (one, other) = (host(), host());
        for number in 0..count {
            one.write_packet(&frame(number, 60)).unwrap();
        }
        let stopping = thread::spawn(move || {
            let began = Instant::now();
            one.stop().unwrap();
            assert!(began.elapsed() < SOON, "it hung");
        });
        thread::sleep(Duration::from_millis(5));
        let numbers = read_numbers(&other, count as usize);
        assert!(numbers.into_iter().eq(0..count), "round {round}");
        stopping.join().unwrap();
    }
    computing.store(false, Ordering::Relaxed);
    for thread in busy {
        thread.join().unwrap();
    }
}

#[test]
fn a_service_that_stands_still_or_is_gone_keeps_no_stop_waiting() {
    inside(
        "a_service_that_stands_still_or_is_gone_keeps_no_stop_waiting",
        || {
            let one = host();
            let pid = world::service().expect("it runs");
            rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
            for number in 0..1000 {
                one.write_packet(&frame(number, 60)).unwrap();
            }
            let going_on = thread::spawn(move || {
                // Later than the ring is waited for.
                thread::sleep(Duration::from_secs(1));
                rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
            });
            let began = Instant::now();
            one.stop().unwrap();
            assert!(began.elapsed() < Duration::from_secs(10), "it hung");
            going_on.join().unwrap();
            let one = host();
            let pid = world::service().expect("it runs");
            rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
            for number in 0..1000 {
                one.write_packet(&frame(number, 60)).unwrap();
            }
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            let began = Instant::now();
            one.stop().unwrap();
            assert!(began.elapsed() < Duration::from_secs(10), "it hung");
        },
    );
}
