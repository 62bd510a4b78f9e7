//! `vmnet attach`: joins a socket, a tap or a namespace to a network.
//!
//! | file | what |
//! | --- | --- |
//! | [`inherited`] | what an inherited descriptor is |
//! | [`netns`] | an interface in a namespace that somebody else made |

mod inherited;
mod netns;

use crate::args::Attach;
use crate::network::keeper::Keeper;
use crate::network::membership::{Membership, Opened, Request};
use crate::network::refuse_clashes;
use crate::socket_file::{self, SocketFile};
use netns::Inhabitant;
use openvmnet::service::{InterfaceOptions, Kind};
use rustix::event::{PollFd, PollFlags, poll};
use std::error::Error;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use vmnet_linux::kernel::tap;
use vmnet_linux::sys::process;
use vmnet_linux::sys::signal::{self, Signals};

/// What ends a verb that waits in the foreground.
const ENDING_SIGNALS: [i32; 3] = [signal::HUP, signal::INT, signal::TERM];

/// Attaches, and stays until a signal comes or the network ends.
pub(crate) fn run(attach: &Attach) -> Result<(), Box<dyn Error>> {
    refuse_clashes(&attach.publish)?;
    // Before any thread, so that none of them takes the signals.
    let (signals, _) = Signals::open(&ENDING_SIGNALS)?;
    let Attachment {
        kind,
        descriptor,
        inhabitant,
        socket,
        _socket,
    } = attachment(attach)?;
    let listens = matches!(kind, Kind::StreamListener | Kind::DgramListener);
    if let Some(port) = attach.publish.first().filter(|_| listens) {
        return Err(format!(
            "-p {port} cannot lead to a socket that several guests come by: `vmnet forward add` names one of them"
        )
        .into());
    }
    let opened = Opened::open(&attach.network, &attach.making)?;
    let mut options = options(attach, kind);
    options.socket = socket;
    if inhabitant.is_some() {
        options.only_mac = Some(true);
        if options.mac.is_none() && options.id.is_none() {
            options.mac = Some(netns::mac(attach, opened.known_as())?.to_string());
        }
    } else if options.mac.is_none() && options.id.is_none() {
        // The guest has one of its own choice, which nobody has to keep.
        options.allocate_mac = Some(false);
    }
    let membership = opened.join(Request {
        options,
        descriptor,
        publish: attach.publish.clone(),
    })?;
    if let Some(inhabitant) = &inhabitant {
        inhabitant.configure(&membership)?;
    }
    announce(&membership)?;
    let keeper = Keeper::start(membership)?;
    let outcome = wait(&signals, &keeper, inhabitant.as_ref());
    // A lease is given back while the interface is still there.
    drop(inhabitant);
    outcome
}

/// Sleeps until a signal comes, the network is gone or the process in the namespace has ended.
fn wait(
    signals: &Signals,
    keeper: &Keeper,
    inhabitant: Option<&Inhabitant>,
) -> Result<(), Box<dyn Error>> {
    loop {
        let mut waits = vec![
            PollFd::new(signals, PollFlags::IN),
            PollFd::new(keeper, PollFlags::IN),
        ];
        if let Some(inhabitant) = inhabitant {
            waits.push(PollFd::new(inhabitant, PollFlags::IN));
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
        let (signalled, departed, spoke) = (came(0), came(1), came(2));
        if signalled && let Some(signal) = signals.next() {
            tracing::info!(signal.number, "ending");
            return Ok(());
        }
        if departed {
            return Err(keeper.reason().into());
        }
        if let Some(inhabitant) = inhabitant.filter(|_| spoke) {
            return Err(inhabitant.last_words().into());
        }
    }
}

/// Says what became of it, for scripts that wait for it.
fn announce(membership: &Membership) -> Result<(), Box<dyn Error>> {
    let (network, interface) = (membership.network(), membership.interface());
    let name = network.name.as_ref().unwrap_or(&network.uuid);
    let mut line = format!("interface {} on {name}", interface.interface);
    if let Some(mac) = &interface.mac {
        line.push_str(&format!(", MAC {mac}"));
    }
    line.push_str(&format!(", MTU {}\n", interface.mtu));
    let mut output = std::io::stdout().lock();
    match output
        .write_all(line.as_bytes())
        .and_then(|()| output.flush())
    {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn options(attach: &Attach, kind: Kind) -> InterfaceOptions {
    let mut options = InterfaceOptions::new(kind);
    options.id = attach.id.map(|id| id.to_string());
    options.mac = attach.mac.map(|mac| mac.to_string());
    options.only_mac = attach.mac.map(|_| true);
    options.name = attach.name.as_ref().map(ToString::to_string);
    options.isolated = attach.isolated.then_some(true);
    options.virtio_header = attach.virtio_header.then_some(true);
    options.tso = attach.tso.then_some(true);
    options.checksum_offload = attach.checksum_offload.then_some(true);
    options
}

/// What is to be attached, and what goes with us.
struct Attachment {
    kind: Kind,
    descriptor: OwnedFd,
    inhabitant: Option<Inhabitant>,
    /// The name of the VMM's own socket.
    socket: Option<String>,
    _socket: Option<SocketFile>,
}

fn attachment(attach: &Attach) -> Result<Attachment, Box<dyn Error>> {
    let of = |kind, descriptor, _socket| Attachment {
        kind,
        descriptor,
        inhabitant: None,
        socket: None,
        _socket,
    };
    if let Some(path) = &attach.stream {
        let (listener, file) = socket_file::listen_stream(path)?;
        return Ok(of(Kind::StreamListener, listener.into(), Some(file)));
    }
    if let Some(path) = &attach.dgram {
        let (socket, file) = socket_file::bind_dgram(path)?;
        return Ok(of(Kind::DgramListener, socket.into(), Some(file)));
    }
    if let Some(path) = attach.vhost_user.as_ref().filter(|_| attach.connect) {
        let (directory, name) = socket_file::place_of(path)?;
        let mut attachment = of(Kind::VhostUserClient, directory, None);
        attachment.socket = Some(name);
        return Ok(attachment);
    }
    if let Some(path) = &attach.vhost_user {
        let (listener, file) = socket_file::listen_stream(path)?;
        return Ok(of(Kind::VhostUser, listener.into(), Some(file)));
    }
    if let Some(name) = &attach.tap {
        return Ok(of(Kind::Tap, tap::open_existing(name)?, None));
    }
    if let Some(netns) = &attach.netns {
        let (inhabitant, descriptor) = Inhabitant::send_into(netns, attach)?;
        let mut attachment = of(Kind::Tap, descriptor, None);
        attachment.inhabitant = Some(inhabitant);
        return Ok(attachment);
    }
    let number = attach.fd.ok_or("nothing to attach")?;
    let descriptor = process::inherited(number)
        .map_err(|error| format!("descriptor {number} is not open here: {error}"))?;
    Ok(of(inherited::kind(number, &descriptor)?, descriptor, None))
}
