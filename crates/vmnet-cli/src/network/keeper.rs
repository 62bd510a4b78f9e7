//! The thread that stays on a network of the service.
//!
//! When the service is killed, it is started again (by the first who notices), and the interface is started again on a
//! duplicate of its descriptor: the guest keeps address and MAC. When the service itself ended the interface, because
//! somebody stopped it or deleted the network, or the tap is gone, that is said and nothing is tried.
//!
//! While there is no service, a VMM that knocks at its socket is turned away: it would wait to be accepted, and stand still
//! with its guest, where it can go on and knock again.
//!
//! It is a thread so that a service that is slow to start delays neither signals nor the end of the command.

use super::membership::{Happening, JoinError, Membership};
use crate::port_spec::PortSpec;
use openvmnet::service::ServiceError;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

/// The first pause between two tries, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest one.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often the service is asked whether the interface is still there: it hangs up when somebody stopped it, and says nothing
/// when its guest has gone by itself; and one that has ended must not be started again when the service is killed later. The answer lists all
/// interfaces of the network, so what all guests of one ask for grows with the square of their number: seldom.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// How often a tap is looked at: one that is deleted wakes nobody who does not wait for frames too.
const LOOK_AT_TAP_EVERY: Duration = Duration::from_secs(1);
/// How often an interface may be refused for its own sake before that is taken for the last word. With the pauses between
/// the tries that takes about five seconds, in which a service that has just begun restores what else there is.
const REFUSALS: u32 = 9;
/// How long leaving may take before the end of our process does it.
const LEAVES_WITHIN: Duration = Duration::from_secs(2);

/// Stays on a network until it is dropped.
pub(crate) struct Keeper {
    /// Readable when the network is gone for good.
    departed: OwnedFd,
    /// Closed to end the thread.
    stop: Option<OwnedFd>,
    /// Why the network was left for good; disconnected when the thread has ended.
    ended: Receiver<String>,
}

impl Keeper {
    /// Stays on this network, in a thread of its own.
    pub(crate) fn start(membership: Membership) -> io::Result<Self> {
        let departed = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let (stopped, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let (why, ended) = sync_channel(1);
        let tell = departed.try_clone()?;
        std::thread::Builder::new()
            .name("vmnet-keeper".into())
            .spawn(move || {
                if let Err(departure) = stay(membership, &stopped) {
                    let _heard = why.send(crate::chain(&departure));
                    let _told = rustix::io::write(&tell, &1u64.to_ne_bytes());
                }
            })?;
        Ok(Self {
            departed,
            stop: Some(stop),
            ended,
        })
    }

    /// Why the network is gone for good, when this is readable.
    pub(crate) fn reason(&self) -> String {
        self.ended.try_recv().unwrap_or_default()
    }
}

/// Readable when the network is gone for good.
impl AsFd for Keeper {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.departed.as_fd()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop = None;
        // Disconnected, or too late: either way there is nothing to be done.
        let _ended = self.ended.recv_timeout(LEAVES_WITHIN);
    }
}

