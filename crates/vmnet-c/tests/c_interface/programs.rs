//! C programs, built by clang and gcc against the headers and the libraries, and run under valgrind.

use crate::compiler::{self, Build, Compiler, Library};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
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
        valgrind(&program, &build);
    }
}

/// Runs a program under valgrind, with a runtime folder of its own. No error, and nothing lost.
fn valgrind(program: &Path, build: &Build) {
    let output = Command::new("timeout")
        .args(["120", "valgrind"])
        .args([
            "-q",
            "--error-exitcode=99",
            "--leak-check=full",
            "--errors-for-leak-kinds=definite",
        ])
        .args(["--fair-sched=yes", "--child-silent-after-fork=yes"])
        .arg(concat!(
            "--suppressions=",
            env!("CARGO_MANIFEST_DIR"),
            "/tests/valgrind.supp"
        ))
        .arg(program)
        .env("XDG_RUNTIME_DIR", build.folder())
        .env("LD_LIBRARY_PATH", build.folder())
        .env("XDG_STATE_HOME", build.folder().join("state"))
        .env("VMNET_EXECUTABLE", service())
        .stdin(Stdio::null())
        .output()
        .expect("valgrind runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}: {}\n{said}",
        program.display(),
        output.status
    );
}

#[test]
fn blocks_of_clang_on_our_runtime() {
    if all_present(&["clang", "valgrind"].map(Prerequisite::Program)) {
        let build = Build::new(Compiler::ClangWithBlocks);
        valgrind(&build.link("blocks", &[Library::Vmnet]), &build);
        valgrind(&build.link("blocks", &[Library::VmnetArchive]), &build);
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
        valgrind(&build.link("blocks", libraries), &build);
        // Programs whose own code asks the library to keep blocks.
        if libraries.len() > 1 {
            valgrind(&build.link("connections", libraries), &build);
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

/// The service, if this workspace's has been built.
fn service() -> PathBuf {
    let folder = compiler::built();
    folder.parent().expect("a folder above").join("vmnet")
}

/// Ends the service that programs in this folder have started.
struct EndOfService<'a>(&'a Path);

impl Drop for EndOfService<'_> {
    fn drop(&mut self) {
        let folder = self.0.as_os_str().as_encoded_bytes();
        for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let of = |file| fs::read(process.path().join(file)).unwrap_or_default();
            let is_ours = of("environ")
                .windows(folder.len())
                .any(|part| part == folder);
            let pid = process.file_name().to_string_lossy().parse::<i32>();
            if let (true, b"vmnet\n", Ok(pid)) = (is_ours, of("comm").as_slice(), pid) {
                // SAFETY: It is the service of this test, by its environment.
                unsafe { libc::kill(pid, libc::SIGTERM) };
            }
        }
    }
}

#[test]
fn networks_of_the_service() {
    if !service().exists() {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "in CI nothing is skipped: there is no service, cargo build --bins"
        );
        eprintln!("skipped: there is no service: cargo build --bins");
        return;
    }
    if all_present(&["gcc", "valgrind"].map(Prerequisite::Program)) {
        let build = Build::new(Compiler::Gcc);
        let _end = EndOfService(build.folder());
        let program = build.link("networks", &[Library::Vmnet]);
        valgrind(&program, &build);
    }
}
