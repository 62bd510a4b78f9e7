//! `vmnet run`: a command in a namespace of its own on a network.

use crate::args::Run;
use crate::command::channel::{Channel, FromInside, ToInside};
use crate::command::foreground::{Duty, Foreground, release_input_and_output};
use crate::command::inside::{self, Plan};
use crate::command::{Ending, Program};
use crate::hiding;
use crate::identity::GuestName;
use crate::network::{self, Guest, Network};
use rustix::event::{PollFd, PollFlags, poll};
use std::error::Error;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use vmnet_linux::kernel::namespace::{self, Appearance};
use vmnet_linux::lane::Attachment;
use vmnet_linux::sys::process::{self, Side};

/// Runs the command to its end.
pub(crate) fn run(run: Run) -> Result<Ending, Box<dyn Error>> {
    // Everything that can be wrong outside is found before there is an inside.
    let network = network::find(&run.joining, &run.making)?;
    let name = run.joining.name.clone();
    let guest = network.guest(
        &run.joining,
        name,
        run.joining.name.as_ref().map(GuestName::as_str),
    )?;
    let (foreground, mask) = Foreground::take()?;
    let (ours, theirs) = Channel::pair()?;
    let plan = Plan {
        program: Program::new(&run.command)?,
        mask,
        name: run.joining.name.as_ref().map(ToString::to_string),
        capabilities: run.root,
        dhcp: !run.no_dhcp,
        release: network.is_of_service(),
        hidden: hiding::folders(),
    };
    let pid = match namespace::enter()? {
        Side::Child => {
            drop((ours, network, foreground));
            inside::live(&plan, theirs)
        }
        Side::Parent(pid) => pid,
    };
    drop(theirs);
    let appearance = if run.root {
        Appearance::Root
    } else {
        Appearance::Same
    };
    let child = Child {
        pid,
        channel: Some(ours),
    };
    namespace::map_ids(pid, appearance)?;
    let ending = attend(
        &child,
        network,
        &guest,
        &foreground,
        run.command.first().map(|word| &**word),
    );
    foreground.restore_terminal();
    ending
}

/// Process 1 of the namespace; ends with this value.
struct Child {
    pid: i32,
    channel: Option<Channel>,
}

impl Child {
    fn channel(&self) -> Result<&Channel, Box<dyn Error>> {
        self.channel
            .as_ref()
            .ok_or_else(|| "the channel is closed".into())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Process 1 ends when its channel does.
        self.channel = None;
        process::wait(self.pid);
    }
}

/// Gives process 1 what it needs, then passes signals until the command ends.
fn attend(
    child: &Child,
    network: Network,
    guest: &Guest<'_>,
    foreground: &Foreground,
    command: Option<&OsStr>,
) -> Result<Ending, Box<dyn Error>> {
    let channel = child.channel()?;
    channel.send(&ToInside::Begin, &[])?;
    let tap = match expect(channel)? {
        (FromInside::Tap, mut beside) => beside.pop().ok_or("the tap was not sent")?,
        (other, _) => return early(&other),
    };
    let joined = network.join(Attachment::Tap(tap), guest)?;
    let attached = ToInside::Attached {
        mtu: joined.mtu(),
        mac: joined.mac()?.0,
        routers: joined.has_routers(),
    };
    channel.send(&attached, &[])?;
    let lease_giver = joined.lease_giver();
    let kept = joined.keep()?;
    let mut departure = kept.departure();
    let mut started = false;
    loop {
        let mut waits = vec![
            PollFd::new(foreground, PollFlags::IN),
            PollFd::new(channel, PollFlags::IN),
        ];
        if let Some(network) = &departure {
            waits.push(PollFd::new(network, PollFlags::IN));
        }
        match poll(&mut waits, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let came = |index: usize| {
            waits
                .get(index)
                .is_some_and(|wait| !wait.revents().is_empty())
        };
        let (signalled, spoke, left) = (came(0), came(1), came(2));
        if let Some(keeper) = departure.filter(|_| left) {
            tracing::error!("{}; the command goes on without it", keeper.reason());
            departure = None;
        }
        // What process 1 said before a signal came is heard before that signal is judged.
        if spoke {
            match expect(channel)?.0 {
                FromInside::Starting => {
                    started = true;
                    release_input_and_output()?;
                }
                FromInside::Stopped => foreground.stop(),
                FromInside::NotExecuted(failure) => {
                    return Ok(failure.report(command.unwrap_or_default()));
                }
                FromInside::Ended(ending) => return Ok(ending),
                FromInside::NoLease => return Err(lease_giver.why_nothing().into()),
                other => return early(&other),
            }
        } else if signalled && !started {
            if let Some(signal) = foreground.ending() {
                return Ok(Ending::Signal(signal));
            }
        } else if signalled {
            while let Some(duty) = foreground.duty() {
                if let Duty::PassOn(number) = duty {
                    // Process 1 may have ended; its silence tells.
                    let _ = channel.send(&ToInside::Signal(number), &[]);
                }
            }
        }
    }
}

fn expect(channel: &Channel) -> Result<(FromInside, Vec<OwnedFd>), Box<dyn Error>> {
    channel
        .receive()?
        .ok_or_else(|| "the namespace's first process was killed".into())
}

fn early(message: &FromInside) -> Result<Ending, Box<dyn Error>> {
    Err(match message {
        FromInside::Failed(text) => text.clone(),
        other => format!("the namespace's first process said {other:?} too early"),
    }
    .into())
}
