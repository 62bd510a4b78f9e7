//! Files over HTTP and half-closed streams, every byte compared with the pattern.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr};

use super::{open, wrong};
use crate::pattern;

/// Downloads `bytes` from the server of the lab.
///
/// # Errors
/// A refusal, a stalled connection, a wrong byte, a wrong length.
pub fn get(address: SocketAddr, bytes: u64) -> io::Result<()> {
    let mut stream = open(address)?;
    write!(
        stream,
        "GET /pattern/{bytes} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n"
    )?;
    let mut reader = BufReader::with_capacity(256 * 1024, stream);
    expect_ok(&mut reader)?;
    match pattern::verify_at_most(&mut reader, bytes)? {
        count if count == bytes => Ok(()),
        count => Err(wrong(format!("{count} bytes of {bytes}, then the end"))),
    }
}

/// Uploads `bytes` to the server of the lab, which compares them.
///
/// # Errors
/// As [`get`]; what the server found wrong is in the text.
pub fn put(address: SocketAddr, bytes: u64) -> io::Result<()> {
    let mut stream = open(address)?;
    write!(
        stream,
        "PUT /file HTTP/1.1\r\nHost: lab\r\nContent-Length: {bytes}\r\n\r\n"
    )?;
    pattern::write(&mut stream, bytes)?;
    let mut reader = BufReader::new(stream);
    expect_ok(&mut reader)?;
    let mut body = String::new();
    reader.read_line(&mut body)?;
    if body.trim() == format!("ok {bytes}") {
        return Ok(());
    }
    Err(wrong(format!("the server says {body:?}")))
}

/// Sends `bytes`, closes our half, and only then reads as many back.
///
/// # Errors
/// As [`get`].
pub fn close_first(address: SocketAddr, bytes: u64) -> io::Result<()> {
    let mut stream = open(address)?;
    pattern::write(&mut stream, bytes)?;
    stream.shutdown(Shutdown::Write)?;
    match pattern::verify(&mut stream)? {
        count if count == bytes => Ok(()),
        count => Err(wrong(format!("{count} bytes of {bytes} came back"))),
    }
}

/// Reads a mebibyte until the server closes its half, then still sends `bytes`.
///
/// # Errors
/// As [`get`].
pub fn close_last(address: SocketAddr, bytes: u64) -> io::Result<()> {
    let mut stream = open(address)?;
    let count = pattern::verify(&mut stream)?;
    if count != 1 << 20 {
        return Err(wrong(format!("{count} bytes of a mebibyte, then the end")));
    }
    pattern::write(&mut stream, bytes)?;
    stream.shutdown(Shutdown::Write)
}

/// Reads a status line and headers; an error unless it is 200.
fn expect_ok(reader: &mut impl BufRead) -> io::Result<()> {
    let mut status = String::new();
    reader.read_line(&mut status)?;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 && !line.trim().is_empty() {
        line.clear();
    }
    if status.contains(" 200 ") {
        return Ok(());
    }
    let mut body = String::new();
    reader.take(1000).read_to_string(&mut body)?;
    Err(wrong(format!(
        "the server says {:?} {body:?}",
        status.trim()
    )))
}
