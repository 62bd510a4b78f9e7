//! The daemon's end of the helper.

use super::name::{LinkName, Mark};
use super::request::{Answer, Link, Refusal, Request};
use super::wire;
use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use vmnet_linux::sys::process::{self, Change};
use vmnet_linux::sys::signal;

/// How long one call may take. What the kernel is asked for takes milliseconds; a large set of rules takes a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long its end is waited for.
const LEAVES_WITHIN: Duration = Duration::from_secs(1);

/// The helper did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// It refuses, or the host did.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It has ended.
    #[error("the privileged helper has ended: restart the service")]
    Gone,
    /// It is stuck.
    #[error("the privileged helper did not answer within {} seconds: restart the service", PATIENCE.as_secs())]
    Silent,
    /// What it said cannot be understood.
    #[error("the privileged helper answered what cannot be understood: {0}")]
    Strange(String),
}

/// The helper, as the daemon's one thread sees it. When this is dropped, the helper ends.
#[derive(Debug)]
pub struct Helper {
    socket: UnixStream,
    /// The process, until it has ended; none for a helper that is a thread of a test.
    process: Option<i32>,
    /// Once an answer did not come in time, the next one would be taken for another call's.
    lost: bool,
}

impl Helper {
    /// Speaks over this socket with this process.
    ///
    /// # Errors
    /// The socket cannot be set up.
    pub fn new(socket: UnixStream, process: Option<i32>) -> io::Result<Self> {
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            socket,
            process,
            lost: false,
        })
    }

    /// Whether it has ended, or does not answer any more. To be asked when a child of this process has changed.
    pub fn has_ended(&mut self) -> bool {
        if let Some(process) = self.process {
            let ended = match process::changed(process) {
                Ok(Some((_, Change::Stopped(_))) | None) => false,
                Ok(Some(_)) | Err(_) => true,
            };
            if ended {
                self.process = None;
                self.lost = true;
            }
        }
        self.lost
    }

    /// The links of the host.
    ///
    /// # Errors
    /// See [`HelperError`].
    pub fn links(&mut self) -> Result<Vec<Link>, HelperError> {
        match self.ask(&Request::LinkList)? {
            (Answer::Links(links), _) => Ok(links),
            (other, _) => Err(strange(&other)),
        }
    }

    /// Ends a link of ours; one that is gone already is no mistake.
    ///
    /// # Errors
    /// See [`HelperError`].
    pub fn delete_link(&mut self, name: LinkName) -> Result<(), HelperError> {
        self.done(&Request::LinkDelete { name })
    }

    /// Removes links that a helper which was killed has left half made.
    ///
    /// # Errors
    /// See [`HelperError`].
    pub fn sweep_links(&mut self) -> Result<(), HelperError> {
        self.done(&Request::LinkSweep)
    }

    /// The number of the host's rules, which is another after each change.
    ///
    /// # Errors
    /// See [`HelperError`].
    pub fn rules_generation(&mut self) -> Result<u32, HelperError> {
        match self.ask(&Request::RulesGeneration)? {
            (Answer::Generation(number), _) => Ok(number),
            (other, _) => Err(strange(&other)),
        }
    }

    /// Makes a tap with a virtio-net header, for several queues, and opens its first one. It is down, and has a random MAC.
    ///
    /// # Errors
    /// See [`HelperError`].
    pub fn create_tap(
        &mut self,
        name: LinkName,
        mark: Mark,
        stays: bool,
    ) -> Result<OwnedFd, HelperError> {
        self.opened(&Request::TapCreate { name, mark, stays })
    }

    /// Opens another queue of a tap of ours, or one that nobody has open.
    ///
    /// # Errors
    /// See [`HelperError`].
    pub fn open_tap(&mut self, name: LinkName) -> Result<OwnedFd, HelperError> {
        self.opened(&Request::TapOpen { name })
    }

    /// A tap in the bridge that an interface is, or is a member of.
    ///
    /// # Errors
    /// See [`HelperError`].
    pub fn join_bridge(
        &mut self,
        name: LinkName,
        mark: Mark,
        nic: &str,
    ) -> Result<OwnedFd, HelperError> {
        let nic = nic.to_owned();
        self.opened(&Request::LanJoin { name, mark, nic })
    }

    /// A macvtap on an interface, for one guest; it has to be deleted.
    ///
    /// # Errors
    /// See [`HelperError`].
    pub fn create_macvtap(
        &mut self,
        (name, mark): (LinkName, Mark),
        nic: &str,
        mac: [u8; 6],
    ) -> Result<OwnedFd, HelperError> {
        self.opened(&Request::MacvtapCreate {
            name,
            mark,
            nic: nic.to_owned(),
            mac,
        })
    }

    /// A packet socket on an interface, for all of its LAN, or only for what the host sends to that.
    ///
    /// # Errors
    /// See [`HelperError`].
    pub fn open_lan_socket(&mut self, nic: &str, all: bool) -> Result<OwnedFd, HelperError> {
        let nic = nic.to_owned();
        self.opened(&Request::LanSocketOpen { nic, all })
    }

    /// A tap whose frames come to the host as if they had come in by an interface.
    ///
    /// # Errors
    /// See [`HelperError`].
    pub fn open_hostward(
        &mut self,
        name: LinkName,
        mark: Mark,
        nic: &str,
    ) -> Result<OwnedFd, HelperError> {
        let nic = nic.to_owned();
        self.opened(&Request::HostwardOpen { name, mark, nic })
    }

    /// Asks for what has no answer but that it is done.
    pub(crate) fn done(&mut self, request: &Request) -> Result<(), HelperError> {
        match self.ask(request)? {
            (Answer::Done, _) => Ok(()),
            (other, _) => Err(strange(&other)),
        }
    }

    /// Asks for a descriptor.
    pub(crate) fn opened(&mut self, request: &Request) -> Result<OwnedFd, HelperError> {
        match self.ask(request)? {
            (Answer::Opened, descriptors) => {
                let first = descriptors.into_iter().next();
                first.ok_or_else(|| HelperError::Strange("no descriptor came".to_owned()))
            }
            (other, _) => Err(strange(&other)),
        }
    }

    /// One request and its answer.
    pub(crate) fn ask(&mut self, request: &Request) -> Result<(Answer, Vec<OwnedFd>), HelperError> {
        if self.lost {
            return Err(HelperError::Gone);
        }
        let answered = self.exchange(request);
        self.lost = matches!(answered, Err(HelperError::Gone | HelperError::Silent));
        if let (Err(HelperError::Silent), Some(process)) = (&answered, self.process) {
            // Whatever it still does, nobody could tell. That it ends ends the service, which takes over from itself.
            process::kill(process, signal::KILL);
        }
        answered
    }

    fn exchange(&mut self, request: &Request) -> Result<(Answer, Vec<OwnedFd>), HelperError> {
        wire::write(&self.socket, request, &[]).map_err(lost)?;
        let (bytes, descriptors) = wire::read(&self.socket)
            .map_err(lost)?
            .ok_or(HelperError::Gone)?;
        match wire::parse(&bytes) {
            Ok(Answer::Refused(refusal)) => Err(refusal.into()),
            Ok(answer) => Ok((answer, descriptors)),
            Err(error) => Err(HelperError::Strange(error.to_string())),
        }
    }
}

