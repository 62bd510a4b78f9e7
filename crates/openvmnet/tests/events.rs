//! Events (vmnet-api §4.3, §6).

mod world;

use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use openvmnet::interface::PendingEvent;
use openvmnet::{Event, Interface, InterfaceConfiguration, Status};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use world::{SOON, eventually, frame, inside};

fn host() -> Interface {
    Interface::start(&InterfaceConfiguration::host().build().unwrap()).unwrap()
}

fn nobody() -> Option<fn(Event)> {
    None
}

/// Whether the descriptor is readable now.
fn is_readable(interface: &Interface) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(interface.as_fd(), PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut polled, Some(&now)).unwrap() > 0
}

#[test]
fn the_descriptor_is_readable_exactly_while_packets_wait() {
    inside(
        "the_descriptor_is_readable_exactly_while_packets_wait",
        || {
            let (one, other) = (host(), host());
            let mut buffer = [0; 2048];
            assert!(!is_readable(&other));
            for round in 0..50 {
                for number in 0..3 {
                    one.write_packet(&frame(number, 60)).unwrap();
                }
                eventually("packets wait", || other.packets_available() == 3);
                eventually("it says so", || is_readable(&other));
                for left in [2, 1] {
                    other.read_packet(&mut buffer).unwrap().unwrap();
                    assert_eq!(other.packets_available(), left);
                    assert!(is_readable(&other), "{left} wait, round {round}");
                }
                other.read_packet(&mut buffer).unwrap().unwrap();
                assert!(!is_readable(&other), "none waits, round {round}");
                assert_eq!(other.read_packet(&mut buffer).unwrap(), None);
            }
            // What waited before anybody asked is told of too.
            let late = host();
            one.write_packet(&frame(9, 60)).unwrap();
            eventually("a packet waits", || late.packets_available() == 1);
            assert!(is_readable(&late));
            assert!(late.wait(None).unwrap());
            late.read_packet(&mut buffer).unwrap().unwrap();
            // It was read as soon as it was there: the service may tell of it only now.
            eventually("none waits", || {
                late.read_packet(&mut buffer).unwrap().is_none() && !is_readable(&late)
            });
            assert!(!late.wait(Some(Duration::from_millis(5))).unwrap());
        },
    );
}

