//! Where a service of the bench listens and keeps its state: below the run's own folder, never in the user's.

use crate::testbed::Testbed;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The variables that say where things are, and the folder or file below the home.
const VARIABLES: [(&str, &str); 5] = [
    ("HOME", ""),
    ("VMNET_SOCKET", "socket/vmnet.sock"),
    ("XDG_RUNTIME_DIR", "runtime"),
    ("XDG_STATE_HOME", "state"),
    ("XDG_CONFIG_HOME", "config"),
];

/// Gives a command, and what it starts, a service of its own.
pub(crate) fn set(command: &mut Command, home: &Path) {
    for (variable, below) in VARIABLES {
        command.env(variable, home.join(below));
    }
    // One of systemd, and a configuration of the caller's, would be taken for ours.
    for variable in ["VMNET_CONFIG", "LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET"] {
        command.env_remove(variable);
    }
}

/// The folders below the home.
const FOLDERS: [&str; 4] = ["socket", "runtime", "state", "config"];

/// Makes them for a service of the ordinary user, in a home of its own.
pub(crate) fn prepare(testbed: &Testbed, name: &str) -> io::Result<PathBuf> {
    let home = testbed.scratch().directory_of(name, testbed.user())?;
    for folder in FOLDERS {
        testbed
            .scratch()
            .directory_of(&format!("{name}/{folder}"), testbed.user())?;
    }
    Ok(home)
}

/// Where the service of a home listens.
pub(crate) fn socket(home: &Path) -> PathBuf {
    home.join("socket/vmnet.sock")
}

/// Makes the folders, in the process that was given them.
pub(crate) fn make() -> io::Result<()> {
    let home = home()?;
    for folder in FOLDERS {
        DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(home.join(folder))?;
    }
    Ok(())
}

/// The folder of what must stay.
pub(super) fn state() -> io::Result<PathBuf> {
    Ok(home()?.join("state"))
}

fn home() -> io::Result<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    // Whoever runs `vmnet-bench load` by hand must not have their own service measured, or ended.
    let socket = std::env::var_os("VMNET_SOCKET").map(PathBuf::from);
    match (home, socket) {
        (Some(home), Some(socket)) if socket.starts_with(&home) => Ok(home),
        _ => Err(io::Error::other("the bench gave no folders for a service")),
    }
}

/// The vmnet under test, which the bench put beside this program.
pub(super) fn vmnet() -> io::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("vmnet"))
}
