//! Bytes that programs of this network namespace have written and nobody has acknowledged yet (`proc(5)`,
//! `/proc/net/tcp`).

use std::io;

/// A socket that listens has no bytes of its own; its queue is a count of connections.
const LISTEN: &str = "0A";

/// Whether a TCP socket of the namespace still has bytes to send.
///
/// # Errors
/// `/proc` is not there.
pub fn any() -> io::Result<bool> {
    let v4 = std::fs::read_to_string("/proc/self/net/tcp")?;
    // A host without IPv6 has no such file.
    let v6 = std::fs::read_to_string("/proc/self/net/tcp6").unwrap_or_default();
    Ok(in_table(&v4) || in_table(&v6))
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
