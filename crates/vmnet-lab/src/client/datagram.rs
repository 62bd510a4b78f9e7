//! UDP echo, and questions to servers that tell who asks.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use super::wrong;

/// Sends `count` datagrams of `size` bytes, each when the one before came back; a lost one is sent three times.
///
/// # Errors
/// If one never comes back, or comes back changed.
pub fn echo(address: SocketAddr, count: usize, size: usize) -> io::Result<()> {
    let socket = any_port(address)?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut buffer = vec![0; 65_536];
    for number in 0..count {
        let mut message = format!("datagram {number} ").into_bytes();
        message.resize(size.max(message.len()), b'x');
        let once = || -> io::Result<usize> {
            socket.send(&message)?;
            loop {
                let len = socket.recv(&mut buffer)?;
                // An answer to an earlier try may still be on its way.
                if len == message.len() && buffer[..len] == message {
                    return Ok(len);
                }
                if len != message.len() {
                    return Err(wrong(format!("{len} bytes of {} came back", message.len())));
                }
            }
        };
        with_three_tries(once)
            .map_err(|error| wrong(format!("datagram {number} of {count}: {error}")))?;
    }
    Ok(())
}

/// Sends one datagram and returns the text of the answer.
///
/// # Errors
/// Those of the socket; a refusal comes as `ConnectionRefused`.
pub fn ask(address: SocketAddr, message: &str) -> io::Result<String> {
    let socket = any_port(address)?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut buffer = vec![0; 65_536];
    let len = with_three_tries(|| {
        socket.send(message.as_bytes())?;
        socket.recv(&mut buffer)
    })?;
    Ok(String::from_utf8_lossy(&buffer[..len]).trim().to_owned())
}

/// Asks two servers from one socket; their answers, in order, with a blank between them.
///
/// # Errors
/// As [`ask`].
pub fn two_peers(one: SocketAddr, other: SocketAddr) -> io::Result<String> {
    let socket = any_port(one)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut buffer = vec![0; 2048];
    let mut ask = |peer| {
        let len = with_three_tries(|| {
            socket.send_to(b"who", peer)?;
            loop {
                let (len, from) = socket.recv_from(&mut buffer)?;
                if from == peer {
                    return Ok(len);
                }
            }
        })?;
        io::Result::Ok(String::from_utf8_lossy(&buffer[..len]).trim().to_owned())
    };
    Ok(format!("{} {}", ask(one)?, ask(other)?))
}

/// A socket of the family of `peer`.
fn any_port(peer: SocketAddr) -> io::Result<UdpSocket> {
    UdpSocket::bind(if peer.is_ipv6() {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    })
}

fn with_three_tries(mut once: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    let mut result = once();
    for _ in 0..2 {
        match &result {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => result = once(),
            _ => break,
        }
    }
    result
}
