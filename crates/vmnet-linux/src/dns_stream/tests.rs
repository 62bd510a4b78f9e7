use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;

fn pair() -> (Stream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    (Stream::new(ours.into()).unwrap(), theirs)
}

fn framed(message: &[u8]) -> Vec<u8> {
    let mut bytes = u16::try_from(message.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(message);
    bytes
}

fn read(stream: &mut Stream) -> (Vec<Vec<u8>>, io::Result<Status>) {
    let mut messages = vec![];
    let status = stream.read(|message| messages.push(message.to_vec()));
    (messages, status)
}

/// Waits until the descriptor can be read, or written.
fn wait(fd: impl AsFd, flags: PollFlags) {
    let mut fds = [PollFd::new(&fd, flags)];
    let ten = Timespec {
        tv_sec: 10,
        tv_nsec: 0,
    };
    assert_eq!(
        poll(&mut fds, Some(&ten)).unwrap(),
        1,
        "nothing happened for ten seconds"
    );
}

#[test]
fn a_message_may_come_byte_by_byte() {
    let (mut stream, mut peer) = pair();
    for byte in framed(b"hello") {
        let (messages, status) = read(&mut stream);
        assert_eq!((messages.len(), status.unwrap()), (0, Status::Drained));
        peer.write_all(&[byte]).unwrap();
    }
    assert_eq!(read(&mut stream).0, [b"hello"]);
    assert_eq!(read(&mut stream).0, Vec::<Vec<u8>>::new());
}

#[test]
fn every_cut_gives_the_same_messages() {
    let messages: Vec<Vec<u8>> = vec![b"one".to_vec(), vec![], vec![7; 300], b"x".to_vec()];
    let bytes: Vec<u8> = messages
        .iter()
        .flat_map(|message| framed(message))
        .collect();
    for cut in 0..=bytes.len() {
        let (mut stream, mut peer) = pair();
        let mut got = vec![];
        for part in [&bytes[..cut], &bytes[cut..]] {
            peer.write_all(part).unwrap();
            got.extend(read(&mut stream).0);
        }
        assert_eq!(got, messages, "cut at {cut}");
    }
}

#[test]
fn many_messages_come_in_order_and_leave_no_memory_behind() {
    let (mut stream, mut peer) = pair();
    let writer = std::thread::spawn(move || {
        for n in 0..20_000_u32 {
            peer.write_all(&framed(&n.to_be_bytes().repeat(1 + n as usize % 40)))
                .unwrap();
        }
        peer
    });
    let mut expected = 0_u32;
    while expected < 20_000 {
        wait(&stream, PollFlags::IN);
        stream
            .read(|message| {
                assert_eq!(
                    message,
                    expected.to_be_bytes().repeat(1 + expected as usize % 40)
                );
                expected += 1;
            })
            .unwrap();
    }
    writer.join().unwrap();
    assert!(stream.input.is_empty() && stream.input.capacity() <= IDLE_CAPACITY);
}

#[test]
fn the_largest_message_fits_and_nothing_larger_is_held() {
    let (mut stream, mut peer) = pair();
    let large: Vec<u8> = (0..65_535_u32).map(|n| n as u8).collect();
    let writer = std::thread::spawn({
        let large = large.clone();
        move || {
            for _ in 0..8 {
                peer.write_all(&framed(&large)).unwrap();
            }
        }
    });
    let mut count = 0;
    let mut most = 0;
    loop {
        wait(&stream, PollFlags::IN);
        let status = stream
            .read(|message| {
                assert_eq!(message, large);
                count += 1;
            })
            .unwrap();
        most = most.max(stream.input.len());
        if status == Status::Ended {
            break;
        }
    }
    writer.join().unwrap();
    assert_eq!(count, 8);
    assert!(most < 65_537, "{most} bytes of one unfinished message");
}

#[test]
fn one_call_ends_although_there_is_more() {
    let (mut stream, mut peer) = pair();
    rustix::net::sockopt::set_socket_send_buffer_size(&peer, 4 * READ_LIMIT).unwrap();
    peer.set_nonblocking(true).unwrap();
    let frame = framed(&[1; 1000]);
    let mut sent = 0;
    while let Ok(count) = peer.write(&frame) {
        assert_eq!(count, frame.len());
        sent += 1;
    }
    // The kernel may have given less room than was asked for.
    let expected = if sent * frame.len() > READ_LIMIT + CHUNK {
        Status::More
    } else {
        Status::Drained
    };
    let (messages, status) = read(&mut stream);
    assert_eq!(status.unwrap(), expected);
    let mut total = messages.len();
    while total < sent {
        total += read(&mut stream).0.len();
    }
    assert_eq!(total, sent);
}

#[test]
fn a_peer_that_has_finished_sending_still_gets_its_answers() {
    let (mut stream, mut peer) = pair();
    peer.write_all(&framed(b"question")).unwrap();
    peer.write_all(&[0, 9, b'c', b'u', b't']).unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    let (messages, status) = read(&mut stream);
    assert_eq!(
        (messages, status.unwrap()),
        (vec![b"question".to_vec()], Status::Ended)
    );
    stream.queue(b"answer").unwrap();
    stream.flush().unwrap();
    assert!(!stream.wants_write());
    drop(stream);
    let mut got = vec![];
    peer.read_to_end(&mut got).unwrap();
    assert_eq!(got, framed(b"answer"));
}

#[test]
fn a_peer_that_does_not_read_comes_to_its_limit() {
    let (mut stream, mut peer) = pair();
    let message = [5; 9_998];
    let mut queued = 0_usize;
    let full = loop {
        stream.flush().unwrap();
        match stream.queue(&message) {
            Ok(()) => queued += 1,
            Err(error) => break error,
        }
        assert!(queued < 10_000, "it never ends");
    };
    assert_eq!(full, QueueError::Full);
    assert!(stream.wants_write() && stream.output.len() <= OUTPUT_LIMIT);
    // Once it reads, it gets everything, in order.
    let reader = std::thread::spawn(move || {
        let mut got = vec![0; queued * 10_000];
        peer.read_exact(&mut got).unwrap();
        assert!(
            got.chunks(10_000)
                .all(|chunk| chunk[..2] == 9_998_u16.to_be_bytes() && chunk[2..] == [5; 9_998])
        );
        peer
    });
    while stream.wants_write() {
        wait(&stream, PollFlags::OUT);
        stream.flush().unwrap();
    }
    drop(reader.join().unwrap());
    assert!(stream.output.capacity() <= IDLE_CAPACITY);
    stream.queue(b"too late").unwrap();
    assert_eq!(
        stream.flush().unwrap_err().kind(),
        io::ErrorKind::BrokenPipe
    );
}

#[test]
fn a_message_that_cannot_be_framed_is_refused() {
    let (mut stream, _peer) = pair();
    assert_eq!(stream.queue(&vec![0; 65_536]), Err(QueueError::TooLong));
    assert!(!stream.wants_write());
    assert_eq!(stream.queue(&vec![0; 65_535]), Ok(()));
}

#[test]
fn asks_a_resolver_over_tcp() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(listener) = TcpListener::bind(address) else {
            assert!(address.starts_with('['), "no IPv4 on the loopback");
            assert!(
                std::env::var_os("CI").is_none(),
                "this host has no IPv6 loopback"
            );
            println!("skipped: this host has no IPv6 loopback");
            continue;
        };
        let mut stream = Stream::connect(listener.local_addr().unwrap(), None).unwrap();
        stream.queue(b"question").unwrap();
        while stream.wants_write() {
            wait(&stream, PollFlags::OUT);
            stream.flush().unwrap();
        }
        let (mut peer, _) = listener.accept().unwrap();
        let mut got = [0; 10];
        peer.read_exact(&mut got).unwrap();
        assert_eq!(got[..], framed(b"question"));
        assert_eq!(read(&mut stream).1.unwrap(), Status::Drained);
        peer.write_all(&framed(b"answer")).unwrap();
        wait(&stream, PollFlags::IN);
        assert_eq!(read(&mut stream).0, [b"answer"]);
    }
}

