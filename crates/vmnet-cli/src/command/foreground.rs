//! Signals, stopping and the terminal, for whoever waits for a command.
//!
//! The command stays in our process group, so that a terminal's keys reach it as they reach us: those we leave alone.
//! What a process sends to us alone (`kill`, a supervisor) is passed on. When the command stops we stop, so that the shell
//! notices; when we continue, it does.

use rustix::fs::{Mode, OFlags};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use vmnet_linux::sys::process;
use vmnet_linux::sys::signal::{self, Arrived, Mask, Signals};

/// What is taken from the default action: passed on, or handled here.
const TAKEN: [i32; 12] = [
    signal::HUP,
    signal::INT,
    signal::QUIT,
    signal::TERM,
    signal::USR1,
    signal::USR2,
    signal::WINCH,
    signal::CONT,
    signal::TSTP,
    signal::TTIN,
    signal::TTOU,
    signal::CHLD,
];

/// What ends a process that waits for nothing.
const ENDING: [i32; 4] = [signal::HUP, signal::INT, signal::QUIT, signal::TERM];

/// What to do about a signal that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Duty {
    /// Pass it on.
    PassOn(i32),
    /// A child changed.
    Child,
    /// The terminal told the command too.
    Nothing,
}

/// The signals of a process that waits for a command.
pub(crate) struct Foreground {
    signals: Signals,
    terminal: Option<OwnedFd>,
}

impl Foreground {
    /// Takes the signals; answers the mask from before, for the command.
    pub(crate) fn take() -> io::Result<(Self, Mask)> {
        let (signals, mask) = Signals::open(&TAKEN)?;
        Ok((
            Self {
                signals,
                terminal: own_terminal(),
            },
            mask,
        ))
    }

    /// The next duty, if a signal waits, while the command runs.
    pub(crate) fn duty(&self) -> Option<Duty> {
        self.signals.next().map(duty)
    }

    /// The signal that ends us while the command does not run yet, if one waits. Keys count too: nobody else has them.
    pub(crate) fn ending(&self) -> Option<i32> {
        std::iter::from_fn(|| self.signals.next())
            .map(|signal| signal.number)
            .find(|number| ENDING.contains(number))
    }

    /// The command stopped: so do we, until somebody continues us.
    pub(crate) fn stop(&self) {
        process::stop_self();
    }

    /// The command ended: the terminal's foreground, which a shell in it may have taken, is ours again.
    pub(crate) fn restore_terminal(&self) {
        if let Some(terminal) = &self.terminal {
            // SIGTTOU is blocked, so a process in the background may do this.
            let _ = rustix::termios::tcsetpgrp(terminal, rustix::process::getpgrp());
        }
    }
}

impl AsFd for Foreground {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }
}

fn duty(arrived: Arrived) -> Duty {
    match arrived.number {
        signal::CHLD => Duty::Child,
        // A shell continues the whole group, a kill only us; twice does no harm.
        signal::CONT => Duty::PassOn(signal::CONT),
        number if arrived.from_process => Duty::PassOn(number),
        _ => Duty::Nothing,
    }
}

/// Our terminal, if we are in its foreground.
fn own_terminal() -> Option<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY;
    let terminal = rustix::fs::open("/dev/tty", flags, Mode::empty()).ok()?;
    let foreground = rustix::termios::tcgetpgrp(&terminal).ok()?;
    (foreground == rustix::process::getpgrp()).then_some(terminal)
}

/// Lets go of the command's input and output, so that their other ends see when the command closes them.
pub(crate) fn release_input_and_output() -> io::Result<()> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_left_alone_and_kills_passed_on() {
        let arrived = |number, from_process| Arrived {
            number,
            from_process,
        };
        for (signal, expected) in [
            (arrived(signal::INT, false), Duty::Nothing),
            (arrived(signal::INT, true), Duty::PassOn(signal::INT)),
            (arrived(signal::QUIT, false), Duty::Nothing),
            (arrived(signal::TSTP, false), Duty::Nothing),
            (arrived(signal::WINCH, false), Duty::Nothing),
            (arrived(signal::TERM, true), Duty::PassOn(signal::TERM)),
            (arrived(signal::CONT, false), Duty::PassOn(signal::CONT)),
            (arrived(signal::CHLD, false), Duty::Child),
            (arrived(signal::CHLD, true), Duty::Child),
        ] {
            assert_eq!(duty(signal), expected, "{signal:?}");
        }
    }
}
