//! An interface that follows its lease.

use super::channel::{Channel, FromInside};
use super::interface::{Interface, resolv_conf};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::error::Error;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};
use vmnet_linux::dhcp_client::{Client, Identity, News};
use vmnet_linux::kernel::mounts::ResolvConf;
use vmnet_wire::ethernet::Mac;

/// How long a first lease may take before it is given up.
const LEASE_WITHIN: Duration = Duration::from_secs(10);

/// How long a command waits for IPv6, which the kernel asks for when the interface comes up.
const PREFIX_WITHIN: Duration = Duration::from_millis(250);
/// How soon it is looked for again.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Nobody leased an address. Who has joined the network can say why.
#[derive(Debug, thiserror::Error)]
#[error("no lease within ten seconds")]
struct NoLease;

/// What a process inside says of its failure.
pub(crate) fn failure(error: &(dyn Error + 'static)) -> FromInside {
    match error.is::<NoLease>() {
        true => FromInside::NoLease,
        false => FromInside::Failed(crate::chain(error)),
    }
}

/// The interface, its DHCP client once there is one, and the resolver file that the lease fills.
pub(crate) struct Leased {
    interface: Interface,
    resolv: Option<ResolvConf>,
    client: Option<Client>,
}

impl Leased {
    /// Without a lease yet.
    pub(crate) fn new(interface: Interface, resolv: Option<ResolvConf>) -> Self {
        Self {
            interface,
            resolv,
            client: None,
        }
    }

    /// Gets the first lease; fails at once if the parent goes.
    pub(crate) fn configure(
        &mut self,
        parent: &Channel,
        identity: Identity,
    ) -> Result<(), Box<dyn Error>> {
        let index = self.interface.index();
        let mut client = Client::start(self.interface.name(), index, identity, Instant::now())?;
        let deadline = Instant::now() + LEASE_WITHIN;
        while self.interface.lease().is_none() {
            let now = Instant::now();
            if now >= deadline {
                return Err(NoLease.into());
            }
            let until = client.deadline().min(deadline);
            let mut waits = vec![PollFd::new(parent, PollFlags::empty())];
            let descriptor = client.descriptor();
            if let Some(descriptor) = &descriptor {
                waits.push(PollFd::new(descriptor, PollFlags::IN));
            }
            poll(&mut waits, Some(&pause(now, until)))?;
            if waits.first().is_some_and(|wait| !wait.revents().is_empty()) {
                return Err("the parent is gone".into());
            }
            let news = client.work(Instant::now());
            self.follow(news)?;
        }
        self.client = Some(client);
        Ok(())
    }

    /// Waits until a router has told the prefix and the kernel has made an address of it; not for long, and not at all where
    /// the kernel never will.
    pub(crate) fn await_prefix(&mut self) {
        if !self.interface.heeds_routers() {
            tracing::debug!("IPv6 is off here, or heeds no router");
            return;
        }
        let deadline = Instant::now() + PREFIX_WITHIN;
        while !self.interface.has_prefix() {
            if Instant::now() >= deadline {
                tracing::warn!("no router has told an IPv6 prefix yet: IPv6 may come later");
                return;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Does what is due: hears the server, renews.
    pub(crate) fn work(&mut self) {
        let news = self
            .client
            .as_mut()
            .and_then(|client| client.work(Instant::now()));
        if let Err(error) = self.follow(news) {
            tracing::warn!(%error, "the lease could not be applied");
        }
    }

    /// Gives the lease back.
    pub(crate) fn release(&mut self) {
        if let Some(client) = &mut self.client {
            client.release(Instant::now());
        }
    }

    /// When [`Self::work`] is due without anything happening.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.client.as_ref().map(Client::deadline)
    }

    /// Readable when [`Self::work`] is due.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.client.as_ref().and_then(Client::descriptor)
    }

    /// The resolver file.
    pub(crate) fn resolv(&self) -> Option<&ResolvConf> {
        self.resolv.as_ref()
    }

    /// Does what the client says about the interface.
    fn follow(&mut self, news: Option<News>) -> Result<(), Box<dyn Error>> {
        match news {
            None => {}
            Some(News::Leased(lease)) => {
                let text = resolv_conf(&lease);
                tracing::info!(address = %lease.address, server = %lease.server, "leased");
                self.interface.apply(lease)?;
                if let Some(resolv) = &self.resolv {
                    resolv.write(&text)?;
                }
            }
            Some(News::Lost) => {
                tracing::warn!("the lease is lost");
                self.interface.withdraw()?;
            }
        }
        Ok(())
    }
}

/// Who asks for a lease.
pub(crate) fn identity(mac: [u8; 6], name: Option<&str>) -> Identity {
    Identity {
        mac: Mac(mac),
        host_name: name.map(str::to_owned),
    }
}

/// How long to sleep until then.
pub(crate) fn pause(now: Instant, until: Instant) -> Timespec {
    let pause = until.saturating_duration_since(now);
    Timespec {
        tv_sec: i64::try_from(pause.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(pause.subsec_nanos()),
    }
}