#[test]
fn who_reads_one_packet_for_each_event_gets_all() {
    inside("who_reads_one_packet_for_each_event_gets_all", || {
        let (one, other) = (host(), Arc::new(host()));
        let (read, running) = (
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let seen = (Arc::clone(&read), Arc::clone(&running), Arc::clone(&other));
        // Packets that came before are told of at once.
        one.write_packet(&frame(0, 60)).unwrap();
        eventually("a packet waits", || other.packets_available() == 1);
        other
            .set_event_callback(Some(move |event: Event| {
                let (read, running, other) = &seen;
                assert!(!running.swap(true, Ordering::SeqCst), "two at once");
                assert!(event.estimated_packets_available >= 1);
                let mut buffer = [0; 2048];
                assert!(other.read_packet(&mut buffer).unwrap().is_some());
                read.fetch_add(1, Ordering::SeqCst);
                running.store(false, Ordering::SeqCst);
            }))
            .unwrap();
        for number in 1..1000 {
            one.write_packet(&frame(number, 60)).unwrap();
        }
        eventually("all are read", || read.load(Ordering::SeqCst) == 1000);
        other.set_event_callback(nobody()).unwrap();
    });
}

#[test]
fn the_estimate_is_what_waits() {
    inside("the_estimate_is_what_waits", || {
        let (one, other) = (host(), host());
        for number in 0..70 {
            one.write_packet(&frame(number, 60)).unwrap();
        }
        eventually("all wait", || other.packets_available() == 70);
        let (told, estimates) = mpsc::channel();
        let told = Mutex::new(told);
        other
            .set_event_callback(Some(move |event: Event| {
                let _heard = told.lock().unwrap().send(event.estimated_packets_available);
            }))
            .unwrap();
        assert_eq!(estimates.recv_timeout(SOON).unwrap(), 70);
        // Nobody reads: it is told again, and does not spin.
        let began = Instant::now();
        for _ in 0..5 {
            assert_eq!(estimates.recv_timeout(SOON).unwrap(), 70);
        }
        assert!(began.elapsed() >= Duration::from_millis(40), "it spins");
        // One more is told of at once.
        one.write_packet(&frame(70, 60)).unwrap();
        assert!(estimates.iter().take(20).any(|estimate| estimate == 71));
    });
}

#[test]
fn a_read_elsewhere_brings_the_next_event_at_once() {
    inside("a_read_elsewhere_brings_the_next_event_at_once", || {
        // QEMU's callback returns, and another thread reads at most so many later.
        let (one, other) = (host(), host());
        for number in 0..500 {
            one.write_packet(&frame(number, 60)).unwrap();
        }
        eventually("all wait", || other.packets_available() == 500);
        let (told, events) = mpsc::channel();
        let told = Mutex::new(told);
        other
            .set_event_callback(Some(move |event: Event| {
                let _heard = told.lock().unwrap().send(event);
            }))
            .unwrap();
        let mut read = 0;
        while read < 500 {
            events.recv_timeout(SOON).unwrap();
            read += world::read_batch(&other, 10, 2048).len();
        }
        assert_eq!(other.packets_available(), 0);
        // What was told of before it was read may be there still; then nothing comes.
        thread::sleep(Duration::from_millis(50));
        while events.try_recv().is_ok() {}
        thread::sleep(Duration::from_millis(50));
        assert!(events.try_recv().is_err());
    });
}

#[test]
fn clearing_does_not_wait_and_stopping_does() {
    inside("clearing_does_not_wait_and_stopping_does", || {
        let (one, other) = (host(), host());
        let (entered, inside_it) = mpsc::channel();
        let (leave, left) = mpsc::channel::<()>();
        let both = Mutex::new((entered, left));
        let done = Arc::new(AtomicBool::new(false));
        let is_done = Arc::clone(&done);
        other
            .set_event_callback(Some(move |_: Event| {
                let both = both.lock().unwrap();
                both.0.send(()).unwrap();
                let _told = both.1.recv();
                thread::sleep(Duration::from_millis(50));
                is_done.store(true, Ordering::SeqCst);
            }))
            .unwrap();
        one.write_packet(&frame(1, 60)).unwrap();
        inside_it.recv_timeout(SOON).unwrap();
        let began = Instant::now();
        other.set_event_callback(nobody()).unwrap();
        assert!(began.elapsed() < Duration::from_secs(5));
        assert!(!done.load(Ordering::SeqCst), "it runs on");
        leave.send(()).unwrap();
        other.stop().unwrap();
        assert!(done.load(Ordering::SeqCst), "stopping is a barrier");
        assert!(inside_it.try_recv().is_err(), "none began after clearing");
        for failed in [
            other.stop().unwrap_err(),
            other.set_event_callback(nobody()).unwrap_err(),
            other.read_packet(&mut [0; 100]).unwrap_err(),
            other.write_packet(&frame(1, 60)).unwrap_err(),
            other.wait(None).unwrap_err(),
        ] {
            assert_eq!(failed.status(), Status::SetupIncomplete, "{failed}");
        }
        assert!(is_readable(&other), "who waits shall learn of it");
    });
}

#[test]
fn a_callback_may_replace_and_clear_itself_and_stop() {
    inside("a_callback_may_replace_and_clear_itself_and_stop", || {
        let (one, other) = (host(), Arc::new(host()));
        let (told, steps) = mpsc::channel();
        let told = Arc::new(Mutex::new(told));
        let it = Arc::clone(&other);
        let say = Arc::clone(&told);
        other
            .set_event_callback(Some(move |_: Event| {
                say.lock().unwrap().send("first").unwrap();
                let (again, say) = (Arc::clone(&it), Arc::clone(&say));
                it.set_event_callback(Some(move |_: Event| {
                    say.lock().unwrap().send("second").unwrap();
                    again.set_event_callback(nobody()).unwrap();
                    again.stop().unwrap();
                    say.lock().unwrap().send("stopped").unwrap();
                }))
                .unwrap();
            }))
            .unwrap();
        one.write_packet(&frame(1, 60)).unwrap();
        for step in ["first", "second", "stopped"] {
            assert_eq!(steps.recv_timeout(SOON).unwrap(), step);
        }
        thread::sleep(Duration::from_millis(30));
        assert!(steps.try_recv().is_err());
    });
}

#[test]
fn a_program_with_threads_of_its_own_runs_handlers_there() {
    inside(
        "a_program_with_threads_of_its_own_runs_handlers_there",
        || {
            let (one, other) = (host(), host());
            let (pass, queue) = mpsc::channel::<PendingEvent>();
            let pass = Mutex::new(pass);
            other
                .set_event_notifier(Some(move |event| {
                    let _queued = pass.lock().unwrap().send(event);
                }))
                .unwrap();
            one.write_packet(&frame(1, 60)).unwrap();
            let event = queue.recv_timeout(SOON).unwrap();
            one.write_packet(&frame(2, 60)).unwrap();
            thread::sleep(Duration::from_millis(30));
            assert!(queue.try_recv().is_err(), "one at a time");
            eventually("both wait", || other.packets_available() == 2);
            let begun = event.begin().unwrap();
            assert_eq!(begun.estimated_packets_available, 2);
            drop(event);
            let event = queue.recv_timeout(SOON).unwrap();
            other.set_event_notifier(None::<fn(PendingEvent)>).unwrap();
            assert_eq!(event.begin(), None, "it was cleared before it ran");
        },
    );
}

/// A handler on a thread of the program's stops its interface as one on ours does.
#[test]
fn a_handler_on_a_thread_of_the_programs_may_stop() {
    inside("a_handler_on_a_thread_of_the_programs_may_stop", || {
        let (one, other) = (host(), Arc::new(host()));
        let (hand_on, events) = mpsc::channel::<PendingEvent>();
        let hand_on = Mutex::new(hand_on);
        let notifier = move |event| drop(hand_on.lock().unwrap().send(event));
        other.set_event_notifier(Some(notifier)).unwrap();
        let (stopped, has_stopped) = mpsc::channel();
        let ours = Arc::clone(&other);
        thread::spawn(move || {
            for event in events {
                if event.begin().is_some() {
                    ours.stop().unwrap();
                    stopped.send(()).unwrap();
                }
            }
        });
        one.write_packet(&frame(1, 60)).unwrap();
        has_stopped.recv_timeout(SOON).unwrap();
        assert_eq!(other.stop().unwrap_err().status(), Status::SetupIncomplete);
    });
}

/// What a callback has captured may use the interface when it goes.
#[test]
fn a_callback_is_let_go_where_it_can_do_anything() {
    struct Captured(Arc<Interface>, mpsc::Sender<usize>);
    impl Drop for Captured {
        fn drop(&mut self) {
            drop(self.0.set_event_callback(nobody()));
            let _nobody_listens = self.1.send(self.0.packets_available());
        }
    }
    inside("a_callback_is_let_go_where_it_can_do_anything", || {
        let interface = Arc::new(host());
        let (sender, dropped) = mpsc::channel();
        let captured = Captured(Arc::clone(&interface), sender);
        let callback = move |_: Event| {
            let _used = captured.0.packets_available();
        };
        interface.set_event_callback(Some(callback)).unwrap();
        let stopping = thread::spawn(move || interface.stop().unwrap());
        dropped.recv_timeout(SOON).unwrap();
        stopping.join().unwrap();
    });
}

#[test]
fn host_networks_say_nothing_by_themselves() {
    inside("host_networks_say_nothing_by_themselves", || {
        let range = InterfaceConfiguration::host()
            .address_range(
                [192, 168, 150, 1].into(),
                [192, 168, 150, 99].into(),
                [255, 255, 255, 0].into(),
            )
            .build()
            .unwrap();
        let (one, other) = (host(), Interface::start(&range).unwrap());
        // The first advertisements of other networks come within 16 seconds, and to who is new at once.
        assert!(!one.wait(Some(Duration::from_secs(2))).unwrap());
        assert!(!other.wait(Some(Duration::from_millis(1))).unwrap());
    });
}

#[test]
fn shared_networks_say_something_by_themselves() {
    inside("shared_networks_say_something_by_themselves", || {
        let interface =
            Interface::start(&InterfaceConfiguration::shared().build().unwrap()).unwrap();
        assert!(
            interface.wait(Some(SOON)).unwrap(),
            "a router advertisement"
        );
    });
}
