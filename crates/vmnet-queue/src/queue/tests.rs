use super::{Kind, Queue};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(20);

#[test]
fn a_serial_queue_keeps_order_and_runs_one_at_a_time() {
    let queue = Queue::new(Kind::Serial);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let running = Arc::new(AtomicUsize::new(0));
    let (sender, receiver) = mpsc::channel();
    for number in 0..1000 {
        let (seen, running, sender) = (Arc::clone(&seen), Arc::clone(&running), sender.clone());
        queue.push(Box::new(move || {
            assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0);
            seen.lock().unwrap().push(number);
            running.fetch_sub(1, Ordering::SeqCst);
            sender.send(()).unwrap();
        }));
    }
    for _ in 0..1000 {
        receiver.recv_timeout(LONG).unwrap();
    }
    assert_eq!(*seen.lock().unwrap(), (0..1000).collect::<Vec<_>>());
}

#[test]
fn jobs_of_a_concurrent_queue_run_beside_each_other() {
    let queue = Queue::new(Kind::Concurrent);
    let barrier = Arc::new(Barrier::new(9));
    for _ in 0..8 {
        let barrier = Arc::clone(&barrier);
        queue.push(Box::new(move || {
            barrier.wait();
        }));
    }
    barrier.wait();
}

#[test]
fn an_exclusive_job_is_alone() {
    let queue = Queue::new(Kind::Concurrent);
    let running = Arc::new(AtomicUsize::new(0));
    let (sender, receiver) = mpsc::channel();
    for number in 0..300 {
        let (running, sender) = (Arc::clone(&running), sender.clone());
        let exclusive = number % 10 == 5;
        let job = Box::new(move || {
            let beside = running.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_micros(50));
            let after = running.fetch_sub(1, Ordering::SeqCst);
            sender
                .send(!exclusive || (beside == 0 && after == 1))
                .unwrap();
        });
        if exclusive {
            queue.push_exclusive(job);
        } else {
            queue.push(job);
        }
    }
    for _ in 0..300 {
        assert!(receiver.recv_timeout(LONG).unwrap());
    }
}

#[test]
fn a_turn_is_taken_in_this_thread_and_in_order() {
    let queue = Queue::new(Kind::Serial);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let first = Arc::clone(&seen);
    queue.push(Box::new(move || {
        std::thread::sleep(Duration::from_millis(20));
        first.lock().unwrap().push("job");
    }));
    let here = std::thread::current().id();
    queue.wait_for_turn(false, || {
        assert_eq!(std::thread::current().id(), here);
        seen.lock().unwrap().push("turn");
    });
    assert_eq!(*seen.lock().unwrap(), ["job", "turn"]);
}

#[test]
fn nothing_starts_while_suspended() {
    let queue = Queue::new(Kind::Serial);
    queue.suspend();
    queue.suspend();
    let (sender, receiver) = mpsc::channel();
    queue.push(Box::new(move || sender.send(()).unwrap()));
    queue.resume();
    assert!(receiver.recv_timeout(Duration::from_millis(50)).is_err());
    queue.resume();
    receiver.recv_timeout(LONG).unwrap();
}

#[test]
fn the_main_queue_runs_where_it_is_served() {
    let queue = Queue::new(Kind::Main);
    let (sender, receiver) = mpsc::channel();
    let other = Arc::clone(&queue);
    let thread = std::thread::spawn(move || other.serve());
    queue.push(Box::new(move || {
        sender.send(std::thread::current().id()).unwrap()
    }));
    assert_eq!(receiver.recv_timeout(LONG).unwrap(), thread.thread().id());
    let mut done = false;
    queue.wait_for_turn(false, || done = true);
    assert!(done);
}
