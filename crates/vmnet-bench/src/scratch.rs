//! The run's own directory under the system's temporary one. It is removed when the run ends, panics or is
//! interrupted. Namespaces need no removal: they have no names and end with the processes in them.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The directory; dropping it removes it.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Makes the directory, open for other users to pass through, and starts the watch for Ctrl-C.
    pub(crate) fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("vmnet-bench-{}", std::process::id()));
        crate::sys::block_interrupts()?;
        fs::create_dir(&path)?;
        let scratch = Self(path.clone());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        std::thread::spawn(move || {
            let signal = crate::sys::wait_for_interrupt();
            let _ = fs::remove_dir_all(&path);
            crate::cubic::restore();
            eprintln!("\nvmnet-bench: interrupted; children and namespaces end with this process");
            std::process::exit(128 + signal);
        });
        Ok(scratch)
    }

    /// A path inside.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Copies a program into the directory, so that any user can execute it wherever the original lies.
    pub(crate) fn install(&self, program: &Path, name: &str) -> io::Result<PathBuf> {
        let copy = self.join(name);
        fs::copy(program, &copy)?;
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
        Ok(copy)
    }

    /// A directory inside that belongs to `user`.
    pub(crate) fn directory_of(&self, name: &str, user: u32) -> io::Result<PathBuf> {
        let path = self.join(name);
        fs::create_dir_all(&path)?;
        std::os::unix::fs::chown(&path, Some(user), Some(user))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
