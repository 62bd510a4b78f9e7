//! Parts of the kernel that networks take: whether they are there, or can be loaded when they are needed.

use super::{Concern, Finding, State};
use std::collections::BTreeSet;
use std::fs;

/// A part of the kernel.
struct Part {
    module: &'static str,
    /// A function of it, by which it is known in a kernel that has it built in, too.
    function: &'static str,
    /// What cannot be without it.
    is_for: &'static str,
}

const PARTS: [Part; 8] = [
    part("tun", "tun_chr_open", "taps of guests and commands"),
    part(
        "bridge",
        "br_handle_frame",
        "networks that the kernel carries",
    ),
    part(
        "nf_tables",
        "nf_tables_newtable",
        "networks that the kernel carries",
    ),
    part(
        "macvtap",
        "macvtap_newlink",
        "bridged networks by the method macvtap",
    ),
    part(
        "af_packet",
        "packet_rcv",
        "bridged networks by the method packet",
    ),
    part(
        "sch_ingress",
        "ingress_init",
        "a host in reach of bridged guests, and its loopback out of reach",
    ),
    part("cls_u32", "u32_change", "the same"),
    part("act_mirred", "tcf_mirred_init", "the same"),
];

const fn part(module: &'static str, function: &'static str, is_for: &'static str) -> Part {
    Part {
        module,
        function,
        is_for,
    }
}

pub(super) fn examine() -> Finding {
    let functions = fs::read_to_string("/proc/kallsyms").ok();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let modules = fs::read_to_string(format!("/lib/modules/{}/modules.dep", release.trim())).ok();
    finding(functions.as_deref(), modules.as_deref())
}

/// What is to be said of a kernel with these functions, as `/proc/kallsyms` lists them, and these modules, as `modules.dep` does.
fn finding(functions: Option<&str>, modules: Option<&str>) -> Finding {
    let said = |found: String| Finding::ok("kernel-modules", Concern::System, found);
    let functions: BTreeSet<&str> = functions
        .into_iter()
        .flat_map(str::lines)
        .filter_map(|line| line.split_whitespace().nth(2))
        .collect();
    let loadable: BTreeSet<&str> = modules
        .into_iter()
        .flat_map(str::lines)
        .filter_map(|line| {
            line.split(':')
                .next()?
                .rsplit('/')
                .next()?
                .split('.')
                .next()
        })
        .collect();
    if functions.is_empty() && loadable.is_empty() {
        return said("what this kernel has cannot be seen".to_owned())
            .but(State::Unknown, "mount /proc, and see /lib/modules");
    }
    let is_there = |it: &&Part| functions.contains(it.function) || loadable.contains(it.module);
    let missing: Vec<&Part> = PARTS.iter().filter(|it| !is_there(it)).collect();
    if missing.is_empty() {
        let names = PARTS.map(|it| it.module).join(", ");
        return said(format!("this kernel has {names}, or loads them"));
    }
    let what: Vec<String> = missing
        .iter()
        .map(|it| format!("{} ({})", it.module, it.is_for))
        .collect();
    let names: Vec<&str> = missing.iter().map(|it| it.module).collect();
    said(format!("this kernel has no {}", what.join(", "))).but(
        State::Limited,
        format!(
            "modprobe -a {} (as root, outside of containers); if there are none, install the distribution's further modules of this kernel (linux-modules-extra, kernel-modules)",
            names.join(" ")
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_what_it_is_for() {
        let all: Vec<String> = PARTS
            .iter()
            .map(|it| format!("0000000000000000 t {}\n", it.function))
            .collect();
        assert_eq!(finding(Some(&all.concat()), None).state, State::Ok);
        // One is a module, and one is not there at all.
        let some = format!(
            "{}ffffffff81dae6a0 t packet_rcv\t[af_packet]\n",
            all[..3].concat()
        );
        let modules = "kernel/net/sched/sch_ingress.ko.xz:\nkernel/net/sched/cls_u32.ko:\n\
                       kernel/net/sched/act_mirred.ko.zst: kernel/net/x.ko\n";
        let lacks = finding(Some(&some), Some(modules));
        assert_eq!(lacks.state, State::Limited);
        assert_eq!(
            lacks.found,
            "this kernel has no macvtap (bridged networks by the method macvtap)"
        );
        assert!(
            lacks
                .remedy
                .unwrap()
                .starts_with("modprobe -a macvtap (as root")
        );
        assert_eq!(finding(None, None).state, State::Unknown);
        assert_eq!(finding(Some(""), Some("")).state, State::Unknown);
    }

    #[test]
    fn this_kernel_has_what_is_tested_on_it() {
        let found = examine();
        assert_ne!(found.state, State::Unknown, "{found:?}");
    }
}
