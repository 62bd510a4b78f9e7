//! `vmnet-bench`: what a command behind vmnet sees of a network, beside kernel NAT, pasta and slirp4netns, in one run.
//!
//! | file | what it does |
//! | --- | --- |
//! | `plan.rs` | the order of the run: rows, repetitions, paths in turn |
//! | `rows.rs` | every row of the table: name, unit, which direction is good |
//! | `targets.rs` | what the product promised, and the verdict |
//! | `measure.rs` | one measurement of one path |
//! | `path/` | how each path starts a command behind it: the only place that knows the peers |
//! | `testbed.rs`, `namespace.rs` | the host and the server, made of nameless network namespaces |
//! | `load/` | the load generator (`vmnet-bench load`), `control.rs` its orders |
//! | `cubic.rs` | the congestion control of every namespace, where the machine has to allow it first |
//! | `process.rs` | processor time and memory from `/proc`, children that do not outlive us |
//! | `library/` | frames from one program to another by `openvmnet`, beside sockets |
//! | `privileged/` | networks that the kernel carries, and bridged ones, beside what is made by hand |
//! | `service/` | the service: cold start, interfaces, memory, calls, recovery |
//! | `report/` | the table, the JSON, facts about the machine |
//! | `scratch.rs` | the run's directory, removed however the run ends |
//! | `sys.rs` | raw system calls |
//!
//! What each row means and how to read it: `docs/benchmarks.md`.

mod control;
mod cubic;
mod library;
mod load;
mod measure;
mod namespace;
mod options;
mod pair;
mod path;
mod plan;
mod ports;
mod privileged;
mod process;
mod report;
mod rows;
mod scratch;
mod service;
mod sys;
mod targets;
mod testbed;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let done = match options::Options::parse() {
        options::Options {
            command: Some(options::Mode::Load(load)),
            ..
        } => load::run(&load)
            .map(|()| true)
            .map_err(|error| format!("load generator: {error}")),
        options::Options {
            command: Some(options::Mode::Forward { len, frames }),
            ..
        } => ports::forward(len, frames).map(|()| true),
        options::Options {
            command: Some(options::Mode::Receive(of)),
            ..
        } => library::receive(of)
            .map(|()| true)
            .map_err(|error| format!("receiver: {error}")),
        options::Options {
            command: Some(options::Mode::Reach { server }),
            ..
        } => service::recovery::serve(server)
            .map(|()| true)
            .map_err(|error| format!("guest: {error}")),
        options::Options {
            command: Some(options::Mode::Relay(relay)),
            ..
        } => privileged::relay::run(&relay)
            .map(|()| true)
            .map_err(|error| format!("relay: {error}")),
        options => plan::run(&options),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(2),
        Err(why) => {
            eprintln!("vmnet-bench: {why}");
            ExitCode::FAILURE
        }
    }
}
