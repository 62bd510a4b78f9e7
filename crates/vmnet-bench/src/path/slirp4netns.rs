//! slirp4netns: `unshare` makes the user and network namespace, slirp4netns puts a tap into it and serves it.

use super::Started;
use crate::control::Refusal;
use crate::testbed::Testbed;
use std::process::Command;

pub(super) fn start(name: &str, mtu: u32, testbed: &Testbed) -> Result<Started, Refusal> {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "--"]);
    let client = testbed.client_command(name);
    command.arg(client.get_program()).args(client.get_args());
    let mut holder = testbed.start(command, &testbed.host, name)?;
    let (agent, pid) = testbed.await_agent(name, &mut holder)?;

    let mut command = Command::new("slirp4netns");
    command.args([
        "--configure",
        "--enable-ipv6",
        &format!("--mtu={mtu}"),
        &pid.to_string(),
        "tap0",
    ]);
    let process = testbed.start(command, &testbed.host, name)?;
    let network = Some(process.pid());
    Ok(Started {
        agent,
        client: pid,
        network,
        processes: vec![holder, process],
    })
}
