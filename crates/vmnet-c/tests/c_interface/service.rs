//! The service that programs of a test start: each test's own, in a folder of its own.

use crate::compiler;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The service, if this workspace's has been built.
pub(crate) fn executable() -> PathBuf {
    let folder = compiler::built();
    folder.parent().expect("a folder above").join("vmnet")
}

/// Whether there is one. In CI there is.
pub(crate) fn is_built() -> bool {
    if executable().exists() {
        return true;
    }
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "in CI nothing is skipped: there is no service, cargo build --bins"
    );
    eprintln!("SKIPPED: there is no service: cargo build --bins");
    false
}

/// A copy of it in this folder.
pub(crate) fn copied_to(folder: &Path) -> PathBuf {
    // Its own folder for sockets is `vmnet`.
    let copy = folder.join("bin/vmnet");
    fs::create_dir(folder.join("bin")).expect("a folder");
    fs::copy(executable(), &copy).expect("a copy");
    copy
}

/// Lets a program find the libraries, and start a service whose files are in this folder.
pub(crate) fn environment(command: &mut Command, folder: &Path) {
    command
        .env("XDG_RUNTIME_DIR", folder)
        .env("LD_LIBRARY_PATH", folder)
        .env("XDG_STATE_HOME", folder.join("state"))
        .env("XDG_CONFIG_HOME", folder.join("config"))
        .env("VMNET_EXECUTABLE", executable())
        .env_remove("VMNET_SOCKET");
}

/// The services that programs in this folder have started.
fn running(folder: &Path) -> Vec<i32> {
    let folder = folder.as_os_str().as_encoded_bytes();
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let of = |file| fs::read(process.path().join(file)).unwrap_or_default();
        let is_ours = of("environ")
            .windows(folder.len())
            .any(|part| part == folder);
        let pid = process.file_name().to_string_lossy().parse::<i32>();
        if let (true, b"vmnet\n", Ok(pid)) = (is_ours, of("comm").as_slice(), pid) {
            found.push(pid);
        }
    }
    found
}

/// Sends a signal to them, and says how many there were.
pub(crate) fn signal(folder: &Path, signal: libc::c_int) -> usize {
    let services = running(folder);
    for service in &services {
        // SAFETY: It is the service of this test, by its environment.
        unsafe { libc::kill(*service, signal) };
    }
    services.len()
}

/// Ends the service that programs in this folder have started.
pub(crate) struct EndOfService<'a>(pub(crate) &'a Path);

impl Drop for EndOfService<'_> {
    fn drop(&mut self) {
        signal(self.0, libc::SIGTERM);
    }
}