#[test]
fn a_refused_connection_shows_when_it_is_used() {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let refused = Stream::connect(free, None).and_then(|mut stream| {
        stream.queue(b"question").unwrap();
        wait(&stream, PollFlags::OUT);
        stream.flush()
    });
    assert_eq!(
        refused.unwrap_err().kind(),
        io::ErrorKind::ConnectionRefused
    );
}

#[test]
fn a_connection_that_is_not_made_yet_waits_without_an_error() {
    // A listener whose queue is full leaves further connections unanswered.
    let fd = socket("127.0.0.1:0".parse().unwrap(), SocketType::STREAM, None).unwrap();
    rustix::net::bind(&fd, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    rustix::net::listen(&fd, 0).unwrap();
    let listener = TcpListener::from(fd);
    let address = listener.local_addr().unwrap();
    let mut made = vec![];
    let mut stream = loop {
        let stream = Stream::connect(address, None).unwrap();
        let mut fds = [PollFd::new(&stream, PollFlags::OUT)];
        let short = Timespec {
            tv_sec: 0,
            tv_nsec: 100_000_000,
        };
        if poll(&mut fds, Some(&short)).unwrap() == 0 {
            break stream;
        }
        made.push(stream);
        assert!(made.len() < 16, "the queue is never full");
    };
    stream.queue(b"question").unwrap();
    stream.flush().unwrap();
    assert!(stream.wants_write());
    assert_eq!(read(&mut stream).1.unwrap(), Status::Drained);
    // Room in the queue: the kernel's next attempt, a second later, gets through.
    for _ in &made {
        listener.set_nonblocking(true).unwrap();
        let _ = listener.accept();
    }
    wait(&stream, PollFlags::OUT);
    stream.flush().unwrap();
    assert!(!stream.wants_write());
}

#[test]
fn asks_a_resolver_over_udp_from_a_port_of_its_own() {
    let resolver = UdpSocket::bind("127.0.0.1:0").unwrap();
    resolver
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let address = resolver.local_addr().unwrap();
    let sockets: Vec<OwnedFd> = (0..8)
        .map(|_| udp_query(address, b"question", None).unwrap())
        .collect();
    let mut ports = std::collections::BTreeSet::new();
    for _ in &sockets {
        let mut bytes = [0; 100];
        let (count, from) = resolver.recv_from(&mut bytes).unwrap();
        assert_eq!(&bytes[..count], b"question");
        ports.insert(from.port());
        resolver.send_to(b"answer", from).unwrap();
    }
    assert_eq!(ports.len(), sockets.len());
    for socket in sockets {
        wait(&socket, PollFlags::IN);
        let socket = UdpSocket::from(socket);
        // Somebody else's answer does not reach a connected socket.
        let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
        stranger
            .send_to(b"wrong", socket.local_addr().unwrap())
            .unwrap();
        let mut bytes = [0; 100];
        assert_eq!(socket.recv(&mut bytes).unwrap(), 6);
        assert_eq!(
            socket.recv(&mut bytes).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
    }
}

#[test]
fn an_unreachable_port_shows_when_the_socket_is_read() {
    let free = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let socket = udp_query(free, b"question", None).unwrap();
    wait(&socket, PollFlags::ERR);
    let error = UdpSocket::from(socket).recv(&mut [0; 10]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}
