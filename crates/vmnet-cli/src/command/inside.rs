//! Process 1 of a namespace: makes its interface, starts the command, reaps what is orphaned, keeps the lease.
//!
//! It keeps its capabilities inside; the command gets none unless it was asked for. When it ends the kernel ends all the
//! others, and when its parent ends it is ended, by the death signal and by the end of the channel.

use super::channel::{Channel, FromInside, ToInside};
use super::foreground::release_input_and_output;
use super::interface::{self, Interface, Whose};
use super::leased::{self, Leased, pause};
use super::{Ending, Program};
use rustix::event::{PollFd, PollFlags, poll};
use std::error::Error;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use vmnet_linux::kernel::mounts::{self, ResolvConf};
use vmnet_linux::kernel::{namespace, sysctl, unsent};
use vmnet_linux::sys::process::{self, Change};
use vmnet_linux::sys::signal::{self, Mask, Signals};
use vmnet_wire::ethernet::Mac;

/// How long the last bytes of a command that has ended may take to get out.
const SETTLE_WITHIN: Duration = Duration::from_secs(5);

/// A rename in progress is over by then.
const COVER_SOON: Duration = Duration::from_millis(20);
/// For a host that removes its resolver file and makes it anew some time later.
const COVER_LATER: Duration = Duration::from_secs(1);

/// What process 1 has to know.
pub(crate) struct Plan {
    /// What to run.
    pub(crate) program: Program,
    /// The signal mask the command gets.
    pub(crate) mask: Mask,
    /// The guest's name: host name, and DHCP option 12.
    pub(crate) name: Option<String>,
    /// Whether the command keeps the capabilities.
    pub(crate) capabilities: bool,
    /// Whether to configure the interface.
    pub(crate) dhcp: bool,
    /// Whether the server outlives us, so that a release has a reader.
    pub(crate) release: bool,
    /// Folders of the host that the command must not look into.
    pub(crate) hidden: Vec<PathBuf>,
}

/// Lives the life of process 1.
pub(crate) fn live(plan: &Plan, channel: Channel) -> ! {
    process::die_with_parent(signal::KILL);
    if let Err(error) = act(plan, &channel) {
        let _ = channel.send(&leased::failure(&*error), &[]);
    }
    process::exit_now(0)
}

fn act(plan: &Plan, channel: &Channel) -> Result<(), Box<dyn Error>> {
    // A parent that ended before the death signal was asked for is seen here.
    let Some((ToInside::Begin, _)) = channel.receive()? else {
        return Ok(());
    };
    let (signals, _) = Signals::open(&[signal::CHLD])?;
    // AppArmor lets a user namespace be made, and refuses what is done in it: here first.
    mounts::separate().map_err(|error| format!("{error}: {}", sysctl::user_namespace_remedy()))?;
    for folder in &plan.hidden {
        mounts::hide(folder)?;
    }
    if let Some(name) = &plan.name {
        rustix::system::sethostname(name.as_bytes())?;
    }
    let (mut interface, tap) = Interface::make(interface::NAME)?;
    namespace::open_sockets(rustix::process::getegid().as_raw());
    let resolv = mounts::prepare("# No lease yet.\n")?;
    channel.send(&FromInside::Tap, &[tap.as_fd()])?;
    drop(tap);
    let Some((ToInside::Attached { mtu, mac, routers }, _)) = channel.receive()? else {
        return Ok(());
    };
    let routers = routers && plan.dhcp;
    if routers {
        interface.expect_routers(Whose::Ours);
    } else {
        interface.probe_nothing();
    }
    interface.bring_up(mtu, Mac(mac))?;
    let mut inside = Inside {
        channel,
        signals,
        leased: Leased::new(interface, resolv),
        uncovered: None,
        command: 0,
    };
    if plan.dhcp {
        let identity = leased::identity(mac, plan.name.as_deref());
        inside.leased.configure(channel, identity)?;
    }
    if routers {
        inside.leased.await_prefix();
    }
    let prepare = || {
        if plan.capabilities {
            return Ok(());
        }
        process::drop_capabilities()
    };
    // Said before it can do anything, so that no signal meant for it finds a parent who does not know.
    channel.send(&FromInside::Starting, &[])?;
    match plan.program.start(&plan.mask, prepare)?.wait()? {
        Ok(pid) => inside.command = pid,
        Err(failure) => {
            channel.send(&FromInside::NotExecuted(failure), &[])?;
            return Ok(());
        }
    }
    release_input_and_output()?;
    let Some(ending) = inside.wait()? else {
        return Ok(());
    };
    settle();
    // Before the parent knows: it leaves the network then, and the tap is read no more.
    if plan.release {
        inside.leased.release();
    }
    channel.send(&FromInside::Ended(ending), &[])?;
    Ok(())
}

