//! veth, forwarding and nft masquerade, of both families: what root gets from the kernel, and the measure of the others.

use super::Started;
use crate::control::Refusal;
use crate::namespace::Namespace;
use crate::testbed::Testbed;

const RULES: &str = "table inet bench { chain out { type nat hook postrouting priority srcnat; oifname lan0 masquerade; }; }";

pub(super) fn start(name: &str, mtu: u32, testbed: &Testbed) -> Result<Started, Refusal> {
    let host = &testbed.host;
    host.sysctl("net/ipv4/ip_forward", "1")?;
    host.sysctl("net/ipv6/conf/all/forwarding", "1")?;
    // One table serves every instance: making it anew replaces it.
    host.run(
        "nft",
        &[&format!(
            "table inet bench; delete table inet bench; {RULES}"
        )],
    )?;
    // The two minutes for which the kernel remembers a closed connection fill its table of connections within one row, and
    // the table is that of the whole host namespace: then it drops what every path sends.
    host.sysctl("net/netfilter/nf_conntrack_tcp_timeout_time_wait", "2")?;
    let client = Namespace::new()?;
    // One /30 of 198.18.1.0/24 per MTU, so that instances stand side by side.
    let number = free_number(host)?;
    let (link, first) = (format!("nat{number}"), number * 4);
    let ours = format!("198.18.1.{}/30", first + 1);
    host.connect(
        (&link, &ours),
        &client,
        &format!("198.18.1.{}/30", first + 2),
        mtu,
    )?;
    client.ip(&format!("route add default via 198.18.1.{}", first + 1))?;
    let address = |last: u32| format!("2001:2:0:{:x}::{last}/64", 16 + number);
    host.ip(&format!("addr add {} dev {link} nodad", address(1)))?;
    client.ip(&format!("addr add {} dev eth0 nodad", address(2)))?;
    let router = address(1).replace("/64", "");
    client.ip(&format!("-6 route add default via {router}"))?;
    let mut process = testbed.start(testbed.client_command(name), &client, name)?;
    let (agent, pid) = testbed.await_agent(name, &mut process)?;
    // The veth goes with the client's namespace, which ends with the load generator.
    Ok(Started {
        agent,
        client: pid,
        network: None,
        processes: vec![process],
    })
}

fn free_number(host: &Namespace) -> Result<u32, Refusal> {
    let taken = host.ip("-br link show type veth")?;
    (0..63)
        .find(|number| {
            !taken
                .lines()
                .any(|line| line.starts_with(&format!("nat{number}@")))
        })
        .ok_or_else(|| "no free address for another kernel NAT".to_owned())
}
