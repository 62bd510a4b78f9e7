//! Which networks the machine's service had when this user last asked it.
//!
//! A name that is the machine's must not become a network of the user's own when that service is down: its guests would be
//! somewhere else than they are meant to be, on a network that leads out perhaps. So the names are kept beside the user's store,
//! one network a line, behind the socket of the service that they are from. Without a home nothing is kept.

use crate::client::Client;
use crate::place::{self, Scope};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// The name of the file in the user's state folder.
const FILE: &str = "machine-networks";

fn file() -> Option<PathBuf> {
    Some(place::state(Scope::User)?.join(FILE))
}

/// Remembers what the machine's service has now. Where that cannot be written down, all goes on as if nothing had been seen.
pub(crate) fn look(machine: &mut Client) {
    let Ok(found) = machine.list_networks(None) else {
        return;
    };
    let networks = found.networks.into_iter();
    let networks = networks.map(|network| (network.uuid, network.name.unwrap_or_default()));
    let text = text(&place::socket(Scope::System), networks);
    let Some(file) = file() else { return };
    if let Err(error) = keep(&file, &text) {
        tracing::debug!(%error, "the machine's networks are not remembered");
    }
}

/// Whether the machine's service had a network of this name or UUID.
pub(crate) fn has(network: &str) -> bool {
    let read = file().and_then(|file| fs::read(file).ok());
    read.is_some_and(|text| is_in(&text, &place::socket(Scope::System), network))
}

fn text(socket: &Path, networks: impl Iterator<Item = (String, String)>) -> Vec<u8> {
    let mut text = socket.as_os_str().as_bytes().to_vec();
    text.push(b'\n');
    for (uuid, name) in networks {
        text.extend_from_slice(format!("{uuid} {name}\n").as_bytes());
    }
    text
}

fn is_in(text: &[u8], socket: &Path, network: &str) -> bool {
    let mut lines = text.split(|byte| *byte == b'\n');
    if lines.next() != Some(socket.as_os_str().as_bytes()) {
        return false;
    }
    lines.any(|line| {
        let mut words = line.splitn(2, |byte| *byte == b' ');
        let uuid = words.next().unwrap_or_default();
        let name = words.next().unwrap_or_default();
        uuid.eq_ignore_ascii_case(network.as_bytes()) || name == network.as_bytes()
    }) && !network.is_empty()
}

/// Writes the file, whole or not at all, if it is to say something new.
fn keep(file: &Path, text: &[u8]) -> io::Result<()> {
    let there = fs::read(file).ok();
    let nothing = text.iter().filter(|byte| **byte == b'\n').count() <= 1;
    if there.as_deref() == Some(text) || (there.is_none() && nothing) {
        return Ok(());
    }
    let folder = file.parent().unwrap_or_else(|| Path::new("/"));
    place::ensure_private(folder).map_err(io::Error::other)?;
    let new = folder.join(format!("{FILE}.{}", std::process::id()));
    let written = fs::File::create(&new)
        .and_then(|mut output| output.write_all(text))
        .and_then(|()| fs::rename(&new, file));
    if written.is_err() {
        let _gone = fs::remove_file(&new);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_known_by_name_and_uuid() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("vmnet").join(FILE);
        let socket = Path::new("/run/vmnet/vmnet.sock");
        let networks = |names: &[(&str, &str)]| {
            let names = names.iter();
            let names: Vec<_> = names
                .map(|(uuid, name)| ((*uuid).to_owned(), (*name).to_owned()))
                .collect();
            text(socket, names.into_iter())
        };
        // Nothing was seen, and nothing is made.
        keep(&file, &networks(&[])).unwrap();
        assert!(!folder.path().join("vmnet").exists());
        keep(&file, &networks(&[("0a-b", "cage"), ("1c-d", "")])).unwrap();
        let read = fs::read(&file).unwrap();
        for (word, known) in [
            ("cage", true),
            ("0A-B", true),
            ("1c-d", true),
            ("cag", false),
            ("", false),
        ] {
            assert_eq!(is_in(&read, socket, word), known, "{word}");
        }
        assert!(!is_in(&read, Path::new("/elsewhere"), "cage"));
        // What is gone there is forgotten here.
        keep(&file, &networks(&[])).unwrap();
        assert!(!is_in(&fs::read(&file).unwrap(), socket, "cage"));
    }
}
