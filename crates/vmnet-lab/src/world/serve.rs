//! TCP and UDP servers on threads.
//!
//! A socket stays in the namespace where it was made, so only binding happens inside; the threads run anywhere.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::pattern;

/// A connection without progress for this long is given up.
const IDLE: Duration = Duration::from_secs(120);
/// How soon a server sees that it has to stop.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// The servers of a world; stopped together.
#[derive(Debug, Default, Clone)]
pub struct Running {
    stopped: Arc<AtomicBool>,
    listeners: Arc<Mutex<Vec<TcpListener>>>,
}

impl Running {
    /// Ends accepting and answering.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        let mut listeners = self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for listener in listeners.drain(..) {
            // Wakes the thread in accept(); it may have ended.
            let _ = rustix::net::shutdown(&listener, rustix::net::Shutdown::Both);
        }
    }

    fn is_over(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Gives every connection to `serve`, on a thread of its own. Errors of a connection end that connection.
    ///
    /// # Panics
    /// If the listener cannot be shared.
    pub fn accept(
        &self,
        listener: TcpListener,
        serve: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) {
        // The standard library listens with a backlog of 128; five hundred clients come at once.
        rustix::net::listen(&listener, 1024).expect("lengthen the backlog");
        let copy = listener.try_clone().expect("share a listener");
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(copy);
        let (this, serve) = (self.clone(), Arc::new(serve));
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if this.is_over() {
                    return;
                }
                let serve = Arc::clone(&serve);
                let worker = thread::Builder::new().stack_size(256 * 1024);
                let started = worker.spawn(move || {
                    let _ = stream.set_nodelay(true);
                    let _ = stream.set_read_timeout(Some(IDLE));
                    let _ = stream.set_write_timeout(Some(IDLE));
                    let _ = serve(stream);
                });
                started.expect("start a thread for a connection");
            }
        });
    }

    /// Gives every datagram to `answer`; what it returns goes back to the sender.
    ///
    /// # Panics
    /// If the socket takes no timeout.
    pub fn datagrams(
        &self,
        socket: UdpSocket,
        mut answer: impl FnMut(&[u8], std::net::SocketAddr) -> Option<Vec<u8>> + Send + 'static,
    ) {
        socket
            .set_read_timeout(Some(LOOK_AGAIN))
            .expect("set a timeout");
        let this = self.clone();
        thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while !this.is_over() {
                let Ok((count, from)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                if let Some(reply) = answer(&buffer[..count], from) {
                    let _ = socket.send_to(&reply, from);
                }
            }
        });
    }
}

/// Sends back what comes, until the client closes.
pub fn tcp_echo(listener: TcpListener, running: &Running) {
    running.accept(listener, |mut stream| {
        let mut buffer = vec![0; 65_536];
        loop {
            match stream.read(&mut buffer)? {
                0 => return stream.shutdown(Shutdown::Write),
                count => stream.write_all(&buffer[..count])?,
            }
        }
    });
}

/// Sends every datagram back.
pub fn udp_echo(socket: UdpSocket, running: &Running) {
    running.datagrams(socket, |bytes, _| Some(bytes.to_vec()));
}

/// Tells the client its address, and closes.
pub fn tcp_whoami(listener: TcpListener, running: &Running) {
    running.accept(listener, |mut stream| {
        let peer = stream.peer_addr()?;
        stream.write_all(format!("{peer}\n").as_bytes())
    });
}

/// Tells the sender its address.
pub fn udp_whoami(socket: UdpSocket, running: &Running) {
    running.datagrams(socket, |_, from| Some(format!("{from}\n").into_bytes()));
}

/// What the half-close servers saw of the pattern from their clients.
#[derive(Debug, Default)]
pub struct HalfClose {
    streams: AtomicU64,
    bytes: AtomicU64,
    errors: Mutex<Vec<String>>,
}

impl HalfClose {
    /// Waits until `streams` clients were read to their end; the bytes of all, each compared.
    ///
    /// # Panics
    /// If that takes longer than `timeout`, or a byte was wrong.
    #[track_caller]
    pub fn wait(&self, streams: u64, timeout: Duration) -> u64 {
        let deadline = Instant::now() + timeout;
        loop {
            let errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
            assert!(
                errors.is_empty(),
                "half-close server: {}",
                errors.join("; ")
            );
            drop(errors);
            if self.streams.load(Ordering::Acquire) >= streams {
                return self.bytes.load(Ordering::Acquire);
            }
            assert!(
                Instant::now() < deadline,
                "half-close: no end of stream seen"
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The client sends the pattern and closes its half; only then it is sent back as many bytes.
    pub(super) fn start_client_first(self: &Arc<Self>, listener: TcpListener, running: &Running) {
        let this = Arc::clone(self);
        running.accept(listener, move |mut stream| {
            let count = this.read_to_end(&mut stream)?;
            pattern::write(&mut stream, count)
        });
    }

    /// The server sends a mebibyte of the pattern and closes its half; then it reads until the client's end.
    pub(super) fn start_server_first(self: &Arc<Self>, listener: TcpListener, running: &Running) {
        let this = Arc::clone(self);
        running.accept(listener, move |mut stream| {
            pattern::write(&mut stream, 1 << 20)?;
            stream.shutdown(Shutdown::Write)?;
            this.read_to_end(&mut stream).map(drop)
        });
    }

    fn read_to_end(&self, stream: &mut TcpStream) -> io::Result<u64> {
        let result = pattern::verify(stream);
        match &result {
            Ok(count) => {
                self.bytes.fetch_add(*count, Ordering::Release);
                self.streams.fetch_add(1, Ordering::Release);
            }
            Err(error) => {
                let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
                errors.push(error.to_string());
            }
        }
        result
    }
}
