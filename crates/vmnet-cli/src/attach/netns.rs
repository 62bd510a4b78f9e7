//! An interface in a namespace that somebody else made.
//!
//! A child of ours enters the namespace, makes a tap there, passes its descriptor out, and stays to keep the lease. The
//! resolvers of the lease are not written anywhere: the files that a program in the namespace sees are not ours. The tap is
//! gone when everybody has closed it.

use crate::args::Attach;
use crate::command::channel::{Channel, FromInside, ToInside};
use crate::command::interface::{Interface, InterfaceError, Whose};
use crate::command::leased::{self, Leased, pause};
use crate::identity::{self, GuestName};
use crate::network::membership::Membership;
use rustix::event::{PollFd, PollFlags, poll};
use std::error::Error;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;
use vmnet_linux::kernel::existing_namespace::Netns;
use vmnet_linux::kernel::tap::TapError;
use vmnet_linux::sys::process::{self, Side};
use vmnet_linux::sys::signal;
use vmnet_wire::ethernet::Mac;

/// Our child in the namespace; gives its lease back and ends with this value.
pub(super) struct Inhabitant {
    pid: i32,
    channel: Option<Channel>,
}

/// The MAC of a namespace's interface that nobody chose: of its name, random without one.
pub(super) fn mac(attach: &Attach, network: &str) -> io::Result<Mac> {
    let uid = rustix::process::getuid().as_raw();
    match &attach.name {
        Some(name) => Ok(identity::stable_mac(uid, network, name.as_str())),
        None => identity::random_mac(),
    }
}

impl Inhabitant {
    /// Forks the child; answers the descriptor of the tap it made.
    pub(super) fn send_into(
        netns: &Netns,
        attach: &Attach,
    ) -> Result<(Self, OwnedFd), Box<dyn Error>> {
        let (ours, theirs) = Channel::pair()?;
        let pid = match process::fork(0)? {
            Side::Child => {
                drop(ours);
                live(netns, attach, &theirs)
            }
            Side::Parent(pid) => pid,
        };
        drop(theirs);
        let inhabitant = Self {
            pid,
            channel: Some(ours),
        };
        match inhabitant.hear()? {
            (FromInside::Tap, mut beside) => {
                let tap = beside.pop().ok_or("the tap was not sent")?;
                Ok((inhabitant, tap))
            }
            (other, _) => Err(unexpected(&other)),
        }
    }

    /// Lets the child configure its interface; returns when that is done.
    pub(super) fn configure(&self, joined: &Membership) -> Result<(), Box<dyn Error>> {
        let attached = ToInside::Attached {
            mtu: joined.mtu(),
            mac: joined.mac()?.0,
            routers: joined.has_routers(),
        };
        self.channel()?.send(&attached, &[])?;
        match self.hear()?.0 {
            FromInside::Starting => Ok(()),
            FromInside::NoLease => Err(joined.lease_giver().why_nothing().into()),
            other => Err(unexpected(&other)),
        }
    }

    /// Why the child has ended.
    pub(super) fn last_words(&self) -> String {
        match self.hear() {
            Ok((other, _)) => unexpected(&other).to_string(),
            Err(error) => error.to_string(),
        }
    }

    fn channel(&self) -> Result<&Channel, Box<dyn Error>> {
        self.channel
            .as_ref()
            .ok_or_else(|| "the channel is closed".into())
    }

    fn hear(&self) -> Result<(FromInside, Vec<OwnedFd>), Box<dyn Error>> {
        self.channel()?
            .receive()?
            .ok_or_else(|| "the process in the namespace was killed".into())
    }
}

/// Readable when the child has something to say: that it has ended, or why.
impl AsFd for Inhabitant {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.channel {
            Some(channel) => channel.as_fd(),
            // Only while it is dropped.
            None => rustix::stdio::stderr(),
        }
    }
}

impl Drop for Inhabitant {
    fn drop(&mut self) {
        // The child ends when its channel does.
        self.channel = None;
        process::wait(self.pid);
    }
}

fn unexpected(message: &FromInside) -> Box<dyn Error> {
    match message {
        FromInside::Failed(text) => text.clone(),
        other => format!("the process in the namespace said {other:?}"),
    }
    .into()
}

/// Lives the life of the child.
fn live(netns: &Netns, attach: &Attach, channel: &Channel) -> ! {
    process::die_with_parent(signal::KILL);
    if let Err(error) = act(netns, attach, channel) {
        let _ = channel.send(&leased::failure(&*error), &[]);
    }
    process::exit_now(0)
}

fn act(netns: &Netns, attach: &Attach, channel: &Channel) -> Result<(), Box<dyn Error>> {
    netns.enter()?;
    // Entering a user namespace clears what was asked for before (prctl(2)).
    process::die_with_parent(signal::KILL);
    let (mut interface, tap) = Interface::make(&attach.ifname).map_err(|error| match error {
        InterfaceError::Tap(TapError::NoTap(name) | TapError::Busy(name)) => {
            format!("there is an interface {name} in the namespace already: choose another name with --ifname")
        }
        other => crate::chain(&other),
    })?;
    channel.send(&FromInside::Tap, &[tap.as_fd()])?;
    drop(tap);
    let Some((ToInside::Attached { mtu, mac, routers }, _)) = channel.receive()? else {
        return Ok(());
    };
    let routers = routers && !attach.no_dhcp;
    if routers {
        interface.expect_routers(Whose::Theirs);
    }
    interface.bring_up(mtu, Mac(mac))?;
    let mut leased = Leased::new(interface, None);
    if !attach.no_dhcp {
        let name = attach.name.as_ref().map(GuestName::as_str);
        leased.configure(channel, leased::identity(mac, name))?;
    }
    if routers {
        leased.await_prefix();
    }
    channel.send(&FromInside::Starting, &[])?;
    loop {
        let mut waits = vec![PollFd::new(channel, PollFlags::IN)];
        let descriptor = leased.descriptor();
        if let Some(descriptor) = &descriptor {
            waits.push(PollFd::new(descriptor, PollFlags::IN));
        }
        let now = Instant::now();
        let timeout = leased.deadline().map(|deadline| pause(now, deadline));
        match poll(&mut waits, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        // The parent says nothing more, so this is its end.
        if waits.first().is_some_and(|wait| !wait.revents().is_empty()) {
            leased.release();
            return Ok(());
        }
        leased.work();
    }
}
