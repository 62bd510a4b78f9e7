//! A program on the LAN of the host's card (`VMNET_BRIDGED_MODE`): its frames reach the LAN's station and the host, and their
//! answers reach it. The user's service lists the card, and the machine's bridges to it.

use crate::clients::{linked, prerequisites};
use crate::compiler::{Build, Compiler};
use crate::programs::checked;
use crate::service::{self, EndOfService};
use std::process::Stdio;
use vmnet_lab::host_on_lan::HostOnLan;
use vmnet_lab::prerequisite::{Prerequisite, all_present};

#[test]
fn a_program_is_on_the_lan_of_the_hosts_card() {
    if !prerequisites() || !all_present(&[Prerequisite::Root, Prerequisite::Tun]) {
        return;
    }
    let lan = HostOnLan::new(&service::executable());
    for compiler in [Compiler::ClangWithSanitizer, Compiler::Gcc] {
        let build = Build::new(compiler);
        let _end = EndOfService(build.folder());
        let program = linked(&build, "bridged");
        let mut command = lan.command(&program);
        service::environment(&mut command, build.folder());
        let output = command
            .args(["eth0", HostOnLan::FREE])
            .args([HostOnLan::STATION, HostOnLan::HOST])
            .stdin(Stdio::null())
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        checked(&program, output.status, &said);
    }
}
