//! Folders, locks and stale sockets on a real file system.

use super::*;
use std::os::unix::fs::PermissionsExt as _;

fn name() -> NetworkName {
    "lan".parse().unwrap()
}

#[test]
fn the_first_place_that_is_known() {
    let with = |known: &'static [(&'static str, &'static str)]| {
        place(
            move |name| {
                known
                    .iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| PathBuf::from(value))
            },
            4_000_000_000,
        )
    };
    assert_eq!(with(&[]), Path::new("/tmp/vmnet-4000000000"));
    assert_eq!(
        with(&[("XDG_RUNTIME_DIR", "/run/user/7")]),
        Path::new("/run/user/7/vmnet")
    );
    assert_eq!(
        with(&[
            ("XDG_RUNTIME_DIR", "/run/user/7"),
            ("VMNET_SOCKET", "/here")
        ]),
        Path::new("/here")
    );
}

#[test]
fn only_a_folder_of_ours_alone_is_used() {
    let base = tempfile::tempdir().unwrap();
    let uid = rustix::process::getuid().as_raw();
    let folder = base.path().join("vmnet");
    ensure_private(&folder, uid).unwrap();
    assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
    ensure_private(&folder, uid).unwrap();
    assert!(matches!(
        ensure_private(&folder, uid + 1),
        Err(FolderError::Foreign(_))
    ));
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(
        ensure_private(&folder, uid),
        Err(FolderError::Foreign(_))
    ));
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    let link = base.path().join("link");
    std::os::unix::fs::symlink(&folder, &link).unwrap();
    assert!(matches!(
        ensure_private(&link, uid),
        Err(FolderError::Foreign(_))
    ));
}

#[test]
fn a_name_is_held_once_and_free_again() {
    let base = tempfile::tempdir().unwrap();
    let lock = Lock::take(base.path(), &name()).unwrap();
    let error = Lock::take(base.path(), &name()).unwrap_err().to_string();
    assert!(error.contains(&std::process::id().to_string()), "{error}");
    drop(lock);
    assert!(!base.path().join("lan.lock").exists());
    // What a killed holder leaves: the file without the lock.
    fs::write(base.path().join("lan.lock"), "1\n").unwrap();
    let _lock = Lock::take(base.path(), &name()).unwrap();
}

#[test]
fn stale_sockets_are_replaced_and_living_ones_are_not() {
    let base = tempfile::tempdir().unwrap();
    let path = base.path().join("s");
    drop(UnixListener::bind(&path).unwrap());
    let (listener, file) = listen_stream(&path).unwrap();
    assert!(matches!(
        listen_stream(&path),
        Err(FolderError::SocketInUse(_))
    ));
    assert!(matches!(
        bind_dgram(&path),
        Err(FolderError::SocketInUse(_))
    ));
    drop((listener, file));
    assert!(!path.exists());

    drop(UnixDatagram::bind(&path).unwrap());
    let (_socket, _file) = bind_dgram(&path).unwrap();
    assert!(matches!(
        bind_dgram(&path),
        Err(FolderError::SocketInUse(_))
    ));

    let plain = base.path().join("plain");
    fs::write(&plain, "x").unwrap();
    assert!(matches!(
        listen_stream(&plain),
        Err(FolderError::NoSocket(_))
    ));
    assert!(plain.exists());
}

#[test]
fn networks_are_listed_by_their_sockets() {
    let base = tempfile::tempdir().unwrap();
    for file in ["b.sock", "a.sock", "c.lock", "-bad.sock"] {
        fs::write(base.path().join(file), "").unwrap();
    }
    let names: Vec<_> = names(base.path())
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(names, ["a", "b"]);
}
