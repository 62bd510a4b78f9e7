//! Bytes that programs of this network namespace have written and nobody has acknowledged yet (`proc(5)`,
//! `/proc/net/tcp`).

use std::fs::File;
use std::io::{self, Read as _};

/// A socket that listens has no bytes of its own; its queue is a count of connections.
const LISTEN: &str = "0A";

/// A table of a namespace with few connections fits into it. The kernel looks through all connections of the machine
/// for each piece that is read.
const PIECE: usize = 64 << 10;

/// Whether a TCP socket of the namespace still has bytes to send.
///
/// # Errors
/// `/proc` is not there.
pub fn any() -> io::Result<bool> {
    // A host without IPv6 has no such files.
    let v6 = |name| read(name).unwrap_or_default();
    // The counts cost nothing, the tables some milliseconds. Sockets that were closed and still send are counted.
    if in_use(&read("sockstat")?, "TCP:") == Some(0)
        && matches!(in_use(&v6("sockstat6"), "TCP6:"), Some(0) | None)
    {
        return Ok(false);
    }
    Ok(in_table(&read("tcp")?) || in_table(&v6("tcp6")))
}

fn read(name: &str) -> io::Result<String> {
    let mut text = String::with_capacity(PIECE);
    File::open(format!("/proc/self/net/{name}"))?.read_to_string(&mut text)?;
    Ok(text)
}

/// How many sockets of a protocol the namespace has, of `sockstat`.
fn in_use(text: &str, protocol: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(protocol))?;
    let mut words = line.split_whitespace();
    words.find(|word| *word == "inuse")?;
    words.next()?.parse().ok()
}

fn in_table(table: &str) -> bool {
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace().skip(3);
        let (state, queues) = (fields.next(), fields.next());
        let unsent = queues.and_then(|queues| queues.split(':').next());
        state != Some(LISTEN)
            && unsent.is_some_and(|unsent| unsent.bytes().any(|digit| digit != b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt\n";

    #[test]
    fn the_count_of_a_protocol() {
        let text =
            "sockets: used 65\nTCP: inuse 7 orphan 1 tw 0 alloc 9 mem 1\nUDP: inuse 0 mem 1\n";
        assert_eq!(in_use(text, "TCP:"), Some(7));
        assert_eq!(in_use(text, "UDP:"), Some(0));
        assert_eq!(in_use(text, "TCP6:"), None);
        assert_eq!(in_use("TCP: alloc 9\n", "TCP:"), None);
    }

    /// What was closed with bytes to send has no program any more; it must still be found.
    #[test]
    fn a_closed_connection_that_sends_is_found() {
        use std::io::Write as _;
        use std::net::{TcpListener, TcpStream};
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (receiver, _) = listener.accept().unwrap();
        sender.set_nonblocking(true).unwrap();
        // Nobody reads: the receiver's buffer fills, then the sender's.
        while sender.write(&[0; 65_536]).is_ok() {}
        drop(sender);
        assert!(any().unwrap());
        drop(receiver);
    }

    #[test]
    fn only_bytes_to_send_count() {
        for (line, expected) in [
            (
                "0: 0100007F:0050 00000000:0000 0A 00000005:00000001 00:00000000",
                false,
            ),
            (
                "1: 0100007F:0050 0100007F:A0F2 01 00000000:00000009 00:00000000",
                false,
            ),
            (
                "2: 0100007F:0050 0100007F:A0F2 04 00000010:00000000 01:00000014",
                true,
            ),
            ("3: truncated", false),
        ] {
            assert_eq!(in_table(&format!("{HEAD}{line}\n")), expected, "{line}");
        }
    }
}
