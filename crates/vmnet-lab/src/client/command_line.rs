//! The subcommands of `vmnet-lab-client`. Addresses are `ADDRESS:PORT`; names are resolved by the system, to an IPv4
//! address if they have one.
//!
//! Success prints one line and exits with 0; a failure prints what was wrong and exits with 1.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;
use std::time::{Duration, Instant};

use super::{connect, datagram, flood, listen, transfer, wrong};

/// What there is.
const USAGE: &str = "\
get ADDR BYTES | put ADDR BYTES | close-first ADDR BYTES | close-last ADDR BYTES
outcome ADDR SECONDS | at-once ADDR COUNT | one-after-another ADDR COUNT | churn ADDR SECONDS
udp-echo ADDR COUNT SIZE | udp-ask ADDR TEXT | tcp-ask ADDR | resolve NAME | resolve6 NAME | six-first ADDR SECONDS
udp-two-peers ADDR ADDR | flood6 GATEWAY INTERFACE SECONDS | listen-tcp PORT | listen-udp PORT | serve-pattern PORT";

/// Runs one subcommand; the line to print.
///
/// # Errors
/// What went wrong, or how the command line should look.
pub fn run(arguments: &[&str]) -> io::Result<String> {
    let begin = Instant::now();
    let done = |(): ()| format!("ok {} ms", begin.elapsed().as_millis());
    match *arguments {
        ["get", at, bytes] => transfer::get(address(at)?, number(bytes)?).map(done),
        ["put", at, bytes] => transfer::put(address(at)?, number(bytes)?).map(done),
        ["close-first", at, bytes] => transfer::close_first(address(at)?, number(bytes)?).map(done),
        ["close-last", at, bytes] => transfer::close_last(address(at)?, number(bytes)?).map(done),
        ["outcome", at, seconds] => {
            let timeout = Duration::from_secs(number(seconds)?);
            let (word, took) = connect::outcome(address(at)?, timeout);
            Ok(format!("{word} {} ms", took.as_millis()))
        }
        ["at-once", at, count] => connect::at_once(address(at)?, number(count)?).map(done),
        ["one-after-another", at, count] => {
            connect::one_after_another(address(at)?, number(count)?).map(done)
        }
        ["churn", at, seconds] => {
            let time = Duration::from_secs(number(seconds)?);
            connect::churn(address(at)?, time).map(|count| format!("ok {count} connections"))
        }
        ["udp-echo", at, count, size] => {
            datagram::echo(address(at)?, number(count)?, number(size)?).map(done)
        }
        ["udp-ask", at, text] => datagram::ask(address(at)?, text),
        ["tcp-ask", at] => {
            let mut said = String::new();
            io::Read::read_to_string(&mut super::open(address(at)?)?, &mut said)?;
            Ok(said.trim().to_owned())
        }
        ["resolve", name] => address(&format!("{name}:0")).map(|found| found.ip().to_string()),
        ["listen-tcp", port] => listen::tcp(number(port)?).map(done),
        ["resolve6", name] => {
            let found = of_family(&all(&format!("{name}:0"))?, SocketAddr::is_ipv6);
            let found = found.ok_or_else(|| wrong(format!("{name} has no IPv6 address")))?;
            Ok(found.ip().to_string())
        }
        ["six-first", at, seconds] => {
            let timeout = Duration::from_secs(number(seconds)?);
            connect::six_first(all(at)?, timeout)
        }
        ["flood6", gateway, interface, seconds] => {
            let time = Duration::from_secs(number(seconds)?);
            let sent = flood::run(number(gateway)?, interface, time)?;
            Ok(format!("ok {sent} packets"))
        }
        ["udp-two-peers", one, other] => datagram::two_peers(address(one)?, address(other)?),
        ["serve-pattern", port] => listen::pattern(number(port)?).map(done),
        ["listen-udp", port] => listen::udp(number(port)?).map(done),
        _ => Err(wrong(USAGE.to_owned())),
    }
}

fn address(text: &str) -> io::Result<SocketAddr> {
    let found = all(text)?;
    of_family(&found, SocketAddr::is_ipv4)
        .or_else(|| found.first().copied())
        .ok_or_else(|| wrong(format!("{text} has no address")))
}

fn of_family(found: &[SocketAddr], is: fn(&SocketAddr) -> bool) -> Option<SocketAddr> {
    found.iter().copied().find(is)
}

fn all(text: &str) -> io::Result<Vec<SocketAddr>> {
    let found = text.to_socket_addrs();
    Ok(found
        .map_err(|error| wrong(format!("{text}: {error}")))?
        .collect())
}

fn number<T: FromStr>(text: &str) -> io::Result<T> {
    text.parse()
        .map_err(|_| wrong(format!("{text:?} is not a fitting number")))
}