/// Why a network was left for good.
#[derive(Debug, thiserror::Error)]
enum Departure {
    #[error("the network {0} was deleted")]
    Deleted(String),
    #[error("the interface on the network {0} was stopped")]
    Stopped(String),
    #[error("the tap on the network {0} is gone: somebody deleted it")]
    NoTap(String),
    #[error("the network {0} cannot be joined again: {1}")]
    Refused(String, #[source] JoinError),
    #[error("waiting for the service: {0}")]
    Wait(#[from] io::Error),
}

/// Stays until `stopped` closes.
fn stay(mut membership: Membership, stopped: &OwnedFd) -> Result<(), Departure> {
    let mut pause = FIRST_PAUSE;
    let mut missing = Vec::new();
    let mut looked = Instant::now();
    let mut published = looked;
    loop {
        let mut until = LOOK_EVERY.saturating_sub(looked.elapsed());
        if !missing.is_empty() {
            until = until.min(pause.saturating_sub(published.elapsed()));
        }
        if membership.tap().is_some() {
            until = until.min(LOOK_AT_TAP_EVERY);
        }
        let service = Some(membership.as_fd());
        match wait(service, membership.tap(), stopped, Some(until))? {
            Woken::Stopped => {
                membership.leave();
                return Ok(());
            }
            Woken::Elapsed => {
                if looked.elapsed() >= LOOK_EVERY {
                    if let Some(departure) = departed(&mut membership) {
                        return Err(departure);
                    }
                    looked = Instant::now();
                }
                if !missing.is_empty() && published.elapsed() >= pause {
                    let refused = membership.publish_again(missing).into_iter();
                    missing = refused.map(|(spec, _)| spec).collect();
                    (pause, published) = (longer(pause), Instant::now());
                }
            }
            Woken::Broken => return Err(Departure::NoTap(known_as(&membership))),
            Woken::Other => match come_back(&mut membership, stopped)? {
                None => return Ok(()),
                Some(ports) => {
                    (missing, pause) = (ports, FIRST_PAUSE);
                    (looked, published) = (Instant::now(), Instant::now());
                }
            },
        }
    }
}

/// Whether a service that runs has no such interface any more. One that does not answer is noticed by its hanging up.
fn departed(membership: &mut Membership) -> Option<Departure> {
    let name = known_as(membership);
    match membership.look() {
        None => None,
        Some(Happening::Deleted) => Some(Departure::Deleted(name)),
        Some(_) => Some(Departure::Stopped(name)),
    }
}

fn known_as(membership: &Membership) -> String {
    let network = membership.network();
    network.name.as_ref().unwrap_or(&network.uuid).clone()
}

/// Joins again; answers the ports that could not be forwarded yet. `None`: stopped meanwhile.
fn come_back(
    membership: &mut Membership,
    stopped: &OwnedFd,
) -> Result<Option<Vec<PortSpec>>, Departure> {
    let name = known_as(membership);
    match membership.what_happened() {
        Happening::Died => {}
        Happening::Deleted => return Err(Departure::Deleted(name)),
        Happening::Stopped => return Err(Departure::Stopped(name)),
    }
    tracing::warn!("the service has ended; joining {name} again");
    let mut pause = FIRST_PAUSE;
    let mut said = String::new();
    let mut refusals = 0;
    loop {
        match membership.rejoin() {
            Ok(refused) => {
                tracing::info!("joined {name} again");
                let mut ports = Vec::new();
                for (spec, error) in refused {
                    tracing::warn!("{}; trying again", crate::chain(&error));
                    ports.push(spec);
                }
                return Ok(Some(ports));
            }
            Err(error @ JoinError::Cut) => return Err(Departure::Refused(name, error)),
            Err(error) => {
                refusals = if is_own_fault(&error) {
                    refusals + 1
                } else {
                    0
                };
                if refusals >= REFUSALS {
                    return Err(Departure::Refused(name, error));
                }
                let text = crate::chain(&error);
                if text != said {
                    tracing::warn!("{text}; trying again");
                    said = text;
                }
            }
        }
        if !pause_between(membership.knocks(), stopped, pause)? {
            return Ok(None);
        }
        pause = longer(pause);
    }
}

/// Whether the interface itself is refused, for a reason that does not go by itself. What keeps a network from running, or
/// has the interface's MAC, may go: the guest waits for that as long as it lives.
fn is_own_fault(error: &JoinError) -> bool {
    matches!(
        error.refusal_of_interface(),
        Some(
            ServiceError::Exists { .. }
                | ServiceError::InvalidArgument { .. }
                | ServiceError::NotAuthorized { .. }
        )
    )
}

fn longer(pause: Duration) -> Duration {
    (pause * 2).min(LONGEST_PAUSE)
}

/// Sleeps, and turns VMMs away meanwhile; answers whether to go on.
fn pause_between(
    mut knocks: Option<BorrowedFd<'_>>,
    stopped: &OwnedFd,
    pause: Duration,
) -> io::Result<bool> {
    let until = Instant::now() + pause;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match wait(knocks, None, stopped, Some(left))? {
            Woken::Stopped => return Ok(false),
            Woken::Elapsed => return Ok(true),
            Woken::Other | Woken::Broken => knocks = knocks.filter(|listener| turn_away(*listener)),
        }
    }
}

/// Accepts who knocks and hangs up; answers whether to look for others. A socket that refuses everybody seems to have one
/// all the time (`EAGAIN`).
fn turn_away(listener: BorrowedFd<'_>) -> bool {
    use rustix::io::Errno;
    // The service that had it made it so already, unless it was killed before.
    if rustix::io::ioctl_fionbio(listener, true).is_err() {
        return false;
    }
    match rustix::net::accept_with(listener, rustix::net::SocketFlags::CLOEXEC) {
        Ok(_hung_up) => true,
        Err(error) => matches!(error, Errno::INTR | Errno::CONNABORTED),
    }
}

/// What ended a wait.
enum Woken {
    Stopped,
    /// The other descriptor: the service hung up, or a VMM knocks.
    Other,
    /// The tap has an error: it is no tap any more.
    Broken,
    Elapsed,
}

fn wait(
    other: Option<BorrowedFd<'_>>,
    tap: Option<BorrowedFd<'_>>,
    stopped: &OwnedFd,
    pause: Option<Duration>,
) -> io::Result<Woken> {
    let timeout = pause.map(|pause| Timespec {
        tv_sec: i64::try_from(pause.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(pause.subsec_nanos()),
    });
    let mut waits = vec![PollFd::new(stopped, PollFlags::IN)];
    if let Some(other) = &other {
        waits.push(PollFd::new(other, PollFlags::IN));
    }
    let behind = waits.len();
    if let Some(tap) = &tap {
        // What comes by it is not for us: errors alone, which are told always.
        waits.push(PollFd::new(tap, PollFlags::empty()));
    }
    loop {
        match poll(&mut waits, timeout.as_ref()) {
            Ok(0) => return Ok(Woken::Elapsed),
            Ok(_) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let came = |index: usize| {
        let wait = waits.get(index);
        wait.is_some_and(|wait| !wait.revents().is_empty())
    };
    Ok(match (came(0), other.is_some() && came(1), came(behind)) {
        (true, ..) => Woken::Stopped,
        (_, true, _) => Woken::Other,
        (_, _, true) => Woken::Broken,
        _ => Woken::Elapsed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn who_knocks_while_nobody_is_there_is_turned_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let (stopped, stop) = rustix::pipe::pipe().unwrap();
        let mut guests = [(); 3].map(|()| UnixStream::connect(&path).unwrap());
        let pause = Duration::from_millis(50);
        assert!(pause_between(Some(listener.as_fd()), &stopped, pause).unwrap());
        for guest in &mut guests {
            guest.set_nonblocking(true).unwrap();
            assert_eq!(guest.read(&mut [0]).unwrap(), 0, "nobody hung up");
        }
        // One that refuses everybody delays nothing, and is not asked again and again.
        rustix::net::shutdown(&listener, rustix::net::Shutdown::Both).unwrap();
        assert!(UnixStream::connect(&path).is_err());
        assert!(!turn_away(listener.as_fd()));
        assert!(pause_between(Some(listener.as_fd()), &stopped, pause).unwrap());
        drop(stop);
        assert!(!pause_between(None, &stopped, pause).unwrap());
    }
}
