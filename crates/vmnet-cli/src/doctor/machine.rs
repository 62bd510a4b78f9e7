//! What the machine's service needs, and whether it is there.

use super::{Concern, Finding, State};
use openvmnet::account::{self, Group};
use openvmnet::client::{Client, ConnectError};
use openvmnet::place::Scope;
use std::fs;
use std::path::PathBuf;
use vmnet_linux::kernel::nft::{Record, forwarding as record};
use vmnet_linux::kernel::{link, sysctl};

/// The group whose members the machine's service lets in, if nothing else was said.
const GROUP: &str = "vmnet";
/// Where programs of the administrator are, besides `$PATH`.
const FOLDERS: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin";

pub(super) fn examine() -> Vec<Finding> {
    let mut findings = vec![service(), group(account::group(GROUP), &groups())];
    findings.push(nft(program("nft")));
    let record = record::read().unwrap_or_default();
    findings.push(forwarding(&switched_off(&record, setting)));
    findings.push(reverse_path(&strict()));
    let calls = sysctl::read("net.bridge.bridge-nf-call-iptables");
    findings.push(bridges(calls.as_deref()));
    findings
}

fn service() -> Finding {
    let finding = |found: &str| Finding::ok("system-service", Concern::System, found);
    match Client::connect_running_to(Scope::System) {
        Ok(_) => finding("the machine's service runs, and lets this user in"),
        Err(ConnectError::NoSystem(_)) => finding(
            "the machine's service does not run: no bridged mode, no interface of the host on a network, and the kernel carries no frames",
        )
        .but(
            State::Limited,
            "install contrib/systemd and `systemctl enable --now vmnet-system.socket`, or `sudo vmnet daemon --system`",
        ),
        Err(ConnectError::Closed(_, remedy)) => {
            finding("the machine's service runs, and does not let this user in")
                .but(State::Limited, remedy)
        }
        Err(error) => finding("the machine's service cannot be reached")
            .but(State::Limited, error.to_string()),
    }
}

/// The groups of this process; the superuser needs none.
fn groups() -> Vec<u32> {
    let mut groups = rustix::process::getgroups().unwrap_or_default();
    groups.push(rustix::process::getegid());
    groups.into_iter().map(|group| group.as_raw()).collect()
}

fn group(group: Option<Group>, own: &[u32]) -> Finding {
    let finding = |found: &str| Finding::ok("group", Concern::System, found);
    match group {
        None => finding("there is no group vmnet: the machine's service is root's alone, unless it is started with --group")
            .but(State::Limited, "groupadd --system vmnet; usermod -aG vmnet $USER (as root)"),
        Some(group) if own.contains(&group.gid) => finding("this user is in the group vmnet"),
        Some(_) if rustix::process::geteuid().is_root() => finding("there is a group vmnet"),
        Some(_) => finding("this user is not in the group vmnet")
            .but(State::Limited, "usermod -aG vmnet $USER (as root), then log in again"),
    }
}

/// Where a program is, looked for as an administrator does.
pub(super) fn program(name: &str) -> Option<PathBuf> {
    let own = std::env::var("PATH").unwrap_or_default();
    own.split(':')
        .chain(FOLDERS.split(':'))
        .map(|folder| PathBuf::from(folder).join(name))
        .find(|path| path.is_absolute() && path.is_file())
}

fn nft(program: Option<PathBuf>) -> Finding {
    let finding = |found: String| Finding::ok("nft", Concern::System, found);
    match program {
        Some(path) => finding(format!("{} is there", path.display())),
        None => finding(
            "there is no program nft, which sets the rules of networks that the kernel carries"
                .to_owned(),
        )
        .but(State::Limited, "install nftables"),
    }
}

/// A setting of an interface, of a family.
fn setting(family: &str, interface: &str, name: &str) -> Option<String> {
    let value = fs::read_to_string(sysctl::interface_path(family, interface, name));
    Some(value.ok()?.trim_end().to_owned())
}

/// Settings that the machine's service has switched on, and somebody off again, as `sysctl` names them.
fn switched_off(
    record: &Record,
    setting: impl Fn(&str, &str, &str) -> Option<String>,
) -> Vec<String> {
    let is_off = |family: &str, interface: &str, name: &str| {
        setting(family, interface, name).is_some_and(|value| value == "0")
    };
    let v4 = record
        .v4
        .iter()
        .filter(|it| is_off("ipv4", it, "forwarding"));
    let v4 = v4.map(|it| key("ipv4", it, "forwarding"));
    let v6 = record.v6.iter().filter_map(|it| {
        if it == "all" {
            is_off("ipv6", it, "forwarding").then(|| "net.ipv6.conf.all.forwarding".to_owned())
        } else {
            let off = is_off("ipv6", "all", "forwarding") && is_off("ipv6", it, "force_forwarding");
            off.then(|| key("ipv6", it, "force_forwarding"))
        }
    });
    v4.chain(v6).collect()
}

/// A setting of an interface as `sysctl` is told it, for which a dot of a name would part.
fn key(family: &str, interface: &str, name: &str) -> String {
    let dot = if interface.contains('.') { '/' } else { '.' };
    ["net", family, "conf", interface, name].join(&dot.to_string())
}

