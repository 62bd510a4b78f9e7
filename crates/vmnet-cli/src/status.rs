//! `vmnet leases` and `vmnet status`.

use crate::args::{Leases, Status};
use crate::control::client::{Client, ClientError};
use crate::control::folder;
use crate::control::protocol;
use std::error::Error;
use std::io::{self, Write as _};

/// Lists the leases of a network.
pub(crate) fn leases(leases: &Leases) -> Result<(), Box<dyn Error>> {
    let rows = Client::connect(&leases.network)?.leases()?;
    let text = if leases.json {
        serde_json::to_string_pretty(&rows)? + "\n"
    } else {
        lease_table(&rows)
    };
    Ok(print(&text)?)
}

/// Shows one network, or all that are up.
pub(crate) fn status(status: &Status) -> Result<(), Box<dyn Error>> {
    let mut found = Vec::new();
    if let Some(name) = &status.network {
        found.push(Client::connect(name)?.status()?);
    } else {
        for name in folder::names(&folder::folder()?)? {
            match Client::connect(&name) {
                Ok(mut client) => found.push(client.status()?),
                // Left behind by a holder that was killed; the next one replaces it.
                Err(ClientError::NotUp(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    let text = match (status.json, &status.network) {
        (true, Some(_)) => serde_json::to_string_pretty(&found.first())? + "\n",
        (true, None) => serde_json::to_string_pretty(&found)? + "\n",
        (false, _) if found.is_empty() => "no network is up\n".to_owned(),
        (false, _) => found.iter().map(describe).collect(),
    };
    Ok(print(&text)?)
}

/// Prints; a reader that has gone is no mistake.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    match output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
    {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

fn lease_table(rows: &[protocol::Lease]) -> String {
    let mut text = format!(
        "{:<16} {:<18} {:<20} {}\n",
        "ADDRESS", "MAC", "NAME", "EXPIRES IN"
    );
    for row in rows {
        text.push_str(&format!(
            "{:<16} {:<18} {:<20} {}\n",
            row.address.to_string(),
            row.mac,
            row.name.as_deref().unwrap_or("-"),
            span(row.expires_in_seconds)
        ));
    }
    text
}

fn describe(status: &protocol::Status) -> String {
    let mut text = format!(
        "{}: {}, MTU {}, held by process {}\n",
        status.name, status.subnet, status.mtu, status.pid
    );
    if !status.ports.is_empty() {
        text.push_str(&format!(
            "  {:<16} {:<18} {:<20} BY\n",
            "ADDRESS", "MAC", "NAME"
        ));
    }
    for port in &status.ports {
        let address = port.address.map(|address| address.to_string());
        text.push_str(&format!(
            "  {:<16} {:<18} {:<20} {} of process {}\n",
            address.as_deref().unwrap_or("-"),
            port.mac.as_deref().unwrap_or("-"),
            port.name.as_deref().unwrap_or("-"),
            port.kind,
            port.pid,
        ));
    }
    for listener in &status.listeners {
        text.push_str(&format!(
            "  {} of process {}\n",
            listener.kind, listener.pid
        ));
    }
    for (name, value) in &status.counters {
        text.push_str(&format!("  {name}: {value}\n"));
    }
    text
}

/// Seconds as people read them.
fn span(seconds: u64) -> String {
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{:02}s", seconds % 60),
        _ => format!("{hours}h{minutes:02}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_as_a_table() {
        let row = protocol::Lease {
            address: "192.168.64.2".parse().unwrap(),
            mac: "02:00:00:00:00:01".into(),
            name: Some("web".into()),
            expires_in_seconds: 86_399,
        };
        let table = lease_table(&[row]);
        let last = table.lines().last().unwrap();
        let words: Vec<&str> = last.split_whitespace().collect();
        assert_eq!(
            words,
            ["192.168.64.2", "02:00:00:00:00:01", "web", "23h59m"]
        );
        assert_eq!((span(59), span(61)), ("59s".to_owned(), "1m01s".to_owned()));
    }
}
