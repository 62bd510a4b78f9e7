//! The libraries as `scripts/install-c` installs them, linked as `pkg-config` says: shared, as an archive, and in a
//! program that is static altogether.

use crate::clients::Beside;
use crate::compiler::{built, succeeded};
use crate::service::{self, EndOfService};
use std::path::{Path, PathBuf};
use std::process::Command;
use vmnet_lab::prerequisite::{Prerequisite, all_present};

/// What the gateway of a first shared network leaves free.
const ADDRESS: &str = "192.168.64.77";

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Installs what cargo has just built.
fn install(prefix: &Path) {
    let mut install = Command::new(workspace().join("scripts/install-c"));
    install
        .arg(prefix)
        .env("BUILT", built())
        .env_remove("DESTDIR");
    succeeded(&install.output().expect("bash runs it"), &install);
}

/// What `pkg-config` says of it.
fn flags(prefix: &Path, options: &[&str]) -> Vec<String> {
    let mut pkg_config = Command::new("pkg-config");
    pkg_config
        .args(options)
        .args(["--cflags", "--libs", "vmnet"])
        .env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
    let output = pkg_config.output().expect("it runs");
    succeeded(&output, &pkg_config);
    let text = String::from_utf8(output.stdout).expect("text");
    text.split_whitespace().map(str::to_owned).collect()
}

/// What a program needs at run time, by its dynamic section.
fn needed(program: &Path) -> String {
    let mut readelf = Command::new("readelf");
    readelf.arg("-d").arg(program);
    let output = readelf.output().expect("it runs");
    succeeded(&output, &readelf);
    let text = String::from_utf8(output.stdout).expect("text");
    let lines = text.lines().filter(|line| line.contains("(NEEDED)"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Builds the guest that answers ping, and pings it.
fn build_and_ping(compiler: &str, prefix: &Path, flags: &[String]) -> PathBuf {
    let folder = prefix.join("programs");
    let _is_there = std::fs::create_dir(&folder);
    let program = folder.join("echo_guest");
    let mut build = Command::new(compiler);
    build
        .arg(workspace().join("examples/c/echo_guest.c"))
        .arg("-o")
        .arg(&program)
        .args(flags);
    succeeded(&build.output().expect("it runs"), &build);
    let _end = EndOfService(&folder);
    let _guest = Beside::start(&program, &[ADDRESS], &folder);
    let mut ping = Command::new("timeout");
    ping.arg("100").arg(service::executable());
    ping.args([
        "run",
        "--network",
        "shared",
        "--",
        "ping",
        "-c",
        "1",
        "-W",
        "9",
        ADDRESS,
    ]);
    service::environment(&mut ping, &folder);
    succeeded(&ping.output().expect("it runs"), &ping);
    program
}

#[test]
fn programs_are_linked_as_pkg_config_says() {
    let programs = ["clang", "gcc", "pkg-config", "readelf"].map(Prerequisite::Program);
    let others = [Prerequisite::Tun, Prerequisite::UserNamespaces];
    if !all_present(&programs) || !all_present(&others) || !service::is_built() {
        return;
    }
    let prefix = tempfile::tempdir().expect("a folder");
    let prefix = prefix.path();
    install(prefix);
    let rpath = format!("-Wl,-rpath,{}/lib", prefix.display());
    for compiler in ["gcc", "clang"] {
        let shared = [flags(prefix, &[]), vec![rpath.clone()]].concat();
        let program = build_and_ping(compiler, prefix, &shared);
        assert!(needed(&program).contains("libvmnet.so.0"));

        let mut archive = flags(prefix, &["--static"]);
        for flag in &mut archive {
            if flag == "-lvmnet" {
                "-l:libvmnet.a".clone_into(flag);
            }
        }
        let needed_by = needed(&build_and_ping(compiler, prefix, &archive));
        assert!(needed_by.contains("libc.so"), "{needed_by}");
        assert!(!needed_by.contains("libvmnet"), "{needed_by}");

        let all = [vec!["-static".to_owned()], flags(prefix, &["--static"])].concat();
        assert_eq!(needed(&build_and_ping(compiler, prefix, &all)), "");
    }
}
