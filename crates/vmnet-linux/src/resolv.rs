//! The host's resolvers: `/etc/resolv.conf`, read and followed (resolv.conf(5)).
//!
//! Resolvers on the host's loopback are kept, since it is the host that asks them. Options and sort lists are ignored.
//! A missing file means no resolvers, and so does one that cannot be read. It never blocks, whatever the path leads to.
//!
//! Programs replace the file in every way there is: they write into it, rename another over it, or switch the symbolic
//! link that stands in its place. So the watch lies on the directory of every link of the chain and on the file itself.
//! A directory on the way that is itself a link, and is switched, is noticed with the next change only.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, inotify};
use rustix::io::Errno;

/// Where the host keeps it.
pub const PATH: &str = "/etc/resolv.conf";

/// The port of every resolver; the file cannot name another.
const PORT: u16 = 53;

/// More lines of servers are ignored; the C library ends at three.
const SERVER_LIMIT: usize = 8;

/// More domains are ignored.
const SEARCH_LIMIT: usize = 32;

/// Nothing behind this many bytes is read.
const SIZE_LIMIT: u64 = 64 * 1024;

/// Links that are followed, as many as the kernel does.
const LINK_LIMIT: usize = 40;

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// Resolvers, best first.
    pub servers: Vec<SocketAddr>,
    /// Domains that are appended to short names, from the last `search` or `domain` line.
    pub search: Vec<String>,
}

impl ResolvConf {
    /// Reads the file at `path`; nothing readable there is the same as an empty one.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        match read_text(path) {
            Ok(text) => Self::parse(&text, interface_index),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), %error, "cannot read the host's resolvers; continuing without");
                }
                Self::default()
            }
        }
    }

    /// Reads the text of such a file. `index` finds the interface that a scope names (`fe80::1%eth0`).
    #[must_use]
    pub fn parse(text: &str, index: impl Fn(&str) -> Option<u32>) -> Self {
        let mut conf = Self::default();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let server = words.next().and_then(|word| server(word, &index));
                    let free = conf.servers.len() < SERVER_LIMIT;
                    conf.servers
                        .extend(server.filter(|server| free && !conf.servers.contains(server)));
                }
                Some("search") => conf.search = words.take(SEARCH_LIMIT).map(domain).collect(),
                Some("domain") => conf.search = words.take(1).map(domain).collect(),
                _ => {}
            }
        }
        conf.search.retain(|domain| !domain.is_empty());
        conf
    }
}

fn server(word: &str, index: impl Fn(&str) -> Option<u32>) -> Option<SocketAddr> {
    if let Some((address, scope)) = word.split_once('%') {
        let address: Ipv6Addr = address.parse().ok()?;
        let scope = scope.parse().ok().or_else(|| index(scope))?;
        return Some(SocketAddrV6::new(address, PORT, 0, scope).into());
    }
    let address: IpAddr = word.parse().ok()?;
    Some(SocketAddr::new(address, PORT))
}

fn domain(word: &str) -> String {
    word.trim_end_matches('.').to_ascii_lowercase()
}

fn read_text(path: &Path) -> io::Result<String> {
    // Without NONBLOCK, opening a named pipe would wait for its other end.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rustix::fs::open(path, flags, Mode::empty())?;
    if !FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode).is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a regular file",
        ));
    }
    let mut bytes = Vec::new();
    std::fs::File::from(file)
        .take(SIZE_LIMIT)
        .read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn interface_index(name: &str) -> Option<u32> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .ok()?;
    netdevice::name_to_index(&socket, name).ok()
}

/// Follows one such file. Its descriptor is readable when something may have changed; then call [`Watch::changed`].
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    inotify: OwnedFd,
    watched: BTreeSet<i32>,
    current: ResolvConf,
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

impl Watch {
    /// Begins to follow the file at `path`, whether it exists or not, and reads it.
    ///
    /// # Errors
    ///
    /// If the user has no inotify instance left (`fs.inotify.max_user_instances`).
    pub fn new(path: impl Into<PathBuf>) -> io::Result<Self> {
        let inotify =
            inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let mut watch = Self {
            path: path.into(),
            inotify,
            watched: BTreeSet::new(),
            current: ResolvConf::default(),
        };
        watch.current = watch.look();
        Ok(watch)
    }

    /// What the file said when it was last read.
    #[must_use]
    pub fn current(&self) -> &ResolvConf {
        &self.current
    }

    /// Reads the file again if something happened to it, and returns its meaning if that is another one now.
    pub fn changed(&mut self) -> Option<ResolvConf> {
        let mut conf = None;
        // Looking moves watches, which is an event of its own; the second turn takes it. More turns are for a place
        // that changes meanwhile, and what is left after them wakes the caller again.
        for _ in 0..4 {
            if !self.drain() {
                break;
            }
            conf = Some(self.look());
        }
        let conf = conf.filter(|conf| *conf != self.current)?;
        self.current = conf.clone();
        Some(conf)
    }

    /// Takes the events that wait; says whether there was any but the end of a watch, which follows another event.
    fn drain(&mut self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut any = false;
        // A directory that never rests must not hold up the caller.
        for _ in 0..1024 {
            match reader.next() {
                Ok(event) => any |= event.events() != inotify::ReadFlags::IGNORED,
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        any
    }

    /// Puts the watches where they belong, then reads: what changes from now on is an event.
    fn look(&mut self) -> ResolvConf {
        // A link may be switched between reading it and watching its directory; then look again.
        for _ in 0..4 {
            let places = places(&self.path);
            self.watch(&places);
            if self::places(&self.path) == places {
                break;
            }
        }
        ResolvConf::read(&self.path)
    }

    fn watch(&mut self, places: &BTreeSet<PathBuf>) {
        use inotify::WatchFlags as On;
        // CLOSE_WRITE and not MODIFY: a file that was cut to be written anew is not yet worth reading.
        let events = On::CLOSE_WRITE
            | On::ATTRIB
            | On::CREATE
            | On::DELETE
            | On::DELETE_SELF
            | On::MOVED_FROM
            | On::MOVED_TO
            | On::MOVE_SELF;
        let mut watched = BTreeSet::new();
        for place in places {
            match inotify::add_watch(&self.inotify, place, events) {
                Ok(watch) => {
                    watched.insert(watch);
                }
                // What is not there is waited for in the directory above it.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => {
                    tracing::warn!(place = %place.display(), %error, "cannot watch for changed resolvers there");
                }
            }
        }
        for gone in self.watched.difference(&watched) {
            // It fails if the kernel removed it together with what it lay on.
            let _ = inotify::remove_watch(&self.inotify, *gone);
        }
        self.watched = watched;
    }
}

/// The directory of every link of the chain, or the closest one above that exists, and the file at its end.
fn places(path: &Path) -> BTreeSet<PathBuf> {
    let mut places = BTreeSet::new();
    let mut path = path.to_path_buf();
    for _ in 0..LINK_LIMIT {
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or_else(|| Path::new("."));
        places.extend(
            parent
                .ancestors()
                .find(|directory| directory.is_dir())
                .map(PathBuf::from),
        );
        let Ok(target) = std::fs::read_link(&path) else {
            break;
        };
        // A relative target counts from the link's directory; an absolute one replaces it.
        path = parent.join(target);
    }
    places.insert(path);
    places
}

#[cfg(test)]
mod tests;