fn forwarding(off: &[String]) -> Finding {
    let finding = |found: String| Finding::ok("forwarding", Concern::System, found);
    let on = |name: &str| sysctl::read(name).is_some_and(|value| value == "1");
    let word = |on: bool| if on { "on" } else { "off" };
    let (four, six) = (
        on("net.ipv4.conf.all.forwarding"),
        on("net.ipv6.conf.all.forwarding"),
    );
    if sysctl::read("net.ipv4.conf.all.forwarding").is_none() {
        return finding("it cannot be seen".to_owned())
            .but(State::Unknown, "mount /proc with /proc/sys/net");
    }
    if !off.is_empty() {
        let on: Vec<String> = off.iter().map(|name| format!("{name}=1")).collect();
        return finding(format!(
            "somebody has switched off what a network needs: {}",
            off.join(", ")
        ))
        .but(
            State::Limited,
            format!(
                "sysctl {} (as root), and take out what switches it off (/etc/sysctl.conf, /etc/sysctl.d)",
                on.join(" ")
            ),
        );
    }
    finding(format!(
        "IPv4 {}, IPv6 {}; the machine's service switches it on where a network needs it, and back",
        word(four),
        word(six)
    ))
}

/// Interfaces of others whose packets must come by where answers leave: the stricter of two settings holds.
fn strict() -> Vec<String> {
    let all = setting("ipv4", "all", "rp_filter");
    let links = link::list().unwrap_or_default();
    let others = links.into_iter().filter(|it| !it.loopback && !it.is_ours());
    let is_strict = |name: &String| {
        let own = setting("ipv4", name, "rp_filter");
        [&all, &own]
            .into_iter()
            .flatten()
            .max()
            .is_some_and(|value| value == "1")
    };
    others.map(|link| link.name).filter(is_strict).collect()
}

fn reverse_path(strict: &[String]) -> Finding {
    let finding = |found: String| Finding::ok("reverse-path", Concern::System, found);
    if strict.is_empty() {
        return finding("not strict".to_owned());
    }
    let at: Vec<String> = strict
        .iter()
        .map(|name| format!("{}=2", key("ipv4", name, "rp_filter")))
        .collect();
    let names = strict.join(", ");
    finding(format!("strict (rp_filter=1) at {names}: what comes by another interface than answers leave by is dropped, as answers to guests whose external interface is not the host's best, or guests on the LAN of a second NIC"))
        .but(State::Limited, format!("sysctl {} (as root)", at.join(" ")))
}

fn bridges(calls: Option<&str>) -> Finding {
    let finding = |found: &str| Finding::ok("bridge-netfilter", Concern::System, found);
    match calls {
        Some("1") => finding("frames between guests of a bridge pass iptables, and its policy for forwarded packets (bridge-nf-call-iptables=1, as Docker and Kubernetes set it)")
            .but(State::Limited, "networks that the kernel carries work with it, and are let pass; for other bridges, sysctl net.bridge.bridge-nf-call-iptables=0 (as root) if nothing here needs it"),
        Some(_) => finding("frames between guests of a bridge pass no iptables"),
        None => finding("frames between guests of a bridge pass no iptables: br_netfilter is not loaded"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_need_nothing() {
        let vmnet = || {
            Some(Group {
                name: "vmnet".to_owned(),
                gid: 77,
            })
        };
        assert_eq!(group(vmnet(), &[5, 77]).state, State::Ok);
        assert_eq!(group(None, &[5, 77]).state, State::Limited);
        if !rustix::process::geteuid().is_root() {
            assert_eq!(group(vmnet(), &[5]).state, State::Limited);
        }
    }

    #[test]
    fn what_somebody_switched_off_again_is_named() {
        let record = Record {
            v4: ["eth0", "eth1"].map(str::to_owned).into(),
            v6: ["all", "eth1", "eth2"].map(str::to_owned).into(),
            ..Record::default()
        };
        let value = |family: &str, interface: &str, name: &str| match (family, interface, name) {
            ("ipv4", "eth0", "forwarding") | ("ipv6", "eth2", "force_forwarding") => Some("1"),
            ("ipv6", "all" | "eth1", _) | ("ipv4", "eth1", _) => Some("0"),
            _ => None,
        };
        let off = switched_off(&record, |family, interface, name| {
            value(family, interface, name).map(str::to_owned)
        });
        let expected = [
            "net.ipv4.conf.eth1.forwarding",
            "net.ipv6.conf.all.forwarding",
            "net.ipv6.conf.eth1.force_forwarding",
        ];
        assert_eq!(off, expected);
    }

    #[test]
    fn what_limits_says_what_to_do() {
        for finding in [
            nft(None),
            reverse_path(&["eth0".to_owned()]),
            forwarding(&["net.ipv4.conf.eth0.forwarding".to_owned()]),
            bridges(Some("1")),
            group(None, &[]),
        ] {
            assert_eq!(finding.state, State::Limited, "{finding:?}");
            assert!(finding.remedy.is_some(), "{finding:?}");
        }
        for finding in [
            nft(Some("/usr/sbin/nft".into())),
            reverse_path(&[]),
            bridges(Some("0")),
            bridges(None),
        ] {
            assert_eq!(finding.state, State::Ok, "{finding:?}");
        }
        assert!(program("sh").is_some());
        assert_eq!(program("no-such-program"), None);
    }
}