/// The state of process 1 once its interface is there.
struct Inside<'a> {
    channel: &'a Channel,
    signals: Signals,
    leased: Leased,
    /// While the resolver file is the host's: when to try again to cover it.
    uncovered: Option<Instant>,
    command: i32,
}

impl Inside<'_> {
    /// Waits for the command's end; `None` if the parent ended first.
    fn wait(&mut self) -> Result<Option<Ending>, Box<dyn Error>> {
        loop {
            while let Some(signal) = self.signals.next() {
                tracing::trace!(signal.number, "in process 1");
            }
            if let Some(ending) = self.reap()? {
                return Ok(Some(ending));
            }
            let (spoke, moved) = self.sleep()?;
            if spoke && !self.listen()? {
                return Ok(None);
            }
            self.cover(moved, Instant::now());
            self.leased.work();
        }
    }

    /// Covers the resolver file again if the host replaced it; while that fails, tries again.
    fn cover(&mut self, moved: bool, now: Instant) {
        let due = moved || self.uncovered.is_some_and(|at| now >= at);
        let Some(resolv) = self.leased.resolv().filter(|_| due) else {
            return;
        };
        match resolv.cover() {
            Ok(()) => self.uncovered = None,
            // The host is in the middle of replacing it, or replaces it in two steps.
            Err(error) => {
                tracing::debug!(%error, "the host replaced its resolver file");
                let wait = if self.uncovered.is_none() {
                    COVER_SOON
                } else {
                    COVER_LATER
                };
                self.uncovered = Some(now + wait);
            }
        }
    }

    /// When the next thing is due without anything happening.
    fn deadline(&self) -> Option<Instant> {
        let leased = self.leased.deadline();
        leased.into_iter().chain(self.uncovered).min()
    }

    /// Sleeps until something happens; answers whether the parent spoke and whether a mount came or went.
    fn sleep(&self) -> Result<(bool, bool), Box<dyn Error>> {
        let mut waits = vec![
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(self.channel, PollFlags::IN),
        ];
        let moved = self.leased.resolv().and_then(ResolvConf::moved);
        if let Some(table) = &moved {
            waits.push(PollFd::new(table, PollFlags::PRI));
        }
        let now = Instant::now();
        let timeout = self.deadline().map(|deadline| pause(now, deadline));
        let descriptor = self.leased.descriptor();
        if let Some(descriptor) = &descriptor {
            waits.push(PollFd::new(descriptor, PollFlags::IN));
        }
        match poll(&mut waits, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let came = |index: usize| {
            waits
                .get(index)
                .is_some_and(|wait| !wait.revents().is_empty())
        };
        Ok((came(1), moved.is_some() && came(2)))
    }

    /// Hears one word of the parent; false if it is gone.
    fn listen(&self) -> Result<bool, Box<dyn Error>> {
        match self.channel.receive()? {
            None => Ok(false),
            Some((ToInside::Signal(number), _)) => {
                process::kill(self.command, number);
                Ok(true)
            }
            Some((other, _)) => {
                tracing::debug!(?other, "not expected now");
                Ok(true)
            }
        }
    }

    /// Reaps children, orphans among them; answers how the command ended, if it did.
    fn reap(&self) -> Result<Option<Ending>, Box<dyn Error>> {
        while let Ok(Some((pid, change))) = process::changed(-1) {
            if pid != self.command {
                continue;
            }
            match change {
                Change::Exited(status) => {
                    return Ok(Some(Ending::Status(u8::try_from(status & 0xff)?)));
                }
                Change::Killed(signal) => return Ok(Some(Ending::Signal(signal))),
                Change::Stopped(_) => self.channel.send(&FromInside::Stopped, &[])?,
            }
        }
        Ok(None)
    }
}

/// Waits until what the command wrote last has left the namespace, which goes when we do; not for ever.
fn settle() {
    let end = Instant::now() + SETTLE_WITHIN;
    let mut wait = Duration::from_millis(1);
    while Instant::now() < end && unsent::any().unwrap_or(false) {
        std::thread::sleep(wait);
        wait = (wait * 2).min(Duration::from_millis(20));
    }
}
