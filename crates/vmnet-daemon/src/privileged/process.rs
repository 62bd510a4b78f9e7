//! The helper itself: the fork, what it keeps, its loop.
//!
//! It ends when the daemon does, however that ends, and cleans nothing up: what must not survive is removed by the daemon in
//! order, and what survives a kill is what the next daemon takes over. Signals for the group it is in (Ctrl-C, systemd's
//! stop) do not end it, since the daemon needs it until it has ended its networks.

use super::check::{Permitted, check};
use super::client::Helper;
use super::perform::{Host, Written, is_behind, perform};
use super::request::{Answer, Refusal, Request};
use super::wire;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use vmnet_linux::sys::privilege::{self, CapabilitySet, Identity, Kept};
use vmnet_linux::sys::process::{self, Side};
use vmnet_linux::sys::signal::{self, Signals};

/// What the helper keeps. Programs that it runs (`nft`) need the first of them only, and get both: the kernel gives them to
/// whoever is executed, or to nobody.
pub const RIGHTS: CapabilitySet = CapabilitySet::NET_ADMIN.union(CapabilitySet::NET_RAW);

/// Its name in lists of processes.
const NAME: &std::ffi::CStr = c"vmnet-helper";

/// Forks the helper, which becomes this user if one is named. For a process that has no other thread yet.
///
/// # Errors
/// There are other threads, or no processes or sockets are left.
pub fn split(identity: Option<&Identity>) -> io::Result<Helper> {
    let (ours, its) = UnixStream::pair()?;
    match process::fork(0)? {
        Side::Child => {
            let status = match become_helper(its.into(), identity) {
                Ok(socket) => live(&socket),
                Err(error) => {
                    tracing::error!(%error, "the privileged helper cannot start");
                    1
                }
            };
            process::exit_now(status)
        }
        Side::Parent(pid) => {
            drop(its);
            Helper::new(ours, Some(pid))
        }
    }
}

/// Gives up all but what is needed, for good.
fn become_helper(socket: OwnedFd, identity: Option<&Identity>) -> io::Result<UnixStream> {
    process::close_all_but(&socket)?;
    process::mute_standard_streams()?;
    rustix::thread::set_name(NAME)?;
    // Blocked for good: nobody reads them.
    let (_unread, _) = Signals::open(&[signal::INT, signal::TERM, signal::HUP, signal::QUIT])?;
    privilege::reduce(
        identity,
        Kept {
            own: RIGHTS,
            programs: RIGHTS,
        },
    )?;
    Ok(socket.into())
}

fn live(socket: &UnixStream) -> i32 {
    match serve(socket) {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!(%error, "the privileged helper ends");
            1
        }
    }
}

/// Answers requests, one after the other, until the other end closes.
///
/// # Errors
/// What the socket says.
pub fn serve(socket: &UnixStream) -> io::Result<()> {
    let mut written = Written::default();
    while let Some((bytes, descriptors)) = wire::read(socket)? {
        let (answer, opened) = match answer(&bytes, &descriptors, &mut written) {
            Ok((answer, opened)) => (answer, opened),
            Err(refusal) => {
                tracing::warn!(%refusal, "a request was refused");
                (Answer::Refused(refusal), None)
            }
        };
        let beside: Vec<_> = opened.iter().map(|opened| opened.as_fd()).collect();
        wire::write(socket, &answer, &beside)?;
    }
    Ok(())
}

fn answer(
    bytes: &[u8],
    descriptors: &[OwnedFd],
    written: &mut Written,
) -> Result<(Answer, Option<OwnedFd>), Refusal> {
    let request: Request = wire::parse(bytes)
        .map_err(|error| Refusal::forbidden(format!("this is no request: {error}")))?;
    let joins = matches!(request, Request::BridgeJoin { .. });
    let beside = match descriptors {
        [] if !joins => None,
        [tap] if joins => Some(tap),
        _ if joins => {
            return Err(Refusal::forbidden(
                "a tap joins a bridge by its descriptor, one beside the request",
            ));
        }
        _ => return Err(Refusal::forbidden("this request brings no descriptors")),
    };
    tracing::debug!(?request, "asked for");
    let permitted = check(request, &Host)?;
    if let (Permitted::BridgeJoin { member, .. }, Some(tap)) = (&permitted, beside) {
        is_behind(tap, member)?;
    }
    perform(permitted, written)
}
