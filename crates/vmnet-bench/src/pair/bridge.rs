//! Two namespaces on a bridge of the kernel.

use super::{Pair, address};
use crate::control::{Agent, Refusal};
use crate::namespace::Namespace;
use crate::process::Guarded;
use crate::testbed::Testbed;

pub(super) fn start(name: &str, mtu: u32, testbed: &Testbed) -> Result<Pair, Refusal> {
    // The bridge has a namespace of its own, so that no table of the host's is in the way.
    let switch = Namespace::new()?;
    switch.ip("link add bridge0 type bridge")?;
    switch.ip(&format!("link set bridge0 mtu {mtu} up"))?;
    let (server_inside, client_inside) = (Namespace::new()?, Namespace::new()?);
    for (number, inside) in [(1, &server_inside), (2, &client_inside)] {
        let port = format!("port{number}");
        let theirs = format!("198.18.2.{number}/24");
        switch.connect((&port, "198.18.3.1/32"), inside, &theirs, mtu)?;
        switch.ip(&format!("addr flush dev {port}"))?;
        switch.ip(&format!("link set {port} master bridge0"))?;
    }
    let (server, server_process) = guest("server", name, &server_inside, testbed)?;
    let (client, client_process) = guest("client", name, &client_inside, testbed)?;
    Ok(Pair {
        client,
        server,
        from: address(&client_inside)?,
        to: address(&server_inside)?,
        network: None,
        _third: None,
        _switch: Some(switch),
        _processes: vec![client_process, server_process],
    })
}

fn guest(
    role: &str,
    name: &str,
    inside: &Namespace,
    testbed: &Testbed,
) -> Result<(Agent, Guarded), Refusal> {
    let own = format!("{name}-{role}");
    let mut process = testbed.start(testbed.load_command(role, &own), inside, name)?;
    let (agent, _) = testbed.await_agent(&own, &mut process)?;
    Ok((agent, process))
}
