//! What commands and guests of a user need.

use super::{Concern, Finding, State};
use crate::startable;
use openvmnet::client::{Client, ConnectError};
use openvmnet::place::Scope;
use rustix::net::{AddressFamily, SocketType, ipproto};
use vmnet_linux::kernel::{namespace, sysctl, tap};

/// What newer kernels do better, and from which version on.
const BETTER: [((u32, u32), &str); 4] = [
    ((5, 9), "the machine's service needs Linux 5.9"),
    (
        (5, 14),
        "the service cannot tell clients of other network namespaces (5.14)",
    ),
    ((6, 2), "large UDP datagrams are cut by us (6.2)"),
    ((6, 9), "streams are peeked at from their front (6.9)"),
];

pub(super) fn examine() -> Vec<Finding> {
    vec![namespaces(), tun(), ping(), ports(), kernel(), service()]
}

fn namespaces() -> Finding {
    let finding = |found: String| Finding::ok("user-namespaces", Concern::User, found);
    match namespace::probe() {
        Ok(()) => finding("commands of `vmnet run` get one".to_owned()),
        Err(error) => finding(format!(
            "none can be made, so `vmnet run` cannot work: {}",
            error.source
        ))
        .but(State::Blocked, error.remedy),
    }
}

fn tun() -> Finding {
    let finding = |found: String| Finding::ok("tun", Concern::User, found);
    match tap::probe() {
        Ok(()) => finding("/dev/net/tun can be opened".to_owned()),
        Err(error) => finding("/dev/net/tun cannot be opened, so there are no taps".to_owned())
            .but(State::Blocked, error.to_string()),
    }
}

fn ping() -> Finding {
    let icmp = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, Some(ipproto::ICMP));
    let finding = |found: &str| Finding::ok("ping", Concern::User, found);
    match icmp {
        Ok(_) => finding("guests can ping the outside"),
        Err(_) => finding("guests cannot ping the outside: this user's groups are not in net.ipv4.ping_group_range").but(
            State::Limited,
            "sysctl net.ipv4.ping_group_range='0 2147483647' (as root)",
        ),
    }
}

fn ports() -> Finding {
    let first = sysctl::first_unprivileged_port();
    Finding::ok(
        "ports",
        Concern::User,
        format!("a user forwards ports from {first} on; the machine's service all"),
    )
}

fn kernel() -> Finding {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    let lacking = lacking(&release);
    let finding = |found: String| Finding::ok("kernel", Concern::User, found);
    if lacking.is_empty() {
        return finding(format!("Linux {release} has all that is used"));
    }
    finding(format!("Linux {release}: {}", lacking.join("; "))).but(
        State::Limited,
        "a newer kernel is faster; nothing else is lost by this one",
    )
}

/// What a kernel does not have.
fn lacking(release: &str) -> Vec<&'static str> {
    let mut numbers = release
        .split(|one: char| !one.is_ascii_digit())
        .map(|number| number.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let missing = BETTER.iter().filter(|(from, _)| version < *from);
    missing.map(|(_, what)| *what).collect()
}

fn service() -> Finding {
    let finding = |found: String| Finding::ok("service", Concern::User, found);
    match Client::connect_running_to(Scope::User) {
        Ok(_) => finding("this user's service runs".to_owned()),
        Err(ConnectError::NotRunning(_)) => match startable::obstacle() {
            None => finding("this user's service does not run; what needs it starts it".to_owned()),
            Some(why) => {
                finding("this user's service does not run, and cannot be started".to_owned())
                    .but(State::Blocked, why)
            }
        },
        Err(error) => finding("this user's service cannot be reached".to_owned())
            .but(State::Limited, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_and_what_they_lack() {
        for (release, count) in [
            ("6.18.44-fc", 0),
            ("6.9.0", 0),
            ("6.8.12-generic", 1),
            ("6.1.0-28-amd64", 2),
            ("5.15.0", 2),
            ("5.10.0", 3),
            ("4.19", 4),
            ("10.0", 0),
            ("strange", 4),
        ] {
            assert_eq!(lacking(release).len(), count, "{release}");
        }
    }
}
