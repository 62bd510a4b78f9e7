//! vmnet: `vmnet run --mtu N -- COMMAND`, as the ordinary user.

use super::Started;
use crate::control::Refusal;
use crate::options::Options;
use crate::testbed::Testbed;
use std::path::PathBuf;
use std::process::Command;

/// The program under test: `--vmnet`, or `vmnet` beside this program.
pub(crate) fn program(options: &Options) -> Option<PathBuf> {
    let beside = || {
        std::env::current_exe()
            .ok()
            .map(|own| own.with_file_name("vmnet"))
    };
    options.vmnet.clone().or_else(beside)
}

pub(super) fn missing(options: &Options) -> Option<String> {
    let program = program(options).unwrap_or_default();
    (!program.is_file()).then(|| {
        format!(
            "no program at {}: cargo build --release -p vmnet-cli, or name it with --vmnet",
            program.display()
        )
    })
}

/// The program under test where every user can execute it, copied on the first call.
pub(crate) fn install(testbed: &Testbed, options: &Options) -> Result<PathBuf, Refusal> {
    let installed = testbed.scratch().join("vmnet");
    if !installed.is_file() {
        testbed
            .scratch()
            .install(&program(options).unwrap_or_default(), "vmnet")
            .map_err(|error| format!("cannot prepare vmnet: {error}"))?;
    }
    Ok(installed)
}

pub(super) fn start(
    name: &str,
    mtu: u32,
    testbed: &Testbed,
    options: &Options,
) -> Result<Started, Refusal> {
    let broken = |error: std::io::Error| format!("cannot prepare vmnet: {error}");
    let installed = install(testbed, options)?;
    let home = testbed
        .scratch()
        .directory_of(&format!("{name}-home"), testbed.user())
        .map_err(broken)?;

    let mut command = Command::new(installed);
    command
        .args(["run", "--mtu", &mtu.to_string()])
        .args(&options.vmnet_arg)
        .arg("--");
    let client = testbed.client_command(name);
    command.arg(client.get_program()).args(client.get_args());
    for variable in ["HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME"] {
        command.env(variable, &home);
    }
    let mut process = testbed.start(command, &testbed.host, name)?;
    let (agent, pid) = testbed.await_agent(name, &mut process)?;
    Ok(Started {
        agent,
        client: pid,
        network: Some(process.pid()),
        processes: vec![process],
    })
}