/// It ends when it hears that nobody asks any more. Not waited for longer than that takes.
impl Drop for Helper {
    fn drop(&mut self) {
        // Not connected any more if it is gone already.
        let _gone = self.socket.shutdown(Shutdown::Both);
        let deadline = Instant::now() + LEAVES_WITHIN;
        while self.process.is_some() && !self.has_ended() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn lost(error: io::Error) -> HelperError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => HelperError::Silent,
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
            HelperError::Strange(error.to_string())
        }
        _ => HelperError::Gone,
    }
}

pub(crate) fn strange(answer: &Answer) -> HelperError {
    HelperError::Strange(format!("{answer:?} is no answer to that"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_answer_is_not_taken_for_the_next_ones() {
        let (ours, its) = UnixStream::pair().unwrap();
        let mut helper = Helper::new(ours, None).unwrap();
        let soon = Some(Duration::from_millis(30));
        helper.socket.set_read_timeout(soon).unwrap();
        assert!(matches!(helper.links(), Err(HelperError::Silent)));
        wire::write(&its, &Answer::Links(Vec::new()), &[]).unwrap();
        assert!(matches!(helper.links(), Err(HelperError::Gone)));
        assert!(helper.has_ended());
    }

    #[test]
    fn a_helper_that_is_gone_is_said_to_be() {
        let (ours, its) = UnixStream::pair().unwrap();
        let mut helper = Helper::new(ours, None).unwrap();
        assert!(!helper.has_ended());
        drop(its);
        assert!(matches!(helper.links(), Err(HelperError::Gone)));
        assert!(helper.has_ended());
    }

    #[test]
    fn an_answer_to_something_else_is_strange() {
        let (ours, its) = UnixStream::pair().unwrap();
        let mut helper = Helper::new(ours, None).unwrap();
        for answer in [Answer::Done, Answer::Opened] {
            wire::write(&its, &answer, &[]).unwrap();
            assert!(matches!(helper.links(), Err(HelperError::Strange(_))));
        }
        wire::write(&its, &Answer::Opened, &[]).unwrap();
        let name = "vmnet0".parse().unwrap();
        assert!(matches!(
            helper.open_tap(name),
            Err(HelperError::Strange(_))
        ));
    }
}
