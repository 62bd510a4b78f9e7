//! Just enough HTTP/1.1 for `wget`, `curl` and our own client: files up and down, every byte compared.
//!
//! `GET /pattern/BYTES` sends that much of the pattern. `POST` and `PUT` of anything compare the body with the
//! pattern and answer `ok BYTES`, or 422 with the offset of the first difference.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

use super::serve::Running;
use crate::pattern;

/// Serves on `listener`.
pub(super) fn start(listener: TcpListener, running: &Running) {
    running.accept(listener, |stream| {
        let mut writer = stream.try_clone()?;
        let mut reader = BufReader::with_capacity(256 * 1024, stream);
        while answer(&mut reader, &mut writer)? {}
        Ok(())
    });
}

/// Answers one request; false at the end of the connection.
fn answer(reader: &mut BufReader<TcpStream>, writer: &mut TcpStream) -> io::Result<bool> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(false);
    }
    let (length, awaits_go_ahead) = read_headers(reader)?;
    let mut words = line.split_whitespace();
    match (words.next(), words.next()) {
        (Some("GET"), Some(path)) => {
            let size = path
                .strip_prefix("/pattern/")
                .and_then(|it| it.parse().ok());
            let Some(size) = size else {
                return reply(writer, "404 Not Found", "no such file\n");
            };
            write!(
                writer,
                "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {size}\r\n\r\n"
            )?;
            pattern::write(writer, size)?;
            Ok(true)
        }
        (Some("POST" | "PUT"), Some(_)) => {
            if awaits_go_ahead {
                writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            match pattern::verify_at_most(&mut reader.take(length), length) {
                Ok(count) if count == length => reply(writer, "200 OK", &format!("ok {count}\n")),
                Ok(count) => Err(io::Error::other(format!("the body ended at {count}"))),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    reply(writer, "422 Unprocessable Content", &format!("{error}\n"))?;
                    Ok(false)
                }
                Err(error) => Err(error),
            }
        }
        _ => reply(writer, "400 Bad Request", "GET, PUT or POST\n"),
    }
}

/// The length of the body, and whether the client waits for `100 Continue`.
fn read_headers(reader: &mut impl BufRead) -> io::Result<(u64, bool)> {
    let (mut length, mut awaits_go_ahead) = (0, false);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            return Ok((length, awaits_go_ahead));
        }
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap_or(0);
        }
        awaits_go_ahead |= name.eq_ignore_ascii_case("expect");
    }
}

fn reply(writer: &mut TcpStream, status: &str, body: &str) -> io::Result<bool> {
    write!(
        writer,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    Ok(true)
}
