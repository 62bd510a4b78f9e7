//! C programs, built by clang and gcc against the headers and the libraries, and run under valgrind.

use crate::compiler::{Build, Compiler, Library};
use crate::service::{self, EndOfService};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use vmnet_lab::prerequisite::{Prerequisite, all_present};

/// Builds a program in every way that makes sense and runs each.
fn run(name: &str, libraries: &[Library]) {
    let wanted = ["clang", "gcc", "valgrind"].map(Prerequisite::Program);
    if !all_present(&wanted) {
        return;
    }
    for compiler in [Compiler::ClangWithBlocks, Compiler::Gcc] {
        let build = Build::new(compiler);
        let program = build.link(name, libraries);
        valgrind(&program, &build, &[]);
    }
}

/// Runs a program under valgrind, or its sanitizer, with a runtime folder of its own. No error, and nothing lost.
pub(crate) fn valgrind(program: &Path, build: &Build, arguments: &[&str]) {
    let mut command = Command::new("timeout");
    command.arg("200");
    if !build.is_sanitized() {
        command
            .args(["valgrind", "-q", "--error-exitcode=99", "--leak-check=full"])
            .args(["--errors-for-leak-kinds=definite", "--fair-sched=yes"])
            .arg("--child-silent-after-fork=yes")
            .arg(concat!(
                "--suppressions=",
                env!("CARGO_MANIFEST_DIR"),
                "/tests/valgrind.supp"
            ));
    }
    service::environment(&mut command, build.folder());
    let output = command
        .arg(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("it runs");
    checked(
        program,
        output.status,
        &String::from_utf8_lossy(&output.stderr),
    );
}

/// It succeeded.
pub(crate) fn checked(program: &Path, status: ExitStatus, said: &str) {
    assert!(status.success(), "{}: {status}\n{said}", program.display());
}

#[test]
fn blocks_of_clang_on_our_runtime() {
    if all_present(&["clang", "valgrind"].map(Prerequisite::Program)) {
        let build = Build::new(Compiler::ClangWithBlocks);
        valgrind(&build.link("blocks", &[Library::Vmnet]), &build, &[]);
        valgrind(&build.link("blocks", &[Library::VmnetArchive]), &build, &[]);
    }
}

#[test]
fn blocks_of_clang_on_the_systems_runtime_which_wins() {
    if !all_present(&["clang", "valgrind"].map(Prerequisite::Program)) {
        return;
    }
    let build = Build::new(Compiler::ClangWithBlocks);
    if !build.has("BlocksRuntime") {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "in CI nothing is skipped: libblocksruntime-dev is not installed"
        );
        eprintln!("skipped: libblocksruntime-dev is not installed: run scripts/test");
        return;
    }
    for libraries in [
        &[Library::System("BlocksRuntime")][..],
        &[Library::System("BlocksRuntime"), Library::Vmnet],
        &[Library::System("BlocksRuntime"), Library::VmnetArchive],
        &[Library::VmnetArchive, Library::System("BlocksRuntime")],
    ] {
        valgrind(&build.link("blocks", libraries), &build, &[]);
        // Programs whose own code asks the library to keep blocks.
        if libraries.len() > 1 {
            valgrind(&build.link("connections", libraries), &build, &[]);
        }
    }
}

#[test]
fn objects() {
    run("objects", &[Library::Vmnet]);
    run("objects", &[Library::VmnetArchive]);
}

#[test]
fn configurations() {
    run("configuration", &[Library::Vmnet]);
}

#[test]
fn dispatch() {
    run("dispatch", &[Library::Dispatch]);
}

#[test]
fn connections_of_processes() {
    run("connections", &[Library::Vmnet]);
}

#[test]
fn children_without_exec() {
    run("forks", &[Library::Vmnet]);
}

#[test]
fn events_on_queues_of_the_program() {
    run("queues", &[Library::Vmnet, Library::Dispatch]);
    run("queues", &[Library::VmnetArchive, Library::Dispatch]);
}

#[test]
fn networks_of_the_service() {
    if service::is_built() && all_present(&["gcc", "valgrind"].map(Prerequisite::Program)) {
        let build = Build::new(Compiler::Gcc);
        let _end = EndOfService(build.folder());
        let program = build.link("networks", &[Library::Vmnet]);
        valgrind(&program, &build, &[]);
    }
}
