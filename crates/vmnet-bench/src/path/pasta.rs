//! pasta: one namespace with a tap, translated to host sockets, started as the ordinary user.

use super::Started;
use crate::control::Refusal;
use crate::testbed::Testbed;
use std::process::Command;

pub(super) fn start(name: &str, mtu: u32, testbed: &Testbed) -> Result<Started, Refusal> {
    let mut command = Command::new("pasta");
    command.args(["--foreground", "--config-net", "--mtu", &mtu.to_string()]);
    // No forwarding of ports: its scan for them is not what is measured, and several instances stand side by side.
    command.args(["-t", "none", "-u", "none", "-T", "none", "-U", "none", "--"]);
    let client = testbed.client_command(name);
    command.arg(client.get_program()).args(client.get_args());
    let mut process = testbed.start(command, &testbed.host, name)?;
    let (agent, pid) = testbed.await_agent(name, &mut process)?;
    Ok(Started {
        agent,
        client: pid,
        network: Some(process.pid()),
        processes: vec![process],
    })
}
