//! The headers: every language and compiler takes them, each alone, and the ABI is that of programs for macOS.

use crate::compiler::{built, include_folders, succeeded};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use vmnet_lab::prerequisite::{Prerequisite, all_present};

const STRICT: [&str; 4] = ["-Wall", "-Wextra", "-Werror", "-fsyntax-only"];

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Each compiler with each of its languages.
fn compilers() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut all = Vec::new();
    for (language, standard) in [
        ("c", "-std=c11"),
        ("c", "-std=c17"),
        ("c", "-std=gnu17"),
        ("c++", "-std=c++17"),
    ] {
        all.push(("gcc", vec!["-x", language, standard]));
        for blocks in ["-fno-blocks", "-fblocks"] {
            all.push(("clang", vec!["-x", language, standard, blocks]));
        }
    }
    all.push(("clang", vec!["-x", "objective-c", "-fblocks"]));
    all.push((
        "clang",
        vec!["-x", "objective-c++", "-std=c++17", "-fblocks"],
    ));
    all
}

fn compile(compiler: &str, options: &[&str], source: &Path, folders: &[&Path]) {
    let mut command = Command::new(compiler);
    command.args(options).args(STRICT);
    folders.iter().for_each(|folder| {
        command.arg("-I").arg(folder);
    });
    command.arg(source);
    succeeded(&command.output().expect("the compiler runs"), &command);
}

#[test]
fn every_language_has_the_abi() {
    if all_present(&["clang", "gcc", "g++"].map(Prerequisite::Program)) {
        let [ours, dispatch] = include_folders();
        for (compiler, options) in compilers() {
            compile(
                compiler,
                &options,
                &here().join("tests/c/abi.c"),
                &[&ours, &dispatch],
            );
            // As where there is no libdispatch at all.
            compile(compiler, &options, &here().join("tests/c/abi.c"), &[&ours]);
        }
    }
}

#[test]
fn every_header_stands_alone_and_beside_the_systems() {
    if !all_present(&["clang", "gcc", "g++"].map(Prerequisite::Program)) {
        return;
    }
    let [ours, dispatch] = include_folders();
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("alone.c");
    for headers in [
        &["vmnet/vmnet.h"][..],
        &["vmnet/compiler.h"],
        &["xpc/xpc.h"],
        &["dispatch/dispatch.h"],
        &["os/availability.h"],
        &["Availability.h"],
        &["AvailabilityMacros.h"],
        &["CoreFoundation/CoreFoundation.h"],
        &["net/ethernet.h", "netinet/ether.h", "vmnet/vmnet.h"],
        &[
            "vmnet/vmnet.h",
            "net/ethernet.h",
            "netinet/ether.h",
            "sys/uio.h",
            "arpa/inet.h",
        ],
    ] {
        let text: String = headers
            .iter()
            .map(|header| format!("#include <{header}>\n"))
            .collect();
        fs::write(&source, text + "extern int nothing;\n").expect("a file");
        for (compiler, options) in compilers() {
            compile(compiler, &options, &source, &[&ours, &dispatch]);
        }
    }
}

#[test]
fn no_name_of_the_interface_is_missing() {
    let header = fs::read_to_string(here().join("include/vmnet/vmnet.h")).expect("the header");
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words: BTreeSet<&str> = header.split(|c| !is_word(c)).collect();
    let names = fs::read_to_string(here().join("abi/names")).expect("the names");
    let names: Vec<&str> = names
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    assert!(names.len() > 85, "{} names", names.len());
    let missing: Vec<_> = names.iter().filter(|name| !words.contains(*name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// The symbols that a library has for programs, with the sizes of data, which is part of the ABI.
fn symbols(library: &str) -> BTreeSet<String> {
    let mut command = Command::new("nm");
    command
        .args(["-D", "--defined-only", "-S", "-f", "posix"])
        .arg(built().join(library));
    let output = command.output().expect("nm runs");
    succeeded(&output, &command);
    let text = String::from_utf8(output.stdout).expect("text");
    let symbol = |line: &str| {
        let mut fields = line.split_whitespace();
        let (name, kind) = (fields.next()?, fields.next()?);
        let size = u64::from_str_radix(fields.nth(1)?, 16).ok()?;
        Some(if kind == "T" {
            format!("{name} function")
        } else {
            format!("{name} data {size}")
        })
    };
    text.lines().filter_map(symbol).collect()
}

/// Compares with the list that was published. `UPDATE_ABI=1` writes it.
fn compare(library: &str, list: &str) {
    if !all_present(&[Prerequisite::Program("nm")]) {
        return;
    }
    let path = here().join("abi").join(list);
    let found = symbols(library);
    if std::env::var_os("UPDATE_ABI").is_some() {
        let text: String = found.iter().map(|symbol| format!("{symbol}\n")).collect();
        fs::write(&path, text).expect("a file");
    }
    let listed = fs::read_to_string(&path).expect("the list");
    let listed: BTreeSet<String> = listed.lines().map(str::to_owned).collect();
    let gone: Vec<_> = listed.difference(&found).collect();
    let new: Vec<_> = found.difference(&listed).collect();
    assert!(
        gone.is_empty() && new.is_empty(),
        "{library}: gone {gone:?}, new {new:?}; new ones are listed by UPDATE_ABI=1"
    );
}

#[test]
fn libvmnet_has_the_listed_symbols() {
    compare("libvmnet.so", "libvmnet.symbols");
}

#[test]
fn libvmnet_dispatch_has_the_listed_symbols() {
    compare("libvmnet_dispatch.so", "libvmnet-dispatch.symbols");
}
