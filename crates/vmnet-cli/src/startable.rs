//! Whether the user's service, which does not run, could be started: found out by looking, without starting it.

use openvmnet::place::{self, Scope};
use rustix::fs::{Access, access};
use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

/// What keeps it from starting, if anything that can be seen does.
pub(crate) fn obstacle() -> Option<String> {
    let socket = place::socket(Scope::User);
    if let Err(error) = place::check_socket_folder(&socket, Scope::User) {
        return Some(error.to_string());
    }
    if let Ok(about) = fs::symlink_metadata(&socket)
        && !about.file_type().is_socket()
    {
        let socket = socket.display();
        return Some(format!(
            "{socket} is there and is no socket: remove it, or choose another with VMNET_SOCKET"
        ));
    }
    let state = place::state(Scope::User);
    let folders = [socket.parent(), state.as_deref()];
    if let Some(why) = folders.into_iter().flatten().find_map(unwritable) {
        return Some(why);
    }
    let checked = vmnet_daemon::check_configuration();
    checked.err().map(|error| error.to_string())
}

/// Why nothing can be made in this folder, or the folder itself, if it is not there.
fn unwritable(folder: &Path) -> Option<String> {
    let there = folder.ancestors().find(|folder| folder.exists())?;
    let wanted = Access::WRITE_OK | Access::EXEC_OK;
    let error = access(there, wanted).err()?;
    Some(format!(
        "{}: {}",
        there.display(),
        std::io::Error::from(error)
    ))
}
