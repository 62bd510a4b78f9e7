//! Servers inside a guest or a namespace: they say `ready`, and then for every client who came.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

/// Answers every TCP client with what it sends, for ever; prints `tcp PEER` for each.
///
/// # Errors
/// If the port cannot be listened on.
pub fn tcp(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind(both(port).as_slice())?;
    say("ready")?;
    for stream in listener.incoming() {
        let mut stream = stream?;
        say(&format!("tcp {}", seen(stream.peer_addr()?)))?;
        std::thread::spawn(move || -> io::Result<()> {
            let mut buffer = vec![0; 65_536];
            loop {
                match stream.read(&mut buffer)? {
                    0 => return Ok(()),
                    count => stream.write_all(&buffer[..count])?,
                }
            }
        });
    }
    Ok(())
}

/// Sends every datagram back, for ever; prints `udp PEER` for each.
///
/// # Errors
/// If the port cannot be bound.
pub fn udp(port: u16) -> io::Result<()> {
    let socket = UdpSocket::bind(both(port).as_slice())?;
    say("ready")?;
    let mut buffer = vec![0; 65_536];
    loop {
        let (count, from) = socket.recv_from(&mut buffer)?;
        say(&format!("udp {}", seen(from)))?;
        socket.send_to(&buffer[..count], from)?;
    }
}

/// Reads the pattern from every client until its end, and sends as much back.
///
/// # Errors
/// If the port cannot be listened on.
pub fn pattern(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind(both(port).as_slice())?;
    say("ready")?;
    for stream in listener.incoming() {
        let mut stream = stream?;
        let count = crate::pattern::verify(&mut stream)?;
        crate::pattern::write(&mut stream, count)?;
    }
    Ok(())
}

/// All addresses of both families; of IPv4 alone where there is no IPv6.
fn both(port: u16) -> [SocketAddr; 2] {
    [
        (Ipv6Addr::UNSPECIFIED, port).into(),
        (Ipv4Addr::UNSPECIFIED, port).into(),
    ]
}

/// A client of a socket of both families, by its own.
fn seen(from: SocketAddr) -> SocketAddr {
    SocketAddr::new(from.ip().to_canonical(), from.port())
}

fn say(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}
