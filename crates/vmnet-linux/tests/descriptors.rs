//! A VMM that comes while this process may open no more files is let in later. Alone in its file: the limit is that of
//! the whole process.

use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use vmnet_linux::lane::{self, Attachment, Ipv4, PortOptions, Settings, VhostUserSocket};
use vmnet_virtio::frontend::{Frontend, Plan};

fn allow(files: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let changed = Rlimit {
        current: Some(files),
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, changed).unwrap();
    limit.current.unwrap()
}

#[test]
fn a_vmm_is_let_in_when_there_are_descriptors_again() {
    let ipv4 = Ipv4::new("192.168.78.0/24".parse().unwrap());
    let mut settings = Settings::shared("descriptors", ipv4, Duration::from_secs(3600));
    settings.resolvers = Some(Vec::new());
    let handle = lane::start(settings).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vmm");
    let attachment =
        Attachment::VhostUser(VhostUserSocket::Listen(UnixListener::bind(&path).unwrap()));
    let port = handle.attach(attachment, PortOptions::default()).unwrap();
    // Connecting needs a descriptor, accepting another one. New ones are the lowest that are free.
    let probe = std::fs::File::open("/dev/null").unwrap();
    let lowest = u64::try_from(std::os::fd::AsRawFd::as_raw_fd(&probe)).unwrap();
    drop(probe);
    let before = allow(lowest + 1);
    let stream = UnixStream::connect(&path).unwrap();
    std::thread::sleep(Duration::from_millis(600));
    allow(before);
    let rows = handle.ports();
    assert!(rows.iter().any(|row| row.id == port), "the port stays");
    Frontend::connect(stream, &Plan::new()).unwrap();
}
